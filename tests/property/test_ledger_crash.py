"""The ledger on a disk that loses power: whatever was acknowledged as synced is there, and nothing is there twice.

A trace of operations runs on a real ledger whose calls to the disk are noted. From the notes an image of the disk is
made for any moment: what was synced is in it; of what was only written, each sector is there, is not there or is torn,
whatever the order of the writes was. A ledger is opened on the image and asked.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from visp import settings
from visp.clock import ManualClock
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.settings import Settings
from visp.store.base import ActivationQuery, Work
from visp.store.index import SqliteActivations
from visp.store.ledger import EmbeddedLedger

SEGMENT_BYTES = 4096
SECTOR = 512
SMALL = Settings(ledger=settings.Ledger(segment_bytes=SEGMENT_BYTES))
OPERATIONS = ("accept", "accept", "fire", "start", "start", "finish", "settle", "direct", "logs", "turn", "wait")
"""`settle` is a synced finish, `direct` one of work that was never accepted; `turn` ends a turn of the loop."""


class Written(msgspec.Struct):
    file: str
    at: int
    data: bytes


class Syncing(msgspec.Struct):
    file: str


class Synced(msgspec.Struct):
    """The sync that began at note number `since` has ended: what was written before that is durable."""

    file: str
    since: int


class Named(msgspec.Struct):
    file: str
    size_bytes: int


class Told(msgspec.Struct):
    """A `then` was called for these."""

    what: str
    ids: tuple[str, ...]


class Disk:
    """Notes, in their order, of what the ledger does to its folder. The folder itself is the file ``."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.notes: list[Written | Syncing | Synced | Named | Told] = []
        self._folder = str(folder)
        self._lock = threading.Lock()
        pwrite, rename = os.pwrite, os.rename

        def note_pwrite(descriptor: int, data: memoryview, at: int) -> int:
            length = pwrite(descriptor, data, at)
            self.note(Written(self._name(descriptor) or "", at, bytes(data[:length])))
            return length

        def note_rename(path: Path, to: Path) -> None:
            rename(path, to)
            self.note(Named(to.name, to.stat().st_size))

        patch.setattr(os, "pwrite", note_pwrite)
        patch.setattr(os, "rename", note_rename)
        patch.setattr(os, "fdatasync", self._noting(os.fdatasync))
        patch.setattr(os, "fsync", self._noting(os.fsync))

    def note(self, note: Written | Syncing | Synced | Named | Told) -> int:
        with self._lock:
            self.notes.append(note)
            return len(self.notes) - 1

    def _noting(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def noted(descriptor: int) -> None:
            name = self._name(descriptor)
            if name is None:
                return sync(descriptor)
            since = self.note(Syncing(name))
            sync(descriptor)
            self.note(Synced(name, since))
            return None

        return noted

    def _name(self, descriptor: int) -> str | None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return path[len(self._folder) :].strip("/") if path.startswith(self._folder) else None

    def image(self, moment: int, folder: Path, chance: random.Random | None) -> None:
        """The folder as a power cut after so many notes may leave it; without `chance`, as a kill does."""
        notes = self.notes[:moment]
        durable: dict[str, int] = {}
        for note in notes:
            if isinstance(note, Synced):
                durable[note.file] = max(durable.get(note.file, 0), note.since)
        files: dict[str, bytearray] = {}
        for number, note in enumerate(notes):
            if isinstance(note, Named):
                if chance is None or number < durable.get("", 0) or chance.random() < 0.7:
                    files[note.file] = bytearray(note.size_bytes)
            elif isinstance(note, Written) and note.file in files:
                is_whole = chance is None or number < durable.get(note.file, 0)
                for at, data in [(note.at, note.data)] if is_whole else _torn(note, chance):
                    files[note.file][at : at + len(data)] = data
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)


