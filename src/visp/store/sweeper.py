"""What leaves the log and its index: records that are too old or too many, and segments that nothing needs any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from visp.errors import ServiceError
from visp.store import frames, segments
from visp.store.frames import Type
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from visp.clock import Clock
    from visp.settings import Retention
    from visp.store.base import Work
    from visp.store.chain import Chain
    from visp.store.index import SqliteActivations
    from visp.store.segments import Segment

    OwnDays = Callable[[], Awaitable[Mapping[str, float]]]
    """For how many days namespaces keep their records for which an operator has set it; 0: whatever their age."""

TRIM_EVERY_S = 5.0
PINNED_SEGMENTS = 4
"""An entry open for more segments than this is copied to the newest."""
DAY_MS = 86_400_000


class Sweeper:
    """`write_again` writes works that are still open, of a segment, at the end of the log; `sync_all` all there is."""

    def __init__(
        self,
        *,
        chain: Chain,
        index: SqliteActivations,
        retention: Retention,
        own_days: OwnDays | None,
        write_again: Callable[[list[list[Work]], Segment], None],
        sync_all: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._chain = chain
        self._index = index
        self._retention = retention
        self._own_days = own_days
        self._write_again = write_again
        self._sync_all = sync_all
        self._clock = clock
        self._sweeping = asyncio.Lock()

    async def run(self) -> None:
        """Removes old records, and more often segments that nothing needs any more: a start reads what is left."""
        every_s = self._retention.every_s
        swept_s = self._clock.monotonic_s()
        while True:
            await self._clock.sleep(min(every_s, TRIM_EVERY_S))
            now_s = self._clock.monotonic_s()
            try:
                if now_s - swept_s >= every_s:
                    swept_s = now_s
                    await self.sweep()
                else:
                    async with self._sweeping:
                        await self._trim()
            except Exception:  # the next one may do better
                log.exception("ledger.sweep_failed")

    async def sweep(self) -> int:
        """One sweep; how many records were removed."""
        retention, now_ms = self._retention, self._clock.now_ms()
        async with self._sweeping:
            try:
                own = {} if self._own_days is None else await self._own_days()
            except ServiceError as error:  # what some want to keep for longer must not go meanwhile
                log.error("ledger.retention_unknown", reason=str(error), action="no record goes for its age")
                removed = await self._index.sweep(None, retention.bytes)
            else:
                own_before_ms = {namespace: _before_ms(days, now_ms) for namespace, days in own.items()}
                removed = await self._index.sweep(_before_ms(retention.days, now_ms), retention.bytes, own_before_ms)
            await self._trim()
        return removed

    async def _trim(self) -> None:
        if len(self._chain.segments) > 1:
            await self._copy_pinned()
            await self._remove_segments()

    async def _remove_segments(self) -> None:
        """A segment goes when all in it is terminal and its rows are durable in the index."""
        await self._sync_all()  # copies of entries among them
        indexed_to = await self._index.indexed_to()
        done = 0
        for segment in self._chain.segments[:-1]:
            if segment.open_ids or segment.end > indexed_to or not self._chain.is_durable(segment):
                break
            done += 1
        if done and await self._index.checkpoint():
            for _ in range(done):
                await self._chain.drop_first()

    async def _copy_pinned(self) -> None:
        """Entries that would keep old segments are written again at the end of the log."""
        for segment in self._chain.segments[: -PINNED_SEGMENTS - 1]:
            if segment.open_ids:
                found = await asyncio.to_thread(_works_in, segment, frozenset(segment.open_ids))
                self._write_again(found, segment)


def _before_ms(days: float, now_ms: int) -> int | None:
    """What started earlier is too old; None when nothing is."""
    before_ms = now_ms - days * DAY_MS
    return round(before_ms) if days > 0 and before_ms > 0 else None


def _works_in(segment: Segment, ids: frozenset[str]) -> list[list[Work]]:
    """What the segment's `accepted` entries hold of these."""
    return [
        [work for work in frames.read_accepted(frame).works if work.id in ids]
        for frame in frames.scan(segments.load(segment), segment.base)
        if frame.type == Type.ACCEPTED
    ]
