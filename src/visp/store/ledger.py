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
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec

from visp.errors import Overloaded, ServiceError, StoreFull, StoreUnavailable
from visp.store import frames, segments
from visp.store.base import OpenWork
from visp.store.chain import Chain, end_process
from visp.store.entries import Entry, both, tell
from visp.store.frames import Type
from visp.store.replay import Replay
from visp.store.sweeper import Sweeper
from visp.store.unindexed import LOGS_LIMIT_S, Pending, Unindexed, length
from visp.telemetry import log
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from visp.clock import Clock
    from visp.entity.activation import ActivationRecord
    from visp.settings import Settings
    from visp.store.base import ActivationQuery, Then, Work
    from visp.store.index import SqliteActivations
    from visp.store.segments import Segment
    from visp.store.sweeper import OwnDays


P = ParamSpec("P")
T = TypeVar("T")

INLINE_LOGS_BYTES = 64 * 1024
"""Logs up to this lie in the `finished` entry itself; more are encoded off the loop and follow it."""
SYNC_EVERY_S = 1.0
INDEX_EVERY_S = 0.1
RETRY_S = 1.0
"""How long the index rests after it could not be written."""

UNINDEXED = "visp_ledger_unindexed_records"
UNINDEXED_BYTES = "visp_ledger_unindexed_bytes"
OPEN = "visp_ledger_open_works"


