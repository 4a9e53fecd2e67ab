"""Locked parameters: values that are kept encrypted, and opened only for the container that is given them.

Source: OpenWhisk's parameter encryption. A locked value is a string: base64 of the length of the initialisation vector
(4 bytes, big-endian), the vector, and AES-GCM's ciphertext with its tag, of the value as compact JSON; the parameter's
`encryption` names the scheme. What no scheme of ours locked is passed on as it is.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from visp.entity.parameters import Parameter, Parameters, compact
from visp.entity.payload import encode, parse_answer
from visp.errors import VispError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES: Final = {"aes-128": 16, "aes-256": 32}
"""Scheme → length of its keys."""
VECTOR_BYTES: Final = {"aes-128": 12, "aes-256": 128}

Marks = tuple[tuple[str, str], ...]
"""Keys of an argument whose values are locked, each with its scheme."""


class CannotUnlock(VispError):
    """No key that this server has opens a value."""


class Locks:
    """Schemes with their keys, the newest first: that one locks, all of them unlock."""

    def __init__(self, current: str | None = None, keys: Mapping[str, tuple[bytes, ...]] | None = None) -> None:
        self._keys = keys or {}
        self._current = current if current in self._keys else None

    @property
    def is_on(self) -> bool:
        return self._current is not None

    def lock(self, parameters: Parameters) -> Parameters:
        """The parameters with every value locked that is not yet."""
        if self._current is None:
            return parameters
        return {key: self._locked(parameter) for key, parameter in parameters.items()}

    def relock(self, parameters: Parameters) -> Parameters | None:
        """The same once everything is locked by the newest key; None when it is already.

        What cannot be unlocked stays as it is.
        """
        if self._current is None:
            return None
        locked = {
            key: self._locked(self._opened(parameter) if self._is_old(parameter) else parameter)
            for key, parameter in parameters.items()
        }
        return locked if locked != parameters else None

    def unlocked(self, content: bytes, marks: Marks) -> bytes:
        """An argument with its locked values opened. Raises `CannotUnlock`."""
        answer = parse_answer(content)
        if answer is None or answer.fields is None:
            return content
        fields = answer.fields
        for key, scheme in marks:
            if key in fields and scheme in KEY_BYTES:
                fields[key] = msgspec.Raw(self._open(bytes(fields[key]), scheme))
        return encode(fields)

    def _locked(self, parameter: Parameter) -> Parameter:
        if self._current is None or parameter.encryption is not None or bytes(parameter.value).strip() == b"null":
            return parameter
        vector = secrets.token_bytes(VECTOR_BYTES[self._current])
        sealed = _cipher(self._keys[self._current][0]).encrypt(vector, compact(parameter.value), None)
        text = base64.b64encode(len(vector).to_bytes(4, "big") + vector + sealed).decode()
        return Parameter(msgspec.Raw(encode(text)), parameter.init, self._current)

    def _opened(self, parameter: Parameter) -> Parameter:
        assert parameter.encryption is not None
        return Parameter(msgspec.Raw(self._open(bytes(parameter.value), parameter.encryption)), parameter.init)

    def _is_old(self, parameter: Parameter) -> bool:
        """Whether it can be unlocked, and not by the key that locks."""
        scheme = parameter.encryption
        if scheme not in KEY_BYTES or self._current is None:
            return False
        keys = self._keys.get(scheme, ())
        newest = keys[:1] if scheme == self._current else ()
        raw = bytes(parameter.value)
        return _opened_by(newest, raw) is None and _opened_by(keys, raw) is not None

    def _open(self, raw: bytes, scheme: str) -> bytes:
        value = _opened_by(self._keys.get(scheme, ()), raw)
        if value is None:
            raise CannotUnlock(f"no {scheme} key opens it")
        return value


def marks_of(parameters: Parameters, given: Mapping[str, object]) -> Marks:
    """Which of an action's parameters are locked and not overridden by what is `given`."""
    return tuple(
        (key, parameter.encryption)
        for key, parameter in parameters.items()
        if parameter.encryption is not None and key not in given
    )


def parse_keys(text: str, scheme: str) -> tuple[bytes, ...]:
    """Keys in base64, separated by commas; raises `ValueError` for what is no key of the scheme."""
    keys = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            key = base64.b64decode(part, validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        if len(key) != KEY_BYTES[scheme]:
            raise ValueError(f"a key of {len(key)} bytes, where {scheme} takes {KEY_BYTES[scheme]}")
        keys.append(key)
    return tuple(keys)


def _opened_by(keys: tuple[bytes, ...], raw: bytes) -> bytes | None:
    """The value, as compact JSON; None if none of the keys opens it."""
    if not keys:
        return None
    from cryptography.exceptions import InvalidTag

    try:
        data = base64.b64decode(msgspec.json.decode(raw, type=str), validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        return None
    length = int.from_bytes(data[:4], "big")
    vector, sealed = data[4 : 4 + length], data[4 + length :]
    for key in keys:
        try:
            return bytes(_cipher(key).decrypt(vector, sealed, None))
        except (InvalidTag, ValueError):
            continue
    return None


def _cipher(key: bytes) -> Any:
    """The library is loaded when it is needed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
