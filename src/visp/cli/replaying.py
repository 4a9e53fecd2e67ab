"""What a trigger was fired with is fired again: from its records, oldest first, each once however often it is asked."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from visp.cli import firing, output
from visp.cli.exits import misuse
from visp.cli.firing import Chunk, Fire
from visp.client import documents
from visp.client.rest import PAGE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName

SHOWN = 160
"""Characters of a payload that a line of a trial has."""

_records = msgspec.json.Decoder(list[msgspec.Raw]).decode


def replay(
    session: Session,
    trigger: FullyQualifiedName,
    since_ms: int,
    upto_ms: int,
    *,
    now_ms: int,
    limit: int | None = None,
    is_trial: bool = False,
    as_json: bool = False,
) -> None:
    """Fires `trigger` with the results of its records that began in the range, `limit` of them at most.

    The range is what tells one replay from another: with the same one it goes on where it was cut off. `is_trial`:
    nothing is fired, what would be is printed. Raises `CommandError`, and what the client raises.
    """
    if since_ms > upto_ms:
        raise misuse("--since lies behind --upto")
    if upto_ms >= now_ms:
        raise misuse("--upto must have passed: what is fired now would be fired again")
    if is_trial:
        count = 0
        for record in _limited(_oldest_first(session, trigger, since_ms, upto_ms), limit):
            count += 1
            _show(record, as_json=as_json)
        output.ok(f"would trigger /{trigger.id} {count} times", is_error=as_json)
        return
    source = f"replay/{hashlib.sha256(f'{since_ms}/{upto_ms}'.encode()).hexdigest()[:32]}"

    def chunks(newest: int | None) -> Iterator[Chunk]:
        begun_ms = since_ms
        if newest is not None:
            begun_ms = max(since_ms, newest)
            output.note(f"goes on with what was fired at {stamp(begun_ms)}: what came before was fired again already")
        left = limit
        if left is not None and newest is not None:
            left = max(0, left - _count(session, trigger, since_ms, begun_ms - 1))
        found = _limited(_oldest_first(session, trigger, begun_ms, upto_ms), left)
        # the first batch has the number of its range, whatever is left of its records: so it is known again
        return firing.chunks_of(
            (_fire(record) for record in found),
            lambda before, first: begun_ms if before == 0 else int(first.name.split("@")[1]),
        )

    tally = firing.send(session, trigger, source, chunks, firing.shown if as_json else None)
    firing.told(tally, trigger, "fires", is_quiet=as_json)


class Record(msgspec.Struct, frozen=True):
    """A fire of the past; `payload` is the event as it came, `raw` the whole record."""

    id: str
    start_ms: int
    name: str
    payload: bytes
    raw: bytes


def record_of(raw: bytes) -> Record | None:
    """A trigger's record as the server tells it; None for another's: those have annotations."""
    document: Any = documents.value(raw)
    if not isinstance(document, dict) or document.get("annotations") != [] or "end" in document:
        return None
    payload = documents.fields(documents.fields(raw).get("response", b"")).get("result", b"{}")
    id, start_ms = documents.text(document, "activationId"), documents.whole(document, "start") or 0
    return Record(id, start_ms, documents.text(document, "name"), payload, raw)


def stamp(at_ms: int) -> str:
    """`2030-01-31T12:00:00.000Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fire(record: Record) -> Fire:
    return Fire(record.id, record.payload, f"{record.id}@{record.start_ms}")


def _show(record: Record, *, as_json: bool) -> None:
    if as_json:
        firing.shown(record.raw)
        return
    payload = record.payload.decode(errors="replace")
    output.line(f"{stamp(record.start_ms)} {record.id} {payload[:SHOWN]}{' …' if len(payload) > SHOWN else ''}")


def _oldest_first(session: Session, trigger: FullyQualifiedName, since_ms: int, upto_ms: int) -> Iterator[Record]:
    """The server lists the newest first: so the last page comes first, and each from its end."""
    left = _listed(session, trigger, since_ms, upto_ms)
    while left > 0:
        skip = max(0, left - PAGE_LIMIT)
        raw = session.client.activations(
            trigger.namespace,
            name=trigger.name,
            limit=left - skip,
            skip=skip,
            since_ms=since_ms,
            upto_ms=upto_ms,
            is_full=True,
        )
        for one in reversed(_records(raw)):
            record = record_of(bytes(one))
            if record is not None:
                yield record
        left = skip


def _listed(session: Session, trigger: FullyQualifiedName, since_ms: int, upto_ms: int) -> int:
    raw = session.client.activations(
        trigger.namespace, name=trigger.name, since_ms=since_ms, upto_ms=upto_ms, limit=0, is_count=True
    )
    return documents.whole(documents.value(raw), "activations") or 0


def _count(session: Session, trigger: FullyQualifiedName, since_ms: int, upto_ms: int) -> int:
    return sum(1 for _ in _oldest_first(session, trigger, since_ms, upto_ms)) if upto_ms >= since_ms else 0


def _limited(records: Iterator[Record], limit: int | None) -> Iterator[Record]:
    for number, record in enumerate(records):
        if limit is not None and number >= limit:
            return
        yield record
