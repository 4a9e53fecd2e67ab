"""How long a start takes that finds much in its ledger."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.measure import Finding, spread
from bench.server import platform
from bench.stock import RECORDS_FILE, Progress, begin, record
from visp.bus.messages import ActivationMessage, encode_task
from visp.clock import SystemClock
from visp.entity.activation import new_id
from visp.entity.subject import GUEST, GUEST_UUID
from visp.settings import Settings
from visp.store import frames, segments
from visp.store.base import Work
from visp.store.frames import Type
from visp.store.index import SqliteActivations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("recovery", "a start that reads a long ledger back: most has ended, a tenth of its entries waits to be run")
READY_S = 10.0


def measure(rig: Rig) -> Iterator[Finding]:
    entries = rig.records
    ready, ended = list[float](), list[float]()
    for _ in range(min(rig.rounds, 3)):
        with tempfile.TemporaryDirectory(prefix="visp-bench-", ignore_cleanup_errors=True) as folder:
            data_dir = Path(folder) / "data"
            begin(data_dir)
            asyncio.run(write_tail(data_dir, entries))
            began_s = time.perf_counter()
            with platform(data_dir=data_dir) as visp:
                ready.append(time.perf_counter() - began_s)
                visp.settle()
                ended.append(time.perf_counter() - began_s)
    took = spread(ready)
    yield Finding(
        goal=GOAL.name,
        what=f"{entries:,} entries, to ready",
        unit="s",
        ours=took,
        promise=f"< {READY_S:.0f} s",
        is_met=took.median < READY_S,
    )
    yield Finding(goal=GOAL.name, what=f"until {entries // 10:,} of them have run", unit="s", ours=spread(ended))


async def write_tail(data_dir: Path, entries: int) -> None:
    """Puts so many entries behind what the folder's ledger holds, as a server leaves them that is killed.

    As many records as a server may have are not in the index yet.
    """
    settings, clock = Settings(), SystemClock()
    tail = _Tail(data_dir / "ledger" / "0", settings.ledger.segment_bytes)
    waiting = entries // 10
    pairs = (entries - waiting) // 2
    progress, indexed_to = Progress("entries", entries), 0
    for number in range(pairs):
        if number == max(0, pairs - settings.ledger.unindexed_records):
            indexed_to = tail.end
        done = record(clock.now_ms(), number)
        tail.add(Type.ACCEPTED, done.head.id, _accepted(done.head.id, [done.head.id]))
        tail.add(Type.FINISHED, done.head.id, frames.finished_head(done), done.result)
        progress.show(2 * number)
    for number in range(waiting):
        id = new_id(clock.now_ms())
        tail.add(Type.ACCEPTED, id, _accepted(id, []))
        progress.show(2 * pairs + number + 1)
    tail.close()
    index = await SqliteActivations.open(data_dir / RECORDS_FILE)
    await index.put([], indexed_to)
    await index.close()


def _accepted(id: str, started: list[str]) -> bytes:
    message = ActivationMessage(
        id=id,
        transid="bench",
        namespace=GUEST,
        namespace_uuid=GUEST_UUID,
        subject=GUEST,
        action=f"{GUEST}/noop",
        revision=1,
        content=b"{}",
        received_ms=0,
        is_accepted=True,
    )
    return frames.accepted_head([Work(id, encode_task(message))], None, started)


class _Tail:
    """Segments, written by large pieces."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self._segment = segments.open_existing(folder)[-1]
        for frame in frames.scan(segments.load(self._segment), self._segment.base):
            self._segment.used = frame.end - self._segment.base
        self._parts: list[bytes] = []
        self._waiting = 0

    @property
    def end(self) -> int:
        return self._segment.end + self._waiting

    def add(self, type: Type, id: str, head: bytes, tail: bytes = b"") -> None:
        data = frames.pack(type, id, 0, head, tail)
        if self._segment.used + self._waiting + len(data) > self._segment.size_bytes:
            self.close()
            spare = segments.allocate(self._folder, self._size_bytes)
            self._segment = segments.adopt(spare, self._segment.end)
        self._parts.append(data)
        self._waiting += len(data)

    def close(self) -> None:
        """Writes what there is."""
        self._segment.write(b"".join(self._parts))
        self._segment.sync()
        self._segment.close()
        self._parts, self._waiting = [], 0
