"""What a shard has when there are others: links to them, and the ports whose implementations go through these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.bus import base as topics
from visp.bus.links import Links
from visp.bus.messages import EntityChanged
from visp.bus.unix import UnixBus
from visp.entitlement.leases import LeasedThrottle, Lent, Wanted
from visp.errors import Overloaded
from visp.store.shared import WRITER, BorrowedEntities, WrittenEntities

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from visp.bus.messages import Ping
    from visp.clock import Clock
    from visp.controller.acks import Acks
    from visp.controller.apis import Apis
    from visp.controller.identities import Identities
    from visp.scheduler.fleet import Fleet
    from visp.store.cache import EntityCache
    from visp.store.sqlite import SqliteEntities

TELL_S = 0.05

LEND = "throttle.lend"
SETTLE = "throttle.settle"

_encode = msgspec.msgpack.Encoder().encode
_decode_wanted = msgspec.msgpack.Decoder(Wanted).decode
_decode_lent = msgspec.msgpack.Decoder(Lent).decode
_decode_settled = msgspec.msgpack.Decoder(tuple[str, int]).decode


class Neighbours:
    """The other shards, as one sees them. The links stay closed until `join`."""

    def __init__(self, number: int, count: int, data_dir: Path, clock: Clock) -> None:
        self._number = number
        self._clock = clock
        self.links = Links(number, count, data_dir / "shards", clock)
        self.bus = UnixBus(self.links)
        self.throttle = LeasedThrottle(clock, number, count, _Counts(self.links))
        self._store: WrittenEntities | BorrowedEntities

    async def entities(self, path: Path) -> SqliteEntities:
        """The stores in this file, which one shard writes."""
        if self._number == WRITER:
            self._store = await WrittenEntities.open_shared(path, self.links)
        else:
            self._store = await BorrowedEntities.borrow(path, self.links)
        return self._store

    async def join(self, entities: EntityCache, apis: Apis, identities: Identities, acks: Acks, fleet: Fleet) -> None:
        """Opens the links: all that hears by them is there."""
        links, bus, throttle = self.links, self.bus, self.throttle

        def changed(id: str, revision: int) -> None:
            entities.heard(id, revision)
            apis.heard(id)
            bus.publish(topics.ENTITIES, EntityChanged(id, revision))

        def forget(peer: int) -> None:
            """Without a link to the writer, changes are missed."""
            if peer == WRITER:
                entities.clear()
                apis.clear()
                identities.forget()

        def lend(peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
            reply(_encode(throttle.lend(peer, _decode_wanted(body))))

        def settle(peer: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
            throttle.settled(peer, *_decode_settled(body))
            reply(b"")

        self._store.when_changed(changed)
        bus.when_lost(acks.lost)
        bus.when_lost(fleet.gone)
        links.when_down(throttle.lost)
        links.when_down(forget)
        links.when_up(forget)
        links.when_up(throttle.found)
        links.answer(LEND, lend)
        links.answer(SETTLE, settle)
        await links.open()

    async def arrive(self) -> None:
        """Until there is a link to every shard that this one calls; those that are down are not waited for long."""
        for peer in range(self._number):
            await self.links.wait_for(peer)

    async def tell(self, ping: Callable[[], Ping]) -> None:
        """Tells the others how the invoker here is, whenever that has changed: they look before each placement."""
        told: Ping | None = None
        while True:
            await self._clock.sleep(TELL_S)
            now = ping()
            if now != told:
                told = now
                self.bus.publish(topics.PINGS, now)


class _Counts:
    """`Lender` over the links."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def lend(self, home: int, wanted: Wanted) -> Lent:
        return _decode_lent(await self._links.ask(home, LEND, _encode(wanted)))

    def settle(self, home: int, namespace_uuid: str, places: int) -> None:
        try:
            self._links.ask_then(home, SETTLE, _encode((namespace_uuid, places)), _ignore)
        except Overloaded:
            self._links.drop(home)  # when it is up again, it is told how things stand


def _ignore(_: bytes | None) -> None:
    """A settlement that does not arrive is told again when the link is up."""
