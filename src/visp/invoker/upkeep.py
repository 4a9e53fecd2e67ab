"""What is done to containers that nobody uses: they are paused, removed, and prepared. Part of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.invoker.job import Cold
from visp.invoker.prewarm import Cell, missing
from visp.invoker.slot import SlotEvent, State
from visp.telemetry import log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

    from visp.clock import Clock
    from visp.invoker.cell_demand import CellDemand
    from visp.invoker.keepalive import Policy
    from visp.invoker.shelf import Shelf
    from visp.invoker.slot import Key, Slot
    from visp.settings import Pool as PoolSettings

SWEEP_S = 0.5
REST_AFTER = 0.5
"""A container is told to rest after this part of the time after which it is paused."""
BACKOFF_S = 1.0
"""No stem cell is started for so long after one that failed."""


class Upkeep:
    """Looks at the idle slots twice a second.

    Of the pool it needs: `remove` ends a slot; `rest` has one give memory back; `prepare` runs what brings one up, as a
    task that is cut off at the end; `look` plans for whoever waits, and says whether anyone does; `is_calm` says that
    nobody does and the pool is open; `is_provided` that a key's containers stay.
    """

    def __init__(
        self,
        *,
        shelf: Shelf,
        settings: PoolSettings,
        policy: Policy,
        cell_demand: CellDemand,
        starts_limit: int,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        open_cell: Callable[[Slot], Awaitable[None]],
        remove: Callable[[Slot, Cold], object],
        rest: Callable[[Slot], None],
        prepare: Callable[[Coroutine[None, None, None]], None],
        look: Callable[[], bool],
        is_provided: Callable[[Key], bool],
        is_calm: Callable[[], bool],
    ) -> None:
        self._shelf = shelf
        self._settings = settings
        self._policy = policy
        self._cell_demand = cell_demand
        self._starts_limit = starts_limit
        self._clock = clock
        self._tasks = tasks
        self._open_cell = open_cell
        self._remove = remove
        self._rest = rest
        self._prepare = prepare
        self._look = look
        self._is_provided = is_provided
        self._is_calm = is_calm
        self._cells_blocked_until_s = 0.0

    async def sweep(self) -> None:
        """Runs as long as the invoker does."""
        while True:
            self.pause_and_remove()
            self.keep_cells()
            await self._clock.sleep(SWEEP_S)

    def pause_and_remove(self) -> None:
        """Of the idle ones: those whose time is over go, those that were used a while ago are paused."""
        now_s = self._clock.monotonic_s()
        for slot in list(self._shelf.idle()):
            assert slot.usage is not None
            assert slot.key is not None
            idle_s = now_s - slot.idle_since_s
            if idle_s > self._policy.keep_s(slot.usage, self._settings.idle_s) and not self._is_provided(slot.key):
                self._remove(slot, Cold.EXPIRED)
            elif slot.state is State.READY and idle_s > self._settings.pause_grace_s:
                self._shelf.unlist(slot)
                slot.on(SlotEvent.PAUSE)
                self._tasks.create_task(self._pause(slot))
            elif (
                slot.state is State.READY
                and idle_s > self._settings.pause_grace_s * REST_AFTER
                and slot.rested_s != slot.idle_since_s
            ):
                slot.rested_s = slot.idle_since_s
                self._rest(slot)

    async def _pause(self, slot: Slot) -> None:
        try:
            assert slot.container is not None
            await slot.container.pause()
        except Exception as error:  # whatever a driver raises: such a container is not kept
            log.warning("pool.pause_failed", slot=slot.id, reason=repr(error))
            self._remove(slot, Cold.ENDED)
            return
        if slot.state is State.PAUSING:
            slot.on(SlotEvent.PAUSED)
            assert slot.key is not None
            self._shelf.paused.setdefault(slot.key, []).append(slot)
            self._look()

    def keep_cells(self) -> None:
        """Starts the stem cells that lack, and ends those that nobody asks for any more. Work goes before it."""
        now_s = self._clock.monotonic_s()
        if now_s < self._cells_blocked_until_s or not self._is_calm():
            return
        counts, shelf = self._cell_demand.counts(now_s), self._shelf
        for cell, slots in list(shelf.cells.items()):
            for slot in slots[counts.get(cell, 0) :]:
                self._remove(slot, Cold.ENDED)
        for cell in missing(counts, shelf.cell_counts(), shelf.free_mb, self._starts_limit - shelf.starts(now_s)):
            slot = shelf.add(cell.kind, cell.memory_mb, None, now_s)
            self._prepare(self._start_cell(slot))

    def cell_failed(self) -> None:
        """One could not be started, or has ended by itself."""
        self._cells_blocked_until_s = self._clock.monotonic_s() + BACKOFF_S

    async def _start_cell(self, slot: Slot) -> None:
        began_s = self._clock.monotonic_s()
        try:
            await self._open_cell(slot)
        except Exception as error:  # whatever a driver raises: this cell is not to be
            log.warning("pool.cell_failed", slot=slot.id, kind=slot.kind, reason=repr(error))
            self.cell_failed()
            self._shelf.start_ended(slot)
            self._remove(slot, Cold.ENDED)
            self._look()
            return
        self._shelf.start_ended(slot)
        if slot.state is not State.STARTING:
            return
        self._shelf.cell_is_up(slot)
        self._cell_demand.started(Cell(slot.kind, slot.memory_mb), self._clock.monotonic_s() - began_s)
        if not self._look():
            self.keep_cells()
