"""The bus between the shards of one machine. Inside a shard publishing is calling, as in one process.

Where a message goes is in its topic: an invoker's to the invoker's shard, a ping and a changed feed to everyone, all
else stays here. The acks of an activation that another shard sent here go back to that shard, and so do the parts of
its result.

An outbox is full when a peer does not read: the peer is then taken for down, and whoever waits for it hears so by
`Links.when_down`. `publish` never raises.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp.bus import base as topics
from visp.bus.base import invoker_topic
from visp.bus.memory import MemoryBus
from visp.bus.messages import ActivationMessage, CompletionAck, Credit, Part, Ping, ResultAck, decode, encode
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.base import Handler, Unsubscribe
    from visp.bus.links import Links
    from visp.bus.messages import Message


class UnixBus:
    """`Bus` over the links of one shard."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._here = MemoryBus()
        self._routes = {invoker_topic(peer): peer for peer in range(links.count) if peer != links.own}
        self._own = invoker_topic(links.own)
        self._guests: dict[str, int] = {}
        """Activations that other shards have running here, and whose they are; bounded by what those have in flight."""
        self._ping: Ping | None = None
        self._lost: list[Callable[[int], None]] = []
        links.when_message(self._heard)
        links.when_up(self._up)
        links.when_down(self._down)

    def publish(self, topic: str, message: Message) -> None:
        peer = self._routes.get(topic)
        if peer is not None:
            if not self._links.send(peer, _pack(topic, message)):
                asyncio.get_running_loop().call_soon(self._down, peer)  # whoever waits is registered already
            return
        if topic == topics.ACKS and self._guests:
            assert isinstance(message, ResultAck | CompletionAck)
            if self._send_home(message):
                return
        elif topic == topics.PARTS:
            assert isinstance(message, Part)
            home = self._guests.get(message.id)
            if home is not None:
                self._links.send(home, _pack(topic, message))
                return
        elif topic == topics.PINGS:
            assert isinstance(message, Ping)
            self._ping = message
            for peer in self._links.up():
                self._links.send(peer, _pack(topic, message))
        elif topic == topics.FEEDS:
            for peer in self._links.up():
                self._links.send(peer, _pack(topic, message))
        self._here.publish(topic, message)

    def subscribe(self, topic: str, handler: Handler) -> Unsubscribe:
        return self._here.subscribe(topic, handler)

    def when_lost(self, then: Callable[[int], None]) -> None:
        """`then` hears of a shard that is gone, with all that was sent to it; perhaps more than once."""
        self._lost.append(then)

    def _send_home(self, ack: ResultAck | CompletionAck) -> bool:
        """Whether the ack is of another shard's activation."""
        id = ack.head.id if isinstance(ack, ResultAck) else ack.id
        home = self._guests.get(id)
        if home is None:
            return False
        if isinstance(ack, CompletionAck) or ack.is_complete:
            del self._guests[id]
        self._links.send(home, _pack(topics.ACKS, ack))
        return True

    def _heard(self, peer: int, data: bytes) -> None:
        end = 1 + data[0]
        topic = data[1:end].decode()
        try:
            message = decode(data[end:])
        except msgspec.DecodeError as error:
            log.error("bus.unreadable", peer=peer, topic=topic, reason=str(error))
            self._links.drop(peer)
            return
        if isinstance(message, ActivationMessage):
            self._guests[message.id] = peer
        self._here.publish(topic, message)

    def _up(self, peer: int) -> None:
        if self._ping is not None:
            self._links.send(peer, _pack(topics.PINGS, self._ping))

    def _down(self, peer: int) -> None:
        lost = [id for id, home in self._guests.items() if home == peer]
        for id in lost:
            del self._guests[id]
            self._here.publish(self._own, Credit(id, None))  # of parts, if there are any, nobody takes more
        for then in self._lost:
            then(peer)


def _pack(topic: str, message: Message) -> bytes:
    name = topic.encode()
    return b"%c%b%b" % (len(name), name, encode(message))
