"""The segments of a log, one after another: the last is written, all are synced in order, and a spare lies ready.

A sync that fails ends the process: what the kernel then holds is unknown, and only a replay tells the truth.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, NoReturn

from visp.store import segments
from visp.store.entries import tell
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from pathlib import Path

    from visp.store.base import Then
    from visp.store.entries import Entry
    from visp.store.segments import Segment, Spare

EXIT_IO_ERROR = 74


class Chain:
    """`thread` does what waits for the disk, one thing after another; `allocated` hears how reserving blocks went."""

    def __init__(
        self, folder: Path, segment_bytes: int, thread: Executor, allocated: Callable[[BaseException | None], None]
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._thread = thread
        self._allocated = allocated
        self.segments: list[Segment] = []
        self._spare: Spare | None = None
        self.is_spare_asked = False
        self.is_disk_full = False
        self._synced_to = 0
        self._to_sync: list[Then] = []
        self._unsynced: list[Segment] = []
        self.is_syncing = False
        self._is_folder_synced = False
        self._is_closed = False

    @property
    def end(self) -> int:
        """The offset at which the log ends."""
        return self.segments[-1].end

    def begin(self, found: list[Segment]) -> None:
        """Goes on behind what was found; everything is durable then. Blocks; raises `OSError`."""
        self.segments = found
        if not found:
            found.append(segments.adopt(segments.allocate(self._folder, self._segment_bytes), 0))
        self._sync_segments(list(found))
        self._synced_to = self.end

    def close(self) -> None:
        """From now on nothing is written."""
        self._is_closed = True
        for segment in self.segments:
            segment.close()
        if self._spare is not None:
            self._spare.remove()

    def write(self, entries: list[Entry]) -> int:
        """Writes as many as the segment has room for, by one write; how many. Raises `OSError`: none of them."""
        if self._is_closed:
            raise OSError(errno.EBADF, "the ledger is closed")
        segment = self.segments[-1]
        synced_to, parts, size = self._synced_to, list[bytes](), 0
        for entry in entries:
            data = entry.pack(synced_to)
            if segment.used + size + len(data) > segment.size_bytes:
                if parts:
                    break
                segment = self._next_segment(len(data))
            entry.offset = segment.end + size
            parts.append(data)
            size += len(data)
        if segment not in self._unsynced:
            self._unsynced.append(segment)  # also of what fails: that it was undone must be on disk before what follows
        segment.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._spare is None and not self.is_disk_full and segment.used > segment.size_bytes // 2:
            self.prepare_spare()
        return len(parts)

    def _next_segment(self, needed: int) -> Segment:
        """The segment after the present one. A frame larger than a segment gets one of its own size."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.size_bytes < needed:
            spare.remove()
            spare = None
        if spare is None:
            spare = segments.allocate(self._folder, max(needed, self._segment_bytes))
        segment = segments.adopt(spare, self.segments[-1].end)
        self.segments.append(segment)
        self._is_folder_synced = False
        return segment

    def prepare_spare(self) -> None:
        """Reserves the next segment's blocks beforehand: a full disk shows while there is room to finish."""
        if self.is_spare_asked:
            return
        self.is_spare_asked = True
        allocating = asyncio.get_running_loop().run_in_executor(
            self._thread, segments.allocate, self._folder, self._segment_bytes
        )

        def allocated(done: asyncio.Future[Spare]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            self.is_spare_asked = False
            self.is_disk_full = error is not None
            if error is not None:
                log.error("ledger.disk_full", folder=str(self._folder), reason=str(error))
            elif self._spare is None:
                self._spare = done.result()
            else:  # it was asked for only to see whether there is room again
                done.result().remove()
            self._allocated(error)

        allocating.add_done_callback(allocated)

    def sync(self) -> None:
        """Starts a sync for all that wait, unless one is under way: then the next one is for them."""
        if self.is_syncing or not (self._unsynced or self._to_sync):
            return
        self.is_syncing = True
        waiting, self._to_sync = self._to_sync, []
        dirty, self._unsynced = self._unsynced, []
        end = self.end
        syncing = asyncio.get_running_loop().run_in_executor(self._thread, self._sync_segments, dirty)

        def synced(done: asyncio.Future[None]) -> None:
            if done.cancelled():
                return
            done.result()
            self.is_syncing = False
            self._synced_to = end
            for then in waiting:
                tell(then, None)
            if self._to_sync:
                self.sync()

        syncing.add_done_callback(synced)

    def when_synced(self, then: Then) -> None:
        """`then` is called by the sync that follows this."""
        self._to_sync.append(then)

    async def sync_all(self) -> None:
        """Everything that was written so far is on disk when this returns."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_synced(lambda _: None if done.cancelled() else done.set_result(None))
        self.sync()
        await done

    def _sync_segments(self, dirty: list[Segment]) -> None:
        """In order: an earlier segment is durable before a later one is said to be."""
        try:
            for segment in dirty:
                segment.sync()
            if not self._is_folder_synced:
                self._is_folder_synced = True  # before the sync: a segment that comes meanwhile needs another
                segments.sync_folder(self._folder)
        except OSError as error:
            end_process("ledger.sync_failed", error)

    def is_durable(self, segment: Segment) -> bool:
        """Whether all of a segment that is full is on disk."""
        return segment not in self._unsynced

    async def drop_first(self) -> None:
        """Removes the oldest segment."""
        await asyncio.get_running_loop().run_in_executor(self._thread, _remove, self.segments.pop(0))


def _remove(segment: Segment) -> None:
    try:
        segment.remove()
    except OSError as error:
        if error.errno == errno.EIO:
            end_process("ledger.sync_failed", error)
        raise


def end_process(event: str, error: Exception) -> NoReturn:
    """What was written may be lost: only a start tells."""
    log.error(event, reason=str(error), action="the server ends; its next start replays the log")
    os._exit(EXIT_IO_ERROR)
