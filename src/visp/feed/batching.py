"""What sources make of what they read: bodies that a trigger takes, keys, batches that are not too large."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from visp.entity.limits import PAYLOAD_LIMIT_BYTES
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, Event, Json
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from visp.feed.base import Watch

KEY_LIMIT = 200

json = msgspec.json.Encoder()


def event(key: str, body: Json, feed: str) -> Event | None:
    """None: its body is larger than a trigger takes; a line in the log says so."""
    encoded = json.encode(body)
    if len(encoded) > PAYLOAD_LIMIT_BYTES:
        log.warning("feed.event_too_large", feed=feed, key=key_of(key), bytes=len(encoded))
        return None
    return Event(key_of(key), encoded)


def key_of(*parts: str) -> str:
    """A key of what names an event, whatever it is and however long."""
    if len(parts) == 1 and 0 < len(parts[0]) <= KEY_LIMIT and parts[0].isascii() and parts[0].isprintable():
        return parts[0]
    digest = sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()


def batches(made: Iterable[tuple[Event | None, Json]]) -> Iterator[tuple[list[Event], Json]]:
    """Events, each with the position behind it, as batches with theirs. What was skipped still moves the position."""
    events: list[Event] = []
    held, behind, moved = 0, None, False
    for one, position in made:
        size = 0 if one is None else len(one.body)
        if is_full(len(events), held, size):
            yield events, behind
            events, held = [], 0
        if one is not None:
            events.append(one)
            held += size
        behind, moved = position, True
    if moved:
        yield events, behind


def is_full(events: int, held_bytes: int, more_bytes: int) -> bool:
    """Whether a batch of so many takes no other of that size; one without any takes whatever comes."""
    return events > 0 and (events >= EVENTS_MOST or held_bytes + more_bytes > BATCH_BYTES)


class Gathering:
    """`add` hands over what is there when the next would be too much; `flush` what is left."""

    def __init__(self, watch: Watch, position: Json) -> None:
        self._watch = watch
        self._events: list[Event] = []
        self._bytes = 0
        self._behind = position
        self._kept = position

    async def add(self, event: Event, position: Json) -> None:
        """`position` is behind the event; whoever adds may go on with the same object once this has returned."""
        if is_full(len(self._events), self._bytes, len(event.body)):
            await self._hand_over()
        self._events.append(event)
        self._bytes += len(event.body)
        self._behind = position

    async def flush(self, position: Json) -> None:
        """`position` is behind everything; it is kept even if there was nothing to fire."""
        self._behind = position
        if self._events or position != self._kept:
            await self._hand_over()

    async def _hand_over(self) -> None:
        behind = self._behind
        batch = Batch(tuple(self._events), dict(behind) if isinstance(behind, dict) else behind)
        self._events.clear()
        self._bytes = 0
        await self._watch.fire(batch)
        self._kept = batch.position


def told(payload: bytes) -> Json:
    """Bytes as a body shows them: JSON if they are JSON, else text, else base64."""
    try:
        msgspec.json.decode(payload)
        return msgspec.Raw(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return base64.b64encode(payload).decode()
