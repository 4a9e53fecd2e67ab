from __future__ import annotations

import json
from typing import Any

import pytest

from visp.entity import package as packages
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package, PackagePut
from visp.entity.parameters import plain
from visp.errors import Conflict, Malformed

NAME = FullyQualifiedName("guest", None, "pkg")
PROVIDER = FullyQualifiedName("other", None, "utils")


def put(**fields: Any) -> PackagePut:
    return packages.parse_put(json.dumps(fields).encode(), "guest")


def test_what_is_not_said_takes_its_default() -> None:
    package = packages.create(NAME, put(), 7)
    assert package == Package(name=NAME, updated_ms=7)
    assert packages.render(package) == {
        "namespace": "guest",
        "name": "pkg",
        "binding": {},
        "parameters": [],
        "annotations": [],
        "version": "0.0.1",
        "publish": False,
        "updated": 7,
    }


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ({"namespace": "other", "name": "utils"}, PROVIDER),
        ({"namespace": "_", "name": "utils"}, FullyQualifiedName("guest", None, "utils")),
        ({}, None),
        (None, None),
    ],
)
def test_a_binding_names_its_provider(given: object, bound: FullyQualifiedName | None) -> None:
    assert put(binding=given).binding == bound


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"name": "utils"}, "Object is missing required member 'namespace'"),
        ({"namespace": "other"}, "Object is missing required member 'name'"),
        ({"namespace": 1, "name": "utils"}, "1"),
        ({"namespace": "a/b", "name": "utils"}, "illegal"),
        ("other/utils", "binding"),
        ([], "binding"),
    ],
)
def test_a_malformed_binding_is_refused(given: object, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        put(binding=given)


def test_the_annotation_binding_is_the_servers() -> None:
    theirs = [{"key": "binding", "value": "mine"}, {"key": "a", "value": 1}]
    package = packages.create(NAME, put(annotations=theirs), 1)
    assert list(package.annotations) == ["a"]
    binding = packages.create(NAME, put(annotations=theirs, binding={"namespace": "other", "name": "utils"}), 1)
    assert json.loads(bytes(binding.annotations["binding"].value)) == {"namespace": "other", "name": "utils"}
    assert packages.render_summary(binding)["binding"] == {"namespace": "other", "name": "utils"}
    assert packages.render_summary(package)["binding"] is False


def test_an_update_replaces_what_it_names_and_keeps_the_rest() -> None:
    old = packages.create(NAME, put(parameters=[{"key": "p", "value": 1}], annotations=[{"key": "a", "value": 1}]), 1)
    new = packages.update(old, put(annotations=[{"key": "b", "value": 2}], publish=True), 2)
    assert (list(new.parameters), list(new.annotations), new.version, new.publish) == (["p"], ["b"], "0.0.2", True)


def test_a_package_stays_one_and_a_binding_may_be_bound_anew() -> None:
    with pytest.raises(Conflict, match="cannot be converted into a binding"):
        packages.update(Package(name=NAME), put(binding={"namespace": "other", "name": "utils"}), 2)
    binding = packages.create(NAME, put(binding={"namespace": "other", "name": "utils"}), 1)
    again = packages.update(binding, put(binding={"namespace": "other", "name": "more"}), 2)
    assert again.binding == FullyQualifiedName("other", None, "more")
    kept = packages.update(again, put(binding={}, annotations=[]), 3)
    assert kept.binding == again.binding
    assert list(kept.annotations) == ["binding"]


def test_feeds_stand_apart_from_actions() -> None:
    from visp.entity.action import Action
    from visp.entity.execs import Code, CodeExec

    exec = CodeExec(kind="nodejs:20", code=Code(False, inline=""))
    action = Action(name=FullyQualifiedName("guest", "pkg", "a"), exec=exec)
    feed = Action(name=FullyQualifiedName("guest", "pkg", "f"), exec=exec, annotations=plain("feed", False))
    shown = packages.render_content([action, feed])
    assert [entry["name"] for entry in shown["actions"]] == ["a"]
    assert [entry["name"] for entry in shown["feeds"]] == ["f"]
