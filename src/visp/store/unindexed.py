"""Records that the log holds and the index does not have yet: readable by id, and indexed in groups beside the loop."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from visp import wording
from visp.entity.activation import with_logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.clock import Clock
    from visp.entity.activation import ActivationRecord
    from visp.store.index import SqliteActivations

INDEX_ROWS = 1_000
INDEX_BYTES = 8 * 1024 * 1024
"""What one group brings into the index: a larger one would make others wait, and hold its memory twice."""
LOGS_WAIT_S = 1.0
"""How long a reader waits for logs that are still coming."""
LOGS_LIMIT_S = 10.0
"""When they are said to be missing."""
HEAD_BYTES = 500
"""What a record takes in memory beside its result and logs."""


class Pending:
    """A record on its way into the index. `offset` is its entry's place in the log, once it is written."""

    __slots__ = ("offset", "record", "since_s", "size_bytes", "waiters")

    def __init__(self, record: ActivationRecord, since_s: float) -> None:
        self.record = record
        self.offset = 0
        self.since_s = since_s
        self.size_bytes = HEAD_BYTES + len(record.result) + length(record.logs)
        self.waiters: list[asyncio.Future[None]] = []


class Unindexed:
    """Bounded by the ledger, which refuses new work when there are too many."""

    def __init__(self, index: SqliteActivations, log_end: Callable[[], int], clock: Clock) -> None:
        self._index = index
        self._log_end = log_end
        self._clock = clock
        self._records: OrderedDict[str, Pending] = OrderedDict()
        self._indexing = asyncio.Lock()
        self._heard: list[Callable[[ActivationRecord], None]] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, id: str) -> bool:
        return id in self._records

    def keep(self, pending: Pending) -> None:
        """The record is in the log from now on."""
        id = pending.record.head.id
        if (earlier := self._records.pop(id, None)) is not None:
            self.size_bytes -= earlier.size_bytes
        self._records[id] = pending
        self.size_bytes += pending.size_bytes
        self.tell(pending.record)

    def tell(self, record: ActivationRecord) -> None:
        """Whoever waits for it hears of a record, kept or not."""
        for then in self._heard:
            then(record)

    def when_kept(self, then: Callable[[ActivationRecord], None]) -> None:
        """`then`, which never raises, hears of each record from now on."""
        self._heard.append(then)

    def set_logs(self, pending: Pending, logs: tuple[str, ...], collected_us: int | None = None) -> None:
        """The complete logs of a record; whoever waits for them goes on."""
        pending.record = with_logs(pending.record, logs, collected_us)
        more = length(logs)
        pending.size_bytes += more
        self.size_bytes += more
        for waiter in pending.waiters:
            if not waiter.done():
                waiter.set_result(None)
        pending.waiters.clear()

    def find(self, id: str) -> Pending | None:
        return self._records.get(id)

    async def get(self, pending: Pending) -> ActivationRecord:
        """The record, with logs that come within a second."""
        if not pending.record.has_all_logs:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            pending.waiters.append(waiter)
            await asyncio.wait([waiter], timeout=LOGS_WAIT_S)
        return pending.record

    def complete_all_logs(self) -> None:
        """Nothing more will come: logs that have not are said to be missing."""
        for pending in list(self._records.values()):
            self._complete_logs(pending)

    def _complete_logs(self, pending: Pending) -> None:
        if not pending.record.has_all_logs:
            self.set_logs(pending, (*pending.record.logs, wording.LOGS_INCOMPLETE))

    async def index_all(self) -> None:
        """Brings every record that was complete when this was called into the index."""
        last = next(reversed(self._records), None)
        async with self._indexing:
            while last is not None and last in self._records and await self._index_some():
                pass

    async def _index_some(self) -> bool:
        """Indexes the oldest complete records; whether there may be more."""
        now_s = self._clock.monotonic_s()
        batch: list[Pending] = []
        size_bytes = 0
        for pending in self._records.values():
            if len(batch) >= INDEX_ROWS or size_bytes >= INDEX_BYTES:
                break
            if not pending.record.has_all_logs and now_s - pending.since_s >= LOGS_LIMIT_S:
                self._complete_logs(pending)
            if pending.record.has_all_logs:
                batch.append(pending)
                size_bytes += pending.size_bytes
        if not batch:
            return False
        taken = {pending.record.head.id for pending in batch}
        left = next((p.offset for id, p in self._records.items() if id not in taken), None)
        records = [pending.record for pending in batch]
        await self._index.put(records, self._log_end() if left is None else left)
        for pending, record in zip(batch, records, strict=True):
            id = record.head.id
            if self._records.get(id) is pending and pending.record is record:  # else it got logs meanwhile
                del self._records[id]
                self.size_bytes -= pending.size_bytes
        return len(batch) >= INDEX_ROWS or size_bytes >= INDEX_BYTES


def length(logs: tuple[str, ...]) -> int:
    """Characters of all entries."""
    return sum(map(len, logs)) if logs else 0
