"""Events that come one by one, handed over in batches of a size that a watch takes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, Event, Json

if TYPE_CHECKING:
    from visp.feed.base import Watch

KEY_LENGTH = 200


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
        if self._events and (len(self._events) >= EVENTS_MOST or self._bytes + len(event.body) > BATCH_BYTES):
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


def key_of(*parts: str) -> str:
    """A key of what names an event, whatever it is and however long."""
    if len(parts) == 1 and 0 < len(parts[0]) <= KEY_LENGTH and parts[0].isascii() and parts[0].isprintable():
        return parts[0]
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()
