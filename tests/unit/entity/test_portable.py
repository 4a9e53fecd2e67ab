"""Documents that travel: what is beyond the platform's limits is refused, and what only looks like it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visp.entity.portable import StoredCode, parse_entity, render_entity
from visp.entity.runtime_manifest import parse_manifest
from visp.errors import RequestError, TooLarge

MANIFEST = parse_manifest(b'{"runtimes":{"nodejs":[{"kind":"nodejs:20","image":{"name":"i"}}]}}')
MIB = 1024 * 1024


def parse(collection: str = "actions", stored: dict[str, StoredCode] | None = None, **fields: Any) -> Any:
    document = {"namespace": "ns", "name": "a", "exec": {"kind": "nodejs:20", "code": ""}} | fields
    return parse_entity(collection, json.dumps(document).encode(), MANIFEST, stored or {}, 7)


def test_sizes() -> None:
    large = [{"key": "k", "value": "x" * MIB}]
    for fields in (
        {"parameters": large},
        {"annotations": large},
        {"exec": {"kind": "nodejs:20", "code": "x" * (48 * MIB + 1)}},
    ):
        with pytest.raises(TooLarge):
            parse(**fields)
    with pytest.raises(TooLarge):
        parse("packages", parameters=large)
    digest = "ab" * 32
    with pytest.raises(TooLarge):
        parse(exec={"kind": "nodejs:20", "code": {"sha256": digest}}, stored={digest: StoredCode(49 * MIB, False)})


def test_encrypted_values_are_longer_than_what_they_hold() -> None:
    sealed = [{"key": "k", "value": "x" * MIB, "encryption": "aes-256"}]
    action = parse(parameters=sealed)
    assert parse_entity("actions", render_entity(action), MANIFEST, {}, 7) == action
    assert parse("packages", parameters=sealed).parameters == action.parameters
    with pytest.raises(TooLarge):
        parse(parameters=[{"key": "k", "value": "x" * 64 * MIB, "encryption": "aes-256"}])


def test_nothing_is_made_anew() -> None:
    action = parse(annotations=[{"key": "provide-api-key", "value": True}], version="2.0.1", updated=5, publish=True)
    assert (action.version, action.updated_ms, action.publish) == ("2.0.1", 5, True)
    assert [*action.annotations] == ["provide-api-key", "exec"]
    assert (parse().updated_ms, [*parse().annotations]) == (7, ["exec"])


@pytest.mark.parametrize(
    ("collection", "fields"),
    [
        ("actions", {"namespace": 5}),
        ("actions", {"namespace": "_"}),
        ("actions", {"namespace": "a/b/c"}),
        ("actions", {"exec": None}),
        ("actions", {"exec": {"kind": "nodejs:20", "code": {}}}),
        ("actions", {"limits": {"memory": 2**40}}),
        ("actions", {"limits": {"memory": -1}}),
        ("actions", {"annotations": [{"key": "retry", "value": {"attempts": 0}}]}),
        ("triggers", {"namespace": "ns/pkg"}),
        ("triggers", {"rules": []}),
        ("triggers", {"rules": {"ns/r": {"action": {"path": "ns", "name": "a"}, "status": "on"}}}),
        ("triggers", {"rules": {"ns/pkg/r": {"action": {"path": "ns", "name": "a"}, "status": "active"}}}),
        ("rules", {"trigger": "ns/t"}),
        ("packages", {"name": "default"}),
        ("packages", {"binding": {"namespace": "ns"}}),
    ],
)
def test_what_cannot_be(collection: str, fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        parse(collection, **fields)
