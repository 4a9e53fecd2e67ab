"""The ledger's frames: how an entry lies on disk. Pure.

A frame is, in little-endian order: u32 length of what follows the checksum, u32 CRC-32 of it, u8 type, u8 version, the
16-byte activation id, u64 `synced_to` (the offset known to be durable when the frame was written), a msgpack head and a
raw tail: the first four bytes of the body say how long the head is. A length below the smallest legal one, zero above
all, is no frame: a preallocated segment ends where its zeros begin.
"""

from __future__ import annotations

import re
import struct
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from visp.entity.activation import ActivationHead, ActivationRecord
from visp.store.base import Work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VERSION = 1
_PREFIX = struct.Struct("<II")
_BODY = struct.Struct("<BB16sQI")
_WHOLE = struct.Struct("<IIBB16sQI")
PREFIX_BYTES = _PREFIX.size
SMALLEST_BYTES = _BODY.size
OVERHEAD_BYTES = PREFIX_BYTES + SMALLEST_BYTES


class Type(IntEnum):
    ACCEPTED = 1
    STARTED = 2
    FINISHED = 3
    LOGS = 4
    ENDED = 5


_TYPES = frozenset(Type)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One entry as it was read. `offset` and `end` are places in the whole log.

    Head and tail are taken out of `body` when they are asked for: most entries of a log are only counted.
    """

    type: int
    id: str
    synced_to: int
    offset: int
    end: int
    body: memoryview
    head_bytes: int

    @property
    def head(self) -> bytes:
        return bytes(self.body[SMALLEST_BYTES : SMALLEST_BYTES + self.head_bytes])

    @property
    def tail(self) -> bytes:
        return bytes(self.body[SMALLEST_BYTES + self.head_bytes :])


def pack(type: Type, id: str, synced_to: int, head: bytes, tail: bytes = b"") -> bytes:
    start = _BODY.pack(type, VERSION, bytes.fromhex(id), synced_to, len(head)) + head
    return b"".join((_PREFIX.pack(len(start) + len(tail), zlib.crc32(tail, zlib.crc32(start))), start, tail))


def read(data: memoryview, at: int, base: int) -> Frame | None:
    """The frame at `at` of a segment that begins at offset `base`; None when there is no valid one.

    Raises `msgspec.DecodeError` for a whole frame of a kind that this visp does not know.
    """
    if at + OVERHEAD_BYTES > len(data):
        return None
    length, crc, type, version, id, synced_to, head_bytes = _WHOLE.unpack_from(data, at)
    start = at + PREFIX_BYTES
    if length < SMALLEST_BYTES or start + length > len(data):
        return None
    body = data[start : start + length]
    if zlib.crc32(body) != crc:
        return None
    if version != VERSION or type not in _TYPES:
        raise msgspec.DecodeError(f"type {type}, version {version}")
    if SMALLEST_BYTES + head_bytes > length or synced_to > base + at:
        return None  # no frame was ever written before what it says is durable
    return Frame(type, id.hex(), synced_to, base + at, base + start + length, body, head_bytes)


def scan(data: bytes | bytearray, base: int) -> Iterator[Frame]:
    """The frames of a segment in order, up to the first place where there is none."""
    at, view = 0, memoryview(data)
    while (frame := read(view, at, base)) is not None:
        yield frame
        at = frame.end - base


def content_end(data: bytes | bytearray) -> int:
    """Where the zeros at the end begin. By large pieces: nearly all of a young segment is zeros."""
    end = len(data)
    while end and data[max(0, end - _PIECE) : end] == _ZEROS[-min(end, _PIECE) :]:
        end = max(0, end - _PIECE)
    begin = max(0, end - _PIECE)
    return begin + len(data[begin:end].rstrip(b"\0"))


_PIECE = 64 * 1024
_ZEROS = bytes(_PIECE)

_LOOKS_LIKE = re.compile(rb"(?=[\x01-\x05]\x01)")


def scan_beyond(data: bytes | bytearray, at: int, base: int) -> Iterator[Frame]:
    """Every valid frame behind a place that is none: what was written there tells damage from an end."""
    view = memoryview(data)
    for match in _LOOKS_LIKE.finditer(view, at + PREFIX_BYTES, content_end(data)):
        frame = read(view, match.start() - PREFIX_BYTES, base)
        if frame is not None:
            yield frame


# ── what the heads hold ─────────────────────────────────────────────────────────────────────────────────────────


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """Works, all or none, and the record of the trigger that was fired, if it is a fire.

    `started` names those that had been started when the entry was copied from an older segment.
    """

    works: list[Work]
    record: tuple[ActivationHead, bytes, tuple[str, ...]] | None = None
    started: list[str] = []


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """A record but for its result, which is the tail."""

    head: ActivationHead
    logs: tuple[str, ...]
    has_all_logs: bool


encode_msgpack = msgspec.msgpack.Encoder().encode
_decode_accepted = msgspec.msgpack.Decoder(Accepted).decode
_decode_finished = msgspec.msgpack.Decoder(Finished).decode
_decode_logs = msgspec.msgpack.Decoder(tuple[str, ...]).decode


def accepted_head(works: Sequence[Work], record: ActivationRecord | None = None, started: Sequence[str] = ()) -> bytes:
    own = None if record is None else (record.head, record.result, record.logs)
    return encode_msgpack(Accepted(list(works), own, list(started)))


def finished_head(record: ActivationRecord) -> bytes:
    return encode_msgpack(Finished(record.head, record.logs, record.has_all_logs))


def read_accepted(frame: Frame) -> Accepted:
    return _decode_accepted(frame.head)


def record_of(accepted: Accepted) -> ActivationRecord | None:
    """The fired trigger's own record."""
    if accepted.record is None:
        return None
    head, result, logs = accepted.record
    return ActivationRecord(head=head, result=result, logs=logs)


def read_finished(frame: Frame) -> ActivationRecord:
    finished = _decode_finished(frame.head)
    return ActivationRecord(
        head=finished.head, result=frame.tail, logs=finished.logs, has_all_logs=finished.has_all_logs
    )


def logs_tail(collected_us: int | None) -> bytes:
    return b"" if collected_us is None else collected_us.to_bytes(8, "little")


def read_logs(frame: Frame) -> tuple[tuple[str, ...], int | None]:
    """The logs, and when they were complete on the scale of the record's phases, if the entry says that."""
    return _decode_logs(frame.head), int.from_bytes(frame.tail, "little") if frame.tail else None
