"""Triggers: what a PUT stores and keeps, and the rules that hang on them."""

import json
from typing import Any

import pytest

from visp.entity import trigger as triggers
from visp.entity.names import FullyQualifiedName
from visp.entity.payload import encode
from visp.entity.trigger import RuleLink, RuleStatus, Trigger
from visp.errors import BadRequest, Malformed

NAME = FullyQualifiedName("ns", None, "t")
ACTION = FullyQualifiedName("ns", "pkg", "a")


def parse(body: Any) -> triggers.TriggerPut:
    return triggers.parse_put(json.dumps(body).encode())


def shown(trigger: Trigger) -> Any:
    return json.loads(encode(triggers.render(trigger)))


def test_a_new_trigger() -> None:
    trigger = triggers.create(NAME, parse({"parameters": [{"key": "k", "value": [1]}], "limits": {"x": 1}}), 5)
    assert shown(trigger) == {
        "namespace": "ns",
        "name": "t",
        "parameters": [{"key": "k", "value": [1]}],
        "limits": {},
        "annotations": [],
        "version": "0.0.1",
        "publish": False,
        "updated": 5,
    }
    assert not {"parameters", "limits", "rules"} & set(triggers.render_summary(trigger))


def test_an_update_replaces_as_a_whole_and_keeps_rules() -> None:
    both = {"parameters": [{"key": "a", "value": 1}], "annotations": [{"key": "b", "value": 2}]}
    old = triggers.link(triggers.create(NAME, parse(both), 5), "ns/r", RuleLink(ACTION, RuleStatus.ACTIVE))
    new = triggers.update(old, parse({"annotations": [{"key": "c", "value": 3}]}), 6)
    assert new.parameters == old.parameters
    assert list(new.annotations) == ["c"]
    assert (new.rules, new.version, new.updated_ms) == (old.rules, "0.0.2", 6)


def test_links_move_neither_version_nor_time() -> None:
    trigger = triggers.create(NAME, parse({}), 5)
    assert "rules" not in shown(trigger)
    linked = triggers.link(trigger, "ns/r", RuleLink(ACTION, RuleStatus.INACTIVE))
    assert shown(linked) == shown(trigger) | {
        "rules": {"ns/r": {"action": {"path": "ns/pkg", "name": "a"}, "status": "inactive"}}
    }
    assert shown(triggers.unlink(linked, "ns/r")) == shown(trigger) | {"rules": {}}


@pytest.mark.parametrize("feed", ["a", "/ns/a", "ns/pkg/a", "/a/b/c/d"])
def test_feeds_that_are_paths(feed: str) -> None:
    assert "feed" in triggers.create(NAME, parse({"annotations": [{"key": "feed", "value": feed}]}), 5).annotations


@pytest.mark.parametrize("feed", ["", "//", "a/$", 5, None, ["a"]])
def test_feeds_that_are_none(feed: Any) -> None:
    put = parse({"annotations": [{"key": "feed", "value": feed}]})
    with pytest.raises(BadRequest, match="Feed name is not valid"):
        triggers.create(NAME, put, 5)
    assert triggers.update(triggers.create(NAME, parse({}), 5), put, 6).annotations == put.annotations


@pytest.mark.parametrize("body", [None, 5, [], "x"])
def test_a_put_is_an_object(body: Any) -> None:
    with pytest.raises(Malformed, match="Object expected in field 'parameters'"):
        parse(body)
