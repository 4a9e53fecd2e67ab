"""Actions: create, update, merge, render."""

from importlib import resources

import msgspec
import pytest

from visp.entity import action as actions
from visp.entity.action import Action
from visp.entity.names import FullyQualifiedName
from visp.entity.runtime_manifest import parse_manifest
from visp.errors import BadRequest, Malformed

MANIFEST = parse_manifest(resources.files("visp.runtime").joinpath("manifest.json").read_bytes())
NAME = FullyQualifiedName("guest", None, "a")


def put(**body: object) -> actions.ActionPut:
    return actions.parse_put(msgspec.json.encode(body), MANIFEST, "guest")


def created(**body: object) -> Action:
    return actions.create(NAME, put(exec={"kind": "nodejs:20", "code": "x"}, **body), 1)


def entries(action: Action, field: str) -> dict[str, object]:
    rendered = msgspec.json.decode(msgspec.json.encode(actions.render(action, "x")))
    return {entry["key"]: entry["value"] for entry in rendered[field]}


def test_a_new_action_has_the_defaults() -> None:
    rendered = msgspec.json.decode(msgspec.json.encode(actions.render(created(), "x")))
    assert rendered["version"] == "0.0.1"
    assert rendered["publish"] is False
    assert rendered["limits"] == {"concurrency": 1, "logs": 10, "memory": 256, "timeout": 60000}
    assert entries(created(), "annotations") == {"provide-api-key": False, "exec": "nodejs:20"}


def test_without_exec_nothing_is_created() -> None:
    with pytest.raises(BadRequest, match="exec undefined"):
        actions.create(NAME, put(annotations=[]), 1)


def test_an_update_merges_annotations_and_replaces_parameters() -> None:
    old = created(
        parameters=[{"key": "p", "value": 1}, {"key": "q", "value": 2}],
        annotations=[{"key": "x", "value": 1}, {"key": "z", "value": 0}],
    )
    given = put(parameters=[{"key": "p", "value": 3}], annotations=[{"key": "y", "value": 2}], delAnnotations=["z"])
    new = actions.update(old, given, 2)
    assert entries(new, "parameters") == {"p": 3}
    assert entries(new, "annotations") == {"provide-api-key": False, "exec": "nodejs:20", "x": 1, "y": 2}
    assert (new.version, new.updated_ms) == ("0.0.2", 2)


def test_an_update_keeps_what_it_does_not_name() -> None:
    old = created(parameters=[{"key": "p", "value": 1}], limits={"memory": 128}, publish=True)
    new = actions.update(old, put(limits={"timeout": 1000}, version="3"), 2)
    assert new.parameters == old.parameters
    assert (new.limits.memory_mb, new.limits.timeout_ms, new.publish, new.version) == (128, 1000, True, "3.0.0")


def test_a_sequence_turned_into_code_loses_its_parameters() -> None:
    sequence = actions.create(NAME, put(exec={"kind": "sequence", "components": ["/_/b"]}), 1)
    assert entries(sequence, "parameters") == {"_actions": ["/guest/b"]}
    assert actions.update(sequence, put(exec={"kind": "nodejs:20", "code": "x"}), 2).parameters == {}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"parameters": {"a": 1}}, "parameters malformed!"),
        ({"parameters": [{"value": 1}]}, "parameters malformed!"),
        ({"annotations": [1]}, "parameters malformed!"),
        ({"version": "x"}, "semantic version malformed"),
        ({"version": "0.0.0"}, "semantic version malformed"),
        ({"limits": {"memory": "big"}}, "memory limit malformed"),
        ({"limits": {"timeout": 1.5}}, "requirement failed: time limit must be whole number"),
        ({"limits": {"concurrency": 1.5}}, "requirement failed: intra concurrency limit must be whole number"),
        (
            {"limits": {"instances": -1}},
            "requirement failed: Action container concurrency must be greater than or equal to 0.",
        ),
    ],
)
def test_what_is_wrong_with_a_body_is_said(body: dict[str, object], reason: str) -> None:
    with pytest.raises(Malformed) as raised:
        put(**body)
    assert raised.value.reason == reason


def test_nulls_and_unknown_fields_are_absent_ones() -> None:
    given = put(
        exec=None, parameters=None, annotations=None, limits=None, version=None, publish=None, name="x", other=1
    )
    assert given == actions.ActionPut(
        exec=None, parameters=None, annotations=None, removed_annotations=(), limits={}, version=None, publish=None
    )


def test_values_are_stored_and_rendered_as_they_were_sent() -> None:
    body = b'{"exec":{"kind":"nodejs:20","code":""},"parameters":[{"key":"n","value":12345678901234567890.50}]}'
    action = actions.create(NAME, actions.parse_put(body, MANIFEST, "guest"), 1)
    stored = msgspec.json.decode(msgspec.json.encode(action), type=Action)
    assert stored == action
    assert b"12345678901234567890.50" in msgspec.json.encode(actions.render(stored, ""))
