"""ActionLoop, as its proxy speaks it: lines in, lines out. Sans I/O.

Source: OpenWhisk's ActionLoop proxy and the official images of the kinds; a line that begins with `!` is our launchers'
own way to say "not 200", and one that begins with `@` names the activation that it answers. Before the reply a launcher
that said it may can write parts of the result (`+`), and with a name what that activation printed (`>`, `#`): no JSON
begins so.
"""

from __future__ import annotations

import msgspec

from visp import wording
from visp.runtime.base import STDERR, STDOUT, Gone, Reply

ENDLESS_BYTES = 64 * 1024 * 1024
"""A reply longer than this is not read on: its container is given up."""

NOT_200 = b"!"
TAG = b"@"
PART = b"+"
PRINTED = {b">": STDOUT, b"#": STDERR}
TAG_BYTES = 64
"""No tag is longer: `@`, an activation's id, a space."""
_NOT_JSON_OBJECT = b'{"error":%b}' % msgspec.json.encode(wording.NOT_A_DICTIONARY_OR_ARRAY)
_EXITED = b'{"error":%b}' % msgspec.json.encode(wording.COMMAND_EXITED)
_NO_START = b'{"error":"Cannot start action. Check logs for details."}'
_NOT_READY = b'{"error":"The action did not initialize properly."}'

WITHOUT_PROXY = frozenset({"nodejs"})
"""Families whose official image is the HTTP server itself: when it exits, the connection breaks."""


class ReplyReader:
    """Collects one reply line; keeps no more of it than the limit."""

    __slots__ = ("_kept_bytes", "_limit_bytes", "_parts", "_size_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._kept_bytes = 0

    @property
    def is_between(self) -> bool:
        """Whether nothing of a line has come."""
        return not self._parts

    @property
    def is_endless(self) -> bool:
        return self._size_bytes > ENDLESS_BYTES

    def feed(self, data: bytes) -> tuple[bytes, int] | None:
        """The line (its first `limit` bytes) and its full size once it is complete; what follows it is dropped."""
        end = data.find(b"\n")
        if end < 0:
            self._keep(data)
            return None
        if not self._parts and end == len(data) - 1 and end <= self._limit_bytes + 1:
            return data[:-1], end
        self._keep(data[:end])
        line, size = b"".join(self._parts), self._size_bytes
        self._parts, self._size_bytes, self._kept_bytes = [], 0, 0
        return line, size

    def _keep(self, data: bytes) -> None:
        self._size_bytes += len(data)
        room = self._limit_bytes + 1 - self._kept_bytes
        if room > 0:
            self._parts.append(data[:room])
            self._kept_bytes += min(room, len(data))


def untag(line: bytes) -> tuple[bytes, bytes, int]:
    """The activation's id that a tagged reply begins with, the reply itself, and how long the tag is.

    A line without a tag names no activation: the id is empty.
    """
    end = line.find(b" ", 1, TAG_BYTES)
    if line[:1] != TAG or end < 0:
        return b"", line, 0
    return line[1:end], line[end + 1 :], end + 1


def run_reply(line: bytes, size_bytes: int, family: str) -> Reply:
    """The answer of `/run` that a reply line stands for."""
    first = line[:1]
    if first == NOT_200:
        return Reply(502, line[1:], size_bytes - 1)
    if first in (b"{", b"[") or family in WITHOUT_PROXY:
        return Reply(200, line, size_bytes)
    stripped = line.lstrip()
    if stripped[:1] in (b"{", b"["):
        return Reply(200, line, size_bytes)
    return Reply(502, _NOT_JSON_OBJECT, len(_NOT_JSON_OBJECT))


def init_reply(line: bytes, size_bytes: int) -> Reply:
    """The answer of `/init` that a reply line stands for: programs may be the action's own, and say something else."""
    if line[:1] == NOT_200:
        return Reply(502, line[1:], size_bytes - 1)
    try:
        is_ready = msgspec.json.decode(line, type=_Acknowledgement).ok
    except (msgspec.DecodeError, UnicodeDecodeError):
        is_ready = False
    return Reply(200, line, size_bytes) if is_ready else Reply(502, _NOT_READY, len(_NOT_READY))


class _Acknowledgement(msgspec.Struct):
    """What a program says when it is ready for runs."""

    ok: bool = False


def gone(family: str, *, is_init: bool, was_sent: bool) -> Gone:
    """What a child's exit without a reply means: the proxy of the family answers for it, or nobody does."""
    if family in WITHOUT_PROXY or not was_sent:
        return Gone(was_sent)
    body = _NO_START if is_init else _EXITED
    return Gone(was_sent, Reply(502 if is_init else 400, body, len(body)))
