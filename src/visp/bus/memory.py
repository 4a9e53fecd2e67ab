"""The bus inside one process: publishing is calling. No queue, no encoding, no task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.telemetry import log

if TYPE_CHECKING:
    from visp.bus.base import Handler, Unsubscribe
    from visp.bus.messages import Message


class MemoryBus:
    """Delivers in the order of subscription, before `publish` returns."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, ...]] = {}

    def publish(self, topic: str, message: Message) -> None:
        for handler in self._handlers.get(topic, ()):
            try:
                handler(message)
            except Exception:  # a subscriber never raises into its publisher
                log.exception("bus.handler_failed", topic=topic, message=type(message).__name__)

    def subscribe(self, topic: str, handler: Handler) -> Unsubscribe:
        self._handlers[topic] = (*self._handlers.get(topic, ()), handler)

        def unsubscribe() -> None:
            self._handlers[topic] = tuple(h for h in self._handlers[topic] if h is not handler)

        return unsubscribe
