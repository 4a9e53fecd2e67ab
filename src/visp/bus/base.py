"""What visp asks of the bus between its roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from visp.bus.messages import Message

Handler = Callable[[Message], None]
Unsubscribe = Callable[[], None]

ACKS = "acks"
PARTS = "parts"
"""Of results, to those who asked for them."""
PINGS = "pings"
ENTITIES = "entities"
LATER = "later"
"""What is due at a time of its own."""
BUILDS, BUILT = "builds", "built"
"""Code that is to be built, and what is heard of that: both stay in the shard that took the code."""


FEEDS = "feeds"
"""Feeds that were made, changed or dropped."""


def invoker_topic(invoker: int) -> str:
    """Where the activations for one invoker go."""
    return f"invoker{invoker}"


class Bus(Protocol):
    """Publish and subscribe. A subscriber never raises into its publisher."""

    def publish(self, topic: str, message: Message) -> None:
        """Synchronous and bounded; raises `Overloaded` when a network bus's outbox is full."""
        ...

    def subscribe(self, topic: str, handler: Handler) -> Unsubscribe:
        """`handler` hears every message on the topic until the returned function is called."""
        ...
