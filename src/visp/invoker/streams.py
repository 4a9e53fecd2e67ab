"""A result that comes in parts: passed on while somebody reads it, and joined for the record.

A part is JSON, or `:` and the base64 of bytes. Text and bytes are joined as they are, other values are a line of JSON
each. A first part that is an object with `statusCode` or `headers` is the head of a web answer, and not of the body.

The result is `{"body"}` with the fields of the head before it. A body that is no UTF-8 is base64, and `isBase64Encoded`
says so; one that is longer than a result may be is cut, and `isTruncated` says so.
"""

from __future__ import annotations

import binascii
import json
from typing import TYPE_CHECKING, Any

import msgspec

from visp.runtime.base import WINDOW_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

PART_BYTES = 1024 * 1024
"""No more than one part of this size is above the window: what goes on beyond that heeds no credit."""
GRANT_BYTES = WINDOW_BYTES // 4
HEAD_FIELDS = frozenset({"statusCode", "headers"})
BASE64 = b":"


class Joined:
    """The parts of a result, as its record shows them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._head: dict[str, Any] | None = None
        self._pieces: list[bytes] = []
        self._kept_bytes = 0
        self._is_truncated = False

    def add(self, part: bytes) -> None:
        """Raises `ValueError` and `RecursionError` for what no launcher writes."""
        if part[:1] == BASE64:
            self._keep(binascii.a2b_base64(part[1:], strict_mode=True), len(part))
            return
        try:
            value = msgspec.json.decode(part)
        except msgspec.DecodeError:  # of what it does not take, halves of surrogate pairs are allowed
            value = json.loads(part)
            value = value if isinstance(value, str) else None
        if isinstance(value, str):
            self._keep(value.encode("utf-8", "replace"), len(part))
        elif self._head is None and isinstance(value, dict) and not HEAD_FIELDS.isdisjoint(value):
            self._head = value
        else:
            self._keep(part + b"\n", len(part))

    def _keep(self, piece: bytes, size_bytes: int) -> None:
        if self._head is None:
            self._head = {}
        if self._kept_bytes + size_bytes > self._limit_bytes:
            self._is_truncated = True
        if not self._is_truncated:
            self._pieces.append(piece)
            self._kept_bytes += size_bytes

    def result(self) -> bytes:
        """A JSON object, no longer than the limit, save for a head that is longer alone."""
        body = b"".join(self._pieces)
        while True:
            result = msgspec.json.encode(self._shown(body))
            if len(result) <= self._limit_bytes or not body:
                return result
            self._is_truncated = True
            body = body[: len(body) * self._limit_bytes * 9 // (len(result) * 10)]

    def _shown(self, body: bytes) -> dict[str, Any]:
        shown = dict(self._head or {})
        try:
            shown["body"] = _text(body, is_cut=self._is_truncated)
        except UnicodeDecodeError:
            shown["body"] = binascii.b2a_base64(body, newline=False).decode()
            shown["isBase64Encoded"] = True
        if self._is_truncated:
            shown["isTruncated"] = True
        return shown


def _text(body: bytes, *, is_cut: bool) -> str:
    """Raises `UnicodeDecodeError`, save for a last character that was cut through."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        if is_cut and error.reason == "unexpected end of data":
            return body[: error.start].decode()
        raise


class Stream:
    """The parts of one run. `is_read`: they are passed on, and whoever reads them grants more; else nobody need."""

    def __init__(self, limit_bytes: int, grant: Callable[[int], None], *, is_read: bool) -> None:
        self.joined = Joined(limit_bytes)
        self.is_read = is_read
        self._grant = grant
        self._ahead_bytes = 0
        """What came and was not granted again; `_owed_bytes` of it was taken, but is too little to be told of."""
        self._owed_bytes = 0

    def take(self, part: bytes) -> bool:
        """False for what may not come: more than was granted, or what is no part."""
        self._ahead_bytes += len(part)
        if self._ahead_bytes > WINDOW_BYTES + PART_BYTES:
            return False
        try:
            self.joined.add(part)
        except (ValueError, RecursionError):
            return False
        return True

    def taken(self, count_bytes: int) -> None:
        """So much of what came is out of the way: as much more may come."""
        self._owed_bytes = min(self._owed_bytes + count_bytes, self._ahead_bytes)
        if self._owed_bytes >= GRANT_BYTES:
            owed, self._owed_bytes = self._owed_bytes, 0
            self._ahead_bytes -= owed
            self._grant(owed)

    def abandon(self) -> None:
        """Nobody reads any more: the run goes on, for its record."""
        if self.is_read:
            self.is_read = False
            self.taken(self._ahead_bytes)
