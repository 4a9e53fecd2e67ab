"""What the gateway changes in a request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from visp.entity.mapping import Parts, apply, inserted, parse_changes


def parts(query: str = "", body: bytes = b"", kind: str = "application/json", **headers: str) -> Parts:
    return Parts({"content-type": kind, "host": "h"} | headers, query, body, {"id": "7"})


def changed(change: dict[str, Any] | list[dict[str, Any]], given: Parts) -> Parts:
    apply(parse_changes(change if isinstance(change, list) else [change]), given)
    return given


def at(location: str, name: str) -> dict[str, str]:
    return {"location": location, "name": name}


def test_set_variable() -> None:
    actions = [
        {"set": "message.headers.X-One", "value": True},
        {"set": "message.query.two", "value": "a b"},
        {"set": "message.body.three", "value": {"x": 1}},
        {"set": "message.path.four", "value": "no"},
        {"set": "context.five", "value": "no"},
        {"set": "message.query.six"},
        7,
    ]
    given = parts("q=1", b'{"n": 10000000000000000000001}')
    apply(tuple(inserted(actions)), given)
    assert given.headers["x-one"] == "true"
    assert given.query == "q=1&two=a+b"
    assert given.body == b'{"n":10000000000000000000001,"three":{"x":1}}'


def test_nothing_to_change_leaves_every_byte() -> None:
    given = parts("a&b=%20", b"[1")
    apply((), given)
    assert (given.query, given.body) == ("a&b=%20", b"[1")


@pytest.mark.parametrize(
    ("change", "query", "header"),
    [
        ({"action": "insert", "from": {"value": "v"}, "to": at("query", "a")}, "a=v", "h1"),
        ({"action": "default", "from": {"value": "v"}, "to": at("query", "a")}, "a=1", "h1"),
        ({"action": "default", "from": {"value": "v"}, "to": at("query", "b")}, "a=1&b=v", "h1"),
        ({"action": "insert", "from": at("path", "id"), "to": at("query", "id")}, "a=1&id=7", "h1"),
        ({"action": "insert", "from": at("header", "X-H"), "to": at("query", "h")}, "a=1&h=h1", "h1"),
        ({"action": "transform", "from": at("header", "x-h"), "to": at("query", "h")}, "a=1&h=h1", None),
        ({"action": "transform", "from": at("query", "a"), "to": at("header", "x-h")}, "", "1"),
        ({"action": "remove", "from": at("query", "a")}, "", "h1"),
        ({"action": "remove", "from": at("query", "*")}, "", "h1"),
        ({"action": "transform", "from": at("query", "gone"), "to": at("header", "x-h")}, "a=1", "h1"),
    ],
)
def test_changes(change: dict[str, Any], query: str, header: str | None) -> None:
    given = changed(change, parts("a=1", **{"x-h": "h1"}))
    assert (given.query, given.headers.get("x-h")) == (query, header)


def test_a_whole_place_goes_to_another() -> None:
    given = changed({"action": "transform", "from": at("query", "*"), "to": at("body", "*")}, parts("a=1&b=2"))
    assert given.query == ""
    assert msgspec.json.decode(given.body) == {"a": "1", "b": "2"}
    given = changed({"action": "transform", "from": at("header", "*"), "to": at("query", "*")}, parts(**{"x-a": "1"}))
    assert given.query == "x-a=1"
    assert given.headers["host"] == "h"


def test_a_form_stays_one() -> None:
    kind = "application/x-www-form-urlencoded; charset=UTF-8"
    given = changed({"action": "insert", "from": {"value": 2}, "to": at("body", "b")}, parts(body=b"a=1", kind=kind))
    assert given.body == b"a=1&b=2"
    assert given.headers["content-type"] == kind


@pytest.mark.parametrize("body", [b"[1]", b"text", b'{"a"'])
def test_a_body_of_another_kind_is_left(body: bytes) -> None:
    given = changed({"action": "insert", "from": {"value": 2}, "to": at("body", "b")}, parts(body=body))
    assert given.body == body


def test_a_query_of_too_many_fields_is_left() -> None:
    query = "&".join(f"a{number}=1" for number in range(1001))
    assert changed({"action": "remove", "from": at("query", "a1")}, parts(query)).query == query


@pytest.mark.parametrize("name", ["host", "content-length", "Transfer-Encoding"])
def test_how_a_request_came_is_not_changed(name: str) -> None:
    given = changed({"action": "insert", "from": {"value": "x"}, "to": at("header", name)}, parts())
    assert "x" not in given.headers.values()


@pytest.mark.parametrize(
    "told", [None, {}, [1], [{"action": "drop"}], [{"action": "insert", "to": at("moon", "a"), "from": {"value": 1}}]]
)
def test_what_is_no_change(told: Any) -> None:
    assert parse_changes(told) == ()
