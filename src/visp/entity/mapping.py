"""What the gateway changes in a request before its web action gets it. Pure.

Source: the request mapping of OpenWhisk's gateway: `insert`, `transform`, `remove` and `default` between header, query,
body and path. A `set-variable` of a document is an insert of a fixed value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from visp.entity.media import FORM, JSON

if TYPE_CHECKING:
    from collections.abc import Iterator

ACTIONS = frozenset({"insert", "transform", "remove", "default"})
PLACES = {"header": "header", "headers": "header", "query": "query", "body": "body", "path": "path"}
ALL = "*"
CHANGES_LIMIT = 100
FIELDS_LIMIT = 1000

_UNTOUCHED = frozenset({"content-length", "transfer-encoding", "connection", "host", "content-type"})
"""Headers that say how a request came: none of a mapping's business."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """`place` and `name` say what is changed; `value` is set, or what `source` names (a place and a name)."""

    action: str
    place: str
    name: str
    value: Any = None
    source: tuple[str, str] | None = None


class Parts(msgspec.Struct):
    """A request as it is changed: headers by lower-case name; query and body are read when a change needs them."""

    headers: dict[str, Any]
    query: str
    body: bytes
    values: dict[str, Any] = {}


def inserted(actions: Any) -> Iterator[Change]:
    """Of `set-variable`: `[{"set": "message.headers.X", "value": "…"}]`."""
    for action in actions if isinstance(actions, list) else ():
        if not isinstance(action, dict) or "value" not in action or not isinstance(action.get("set"), str):
            continue
        message, _, rest = action["set"].partition(".")
        where, _, name = rest.partition(".")
        place = PLACES.get(where)
        if message == "message" and place not in (None, "path") and name:
            yield _change("insert", str(place), name, value=action["value"])


def parse_changes(told: Any) -> tuple[Change, ...]:
    """Of `x-visp-mapping`: `[{"action", "from": {"value"} or {"location", "name"}, "to": {"location", "name"}}]`."""
    return tuple(_changes(told[:CHANGES_LIMIT])) if isinstance(told, list) else ()


def _changes(told: list[Any]) -> Iterator[Change]:
    for item in told:
        if not isinstance(item, dict) or item.get("action") not in ACTIONS:
            continue
        action, source, to = item["action"], _pair(item.get("from")), _pair(item.get("to"))
        value = item["from"].get("value") if isinstance(item.get("from"), dict) else None
        if action == "remove":
            if source is not None:
                yield _change(action, *source)
        elif to is not None and (source is not None or (value is not None and action != "transform")):
            yield _change(action, *to, value=value, source=source)


def _pair(told: Any) -> tuple[str, str] | None:
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return None
    place = PLACES.get(str(told.get("location")))
    return None if place is None or not told["name"] else (place, told["name"])


def _change(action: str, place: str, name: str, *, value: Any = None, source: tuple[str, str] | None = None) -> Change:
    lowered = name.lower() if place == "header" else name
    if source is not None and source[0] == "header":
        source = ("header", source[1].lower())
    return Change(action=action, place=place, name=lowered, value=value, source=source)


def apply(changes: tuple[Change, ...], parts: Parts) -> None:
    """Makes the changes, one after another. A query of too many fields, and a body that is no JSON object and no form,
    are left as they are.
    """
    if not changes:
        return
    fields = _Fields(parts)
    for change in changes:
        _apply(change, fields)
    fields.write()


def _apply(change: Change, fields: _Fields) -> None:
    place, name = change.place, change.name
    if change.action == "remove":
        for gone in fields.names(place) if name == ALL else (name,):
            fields.drop(place, gone)
        return
    if change.source is None:
        if change.action == "insert" or fields.get(place, name) is None:
            fields.set(place, name, change.value)
        return
    source, source_name = change.source
    for given in fields.names(source) if source_name == ALL else (source_name,):
        value = fields.get(source, given)
        if value is None:
            continue
        to = given if name == ALL else name
        if change.action == "default" and fields.get(place, to) is not None:
            continue
        if change.action == "transform":
            fields.drop(source, given)
        fields.set(place, to, value)


class _Fields:
    """The places by name; a query or a body that no change needs stays the very bytes that it was."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._query: dict[str, Any] | None = None
        self._body: dict[str, Any] | None = None
        self._is_form = parts.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM

    def names(self, place: str) -> list[str]:
        held = self._held(place) or ()
        return [name for name in held if place != "header" or name not in _UNTOUCHED]

    def get(self, place: str, name: str) -> Any:
        return (self._held(place) or {}).get(name)

    def set(self, place: str, name: str, value: Any) -> None:
        held = self._held(place)
        if held is None or place == "path" or (place == "header" and name in _UNTOUCHED):
            return
        held[name] = _as_json(value) if place == "body" and not self._is_form else _as_text(value)

    def drop(self, place: str, name: str) -> None:
        if place != "path" and not (place == "header" and name in _UNTOUCHED):
            (self._held(place) or {}).pop(name, None)

    def _held(self, place: str) -> dict[str, Any] | None:
        if place == "header":
            return self._parts.headers
        if place == "path":
            return self._parts.values
        if place == "query":
            if self._query is None:
                self._query = _pairs(self._parts.query)
            return self._query
        if self._body is None:
            self._body = self._read_body()
        return self._body

    def _read_body(self) -> dict[str, Any] | None:
        body = self._parts.body
        if self._is_form:
            return _pairs(body.decode("utf-8", "replace"))
        if not body.strip():
            return {}
        try:
            return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None

    def write(self) -> None:
        parts = self._parts
        if self._query is not None:
            parts.query = urlencode(self._query)
        if self._body is None or (not self._body and not parts.body):
            return
        if self._is_form:
            parts.body = urlencode(self._body).encode()
        else:
            parts.body = msgspec.json.encode(self._body)
            parts.headers["content-type"] = JSON


def _pairs(text: str) -> dict[str, Any] | None:
    """The last of each name; None where there are too many."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_LIMIT))
    except ValueError:
        return None


def _as_text(value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _as_json(value: Any) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))
