"""Rows of the SQLite stores: what is written, and what counts as read.

Every row has a checksum over all of its columns: no page of SQLite's has one. Those columns of a record that repeat
what its head says are compared with it instead.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from visp.entity.activation import ActivationHead, ActivationRecord, filter_name
from visp.errors import Corrupt
from visp.store.base import Document, KeyRecord
from visp.store.values import LARGE_BYTES
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
Row = TypeVar("Row")


def checksum(*values: object) -> int:
    """Of a row's columns in their order; what cannot be a row of ours has one that fits none."""
    try:
        return zlib.crc32(_encode_row(values))
    except (TypeError, ValueError):
        return UNREADABLE


NO_CHECKSUM = -1
"""Of a row that is not to be served."""
UNREADABLE = -2
_encode_row = msgspec.msgpack.Encoder().encode


def readable(found: Iterable[Row], read: Callable[[Row], T]) -> list[T]:
    """What reads of a list: a damaged row is stated, and does not keep the others from being seen."""
    out: list[T] = []
    for row in found:
        try:
            out.append(read(row))
        except Corrupt:
            log.error("store.damaged_row", row=repr(row)[:80])
    return out


# ── entities and subjects ───────────────────────────────────────────────────────────────────────────────────────

DocumentRow = tuple[str, str, str, str | None, str, int, int, bytes, int, int]
KeyRow = tuple[str, bytes, bytes, str, str, int, int]


def document(row: DocumentRow) -> Document:
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    id, collection, namespace, package, name, updated_ms, publish, body, revision, _ = row
    return Document(
        id=id,
        collection=collection,
        namespace=namespace,
        package=package,
        name=name,
        updated_ms=updated_ms,
        publish=bool(publish),
        body=body,
        revision=revision,
    )


def key(row: KeyRow) -> KeyRecord:
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    uuid, digest, sealed, subject, namespace, is_blocked, _ = row
    return KeyRecord(
        uuid=uuid, digest=digest, sealed=sealed, subject=subject, namespace=namespace, is_blocked=bool(is_blocked)
    )


def limits(row: tuple[str, bytes, int]) -> bytes:
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    return row[1]


# ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────

ActivationRow = tuple[bytes, str, str, int, bytes, bytes, bytes, int]
"""The columns, checksum last."""


def activation(record: ActivationRecord) -> tuple[bytes, str, str, int, bytes, bytes | int, bytes, int]:
    head, result = record.head, record.result
    packed = _encode_head(head)
    logs = msgspec.json.encode(record.logs) if record.logs else b""
    return (
        bytes.fromhex(head.id),
        head.namespace,
        filter_name(head),
        head.start_ms,
        packed,
        result if len(result) <= LARGE_BYTES else len(result),
        logs,
        _crc(packed, result, logs),
    )


def _crc(head: bytes, result: bytes, logs: bytes) -> int:
    return zlib.crc32(logs, zlib.crc32(result, zlib.crc32(head)))


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(ActivationHead).decode
_decode_logs = msgspec.json.Decoder(tuple[str, ...]).decode


def record(row: ActivationRow) -> ActivationRecord:
    id, namespace, name, start_ms, packed, result, logs, crc = row
    try:
        if _crc(packed, result, logs) != crc:
            raise Corrupt()
        head = _decode_head(packed)
    except (TypeError, ValueError, msgspec.MsgspecError):  # a column is not even of its type
        raise Corrupt() from None
    if (bytes.fromhex(head.id), head.namespace, filter_name(head), head.start_ms) != (id, namespace, name, start_ms):
        raise Corrupt()
    return ActivationRecord(head=head, result=result, logs=_decode_logs(logs) if logs else ())
