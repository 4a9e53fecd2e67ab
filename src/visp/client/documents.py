"""JSON as servers send it: whatever is JSON is taken, shown as it came, and never crashes the reader.

Values stay bytes where they are only passed on, so numbers keep their digits and objects their order. msgspec refuses
some texts that are JSON by the letter (numbers out of range, lone surrogates); the standard library takes those.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_FOREIGN = (msgspec.MsgspecError, ValueError, RecursionError)

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


def value(raw: bytes) -> Any:
    """The text as Python values; None when it is no JSON."""
    try:
        return msgspec.json.decode(raw)
    except _FOREIGN:
        pass
    try:
        return json.loads(raw)
    except _FOREIGN:
        return None


def fields(raw: bytes) -> dict[str, bytes]:
    """The members of an object, each as the text it came as; empty when it is no object."""
    try:
        return {key: bytes(member) for key, member in _objects.decode(raw).items()}
    except _FOREIGN:
        document = value(raw)
    return {key: json.dumps(member).encode() for key, member in document.items()} if isinstance(document, dict) else {}


def pretty(raw: bytes) -> str:
    """The text indented by four, as `wsk` shows it; what is no JSON is shown as it is."""
    try:
        return msgspec.json.format(raw, indent=4).decode()
    except _FOREIGN:
        pass
    try:
        return json.dumps(json.loads(raw), indent=4)
    except _FOREIGN:
        return raw.decode(errors="backslashreplace")


def text(document: Any, key: str) -> str:
    """A member that should be a string; empty when it is not there, or is something else."""
    member = document.get(key) if isinstance(document, dict) else None
    return member if isinstance(member, str) else ""


def whole(document: Any, key: str) -> int | None:
    """A member that should be a whole number; None when it is not."""
    member = document.get(key) if isinstance(document, dict) else None
    return member if isinstance(member, int) and not isinstance(member, bool) else None


def mapping(document: Any) -> dict[str, Any]:
    """The value, where it is an object; an empty one where it is not."""
    return document if isinstance(document, dict) else {}


def objects(document: Any) -> list[dict[str, Any]]:
    """The elements of an array that are objects."""
    return [element for element in document if isinstance(element, dict)] if isinstance(document, list) else []


def annotation(document: Any, key: str) -> Any:
    """The value of an annotation of an entity or a record; None when it has none."""
    annotations = objects(document.get("annotations")) if isinstance(document, dict) else []
    return next((entry.get("value") for entry in reversed(annotations) if entry.get("key") == key), None)
