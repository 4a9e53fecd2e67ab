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


class Provider:
    """One for a process; `holder` names it among all that use the store."""

    def __init__(self, around: Surroundings, kinds: Kinds, unseal: Callable[[FeedEntry], Opened]) -> None:
        self._around = around
        self._kinds = kinds
        self._unseal = unseal
        self._running: dict[tuple[str, str], Running] = {}
        self._unfit: dict[tuple[str, str], int] = {}
        """Feeds that cannot be opened here, with the mark of what was tried."""
        self._news = asyncio.Event()

    def nudge(self) -> None:
        """A feed was made, changed or dropped."""
        self._news.set()

    def standing(self, namespace: str, trigger: str) -> Progress | None:
        """How a feed stands now that runs here."""
        running = self._running.get((namespace, trigger))
        return None if running is None else running.progress

    async def run(self) -> None:
        """Until it is cancelled: then what runs here ends, and is anybody's."""
        try:
            while True:
                self._news.clear()
                try:
                    await self._look()
                except ServiceError as error:
                    log.warning("feeds.not_leased", reason=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_S):
                        await self._news.wait()
        finally:
            await self._stop(list(self._running))
            try:
                await self._around.store.release(self._around.holder)
            except ServiceError as error:
                log.warning("feeds.not_released", reason=str(error))

    async def _look(self) -> None:
        """Runs what is to run here, as it is kept now; no more than that."""
        around, now_ms = self._around, self._around.clock.now_ms()
        until_ms = now_ms + int(LEASE_S * 1000)
        leased = await around.store.lease(around.holder, now_ms, until_ms, around.shards)
        await self._stop(
            [key for key, running in self._running.items() if running.is_over or leased.get(key) != running.mark]
        )
        self._unfit = {key: mark for key, mark in self._unfit.items() if leased.get(key) == mark}
        if len(leased) > len(self._running) + len(self._unfit):
            for entry, progress in await around.store.held(around.holder):
                key = entry.namespace, entry.trigger
                if key in leased and key not in self._running and key not in self._unfit:
                    self._open(key, entry, progress, leased[key])
                    self._news.set()  # there may be more than are taken at once

    def _open(self, key: tuple[str, str], entry: FeedEntry, progress: Progress, mark: int) -> None:
        try:
            kind, opened = self._kinds.find(entry.feed), self._unseal(entry)
        except (FeedRefused, ServiceError) as error:
            self._unfit[key] = mark
            log.error("feed.not_opened", feed=entry.feed, trigger="/".join(key), reason=str(error))
            return
        self._running[key] = Running(self._around, kind, opened, entry, progress, mark)

    async def _stop(self, keys: Sequence[tuple[str, str]]) -> None:
        tasks = [running.stop() for key in keys if (running := self._running.pop(key, None)) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def measured(self) -> dict[str, int]:
        """How many sources are in each state here."""
        counts: dict[str, int] = {}
        for running in self._running.values():
            counts[running.progress.state] = counts.get(running.progress.state, 0) + 1
        return counts
