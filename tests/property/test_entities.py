"""Entities: what is rendered parses back to the same, names keep their grammar, merges keep their order."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.entity import action as actions
from visp.entity import rule as rules
from visp.entity import trigger as triggers
from visp.entity.names import FullyQualifiedName, from_id, is_name, parse_name, parse_qualified
from visp.entity.parameters import parse_parameters, render_parameters, size_bytes, values
from visp.entity.payload import encode, merge, parse_object
from visp.entity.runtime_manifest import parse_manifest
from visp.entity.version import next_version, parse_version
from visp.errors import BadName, Malformed

MANIFEST = parse_manifest(b'{"runtimes":{"nodejs":[{"kind":"nodejs:20","image":{"name":"i"}}]}}')
NAME = FullyQualifiedName("ns", None, "e")

names = st.from_regex(re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_@ .&-]{0,20}[A-Za-z0-9_@.&-])?", re.ASCII), fullmatch=True)
# what msgspec itself reads: finite numbers, integers of 64 bits, text without lone surrogates
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values_ = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
objects = st.dictionaries(texts, values_, max_size=5)


@st.composite
def entries(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Parameters on the wire, keys unique."""
    out = []
    for key, value in draw(objects).items():
        entry: dict[str, Any] = {"key": key, "value": value}
        if draw(st.booleans()):
            entry["init"] = True
        if draw(st.booleans()):
            entry["encryption"] = draw(texts)
        out.append(entry)
    return out


@given(entries())
def test_parameters_come_back(sent: list[dict[str, Any]]) -> None:
    parsed = parse_parameters(json.dumps(sent).encode())
    assert parsed is not None
    rendered = encode(render_parameters(parsed))
    assert json.loads(rendered) == sent
    assert parse_parameters(rendered) == parsed


@given(entries())
def test_the_size_is_that_of_compact_json(sent: list[dict[str, Any]]) -> None:
    spaced = json.dumps(sent, indent=3, ensure_ascii=False).encode()
    parsed = parse_parameters(spaced)
    assert parsed is not None
    expected = sum(
        len(entry["key"].encode()) + len(json.dumps(entry["value"], separators=(",", ":"), ensure_ascii=False).encode())
        for entry in sent
    )
    assert size_bytes(parsed) == expected


@given(entries(), objects)
def test_the_payload_wins_over_parameters(sent: list[dict[str, Any]], payload: dict[str, Any]) -> None:
    parsed = parse_parameters(json.dumps(sent).encode())
    assert parsed is not None
    merged = merge(values(parsed), parse_object(json.dumps(payload, indent=1).encode()))
    assert json.loads(merged) == {entry["key"]: entry["value"] for entry in sent} | payload
    assert b"\n" not in merged


@given(names)
def test_names_are_taken(name: str) -> None:
    assert parse_name(name) == name
    assert json.loads(encode(name)) == name


@given(st.text(max_size=12))
def test_the_grammar_of_names(text: str) -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
    inner = allowed | set("@ .&-")
    legal = bool(text) and text[0] in allowed and set(text) <= inner and text[-1] != " "
    assert is_name(text) is legal
    if not legal:
        with pytest.raises(BadName):
            parse_name(text)


@given(names, st.none() | names, names)
def test_references_come_back(namespace: str, package: str | None, name: str) -> None:
    full = FullyQualifiedName(namespace, package, name)
    assert parse_qualified(full.render()) == full
    assert parse_qualified("/" + full.id) == full
    assert from_id(full.id) == full
    assert full.resolve("caller").namespace == ("caller" if namespace == "_" else namespace)


@given(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)).filter(any))
def test_versions_come_back_and_grow(numbers: tuple[int, int, int]) -> None:
    version = ".".join(map(str, numbers))
    assert parse_version(version) == version
    following = next_version(version)
    assert tuple(map(int, following.split("."))) == (numbers[0], numbers[1], numbers[2] + 1)


common = st.fixed_dictionaries(
    {},
    optional={
        "annotations": entries(),
        "version": st.sampled_from(["1.2.3", "2", "0.0.7"]),
        "publish": st.booleans(),
        "unknown": values_,
    },
)


@given(common, st.fixed_dictionaries({}, optional={"parameters": entries()}))
def test_triggers_come_back(shared: dict[str, Any], own: dict[str, Any]) -> None:
    trigger = triggers.Trigger(name=NAME)
    put = triggers.parse_put(json.dumps(shared | own).encode())
    first = triggers.update(trigger, put, 1)
    again = triggers.update(trigger, triggers.parse_put(encode(triggers.render(first))), 1)
    assert again == first
    assert msgspec.json.decode(encode(first), type=triggers.Trigger) == first


@given(common, names, names)
def test_rules_come_back(shared: dict[str, Any], trigger: str, action: str) -> None:
    body = shared | {"trigger": f"/ns/{trigger}", "action": {"path": "ns", "name": action}}
    first = rules.create(NAME, rules.parse_put(json.dumps(body).encode(), "ns"), 1)
    again = rules.create(NAME, rules.parse_put(encode(rules.render(first, None)), "ns"), 1)
    assert again == first
    assert msgspec.json.decode(encode(first), type=rules.Rule) == first


@given(
    common,
    texts,
    st.fixed_dictionaries(
        {},
        optional={
            "parameters": entries(),
            "limits": st.fixed_dictionaries(
                {}, optional={"memory": st.integers(128, 512), "instances": st.integers(0, 9)}
            ),
        },
    ),
)
def test_actions_come_back(shared: dict[str, Any], code: str, own: dict[str, Any]) -> None:
    body = shared | own | {"exec": {"kind": "nodejs:20", "code": code}}
    first = actions.create(NAME, actions.parse_put(json.dumps(body).encode(), MANIFEST, "ns"), 1)
    rendered = encode(actions.render(first, code))
    again = actions.create(NAME, actions.parse_put(rendered, MANIFEST, "ns"), 1)
    assert again == first
    assert msgspec.json.decode(encode(first), type=actions.Action) == first


@given(st.binary(max_size=40) | objects.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_is_taken_or_refused(body: bytes) -> None:
    for parse in (triggers.parse_put, rules.parse_status, parse_object, lambda body: rules.parse_put(body, "ns")):
        with contextlib.suppress(Malformed):  # anything else is a bug
            parse(body)
