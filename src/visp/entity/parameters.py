"""Parameters and annotations: `[{"key": …, "value": …}]` on the wire, a mapping here.

Values stay raw JSON. Source: OpenWhisk's parameter documents; a parameter may carry `init` (offered at initialisation
only) and `encryption` (the scheme of a value that is stored encrypted).
"""

from __future__ import annotations

from typing import Any

import msgspec

from visp import wording
from visp.entity.payload import JsonObject, encode
from visp.errors import Malformed, TooLarge


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value and its marks."""

    value: msgspec.Raw
    init: bool = False
    encryption: str | None = None


Parameters = dict[str, Parameter]
"""Key → parameter, in the order of first appearance."""


class _Entry(msgspec.Struct):
    key: str
    value: msgspec.Raw
    init: bool | None = None
    encryption: str | None = None


_decode_entries = msgspec.json.Decoder(list[_Entry]).decode


def parse_parameters(raw: bytes) -> Parameters | None:
    """Parameters or annotations of a body; None when the field is null. Duplicate keys: the last wins.

    Raises `Malformed` when it is no array of objects with a `key` and a `value`.
    """
    if raw == b"null":
        return None
    try:
        entries = _decode_entries(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Malformed(wording.PARAMETERS_MALFORMED) from None
    out: Parameters = {}
    for entry in entries:
        out[entry.key] = Parameter(msgspec.Raw(bytes(entry.value)), entry.init is True, entry.encryption)
    return out


def render_parameters(parameters: Parameters) -> list[dict[str, Any]]:
    out = []
    for key, parameter in parameters.items():
        entry: dict[str, Any] = {"key": key, "value": parameter.value}
        if parameter.init:
            entry["init"] = True
        if parameter.encryption is not None:
            entry["encryption"] = parameter.encryption
        out.append(entry)
    return out


def plain(key: str, value: Any) -> Parameters:
    """One parameter with a value of ours."""
    return {key: Parameter(msgspec.Raw(encode(value)))}


def values(parameters: Parameters) -> JsonObject:
    return {key: parameter.value for key, parameter in parameters.items()}


def init_keys(parameters: Parameters) -> frozenset[str]:
    """Keys that are given at initialisation and taken out of each run's argument."""
    return frozenset(key for key, parameter in parameters.items() if parameter.init)


def size_bytes(parameters: Parameters) -> int:
    """Sum of UTF-8 bytes of key and compact JSON value: what the size limit counts."""
    return sum(len(key.encode()) + len(compact(parameter.value)) for key, parameter in parameters.items())


def check_size(field: str, parameters: Parameters, limit: int) -> None:
    """Raises `TooLarge` naming `field` (`parameters` or `annotations`)."""
    size = size_bytes(parameters)
    if size > limit:
        raise TooLarge(wording.too_large(field, size, limit))


def compact(raw: msgspec.Raw) -> bytes:
    """The value without the spaces between its tokens."""
    return msgspec.json.format(bytes(raw), indent=-1)


def is_truthy(annotations: Parameters, key: str, *, default: bool = False) -> bool:
    """Whether an annotation is set to anything but `false`, `0`, `null` or `""`; `default` when it is absent."""
    parameter = annotations.get(key)
    if parameter is None:
        return default
    return msgspec.json.decode(parameter.value) not in (False, 0, None, "")


def is_true(annotations: Parameters, key: str) -> bool:
    """Whether an annotation is exactly `true`."""
    parameter = annotations.get(key)
    return parameter is not None and bytes(parameter.value).strip() == b"true"


def text(annotations: Parameters, key: str) -> str | None:
    """An annotation's value when it is a string."""
    parameter = annotations.get(key)
    value = None if parameter is None else msgspec.json.decode(parameter.value)
    return value if isinstance(value, str) else None
