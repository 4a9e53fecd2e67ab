"""Rules: what a PUT names, what an update keeps, which states there are."""

import json
from typing import Any

import pytest

from visp.entity import rule as rules
from visp.entity.names import FullyQualifiedName
from visp.entity.trigger import RuleStatus
from visp.errors import BadRequest, Malformed

NAME = FullyQualifiedName("ns", None, "r")


def parse(body: Any) -> rules.RulePut:
    return rules.parse_put(json.dumps(body).encode(), "ns")


def test_a_new_rule() -> None:
    put = parse({"trigger": "/_/t", "action": {"path": "_/pkg", "name": "a"}})
    rule = rules.create(NAME, put, 5)
    assert rules.render(rule, RuleStatus.ACTIVE) == {
        "namespace": "ns",
        "name": "r",
        "trigger": {"path": "ns", "name": "t"},
        "action": {"path": "ns/pkg", "name": "a"},
        "annotations": [],
        "version": "0.0.1",
        "publish": False,
        "updated": 5,
        "status": "active",
    }
    assert "status" not in rules.render(rule, None)


@pytest.mark.parametrize("body", [{}, {"trigger": "/_/t"}, {"action": "/_/a"}, {"trigger": None, "action": "/_/a"}])
def test_a_new_rule_needs_both(body: Any) -> None:
    with pytest.raises(BadRequest, match="rule requires a valid trigger and a valid action"):
        rules.create(NAME, parse(body), 5)


def test_an_update_keeps_what_is_not_given() -> None:
    old = rules.create(NAME, parse({"trigger": "/_/t", "action": "/_/a", "annotations": [{"key": "k", "value": 1}]}), 5)
    new = rules.update(old, parse({"action": "/_/b"}), 6)
    assert (new.trigger, new.action.name, new.version, new.updated_ms) == (old.trigger, "b", "0.0.2", 6)
    assert new.annotations == old.annotations
    assert rules.update(new, parse({"annotations": [], "version": "2", "publish": True}), 7).annotations == {}


@pytest.mark.parametrize("body", [None, 5, [], "x"])
def test_a_put_is_an_object(body: Any) -> None:
    with pytest.raises(Malformed, match="Object expected in field 'trigger'"):
        parse(body)


@pytest.mark.parametrize("state", ["active", "inactive"])
def test_states(state: str) -> None:
    assert rules.parse_status(json.dumps({"status": state, "other": 1}).encode()) == state


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "key not found: status"),
        ({"status": "sleeping"}, "requirement failed: sleeping is not a recognized rule state"),
        ({"status": ""}, "requirement failed:  is not a recognized rule state"),
        ({"status": None}, "requirement failed: null is not a recognized rule state"),
        ({"status": ["active"]}, 'requirement failed: ["active"] is not a recognized rule state'),
        ([], "Object expected in field 'status'"),
    ],
)
def test_states_that_are_none(body: Any, reason: str) -> None:
    with pytest.raises(Malformed) as raised:
        rules.parse_status(json.dumps(body).encode())
    assert raised.value.reason == reason
