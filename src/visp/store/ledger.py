"""The embedded ledger: an append-only, checksummed log of accepted work and records; SQLite is its index.

Entries made in one turn of the event loop are written by one `write` at its end. What must survive a power cut waits
for the next sync, which a thread does for all that wait (group commit). Records are readable from memory until they are
indexed. A sync that fails ends the process: what the kernel then holds is unknown, and only a replay tells the truth.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import msgspec

from visp.errors import Overloaded, ServiceError, StoreFull, StoreUnavailable
from visp.store import frames, segments
from visp.store.base import OpenWork
from visp.store.frames import Type
from visp.store.replay import Replay
from visp.store.unindexed import LOGS_LIMIT_S, Pending, Unindexed, length
from visp.telemetry import log
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from visp.clock import Clock
    from visp.entity.activation import ActivationRecord
    from visp.settings import Settings
    from visp.store.base import ActivationQuery, Then, Work
    from visp.store.index import SqliteActivations
    from visp.store.segments import Segment, Spare

    OwnDays = Callable[[], Awaitable[Mapping[str, float]]]
    """For how many days namespaces keep their records for which an operator has set it; 0: whatever their age."""

P = ParamSpec("P")
T = TypeVar("T")

INLINE_LOGS_BYTES = 64 * 1024
"""Logs up to this lie in the `finished` entry itself; more are encoded off the loop and follow it."""
SYNC_EVERY_S = 1.0
INDEX_EVERY_S = 0.1
TRIM_EVERY_S = 5.0
RETRY_S = 1.0
"""How long the index rests after it could not be written."""
PINNED_SEGMENTS = 4
"""An entry open for more segments than this is copied to the newest."""
EXIT_IO_ERROR = 74
DAY_MS = 86_400_000

UNINDEXED = "visp_ledger_unindexed_records"
UNINDEXED_BYTES = "visp_ledger_unindexed_bytes"
OPEN = "visp_ledger_open_works"


_ENDS = frozenset((Type.FINISHED, Type.ENDED))


class _Entry:
    """A frame to be written, and what follows when it is."""

    __slots__ = (
        "head",
        "id",
        "is_owed",
        "is_synced",
        "offset",
        "pending",
        "started",
        "tail",
        "then",
        "type",
        "works",
    )

    def __init__(
        self,
        type: Type,
        id: str,
        head: bytes,
        tail: bytes,
        then: Then | None,
        is_synced: bool,
        pending: Pending | None = None,
        works: Sequence[Work] = (),
        started: tuple[str, ...] = (),
    ) -> None:
        self.type = type
        self.id = id
        self.head = head
        self.tail = tail
        self.then = then
        self.is_synced = is_synced
        self.pending = pending
        self.works = works
        self.started = started
        self.offset = 0
        self.is_owed = False

    def begin(self, id: str, then: Then | None) -> None:
        """One of the works of this entry, which is not written yet, begins at once."""
        self.started += (id,)
        if then is not None:
            self.then = _both(self.then, then)

    def pack(self, synced_to: int) -> bytes:
        """The frame, as things stand when it is written."""
        head = self.head
        if self.type is Type.ACCEPTED:
            record = None if self.pending is None else self.pending.record
            head = frames.accepted_head(self.works, record, self.started)
        return frames.pack(self.type, self.id, synced_to, head, self.tail)


class _Open:
    """Accepted work without a record: the segment that holds its `accepted` entry."""

    __slots__ = ("is_started", "segment")

    def __init__(self, segment: Segment, is_started: bool = False) -> None:
        self.segment = segment
        self.is_started = is_started


class EmbeddedLedger:
    """`Ledger` and `ActivationStore` over a folder of segments and an index."""

    def __init__(
        self,
        folder: Path,
        index: SqliteActivations,
        settings: Settings,
        clock: Clock,
        own_days: OwnDays | None = None,
    ) -> None:
        self._folder = folder
        self.index = index
        self._settings = settings
        self._clock = clock
        self._own_days = own_days
        self._is_power_safe = settings.ledger.durability == "power"
        self._segments: list[Segment] = []
        self._spare: Spare | None = None
        self._buffer: list[_Entry] = []
        self._accepting: dict[str, _Entry] = {}
        """Works of the buffer: of what begins in the turn in which it was accepted both are said by one frame."""
        self._owed: list[_Entry] = []
        self._is_flush_due = False
        self._synced_to = 0
        self._to_sync: list[Then] = []
        self._is_syncing = False
        self._unsynced: list[Segment] = []
        self._is_folder_synced = False
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._found: list[OpenWork] = []
        self._unindexed = Unindexed(index, lambda: self._segments[-1].end, clock)
        self._refusal: type[ServiceError] | None = None
        self._failure: type[ServiceError] | None = None
        self._is_spare_asked = False
        self._is_disk_full = False
        self._is_index_full = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._sweeping = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._lock = -1
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop

    # ── start and stop ──────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Reads the log back. Raises `StoreUnavailable` when it is in use, damaged, or cannot be written."""
        self._loop = asyncio.get_running_loop()
        indexed_to = await self.index.indexed_to()
        try:
            await self._in_thread(self._replay, indexed_to)
            await self._reconcile(indexed_to)
        except BaseException as error:
            await self.index.close()
            self._release()
            if isinstance(error, OSError):
                raise StoreUnavailable(f"the ledger in {self._folder} cannot be used: {error.strerror}") from None
            raise
        self._tasks = [
            self._loop.create_task(self._sync_on()),
            self._loop.create_task(self._index_on()),
            self._loop.create_task(self._sweep_on()),
        ]

    async def close(self) -> None:
        """Writes and syncs what there is, and indexes it; from then on everything is refused."""
        if self._is_closed:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sync_all()
        self._unindexed.complete_all_logs()
        try:
            await self._unindexed.index_all()
        except ServiceError as error:
            log.error("ledger.not_indexed", reason=str(error))
        await self.index.close()
        self._release()

    def _release(self) -> None:
        self._is_closed = True
        self._thread.shutdown()
        for segment in self._segments:
            segment.close()
        if self._spare is not None:
            self._spare.remove()
        if self._lock >= 0:
            os.close(self._lock)

    def _replay(self, indexed_to: int) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        segments.sync_folder(self._folder.parent)
        segments.sync_folder(self._folder.parent.parent)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreUnavailable(
                f"another server uses {self._folder}: stop it, or choose another folder by --data-dir"
            ) from None
        replay = Replay(indexed_to)
        try:
            replay.read(self._folder)
        finally:
            self._segments = replay.segments  # closed with the ledger, also when the reading ended half-way
        for id, held in replay.works.items():
            held.segment.open_ids.add(id)
            self._open[id] = _Open(held.segment, held.is_started)
            self._found.append(OpenWork(id, held.work.message, held.is_started, held.work.due_ms))
        for record, offset in replay.records.values():
            pending = Pending(record, self._clock.monotonic_s() - LOGS_LIMIT_S)
            pending.offset = offset
            self._unindexed.keep(pending)
        if not self._segments:
            self._segments.append(
                segments.adopt(segments.allocate(self._folder, self._settings.ledger.segment_bytes), 0)
            )
        self._sync_segments(list(self._segments))
        self._synced_to = self._segments[-1].end

    async def _reconcile(self, indexed_to: int) -> None:
        """After a power cut the index may know entries that the log has lost: their places will be taken by others."""
        first, end = self._segments[0].base, self._segments[-1].end
        if not first <= indexed_to <= end:
            log.warning("ledger.index_differs", indexed_to=indexed_to, log_begins=first, log_ends=end)
        if indexed_to > end:
            await self.index.put([], end)
            await self.index.checkpoint()  # durable before anything is written at those places

    def measured(self) -> list[Family]:
        """How far the index is behind, and what was accepted and has not ended; for a scrape."""
        unindexed = self._unindexed
        return [
            Family(UNINDEXED, "Records in the log and not yet in the index.", "gauge", {(): len(unindexed)}),
            Family(UNINDEXED_BYTES, "Memory that those take.", "gauge", {(): unindexed.size_bytes}),
            Family(OPEN, "Accepted work without a record yet.", "gauge", {(): len(self._open)}),
        ]

    # ── Ledger ──────────────────────────────────────────────────────────────────────────────────────────────────

    def check_room(self) -> None:
        if self._refusal is not None:
            raise self._refusal  # a new one each time: an exception that is raised again collects its frames

    def accept(
        self,
        works: Sequence[Work],
        record: ActivationRecord | None,
        then: Then,
        *,
        is_owed: bool = False,
        is_kept: bool = True,
    ) -> None:
        if record is not None and not is_kept and not self.has_open(record.head.id):
            told = record  # it was given to nobody as work: there is nothing to write of it
            record, then = None, _both(lambda error: None if error else self._unindexed.tell(told), then)
            if not works:
                self._loop.call_soon(then, None)
                return
        pending = None
        if record is not None:
            pending = Pending(record, self._clock.monotonic_s())
        id = record.head.id if record is not None else works[0].id
        entry = _Entry(Type.ACCEPTED, id, b"", b"", then, True, pending, works)
        entry.is_owed = is_owed
        for work in works:
            self._accepting[work.id] = entry
        self._append(entry)

    def keep(self, works: Sequence[Work], then: Then) -> None:
        # what ended before is known to whoever calls, for its ack comes in the same turn, and to the log by its record
        ended = {entry.id for entry in self._buffer if entry.type is Type.ENDED}
        left = [work for work in works if work.id not in ended]
        if left:
            self.accept(left, None, then)
        else:
            self._loop.call_soon(then, None)

    def end(self, id: str) -> None:
        self._append(_Entry(Type.ENDED, id, b"", b"", None, False))

    def start(self, ids: Sequence[str], then: Then) -> None:
        last = len(ids) - 1
        for number, id in enumerate(ids):
            heard = then if number == last else None
            accepting = self._accepting.get(id)
            if accepting is None:
                self._append(_Entry(Type.STARTED, id, b"", b"", heard, True))
            else:
                accepting.begin(id, heard)

    def finish(self, record: ActivationRecord, then: Then, *, is_synced: bool = False, is_kept: bool = True) -> None:
        if not is_kept:
            told = _both(lambda error: None if error else self._unindexed.tell(record), then)
            self._append(_Entry(Type.ENDED, record.head.id, b"", b"", told, is_synced))
            return
        late: tuple[str, ...] = ()
        if record.logs and record.has_all_logs and length(record.logs) > INLINE_LOGS_BYTES:
            late, record = record.logs, msgspec.structs.replace(record, logs=(), has_all_logs=False)
        pending = Pending(record, self._clock.monotonic_s())
        head = frames.finished_head(record)
        self._append(_Entry(Type.FINISHED, record.head.id, head, record.result, then, is_synced, pending))
        if late:
            self.add_logs(record.head.id, late)

    def add_logs(self, id: str, logs: tuple[str, ...], collected_us: int | None = None) -> None:
        encoding = self._loop.run_in_executor(self._thread, frames.encode_msgpack, logs)

        def encoded(done: asyncio.Future[bytes]) -> None:
            pending = self._unindexed.find(id)
            if pending is None:
                return

            def written(_: Exception | None) -> None:
                self._unindexed.set_logs(pending, logs, collected_us)

            self._append(_Entry(Type.LOGS, id, done.result(), frames.logs_tail(collected_us), written, False))

        encoding.add_done_callback(encoded)

    def has_waiting(self, id: str) -> bool:
        work = self._open.get(id)
        return not work.is_started if work is not None else id in self._accepting

    def open_work(self) -> list[OpenWork]:
        found, self._found = self._found, []
        return found

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _append(self, entry: _Entry) -> None:
        self._buffer.append(entry)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Writes everything that this turn produced, then says so."""
        self._is_flush_due = False
        entries, self._buffer = self._buffer, []
        self._accepting.clear()
        while entries:
            try:
                written = self._write(entries)
            except segments.NotUndone as error:
                _end_process("ledger.write_not_undone", error)
            except OSError as error:
                self._not_written(entries, error)
                return
            self._written(entries[:written])
            entries = entries[written:]

    def _write(self, entries: list[_Entry]) -> int:
        """Writes as many as the segment has room for, by one write; how many. Raises `OSError`: none of them."""
        if self._is_closed:
            raise OSError(errno.EBADF, "the ledger is closed")
        segment = self._segments[-1]
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
        if self._spare is None and not self._is_disk_full and segment.used > segment.size_bytes // 2:
            self._prepare_spare()
        return len(parts)

    def _written(self, entries: list[_Entry]) -> None:
        is_sync_due = False
        for entry in entries:
            self._note(entry)
        for entry in entries:
            if entry.then is None:
                continue
            if entry.is_synced and self._is_power_safe:
                self._to_sync.append(entry.then)
                is_sync_due = True
            else:
                _tell(entry.then, None)
        if is_sync_due:
            self._sync()
        limits = self._settings.ledger
        if (
            self._refusal is not None
            or self._is_disk_full
            or len(self._unindexed) > limits.unindexed_records // 2
            or self._unindexed.size_bytes > limits.unindexed_bytes // 2
        ):
            self._judge()

    def _not_written(self, entries: list[_Entry], error: OSError) -> None:
        log.error("ledger.write_failed", reason=str(error), entries=len(entries))
        self._failure = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
        self._judge()
        self._owed += [entry for entry in entries if entry.is_owed or (entry.type in _ENDS and entry.id in self._open)]
        for entry in entries:
            if entry.then is not None and not entry.is_owed:
                then, entry.then = entry.then, None
                _tell(then, self._failure())

    def _note(self, entry: _Entry) -> None:
        """What a written entry means for what is in memory."""
        if entry.pending is not None:
            entry.pending.offset = entry.offset
            self._unindexed.keep(entry.pending)
            if (ended := self._open.pop(entry.id, None)) is not None:
                ended.segment.open_ids.discard(entry.id)
        for accepted in entry.works:
            id = accepted.id
            if id in self._unindexed:
                continue  # its caller was given up on in the turn in which it finished
            work = _Open(self._segments[-1], id in entry.started)
            if (copied := self._open.get(id)) is not None:
                copied.segment.open_ids.discard(id)
                work.is_started |= copied.is_started
            self._open[id] = work
            work.segment.open_ids.add(id)
        if entry.type is Type.STARTED and (begun := self._open.get(entry.id)) is not None:
            begun.is_started = True
        elif entry.type is Type.ENDED and (done := self._open.pop(entry.id, None)) is not None:
            done.segment.open_ids.discard(entry.id)

    def _next_segment(self, needed: int) -> Segment:
        """The segment after the present one. A frame larger than a segment gets one of its own size."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.size_bytes < needed:
            spare.remove()
            spare = None
        if spare is None:
            spare = segments.allocate(self._folder, max(needed, self._settings.ledger.segment_bytes))
        segment = segments.adopt(spare, self._segments[-1].end)
        self._segments.append(segment)
        self._is_folder_synced = False
        return segment

    def _prepare_spare(self) -> None:
        """Reserves the next segment's blocks beforehand: a full disk shows while there is room to finish."""
        if self._is_spare_asked:
            return
        self._is_spare_asked = True
        allocating = self._loop.run_in_executor(
            self._thread, segments.allocate, self._folder, self._settings.ledger.segment_bytes
        )

        def allocated(done: asyncio.Future[Spare]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            self._is_spare_asked = False
            self._is_disk_full = error is not None
            if error is not None:
                log.error("ledger.disk_full", folder=str(self._folder), reason=str(error))
            elif self._spare is None:
                self._spare, self._failure = done.result(), None
            else:  # it was asked for only to see whether there is room again
                done.result().remove()
                self._failure = None
            self._judge()
            if error is None:
                self._write_owed()

        allocating.add_done_callback(allocated)

    def _write_owed(self) -> None:
        """Outcomes of accepted work that could not be written, for whoever has its id; and what follows from some."""
        owed, self._owed = self._owed, []
        for entry in owed:
            self._append(entry)

    def _judge(self) -> None:
        """Whether new work is refused, and why."""
        limits = self._settings.ledger
        segment = self._segments[-1]
        if self._failure is not None:
            self._refusal = self._failure
        elif self._is_index_full or (self._is_disk_full and segment.used > segment.size_bytes * 3 // 4):
            self._refusal = StoreFull
        elif len(self._unindexed) > limits.unindexed_records or self._unindexed.size_bytes > limits.unindexed_bytes:
            self._refusal = Overloaded
        else:
            self._refusal = None

    # ── syncing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _sync(self) -> None:
        """Starts a sync for all that wait, unless one is under way: then the next one is for them."""
        if self._is_syncing or not (self._unsynced or self._to_sync):
            return
        self._is_syncing = True
        waiting, self._to_sync = self._to_sync, []
        dirty, self._unsynced = self._unsynced, []
        end = self._segments[-1].end
        syncing = self._loop.run_in_executor(self._thread, self._sync_segments, dirty)

        def synced(done: asyncio.Future[None]) -> None:
            if done.cancelled():
                return
            done.result()
            self._is_syncing = False
            self._synced_to = end
            for then in waiting:
                _tell(then, None)
            if self._to_sync:
                self._sync()

        syncing.add_done_callback(synced)

    async def _sync_all(self) -> None:
        """Everything that was made so far is on disk when this returns, or its `then` knows why not."""
        self._flush()
        done: asyncio.Future[None] = self._loop.create_future()
        self._to_sync.append(lambda _: None if done.cancelled() else done.set_result(None))
        self._sync()
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
            _end_process("ledger.sync_failed", error)

    async def _sync_on(self) -> None:
        while True:
            await self._clock.sleep(SYNC_EVERY_S)
            self._sync()
            if self._is_disk_full or self._failure is not None:
                self._prepare_spare()

    # ── the index ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _index_on(self) -> None:
        while True:
            await self._clock.sleep(INDEX_EVERY_S)
            try:
                await self._unindexed.index_all()
                self._is_index_full = False
            except Exception as error:  # it goes on: else records would pile up in memory
                log.exception("ledger.index_failed", records=len(self._unindexed))
                self._is_index_full = isinstance(error, StoreFull)
                self._judge()
                await self._clock.sleep(RETRY_S)
            else:
                self._judge()

    async def _sweep_on(self) -> None:
        """Removes old records, and more often segments that nothing needs any more: a start reads what is left."""
        every_s = self._settings.retention.every_s
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
        retention, now_ms = self._settings.retention, self._clock.now_ms()
        async with self._sweeping:
            try:
                own = {} if self._own_days is None else await self._own_days()
            except ServiceError as error:  # what some want to keep for longer must not go meanwhile
                log.error("ledger.retention_unknown", reason=str(error), action="no record goes for its age")
                removed = await self.index.sweep(None, retention.bytes)
            else:
                own_before_ms = {namespace: _before_ms(days, now_ms) for namespace, days in own.items()}
                removed = await self.index.sweep(_before_ms(retention.days, now_ms), retention.bytes, own_before_ms)
            await self._trim()
        return removed

    async def _trim(self) -> None:
        if len(self._segments) > 1:
            await self._copy_pinned()
            await self._remove_segments()

    async def _remove_segments(self) -> None:
        """A segment goes when all in it is terminal and its rows are durable in the index."""
        await self._sync_all()  # copies of entries among them
        indexed_to = await self.index.indexed_to()
        done = 0
        for segment in self._segments[:-1]:
            if segment.open_ids or segment.end > indexed_to or segment in self._unsynced:
                break
            done += 1
        if done and await self.index.checkpoint():
            for _ in range(done):
                await self._in_thread(_remove, self._segments.pop(0))

    async def _copy_pinned(self) -> None:
        """Entries that would keep old segments are written again at the end of the log."""
        for segment in self._segments[: -PINNED_SEGMENTS - 1]:
            if segment.open_ids:
                found = await asyncio.to_thread(_works_in, segment, frozenset(segment.open_ids))
                copies = [self._copy(works, segment) for works in found]
                # before what waits to be written: they say how things stood before that
                self._buffer[:0] = [copy for copy in copies if copy is not None]
                self._flush()

    def _copy(self, works: Sequence[Work], segment: Segment) -> _Entry | None:
        """An entry of those that are still open; what had begun is said in it, so that both are kept or neither."""
        left = [work for work in works if work.id in segment.open_ids]
        if not left:
            return None
        started = tuple(work.id for work in left if self._open[work.id].is_started)
        return _Entry(Type.ACCEPTED, left[0].id, b"", b"", None, False, None, left, started)

    # ── ActivationStore ─────────────────────────────────────────────────────────────────────────────────────────

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        pending = self._unindexed.find(id)
        if pending is None:
            return await self.index.get(namespace, id)
        if pending.record.head.namespace != namespace:
            return None
        return await self._unindexed.get(pending)

    def when_recorded(self, then: Callable[[ActivationRecord], None]) -> None:
        self._unindexed.when_kept(then)

    def has_open(self, id: str) -> bool:
        return id in self._open

    async def is_open(self, id: str) -> bool:
        return id in self._open

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        await self.flush()
        return await self.index.list(query)

    async def count(self, query: ActivationQuery) -> int:
        await self.flush()
        return await self.index.count(query)

    async def flush(self) -> None:
        """Brings what is complete into the index.

        A full disk keeps it out of lists, and nobody from reading the rest.
        """
        try:
            await self._unindexed.index_all()
        except StoreFull:
            log.warning("ledger.list_incomplete", records=len(self._unindexed))

    async def _in_thread(self, function: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
        return await self._loop.run_in_executor(self._thread, partial(function, *values, **named))


def _before_ms(days: float, now_ms: int) -> int | None:
    """What started earlier is too old; None when nothing is."""
    before_ms = now_ms - days * DAY_MS
    return round(before_ms) if days > 0 and before_ms > 0 else None


def _both(first: Then | None, second: Then) -> Then:
    def then(error: Exception | None) -> None:
        if first is not None:
            _tell(first, error)
        second(error)

    return then


def _tell(then: Then, error: Exception | None) -> None:
    """One that raises must not keep the others from hearing."""
    try:
        then(error)
    except Exception:
        log.exception("ledger.then_failed")


def _works_in(segment: Segment, ids: frozenset[str]) -> list[list[Work]]:
    """What the segment's `accepted` entries hold of these."""
    return [
        [work for work in frames.read_accepted(frame).works if work.id in ids]
        for frame in frames.scan(segments.load(segment), segment.base)
        if frame.type == Type.ACCEPTED
    ]


def _remove(segment: Segment) -> None:
    try:
        segment.remove()
    except OSError as error:
        if error.errno == errno.EIO:
            _end_process("ledger.sync_failed", error)
        raise


def _end_process(event: str, error: Exception) -> NoReturn:
    log.error(event, reason=str(error), action="the server ends; its next start replays the log")
    os._exit(EXIT_IO_ERROR)
