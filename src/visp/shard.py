"""What one process of a server stands on: its bus, its stores, its counts; alone, or as a shard among others.

Alone everything is as plain as it can be: publishing is calling, the stores are this process's own. Among others the
same ports have implementations that go through links (`neighbours.py`); nobody above them knows which it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from visp.bus.base import Bus
from visp.bus.memory import MemoryBus
from visp.entitlement.throttle import Throttle
from visp.store.base import ActivationStore, Ledger
from visp.store.index import SqliteActivations
from visp.store.ledger import EmbeddedLedger
from visp.store.sqlite import SqliteEntities

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping
    from pathlib import Path

    from visp.clock import Clock
    from visp.neighbours import Neighbours
    from visp.settings import Settings
    from visp.store.base import SubjectStore
    from visp.store.sweeper import OwnDays

FIRST = 0
"""The shard that writes entities, does what is done once for the server, and keeps what no shard is there for."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """`own` is the process's own ledger, `ledger` what work is written to, `activations` where records are read.

    `ask` is given how the ledger learns whether an activation waits or runs here.
    """

    bus: Bus
    store: SqliteEntities
    own: EmbeddedLedger
    ledger: Ledger
    ask: Callable[[Callable[[str], bool]], None]
    activations: ActivationStore
    throttle: Throttle


def home_dir(data_dir: Path, number: int) -> Path:
    """The folder under whose name a shard's containers go: shards must not clean up behind one another."""
    return data_dir if number == FIRST else data_dir / "shards" / str(number)


@contextlib.asynccontextmanager
async def standing(
    settings: Settings,
    data_dir: Path,
    number: int,
    clock: Clock,
    neighbours: Neighbours | None,
    own_days: Callable[[SubjectStore], Awaitable[Mapping[str, float]]],
) -> AsyncIterator[Ground]:
    """Opens it all; what neighbours share is closed to them until they join.

    `own_days`: for how many days namespaces keep their records for which an operator has set it.
    """
    count = settings.workers
    async with contextlib.AsyncExitStack() as stack:
        entities = data_dir / "entities.db"
        store = await (SqliteEntities.open(entities) if neighbours is None else neighbours.entities(entities))
        stack.push_async_callback(store.close)
        left = left_behind(data_dir, count)
        ledgers: dict[int, EmbeddedLedger] = {}
        for shard in (number, *left) if number == FIRST else (number,):
            ledgers[shard] = await _open_ledger(settings, data_dir, shard, clock, partial(own_days, store))
            stack.push_async_callback(ledgers[shard].close)
        own = ledgers[number]
        ledger: Ledger = own
        ask: Callable[[Callable[[str], bool]], None] = _ignore
        activations: ActivationStore = own
        if neighbours is not None or left:
            from visp.store.gathered import GatheredActivations, RoutedLedger

            links = None if neighbours is None else neighbours.links
            ledger = routed = RoutedLedger(number, ledgers, count, links)
            ask = routed.ask
            activations = gathered = GatheredActivations(data_dir, ledgers, count, left, links)
            stack.push_async_callback(gathered.close)
        if neighbours is not None:
            stack.push_async_callback(neighbours.links.close)
        yield Ground(
            bus=MemoryBus() if neighbours is None else neighbours.bus,
            store=store,
            own=own,
            ledger=ledger,
            ask=ask,
            activations=activations,
            throttle=Throttle(clock) if neighbours is None else neighbours.throttle,
        )


def _ignore(_: object) -> None:
    """Of one ledger alone nobody asks."""


def left_behind(data_dir: Path, count: int) -> list[int]:
    """Shards of an earlier start that there are none for now, by their ledgers."""
    folder = data_dir / "ledger"
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted(number for number in numbers if number >= count)


async def _open_ledger(
    settings: Settings, data_dir: Path, shard: int, clock: Clock, own_days: OwnDays
) -> EmbeddedLedger:
    index = await SqliteActivations.open(data_dir / f"activations-{shard}.db")
    ledger = EmbeddedLedger(data_dir / "ledger" / str(shard), index, settings, clock, own_days)
    await ledger.open()
    return ledger
