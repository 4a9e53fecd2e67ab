"""The feed role: runs the sources that this process has the lease of, and fires their triggers by the public API.

A source is a task. What it hands over is fired as one batch, whose number goes with it: the controller fires each key
of a batch once, however often the batch comes. Then number and position are kept, and only after that the source goes
on. So what a crash cuts off is handed over again under the same number.

    leases ─▶ open sources ─▶ Watch.fire ─▶ POST triggers/T?keyed&batch=ID/N ─▶ advance(position, N)
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from visp.errors import ServiceError
from visp.feed.base import FeedRefused
from visp.feed.running import Running
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from visp.entity.feed import FeedEntry, Opened, Progress
    from visp.feed.kinds import Kinds
    from visp.feed.running import Surroundings

LEASE_S = 10.0
RENEW_S = 2.0
ALL_S = 60.0
"""Everything is looked at this often, should a change not have been heard of."""

Key = tuple[str, str]
"""Namespace and trigger."""


class Provider:
    """One for a process; `holder` names it among all that use the store."""

    def __init__(self, around: Surroundings, kinds: Kinds, unseal: Callable[[FeedEntry], Opened]) -> None:
        self._around = around
        self._kinds = kinds
        self._unseal = unseal
        self._running: dict[Key, Running] = {}
        self._unfit: dict[Key, FeedEntry] = {}
        """Feeds that cannot be opened here, as they were tried."""
        self._changed: set[Key] = set()
        self._news = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()

    def nudge(self, namespace: str, trigger: str) -> None:
        """A feed was made, changed or dropped."""
        self._changed.add((namespace, trigger))
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled: then what runs here ends, and is anybody's."""
        all_at_s = 0.0
        try:
            while True:
                now_s = self._around.clock.monotonic_s()
                self._news.clear()
                try:
                    await self._look(is_at_all=now_s >= all_at_s)
                    all_at_s = now_s + ALL_S if now_s >= all_at_s else all_at_s
                except ServiceError as error:
                    log.warning("feeds.not_leased", reason=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_S):
                        await self._news.wait()
        finally:
            await self._stop(list(self._running))
            for leaving in self._leaving:
                leaving.cancel()
            try:
                await self._around.store.release(self._around.holder)
            except ServiceError as error:
                log.warning("feeds.not_released", reason=str(error))

    async def _look(self, *, is_at_all: bool) -> None:
        """Runs what is to run here, as it is kept now, and nothing else: of all, or of what has changed."""
        around, now_ms = self._around, self._around.clock.now_ms()
        taken = await around.store.lease(around.holder, now_ms, now_ms + int(LEASE_S * 1000), around.shards)
        over = [key for key, running in self._running.items() if running.is_over]
        changed, self._changed = self._changed | {*taken, *over}, set()
        looked = None if is_at_all else changed
        if looked is not None and not looked:
            return
        try:
            held = await around.store.held(around.holder, looked)
        except ServiceError:
            self._changed |= changed
            raise
        wanted = {(entry.namespace, entry.trigger): (entry, progress) for entry, progress in held}
        seen = set(self._running) | set(self._unfit) if looked is None else looked
        for entry in await self._stop([key for key in seen if not self._is_right(key, wanted)]):
            leaving = asyncio.ensure_future(self._part(entry))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        for key in seen:
            if key not in wanted or self._unfit.get(key) != wanted[key][0]:
                self._unfit.pop(key, None)
        for key, (entry, progress) in wanted.items():
            if key not in self._running and key not in self._unfit:
                self._open(key, entry, progress)

    def _is_right(self, key: Key, wanted: dict[Key, tuple[FeedEntry, Progress]]) -> bool:
        """Whether what runs for a trigger, if anything does, is what is to run."""
        running = self._running.get(key)
        return running is None or (key in wanted and running.entry == wanted[key][0] and not running.is_over)

    def _open(self, key: Key, entry: FeedEntry, progress: Progress) -> None:
        try:
            kind, opened = self._kinds.find(entry.feed), self._unseal(entry)
        except (FeedRefused, ServiceError) as error:
            self._unfit[key] = entry
            log.error("feed.not_opened", feed=entry.feed, trigger="/".join(key), reason=str(error))
            return
        self._running[key] = Running(self._around, kind, opened, entry, progress)

    async def _stop(self, keys: Sequence[Key]) -> list[FeedEntry]:
        """Those whose sources ran."""
        stopped = [running for key in keys if (running := self._running.pop(key, None)) is not None]
        await asyncio.gather(*(running.stop() for running in stopped), return_exceptions=True)
        return [running.entry for running in stopped]

    async def _part(self, entry: FeedEntry) -> None:
        """Whoever deleted or changed a feed has taken away what it had made; its source may have made it once more."""
        try:
            kept = await self._around.store.feed(entry.namespace, entry.trigger)
        except ServiceError as error:
            log.warning("feed.trace_left", feed=entry.feed, trigger=entry.trigger, reason=str(error))
            return
        if kept is None or kept[0] != entry:
            await self._around.let_go(entry)

    def measured(self) -> dict[str, int]:
        """How many sources are in each state here."""
        counts: dict[str, int] = {}
        for running in self._running.values():
            counts[running.progress.state] = counts.get(running.progress.state, 0) + 1
        return counts
