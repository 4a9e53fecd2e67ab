"""A bus that does what a network's would, as far as the roles can live with it.

Every message is encoded and decoded. Both implementations promise more (`tests/contract/test_bus.py`), and the roles
build on some of it; so it is not injected:

- no message for an invoker and no ack is dropped: a link that loses one is closed, and with it the whole shard is lost
  (`Acks.lost`), which only several processes can show;
- a message for an invoker is repeated only if the ledger holds its work: a caller that waits is sent once;
- `Detached` is heard before its `accepted` entry is written: who publishes it makes both in one turn of the loop. What
  is on its way to the invoker is heard before it then;
- an unknown topic (what is due later) is heard at once.

- an ack is late by turns of the loop, not by time: its caller's deadline must not pass meanwhile, because what is over
  would be accepted then, and stay open in the ledger once its record is indexed.

What remains: messages for the invoker come late, in any order, and again, when all is over too; an ack comes twice, or
after others; pings are late, lost, repeated and in any order; so is news of entities, save that it is not lost.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from visp.bus import base as topics
from visp.bus.base import Handler, Unsubscribe
from visp.bus.memory import MemoryBus
from visp.bus.messages import ActivationMessage, Detached, Message, Ping, decode, encode


class SimBus:
    """`Bus` of one process. `late_s` is how late a message is in the mean; `note` hears of each, twice."""

    def __init__(self, chance: random.Random, late_s: float, note: Callable[[str], None]) -> None:
        self._chance = chance
        self._late_s = late_s
        self._note = note
        self._heard = MemoryBus()
        self._lines: dict[str, deque[bytes]] = {}

    def subscribe(self, topic: str, handler: Handler) -> Unsubscribe:
        return self._heard.subscribe(topic, handler)

    def publish(self, topic: str, message: Message) -> None:
        data = encode(message)
        self._note(f"publish {topic} {_text(message)}")
        chance = self._chance
        if topic in (topics.PINGS, topics.ENTITIES):
            copies = chance.choice((0, 1, 1, 1, 2)) if topic == topics.PINGS else chance.choice((1, 1, 1, 2))
            for _ in range(copies):
                asyncio.get_running_loop().call_later(self._delay(), self._deliver, topic, data)
        elif topic == topics.ACKS or isinstance(message, ActivationMessage):
            for _ in range(2 if topic == topics.ACKS and chance.random() < 0.1 else 1):
                self._queue(topic, data)
            if isinstance(message, ActivationMessage) and message.is_accepted and chance.random() < 0.1:
                asyncio.get_running_loop().call_later(self._delay() * 100, self._deliver, topic, data)
        else:
            if isinstance(message, Detached):
                while self._lines.get(topic):
                    self._next(topic)
            self._deliver(topic, data)

    def _queue(self, topic: str, data: bytes) -> None:
        """A line of what is on its way. Half of the time nothing is in the way."""
        line = self._lines.setdefault(topic, deque())
        if not line and self._chance.random() < 0.5:
            self._deliver(topic, data)
            return
        line.append(data)
        if topic == topics.ACKS:
            asyncio.get_running_loop().call_soon(self._next, topic)
        else:
            asyncio.get_running_loop().call_later(self._delay(), self._next, topic)

    def _next(self, topic: str) -> None:
        line = self._lines[topic]
        if line:
            if topic != topics.ACKS:
                line.rotate(self._chance.randrange(len(line)))
            self._deliver(topic, line.popleft())

    def _delay(self) -> float:
        return self._chance.expovariate(1 / self._late_s)

    def _deliver(self, topic: str, data: bytes) -> None:
        message = decode(data)
        self._note(f"hear {topic} {_text(message)}")
        self._heard.publish(topic, message)


def _text(message: Message) -> str:
    """A ping's list of actions has no order."""
    if isinstance(message, Ping):
        return f"Ping {message.used_mb} {message.waiting} {sorted(message.warm)}"
    head = getattr(message, "head", message)
    return f"{type(message).__name__} {getattr(head, 'id', '')}"