_ENDS = frozenset((Type.FINISHED, Type.ENDED))


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
        self._is_power_safe = settings.ledger.durability == "power"
        self._buffer: list[Entry] = []
        self._accepting: dict[str, Entry] = {}
        """Works of the buffer: of what begins in the turn in which it was accepted both are said by one frame."""
        self._owed: list[Entry] = []
        self._is_flush_due = False
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._found: list[OpenWork] = []
        self._unindexed = Unindexed(index, lambda: self._chain.end, clock)
        self._refusal: type[ServiceError] | None = None
        self._failure: type[ServiceError] | None = None
        self._is_index_full = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._chain = Chain(folder, settings.ledger.segment_bytes, self._thread, self._allocated)
        self.sweeper = Sweeper(
            chain=self._chain,
            index=index,
            retention=settings.retention,
            own_days=own_days,
            write_again=self._write_again,
            sync_all=self._sync_all,
            clock=clock,
        )
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
            self._loop.create_task(self.sweeper.run()),
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
        self._chain.close()
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
            self._chain.segments = replay.segments  # closed with the ledger, also when the reading ended half-way
        for id, held in replay.works.items():
            held.segment.open_ids.add(id)
            self._open[id] = _Open(held.segment, held.is_started)
            self._found.append(OpenWork(id, held.work.message, held.is_started, held.work.due_ms))
        for record, offset in replay.records.values():
            pending = Pending(record, self._clock.monotonic_s() - LOGS_LIMIT_S)
            pending.offset = offset
            self._unindexed.keep(pending)
        self._chain.begin(replay.segments)

    async def _reconcile(self, indexed_to: int) -> None:
        """After a power cut the index may know entries that the log has lost: their places will be taken by others."""
        first, end = self._chain.segments[0].base, self._chain.end
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
            record, then = None, both(lambda error: None if error else self._unindexed.tell(told), then)
            if not works:
                self._loop.call_soon(then, None)
                return
        pending = None
        if record is not None:
            pending = Pending(record, self._clock.monotonic_s())
        id = record.head.id if record is not None else works[0].id
        entry = Entry(Type.ACCEPTED, id, b"", b"", then, True, pending, works)
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
        self._append(Entry(Type.ENDED, id, b"", b"", None, False))

    def start(self, ids: Sequence[str], then: Then) -> None:
        last = len(ids) - 1
        for number, id in enumerate(ids):
            heard = then if number == last else None
            accepting = self._accepting.get(id)
            if accepting is None:
                self._append(Entry(Type.STARTED, id, b"", b"", heard, True))
            else:
                accepting.begin(id, heard)

    def finish(self, record: ActivationRecord, then: Then, *, is_synced: bool = False, is_kept: bool = True) -> None:
        if not is_kept:
            told = both(lambda error: None if error else self._unindexed.tell(record), then)
            self._append(Entry(Type.ENDED, record.head.id, b"", b"", told, is_synced))
            return
        late: tuple[str, ...] = ()
        if record.logs and record.has_all_logs and length(record.logs) > INLINE_LOGS_BYTES:
            late, record = record.logs, msgspec.structs.replace(record, logs=(), has_all_logs=False)
        pending = Pending(record, self._clock.monotonic_s())
        head = frames.finished_head(record)
        self._append(Entry(Type.FINISHED, record.head.id, head, record.result, then, is_synced, pending))
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

            self._append(Entry(Type.LOGS, id, done.result(), frames.logs_tail(collected_us), written, False))

        encoding.add_done_callback(encoded)

    def has_waiting(self, id: str) -> bool:
        work = self._open.get(id)
        return not work.is_started if work is not None else id in self._accepting

    def open_work(self) -> list[OpenWork]:
        found, self._found = self._found, []
        return found

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _append(self, entry: Entry) -> None:
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
                written = self._chain.write(entries)
            except segments.NotUndone as error:
                end_process("ledger.write_not_undone", error)
            except OSError as error:
                self._not_written(entries, error)
                return
            self._written(entries[:written])
            entries = entries[written:]

    def _written(self, entries: list[Entry]) -> None:
        is_sync_due = False
        for entry in entries:
            self._note(entry)
        for entry in entries:
            if entry.then is None:
                continue
            if entry.is_synced and self._is_power_safe:
                self._chain.when_synced(entry.then)
                is_sync_due = True
            else:
                tell(entry.then, None)
        if is_sync_due:
            self._chain.sync()
        limits = self._settings.ledger
        if (
            self._refusal is not None
            or self._chain.is_disk_full
            or len(self._unindexed) > limits.unindexed_records // 2
            or self._unindexed.size_bytes > limits.unindexed_bytes // 2
        ):
            self._judge()

    def _not_written(self, entries: list[Entry], error: OSError) -> None:
        log.error("ledger.write_failed", reason=str(error), entries=len(entries))
        self._failure = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable
        self._judge()
        self._owed += [entry for entry in entries if entry.is_owed or (entry.type in _ENDS and entry.id in self._open)]
        for entry in entries:
            if entry.then is not None and not entry.is_owed:
                then, entry.then = entry.then, None
                tell(then, self._failure())

    def _note(self, entry: Entry) -> None:
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
            work = _Open(self._chain.segments[-1], id in entry.started)
            if (copied := self._open.get(id)) is not None:
                copied.segment.open_ids.discard(id)
                work.is_started |= copied.is_started
            self._open[id] = work
            work.segment.open_ids.add(id)
        if entry.type is Type.STARTED and (begun := self._open.get(entry.id)) is not None:
            begun.is_started = True
        elif entry.type is Type.ENDED and (done := self._open.pop(entry.id, None)) is not None:
            done.segment.open_ids.discard(entry.id)

    def _allocated(self, error: BaseException | None) -> None:
        """There is room for another segment, or not."""
        if error is None:
            self._failure = None
        self._judge()
        if error is None:
            self._write_owed()

    def _write_owed(self) -> None:
        """Outcomes of accepted work that could not be written, for whoever has its id; and what follows from some."""
        owed, self._owed = self._owed, []
        for entry in owed:
            self._append(entry)

    def _judge(self) -> None:
        """Whether new work is refused, and why."""
        limits = self._settings.ledger
        segment = self._chain.segments[-1]
        if self._failure is not None:
            self._refusal = self._failure
        elif self._is_index_full or (self._chain.is_disk_full and segment.used > segment.size_bytes * 3 // 4):
            self._refusal = StoreFull
        elif len(self._unindexed) > limits.unindexed_records or self._unindexed.size_bytes > limits.unindexed_bytes:
            self._refusal = Overloaded
        else:
            self._refusal = None

    # ── syncing ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _sync_all(self) -> None:
        """Everything that was made so far is on disk when this returns, or its `then` knows why not."""
        self._flush()
        await self._chain.sync_all()

    async def _sync_on(self) -> None:
        while True:
            await self._clock.sleep(SYNC_EVERY_S)
            self._chain.sync()
            if self._chain.is_disk_full or self._failure is not None:
                self._chain.prepare_spare()

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

    def _write_again(self, found: Sequence[Sequence[Work]], segment: Segment) -> None:
        copies = [self._copy(works, segment) for works in found]
        # before what waits to be written: they say how things stood before that
        self._buffer[:0] = [copy for copy in copies if copy is not None]
        self._flush()

    def _copy(self, works: Sequence[Work], segment: Segment) -> Entry | None:
        """An entry of those that are still open; what had begun is said in it, so that both are kept or neither."""
        left = [work for work in works if work.id in segment.open_ids]
        if not left:
            return None
        started = tuple(work.id for work in left if self._open[work.id].is_started)
        return Entry(Type.ACCEPTED, left[0].id, b"", b"", None, False, None, left, started)

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
