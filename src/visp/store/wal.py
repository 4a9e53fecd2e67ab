"""SQLite's write-ahead log, read as SQLite reads it, to tell the end of a crash from damage. Changes nothing.

SQLite ends the log at the first frame that does not fit the chain of checksums, and drops what is behind it without a
word. Where every commit is synced before the next one begins (`synchronous=FULL`), only the last transaction can have
been torn: a commit behind the bad frame that is followed by a whole frame was synced, and so was acknowledged.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
"""The lowest bit says that checksums are over big-endian words."""
_MASK = 0xFFFF_FFFF


class State(msgspec.Struct, frozen=True):
    """Bytes up to the first frame that does not fit, and how many with content lie behind it.

    `is_damaged`: some of those had been synced.
    """

    whole_bytes: int = 0
    cut_bytes: int = 0
    is_damaged: bool = False


def examine(database: Path) -> State:
    """The log of a database that no process writes; raises `OSError`."""
    try:
        data = database.with_name(f"{database.name}-wal").read_bytes()
    except FileNotFoundError:
        return State()
    if not any(data):
        return State()  # it was made, and nothing of it had reached the disk
    return _examine(data) if len(data) >= _HEADER.size else State(0, len(data))


def _examine(data: bytes) -> State:
    magic, _, page_bytes, _, *salts, first, second = _HEADER.unpack_from(data)
    words = ">" if magic & 1 else "<"
    frame_bytes = _FRAME.size + page_bytes
    if (
        magic & ~1 != _MAGIC
        or not 512 <= page_bytes <= 65536
        or _sums(data[: _HEADER.size - 8], words, (0, 0)) != (first, second)
    ):
        return State(0, len(data), is_damaged=len(data) > _HEADER.size)
    at, sums = _HEADER.size, (first, second)
    while at + frame_bytes <= len(data) and _fits(data, at, frame_bytes, salts, words, sums):
        sums = _stored(data, at)
        at += frame_bytes
    return _beyond(data, at, frame_bytes, salts, words)


def _beyond(data: bytes, at: int, frame_bytes: int, salts: list[int], words: str) -> State:
    """What lies behind the last frame that fits: of this log, or of an earlier one over which it is written."""
    cut, is_commit_seen = 0, False
    for begin in range(at, len(data), frame_bytes):
        if begin + frame_bytes > len(data):
            is_ours = begin + _FRAME.size > len(data) or _salts(data, begin) == salts
            cut += (len(data) - begin) if is_ours else 0
            break
        follows = begin > at and _fits(data, begin, frame_bytes, salts, words, _stored(data, begin - frame_bytes))
        if follows and is_commit_seen:
            return State(at, len(data) - at, is_damaged=True)
        if follows or _salts(data, begin) == salts:
            cut = begin + frame_bytes - at
            is_commit_seen = is_commit_seen or _FRAME.unpack_from(data, begin)[1] != 0
    return State(at, cut)


def _fits(data: bytes, at: int, frame_bytes: int, salts: list[int], words: str, before: tuple[int, int]) -> bool:
    if _salts(data, at) != salts:
        return False
    sums = _sums(data[at : at + 8], words, before)
    return _sums(data[at + _FRAME.size : at + frame_bytes], words, sums) == _stored(data, at)


def _salts(data: bytes, at: int) -> list[int]:
    return list(_FRAME.unpack_from(data, at)[2:4])


def _stored(data: bytes, at: int) -> tuple[int, int]:
    first, second = _FRAME.unpack_from(data, at)[4:6]
    return first, second


def _sums(data: bytes, words: str, before: tuple[int, int]) -> tuple[int, int]:
    """SQLite's checksum of whole pairs of words, going on from `before`."""
    first, second = before
    numbers = iter(struct.unpack(f"{words}{len(data) // 4}I", data))
    for one, other in zip(numbers, numbers, strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
