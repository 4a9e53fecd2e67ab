"""Who waits for which activation: from acceptance until it is complete.

One table holds every activation in flight: it bounds them, counts them for the concurrency throttle, and settles each
waiter once. A waiter is registered before its message is published; the ledger never answers from inside a call, so no
ack arrives from inside `publish`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus import base as bus
from visp.bus.messages import CompletionAck, ResultAck
from visp.controller.drain import Drain
from visp.entity.activation import shard_of
from visp.errors import Overloaded
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.messages import Message
    from visp.clock import Clock
    from visp.entitlement.throttle import Throttle
    from visp.settings import Queue

    OnResult = Callable[[ResultAck | None], None]
    """None: the shard that ran it is gone, and with it what it came to, unless it was accepted."""

IN_FLIGHT = "visp_activations_in_flight"


class _Entry(msgspec.Struct, gc=False):
    namespace_uuid: str
    payload_bytes: int
    on_result: OnResult | None


class Acks:
    """Settles waiters; the only owner of what is in flight."""

    def __init__(self, throttle: Throttle, limits: Queue, transport: bus.Bus, clock: Clock) -> None:
        self._throttle = throttle
        self._limits = limits
        self._entries: dict[str, _Entry] = {}
        self._payload_bytes = 0
        self._drain = Drain(clock)
        transport.subscribe(bus.ACKS, self._heard)

    def __len__(self) -> int:
        return len(self._entries)

    def ids(self) -> list[str]:
        """Of all that is in flight."""
        return list(self._entries)

    def measured(self) -> list[Family]:
        """What is in flight, for a scrape."""
        return [Family(IN_FLIGHT, "Activations between acceptance and their end.", "gauge", {(): len(self._entries)})]

    def check_room(self) -> None:
        """Raises `Overloaded` when no further activation may be in flight."""
        limits = self._limits
        if len(self._entries) >= limits.activations or self._payload_bytes >= limits.payload_bytes:
            raise Overloaded(wording.in_flight_full(limits.activations), self._drain.retry_after_s(len(self._entries)))

    def register(self, id: str, namespace_uuid: str, payload_bytes: int, on_result: OnResult | None) -> None:
        """The activation is in flight from now on; `on_result` is called at most once."""
        self._entries[id] = _Entry(namespace_uuid, payload_bytes, on_result)
        self._payload_bytes += payload_bytes
        self._throttle.enter(namespace_uuid)

    def owner_of(self, id: str) -> str | None:
        """The uuid of the namespace whose activation in flight this is; None for any other id."""
        entry = self._entries.get(id)
        return None if entry is None else entry.namespace_uuid

    def forget(self, id: str) -> None:
        """The waiter is gone; the run goes on."""
        entry = self._entries.get(id)
        if entry is not None:
            entry.on_result = None

    def complete(self, id: str) -> None:
        """The activation is over: of a composite, which no invoker runs, its controller says so."""
        entry = self._entries.pop(id, None)
        if entry is not None:
            self._drain.ended += 1
            self._payload_bytes -= entry.payload_bytes
            self._throttle.leave(entry.namespace_uuid)

    def lost(self, shard: int) -> None:
        """A shard is gone: whoever waits for what runs there hears so; what it had accepted it goes on with alone."""
        for id in [id for id in self._entries if shard_of(id) == shard]:
            entry = self._entries[id]
            if entry.on_result is not None:
                on_result, entry.on_result = entry.on_result, None
                on_result(None)
            self.complete(id)

    def _heard(self, message: Message) -> None:
        if isinstance(message, ResultAck):
            id = message.head.id
            entry = self._entries.get(id)
            if entry is not None and entry.on_result is not None:
                on_result, entry.on_result = entry.on_result, None
                on_result(message)
            if message.is_complete:
                self.complete(id)
        elif isinstance(message, CompletionAck):
            self.complete(message.id)