def _torn(note: Written, chance: random.Random | None) -> list[tuple[int, bytes]]:
    """What of each sector of a write that was not synced is on the disk."""
    assert chance is not None
    pieces, at, end = [], note.at, note.at + len(note.data)
    while at < end:
        upto = min(end, at - at % SECTOR + SECTOR)
        length = chance.choice((upto - at, upto - at, 0, chance.randrange(upto - at)))
        pieces.append((at, note.data[at - note.at :][:length]))
        at = upto
    return pieces


def id_of(number: int) -> str:
    return f"{1_700_000_000_000:012x}00{number:018x}"


def record(id: str, *, logs: tuple[str, ...] = (), has_all_logs: bool = True) -> ActivationRecord:
    head = ActivationHead(
        id=id, namespace="ns", subject="guest", name="hello", version="0.0.1", start_ms=5, path="ns/hello"
    )
    result = b'"' + b"x" * (int(id[14:], 16) * 37 % 700) + b'"'
    return ActivationRecord(head=head, result=result, logs=logs, has_all_logs=has_all_logs)


class Trace:
    """What was asked of the ledger, and at which note."""

    def __init__(self, ledger: EmbeddedLedger, disk: Disk) -> None:
        self._ledger = ledger
        self._disk = disk
        self._numbers = itertools.count()
        self._waiting = 0
        self._late: list[str] = []
        self._to_start: list[str] = []
        self._to_finish: list[str] = []
        self.asked: dict[tuple[str, str], int] = {}
        self.fires: dict[str, tuple[str, ...]] = {}

    async def run(self, operations: list[str]) -> None:
        for operation in operations:
            await getattr(self, f"_{operation}")()
        await self._wait()

    def _then(self, what: str, *ids: str) -> Callable[[Exception | None], None]:
        self._waiting += 1
        for id in ids:
            self.asked[what, id] = len(self._disk.notes)

        def told(error: Exception | None) -> None:
            assert error is None
            self._waiting -= 1
            self._disk.note(Told(what, ids))

        return told

    def _new(self) -> str:
        return id_of(next(self._numbers))

    def _works(self, count: int) -> list[Work]:
        works = [Work(self._new(), b"m" * 40) for _ in range(count)]
        self._to_start += [work.id for work in works]
        return works

    async def _accept(self) -> None:
        (work,) = works = self._works(1)
        self._ledger.accept(works, None, self._then("accept", work.id))

    async def _fire(self) -> None:
        trigger, works = self._new(), self._works(3)
        ids = tuple(work.id for work in works)
        self.fires[trigger] = ids
        self._ledger.accept(works, record(trigger), self._then("accept", *ids))

    async def _start(self) -> None:
        if self._to_start:
            id = self._to_start.pop(len(self._to_start) // 2)
            self._to_finish.append(id)
            self._ledger.start([id], self._then("start", id))

    async def _finish(self) -> None:
        if self._to_finish:
            id = self._to_finish.pop(len(self._to_finish) // 2)
            self._ledger.finish(record(id), self._then("finish", id))

    async def _settle(self) -> None:
        if self._to_finish:
            id = self._to_finish.pop()
            then = self._then("settle", id)
            self.asked["finish", id] = self.asked["settle", id]
            self._ledger.finish(record(id), then, is_synced=True)

    async def _direct(self) -> None:
        id = self._new()
        self._late.append(id)
        self._ledger.finish(record(id, has_all_logs=False), self._then("finish", id))

    async def _logs(self) -> None:
        if self._late:
            self._ledger.add_logs(self._late.pop(0), ("late",))

    async def _turn(self) -> None:
        await asyncio.sleep(0)

    async def _wait(self) -> None:
        async with asyncio.timeout(10):
            while self._waiting:  # noqa: ASYNC110 - the ledger's own thread ends it
                await asyncio.sleep(0)


async def check(trace: Trace, disk: Disk, moment: int, folder: Path, *, is_kill: bool, seed: int) -> None:
    """Opens what is left at this moment and compares it with what had been asked and answered by then."""
    disk.image(moment, folder / "ledger" / "0", None if is_kill else random.Random(seed))
    told = {(note.what, id) for note in disk.notes[:moment] if isinstance(note, Told) for id in note.ids}
    asked = {key for key, since in trace.asked.items() if since <= moment}
    ledger = await opened(folder)
    open_work = {work.id: work.is_started for work in ledger.open_work()}
    listed = [entry.head.id for entry in await ledger.list(ActivationQuery(namespace="ns", limit=10_000))]
    done = {id for id in listed if await matches(ledger, id)}
    await ledger.close()

    assert len(done) == len(listed), "an activation has two records"
    assert not done & set(open_work), "what is over is open"
    known = done | set(open_work)
    assert known <= {id for _, id in asked} | set(trace.fires), "there is what nobody asked for"
    for what, id in told:
        if what == "accept":
            assert id in known, "accepted work is lost"
        elif what == "start":
            assert open_work.get(id, True), "what was started would be started again"
        elif what == "settle" or is_kill:
            assert id in done, "an outcome is lost"
    for id, is_started in open_work.items():
        assert ("accept", id) in asked
        assert not is_started or ("start", id) in asked, "work that was not started would not be run"
    for id in done:
        assert ("finish", id) in asked or id in trace.fires
    for trigger, children in trace.fires.items():
        assert len({id in known for id in (trigger, *children)}) == 1, "a fire is there in part"


async def matches(ledger: EmbeddedLedger, id: str) -> bool:
    found = await ledger.get("ns", id)
    return found is not None and found.result == record(id).result


async def opened(folder: Path) -> EmbeddedLedger:
    index = await SqliteActivations.open(folder / "activations-0.db")
    ledger = EmbeddedLedger(folder / "ledger" / "0", index, SMALL, ManualClock())
    await ledger.open()
    return ledger


async def noted(folder: Path, operations: list[str]) -> tuple[Trace, Disk]:
    """Runs the operations on a new ledger."""
    (folder / "live").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(folder / "live" / "ledger" / "0", patch)
        ledger = await opened(folder / "live")
        trace = Trace(ledger, disk)
        await trace.run(operations)
        await ledger.close()
    return trace, disk


@pytest.mark.slow(reason="opens a ledger for each of thirty random crashes")
@given(
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=60, max_size=120),
    moment=st.floats(0, 1),
    is_kill=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
@effort(max_examples=30, deadline=None)
def test_a_crash_at_any_moment(operations: list[str], moment: float, is_kill: bool, seed: int) -> None:
    async def crash(folder: Path) -> None:
        trace, disk = await noted(folder, operations)
        await check(trace, disk, round(moment * len(disk.notes)), folder / "left", is_kill=is_kill, seed=seed)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(crash(Path(folder)))


@pytest.mark.slow(reason="a trace of 200 operations, and a ledger opened at each of its syncs")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.all)])
async def test_a_crash_at_every_sync(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    trace, disk = await noted(tmp_path, [chance.choice(OPERATIONS) for _ in range(200)])
    syncs = [number for number, note in enumerate(disk.notes) if isinstance(note, Synced)]
    assert len(syncs) > 20
    for moment in sorted({*syncs, *(sync + 1 for sync in syncs)}):  # its last moment; it is over and nobody knows
        await check(trace, disk, moment, tmp_path / str(moment), is_kill=False, seed=seed * moment)


async def test_after_a_crash_the_log_goes_on_and_can_crash_again(tmp_path: Path) -> None:
    for seed in range(8):
        chance, folder = random.Random(seed), tmp_path / str(seed)
        folder.mkdir()
        _, disk = await noted(folder, [chance.choice(OPERATIONS) for _ in range(60)])
        disk.image(chance.randrange(len(disk.notes)), folder / "left" / "ledger" / "0", chance)
        ledger = await opened(folder / "left")
        before = [(work.id, work.is_started) for work in ledger.open_work()]
        synced: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        ledger.accept([Work(id_of(10_000), b"m" * 40)], None, synced.set_result)
        assert await synced is None
        await ledger.close()
        again = await opened(folder / "left")
        assert [(work.id, work.is_started) for work in again.open_work()] == [*before, (id_of(10_000), False)]
        await again.close()
