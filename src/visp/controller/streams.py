"""Who reads the parts of which activation's result, as they come.

A reader grants what it has taken; so no more than a window of a result is ever on its way, here or before. A part that
nobody reads is answered by saying so: its run goes on, for its record.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from visp.bus import base as topics
from visp.bus.base import invoker_topic
from visp.bus.messages import Credit, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.bus.base import Bus
    from visp.bus.messages import Message, ResultAck


class Hearing(Protocol):
    """Who is given parts."""

    def offer(self, part: bytes) -> None: ...

    def close(self) -> None:
        """Nothing more will be told here."""


class Reader:
    """One activation's parts, and how it ended: `ack` is None while it runs, and where that cannot be known."""

    def __init__(self) -> None:
        self.ack: ResultAck | None = None
        self._parts: list[bytes] = []
        self._ready = asyncio.Event()
        self.is_over = False

    def offer(self, part: bytes) -> None:
        self._parts.append(part)
        self._ready.set()

    def on_result(self, ack: ResultAck | None) -> None:
        """After the last part. None: the shard that ran it is gone."""
        self.ack = ack
        self.close()

    def close(self) -> None:
        """Nothing more will be told here."""
        self.is_over = True
        self._ready.set()

    async def next(self) -> list[bytes] | None:
        """The next parts, as many as there are; None after the last."""
        while not self._parts:
            if self.is_over:
                return None
            self._ready.clear()
            await self._ready.wait()
        parts, self._parts = self._parts, []
        return parts


class Streams:
    """All readers of this shard. What a reader holds is bounded by what it grants."""

    def __init__(self, bus: Bus, shards: int) -> None:
        self._bus = bus
        self._topics = {f"{number:02x}": invoker_topic(number) for number in range(shards)}
        self._readers: dict[str, Hearing] = {}
        bus.subscribe(topics.PARTS, self._heard)

    def close(self) -> None:
        """The server ends: readers are told where to ask for the record."""
        for reader in self._readers.values():
            reader.close()

    @contextlib.contextmanager
    def reading(self, id: str, reader: Reader) -> Iterator[None]:
        """`reader` is given the parts of this activation until it leaves; the run does not end with that."""
        self.enter(id, reader)
        try:
            yield
        finally:
            self.leave(id, is_over=reader.ack is not None)

    def enter(self, id: str, reader: Hearing) -> None:
        """Until `leave`."""
        self._readers[id] = reader

    def leave(self, id: str, *, is_over: bool) -> None:
        """A run that is not over is told that nobody reads."""
        if self._readers.pop(id, None) is not None and not is_over:
            self._tell(id, None)

    def taken(self, id: str, count_bytes: int) -> None:
        """So much more may come."""
        self._tell(id, count_bytes)

    def _heard(self, message: Message) -> None:
        assert isinstance(message, Part)
        reader = self._readers.get(message.id)
        if reader is None:
            self._tell(message.id, None)
        else:
            reader.offer(message.data)

    def _tell(self, id: str, count_bytes: int | None) -> None:
        topic = self._topics.get(id[12:14])
        if topic is not None:
            self._bus.publish(topic, Credit(id, count_bytes))
