"""Users' JSON: kept as bytes, looked into only where a rule demands it.

An object is a `dict[str, msgspec.Raw]`: its keys are known, its values are the bytes that the user sent. What is
written to a container is one line, so bytes that may hold line breaks (between tokens; JSON strings cannot) are made
one line here.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from visp import wording
from visp.errors import Malformed, TooLarge

JsonObject = dict[str, msgspec.Raw]

DIGITS_LIMIT = 4300
"""Digits of one number: no runtime here reads a longer one (CPython's own bound)."""

PIECE_BYTES = 64 * 1024
"""Of a text that is decoded to be measured."""
CHARACTER_BYTES = len(rb"\ud83d\ude00")
"""The longest way to write one."""

DOCUMENT_BYTES = 4 * 1024 * 1024
"""What a PUT body may hold beside code: parameters and annotations at their limits, however they are written. It is
decoded whole, and three bytes of JSON may become an object of Python.
"""

DEPTH_MARGIN = 50
"""Frames of Python that a PUT body is decoded below the place that asks for it.

How deep JSON may nest is what the interpreter's recursion limit leaves; a body that was taken at this depth is read
again later, from the store or for a check, with less of the limit used, and so never fails there.
"""

_decode_object = msgspec.json.Decoder(JsonObject).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_text = msgspec.json.Decoder(str).decode
encode = msgspec.json.Encoder().encode

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")
_UNPARSABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def parse_object(body: bytes) -> JsonObject:
    """The object of a request body; an empty body is an empty object.

    Raises `Malformed` for what is no JSON, no object, not UTF-8, or nested too deeply. Duplicate keys: the last wins.
    """
    if not body:
        return {}
    try:
        fields = _decode_object(body)
    except msgspec.ValidationError:
        raise Malformed(wording.JSON_OBJECT_EXPECTED) from None
    except _UNPARSABLE as error:
        raise Malformed(wording.unexpected_json(str(error))) from None
    check_text(body)
    if len(body) > DIGITS_LIMIT and _may_hold_a_long_number(body):
        _decode_whole(body)
    return fields


def parse_document(body: bytes, field: str, code_bytes: int = 0) -> dict[str, Any]:
    """A PUT body, decoded whole; `field` is what OpenWhisk names when it is JSON but no object.

    Numbers keep their digits where they are users' values: those fields are decoded again by `parse_object`. Raises
    `Malformed`, and `TooLarge` for one that holds too much beside its `code_bytes`.
    """
    if len(body) - code_bytes > DOCUMENT_BYTES:
        raise TooLarge(wording.too_large("all but the code", len(body) - code_bytes, DOCUMENT_BYTES))
    if not body.strip():
        raise Malformed(wording.END_OF_INPUT)
    value = _below(DEPTH_MARGIN, body)
    if not isinstance(value, dict):
        raise Malformed(wording.object_expected_in(field))
    return value


def _below(frames: int, body: bytes) -> Any:
    return _below(frames - 1, body) if frames else _decode_whole(body)


def _decode_whole(body: bytes) -> Any:
    try:
        return _decode_any(body)
    except _UNPARSABLE as error:
        raise Malformed(wording.unexpected_json(str(error))) from None


def _may_hold_a_long_number(body: bytes) -> bool:
    """Whether there may be a run of more digits than the limit: it would fill one of these blocks."""
    block = DIGITS_LIMIT // 2
    return any(body[at : at + block].isdigit() for at in range(0, len(body), block))


def text_bytes(raw: msgspec.Raw) -> int:
    """How long a JSON text is in UTF-8: it is decoded piece by piece, so that it never stands in memory beside `raw`.

    Raises `Malformed` for what is no text.
    """
    whole = memoryview(raw)
    if bytes(whole[:1]) != b'"':
        raise Malformed(wording.string_expected("another value"))
    text, at, size = whole[1:-1], 0, 0
    while at < len(text):
        length, at = _piece(text, at)
        size += length
    return size


def _piece(text: memoryview, at: int) -> tuple[int, int]:
    """The length of a piece, and where the next one begins: a piece that ends within a character cannot be decoded."""
    for end in range(at + PIECE_BYTES, at + PIECE_BYTES + CHARACTER_BYTES):
        try:
            return len(_decode_text(b'"%b"' % bytes(text[at:end])).encode()), end
        except _UNPARSABLE as error:
            reason = str(error)
    raise Malformed(wording.unexpected_json(reason))


def check_text(data: bytes) -> None:
    """Raises `Malformed` for bytes that are not UTF-8 (values that were not decoded may hold anything)."""
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(wording.unexpected_json(f"not UTF-8 at byte {error.start}")) from None


def one_line(data: bytes) -> bytes:
    """The same JSON without line breaks."""
    if b"\n" in data or b"\r" in data:
        return data.translate(_LINE_BREAKS)
    return data


def merge(defaults: JsonObject, payload: JsonObject) -> bytes:
    """The argument of an action: the payload over its parameters, one line of JSON."""
    return one_line(encode(defaults | payload if defaults else payload))


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a container answered, as JSON: its object (None for an array) and the bytes to pass on."""

    fields: JsonObject | None
    raw: bytes


def parse_answer(raw: bytes) -> Answer | None:
    """A container's answer as a JSON object or array, or None for anything else.

    Lone surrogates, which `JSON.stringify` escapes and strict decoders refuse, are let through by a second, slower
    reading.
    """
    try:
        if raw[:1] == b"[":
            _decode_array(raw)
            fields = None
        else:
            fields = _decode_object(raw)
        if not raw.isascii():
            raw.decode()
        return Answer(fields, raw)
    except msgspec.ValidationError:
        return None
    except _UNPARSABLE:
        return _parse_leniently(raw)


def _parse_leniently(raw: bytes) -> Answer | None:
    if b"\\ud" not in raw.lower():
        return _parse_leading_space(raw)
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list):
        return Answer(None, json.dumps(value, separators=(",", ":")).encode())
    if not isinstance(value, dict):
        return None
    fields = {key: msgspec.Raw(json.dumps(item, separators=(",", ":")).encode()) for key, item in value.items()}
    return Answer(fields, json.dumps(value, separators=(",", ":")).encode())


def _parse_leading_space(raw: bytes) -> Answer | None:
    stripped = raw.strip()
    return parse_answer(stripped) if len(stripped) < len(raw) else None


def _refuse_constant(text: str) -> None:
    raise ValueError(text)


def characters(raw: bytes) -> int:
    """Length of a text as a Java string counts it (UTF-16 units): OpenWhisk's `size` of a response."""
    if raw.isascii():
        return len(raw)
    return len(raw.decode("utf-8", "replace").encode("utf-16-le", "surrogatepass")) // 2
