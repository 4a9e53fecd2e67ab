"""The embedded ledger: what is on disk when, what is read back, what is refused, what goes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from visp import settings, wording
from visp.clock import ManualClock
from visp.entity.activation import ActivationHead, ActivationRecord, Phases
from visp.errors import Corrupt, Overloaded, ServiceError, StoreFull, StoreUnavailable
from visp.settings import Settings
from visp.store import frames, unindexed
from visp.store import ledger as module
from visp.store.base import ActivationQuery, Work
from visp.store.chain import EXIT_IO_ERROR
from visp.store.database import Database
from visp.store.index import ACTIVATION_MIGRATIONS, SqliteActivations
from visp.store.ledger import EmbeddedLedger
from visp.store.values import Values

if TYPE_CHECKING:
    from visp.store.ledger import OwnDays

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
ALL = ActivationQuery(namespace="ns", limit=200)
MESSAGE_BYTES = 100


class Home:
    """A data folder and the ledgers that were opened in it or in images of it."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder = folder
        self.clock = ManualClock(NOW_MS)
        self._stack = stack
        self._images = 0
        self.index: Database

    async def open(
        self, *, retention: settings.Retention | None = None, own_days: OwnDays | None = None, **options: object
    ) -> EmbeddedLedger:
        self.folder.mkdir(exist_ok=True)
        self.index = await Database.open(self.folder / "activations-0.db", ACTIVATION_MIGRATIONS, synchronous="NORMAL")
        tree = Settings(
            ledger=settings.Ledger(**{"segment_bytes": 64 * 1024} | options),  # type: ignore[arg-type]
            retention=retention or settings.Retention(),
        )
        values = Values(self.folder / "activations-0.values")
        values.prepare(lambda _: False)
        index = SqliteActivations(self.index, values)
        ledger = EmbeddedLedger(self.folder / "ledger" / "0", index, tree, self.clock, own_days)
        await ledger.open()
        self._stack.push_async_callback(ledger.close)
        return ledger

    def image(self) -> Home:
        """The folder as it is at this moment: what a kill would leave."""
        self._images += 1
        other = Home(self.folder.with_name(f"{self.folder.name}-{self._images}"), self._stack)
        shutil.copytree(self.folder, other.folder)
        return other

    def segments(self) -> list[Path]:
        return sorted((self.folder / "ledger" / "0").glob("*.seg"))

    def forget_index(self) -> None:
        for path in self.folder.glob("activations-0.db*"):
            path.unlink()


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with contextlib.AsyncExitStack() as stack:
        yield Home(tmp_path / "data", stack)


def id_of(number: int, ms: int = NOW_MS) -> str:
    return f"{ms:012x}{0:02x}{number:018x}"


def record(number: int, *, ms: int = NOW_MS, result: bytes = b"{}", logs: tuple[str, ...] = ()) -> ActivationRecord:
    head = ActivationHead(
        id=id_of(number, ms),
        namespace="ns",
        subject="guest",
        name="hello",
        version="0.0.1",
        start_ms=ms,
        path="ns/hello",
    )
    return ActivationRecord(head=head, result=result, logs=logs)


def heard() -> asyncio.Future[Exception | None]:
    return asyncio.get_running_loop().create_future()


async def answer(then: asyncio.Future[Exception | None]) -> Exception | None:
    async with asyncio.timeout(10):
        return await then


def accepting(ledger: EmbeddedLedger, *numbers: int, size: int = MESSAGE_BYTES) -> asyncio.Future[Exception | None]:
    then = heard()
    ledger.accept([Work(id_of(number), b"m" * size) for number in numbers], None, then.set_result)
    return then


def finishing(ledger: EmbeddedLedger, entry: ActivationRecord) -> asyncio.Future[Exception | None]:
    then = heard()
    ledger.finish(entry, then.set_result)
    return then


async def accept(ledger: EmbeddedLedger, *numbers: int, size: int = MESSAGE_BYTES) -> None:
    assert await answer(accepting(ledger, *numbers, size=size)) is None


async def start(ledger: EmbeddedLedger, *numbers: int) -> None:
    then = heard()
    ledger.start([id_of(number) for number in numbers], then.set_result)
    assert await answer(then) is None


async def finish(ledger: EmbeddedLedger, *records: ActivationRecord) -> None:
    for then in [finishing(ledger, entry) for entry in records]:
        assert await answer(then) is None


def found(ledger: EmbeddedLedger) -> dict[int, bool]:
    """Number → is_started of what is open."""
    return {int(work.id[14:], 16): work.is_started for work in ledger.open_work()}


async def listed(ledger: EmbeddedLedger) -> set[int]:
    return {int(entry.head.id[14:], 16) for entry in await ledger.list(ALL)}


def frames_of(path: Path) -> list[frames.Frame]:
    return list(frames.scan(path.read_bytes(), int(path.stem, 16)))


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip(path: Path, at: int, bit: int = 0) -> None:
    overwrite(path, at, bytes([path.read_bytes()[at] ^ 1 << bit]))


class Disk:
    """The calls by which the ledger reaches the disk: counted, and failing or held when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts = dict.fromkeys(("pwrite", "fdatasync", "posix_fallocate"), 0)
        self.errors: dict[str, int] = {}
        self.takes_zeros = False
        """Whether what was written can be undone all the same."""
        self.is_free = threading.Event()
        self.is_free.set()
        for name in self.counts:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def forget(self) -> None:
        """Counts from now on."""
        self.counts = dict.fromkeys(self.counts, 0)

    def _counted(self, name: str, call: object) -> object:
        def counted(*values: object) -> object:
            self.counts[name] += 1
            if name == "fdatasync":
                self.is_free.wait(10)
            is_undone = name == "pwrite" and self.takes_zeros and not any(values[1])  # type: ignore[call-overload]
            if name in self.errors and not is_undone:
                raise OSError(self.errors[name], os.strerror(self.errors[name]))
            return call(*values)  # type: ignore[operator]

        return counted


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def refusal(ledger: EmbeddedLedger) -> type[ServiceError] | None:
    """Why new work is refused at present."""
    try:
        ledger.check_room()
    except ServiceError as error:
        return type(error)
    return None


async def until(condition) -> None:
    """Lets the loop and the ledger's thread go on until `condition()` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is on disk or in the ledger's thread
            await asyncio.sleep(0.001)


# ── writing and syncing ─────────────────────────────────────────────────────────────────────────────────────────


async def test_many_fires_of_a_turn_are_one_write_and_one_sync(home: Home, disk: Disk) -> None:
    ledger = await home.open(durability="power")
    disk.forget()
    fired = [heard() for _ in range(100)]
    for number, then in enumerate(fired):
        ledger.accept([Work(id_of(1000 + number), b"m")], record(number), then.set_result)
    assert await asyncio.gather(*map(answer, fired)) == [None] * 100
    assert (disk.counts["pwrite"], disk.counts["fdatasync"]) == (1, 1)


async def test_accepted_work_is_acknowledged_after_the_sync_and_an_outcome_after_the_write(
    home: Home, disk: Disk
) -> None:
    ledger = await home.open(durability="power")
    disk.forget()
    disk.is_free.clear()
    accepted, finished, synced = accepting(ledger, 1), finishing(ledger, record(2)), heard()
    ledger.finish(record(3), synced.set_result, is_synced=True)
    assert await answer(finished) is None
    await until(lambda: disk.counts["fdatasync"])
    assert not accepted.done()
    assert not synced.done()
    assert await ledger.get("ns", id_of(3)) == record(3)  # readable, though not durable yet
    disk.is_free.set()
    assert await answer(accepted) is None
    assert await answer(synced) is None


async def test_with_durability_process_nothing_waits_for_a_sync(home: Home, disk: Disk) -> None:
    ledger = await home.open(durability="process")
    disk.forget()
    disk.is_free.clear()
    await accept(ledger, 1)
    await start(ledger, 1)
    assert disk.counts["fdatasync"] == 0
    disk.is_free.set()


async def test_what_comes_during_a_sync_shares_the_next(home: Home, disk: Disk) -> None:
    ledger = await home.open()
    disk.forget()
    disk.is_free.clear()
    first = accepting(ledger, 0)
    await until(lambda: disk.counts["fdatasync"])
    others = [accepting(ledger, number) for number in range(1, 50)]
    await asyncio.sleep(0)
    others += [accepting(ledger, number) for number in range(50, 100)]
    disk.is_free.set()
    for then in [first, *others]:
        assert await answer(then) is None
    assert disk.counts["fdatasync"] == 2


async def test_a_turn_of_the_loop_is_one_write(home: Home, disk: Disk) -> None:
    ledger = await home.open()
    disk.forget()
    thens = [finishing(ledger, record(number)) for number in range(20)]
    for then in thens:
        await answer(then)
    assert disk.counts["pwrite"] == 1


async def test_everything_is_synced_within_a_second(home: Home, disk: Disk) -> None:
    ledger = await home.open()
    disk.forget()
    await finish(ledger, record(1))
    assert disk.counts["fdatasync"] == 0
    home.clock.advance(module.SYNC_EVERY_S)
    await until(lambda: disk.counts["fdatasync"] == 1 and not ledger._chain.is_syncing)
    await accept(ledger, 2)
    (path,) = home.segments()
    first, last = frames_of(path)
    assert (first.synced_to, last.synced_to) == (0, first.end)


async def test_the_names_of_the_first_segment_and_its_folder_are_synced_at_start(home: Home, monkeypatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    await home.open()
    folder = home.folder / "ledger" / "0"
    assert synced[-1] == str(folder)
    assert {str(folder.parent), str(home.folder)} <= set(synced)


async def test_a_then_that_raises_keeps_no_other_from_hearing(home: Home) -> None:
    ledger = await home.open()

    def fail(error: Exception | None) -> None:
        raise RuntimeError("a mistake")

    ledger.finish(record(1), fail)
    second = finishing(ledger, record(2))
    ledger.accept([Work(id_of(3), b"")], None, fail)
    third = accepting(ledger, 4)
    assert await answer(second) is None
    assert await answer(third) is None
    await accept(ledger, 5)


async def test_a_closed_ledger_refuses(home: Home) -> None:
    ledger = await home.open()
    accepted = accepting(ledger, 1)
    await ledger.close()
    assert accepted.done()
    assert isinstance(await answer(accepting(ledger, 2)), StoreUnavailable)
    assert found(await home.open()) == {1: False}


SYNC_FAILS = """
import asyncio, os, sys
from pathlib import Path
from visp.clock import SystemClock
from visp.settings import Settings
from visp.store.base import Work
from visp.store.ledger import EmbeddedLedger
from visp.store.index import SqliteActivations

def fail(descriptor):
    raise OSError(5, "Input/output error")

async def main():
    folder = Path(sys.argv[1])
    index = await SqliteActivations.open(folder / "activations-0.db")
    ledger = EmbeddedLedger(folder / "ledger" / "0", index, Settings(), SystemClock())
    await ledger.open()
    os.fdatasync = fail
    ledger.accept([Work(sys.argv[2], b"m")], None, lambda error: print("answered", error, flush=True))
    await asyncio.sleep(30)

asyncio.run(main())
"""


async def test_a_sync_that_fails_ends_the_process_before_anything_is_acknowledged(home: Home) -> None:
    home.folder.mkdir()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SYNC_FAILS, str(home.folder), id_of(1)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == EXIT_IO_ERROR
    assert done.stdout == ""
    assert "ledger.sync_failed" in done.stderr
    assert found(await home.open()) == {1: False}  # the next start tells what the log holds


# ── reading back ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow(reason="opens the ledger once for each byte of two entries")
async def test_a_torn_tail_is_cut_at_every_byte(home: Home) -> None:
    ledger = await home.open(segment_bytes=4096)
    await accept(ledger, 1, size=3)
    accepting(ledger, 2, size=3)
    last = heard()
    ledger.start([id_of(1)], last.set_result)
    await answer(last)
    (path,) = home.segments()
    first, second, third = frames_of(path)
    assert max(second.synced_to, third.synced_to) <= first.end
    whole = path.read_bytes()
    image = home.image()
    (torn,) = image.segments()
    for length in range(first.end, third.end + 1):
        torn.write_bytes(whole[:length] + bytes(len(whole) - length))
        image.forget_index()
        again = await image.open(segment_bytes=4096)
        is_whole = {2: False} if length >= second.end else {}
        # the started entry ends in zeros, as does the file: those need not have been written
        assert found(again) == {1: whole[length : third.end] == bytes(third.end - length)} | is_whole
        await again.close()


@pytest.mark.slow(reason="opens the ledger once for each byte of two entries")
async def test_a_flipped_bit_before_synced_to_is_refused_wherever_it_is(home: Home) -> None:
    ledger = await home.open(segment_bytes=4096)
    await accept(ledger, 1, size=3)
    await start(ledger, 1)
    await accept(ledger, 3, size=3)
    (path,) = home.segments()
    *_, last_durable, _last = frames_of(path)
    image = home.image()
    (damaged,) = image.segments()
    for at in range(last_durable.end):
        flip(damaged, at, at % 8)
        with pytest.raises(StoreUnavailable, match=r"the ledger is damaged at byte \d+ of .*0\.seg: restore the data"):
            await image.open(segment_bytes=4096)
        flip(damaged, at, at % 8)
    assert found(await image.open(segment_bytes=4096)) == {1: True, 3: False}


async def test_a_flipped_bit_behind_synced_to_cuts(home: Home) -> None:
    ledger = await home.open()
    await accept(ledger, 1)
    for then in [accepting(ledger, 2), accepting(ledger, 3), accepting(ledger, 4)]:
        await answer(then)
    (path,) = home.segments()
    third = frames_of(path)[2]
    for at in (third.offset, third.offset + 5, third.offset + 20, third.end - 1):
        image = home.image()
        flip(image.segments()[0], at)
        assert found(await image.open()) == {1: False, 2: False}
        (cut,) = image.segments()
        assert cut.read_bytes()[third.offset :] == bytes(64 * 1024 - third.offset)


async def test_what_was_there_at_a_start_is_known_to_be_durable(home: Home) -> None:
    ledger = await home.open()
    await finish(ledger, record(1))  # written, not synced
    image = home.image()
    await finish(await image.open(), record(2))
    flip(image.segments()[0], 30)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await image.image().open()


async def test_old_entries_behind_a_cut_never_come_back(home: Home) -> None:
    ledger = await home.open()
    await accept(ledger, 1)
    for then in [accepting(ledger, 2), accepting(ledger, 3), accepting(ledger, 4)]:
        await answer(then)
    image = home.image()
    (path,) = image.segments()
    flip(path, frames_of(path)[1].offset + 40)
    again = await image.open()
    assert found(again) == {1: False}
    await accept(again, 5)  # as long as the second was: the third would follow it
    assert found(await image.image().open()) == {1: False, 5: False}


async def test_a_missing_middle_segment_is_refused(home: Home) -> None:
    ledger = await home.open(segment_bytes=1024)
    for number in range(30):
        await accept(ledger, number)
    image = home.image()
    middle = image.segments()[2]
    kept = middle.read_bytes()
    middle.unlink()
    with pytest.raises(StoreUnavailable, match="the ledger is damaged at byte"):
        await image.open()
    middle.write_bytes(kept)
    assert len(found(await image.open())) == 30


async def test_segments_that_were_never_synced_go_with_a_torn_end(home: Home) -> None:
    ledger = await home.open(segment_bytes=1024)
    await accept(ledger, 0)
    for then in [accepting(ledger, number) for number in range(1, 30)]:  # in one turn: one sync for all
        await answer(then)
    image = home.image()
    second = image.segments()[1]
    flip(second, 40)
    first_frames = frames_of(image.segments()[0])
    again = await image.open(segment_bytes=1024)
    assert set(found(again)) == set(range(len(first_frames)))
    assert image.segments() == [image.segments()[0], second]
    await accept(again, 99)
    assert 99 in found(await image.image().open())


async def test_a_whole_entry_of_a_newer_visp_is_refused_and_not_cut(home: Home) -> None:
    ledger = await home.open()
    await accept(ledger, 1)
    image = home.image()
    (path,) = image.segments()
    body = struct.pack("<BB16sQI", 9, 1, bytes(16), 0, 0)
    overwrite(path, frames_of(path)[-1].end, struct.pack("<II", len(body), zlib.crc32(body)) + body)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"cannot be read \(type 9, version 1\): was it written by a newer visp"):
        await image.open()
    assert path.read_bytes() == before


async def test_a_head_that_does_not_read_is_refused(home: Home) -> None:
    ledger = await home.open()
    await accept(ledger, 1)
    image = home.image()
    (path,) = image.segments()
    overwrite(path, frames_of(path)[-1].end, frames.pack(frames.Type.ACCEPTED, id_of(2), 0, b"\xff"))
    with pytest.raises(StoreUnavailable, match=r"cannot be read .*: was it written by a newer visp"):
        await image.open()


async def test_a_second_server_on_the_folder_is_refused(home: Home) -> None:
    ledger = await home.open()
    with pytest.raises(StoreUnavailable, match=r"another server uses .*: stop it, or choose another folder"):
        await home.open()
    await accept(ledger, 1)
    await ledger.close()
    assert found(await home.open()) == {1: False}


async def test_a_folder_that_cannot_be_read_is_refused_with_the_reason(home: Home) -> None:
    home.folder.mkdir()
    (home.folder / "ledger").touch()
    with pytest.raises(StoreUnavailable, match=r"the ledger in .* cannot be used: "):
        await home.open()


# ── segments ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("segment_bytes", [200, 1024, 5000])
async def test_the_log_rolls_over_segments_and_is_read_back_whole(home: Home, segment_bytes: int) -> None:
    ledger = await home.open(segment_bytes=segment_bytes)
    for number in range(0, 60, 3):
        await accept(ledger, number, number + 1)
        await start(ledger, number)
        await finish(ledger, record(number), record(number + 2, result=b'{"x":"%s"}' % (b"y" * number)))
    paths = home.segments()
    assert len(paths) > 2
    ends = [frames_of(path)[-1].end for path in paths]
    assert [int(path.stem, 16) for path in paths[1:]] == ends[:-1]
    image = home.image()
    image.forget_index()
    again = await image.open(segment_bytes=segment_bytes)
    assert found(again) == dict.fromkeys(range(1, 60, 3), False)
    assert await listed(again) == {*range(0, 60, 3), *range(2, 60, 3)}


async def test_an_entry_larger_than_a_segment_has_one_of_its_own(home: Home) -> None:
    ledger = await home.open(segment_bytes=1024)
    large = record(2, result=b'"' + b"x" * 10_000 + b'"')
    for then in [finishing(ledger, record(1)), finishing(ledger, large), finishing(ledger, record(3))]:
        assert await answer(then) is None
    image = home.image()
    image.forget_index()
    again = await image.open(segment_bytes=1024)
    assert await again.get("ns", id_of(2)) == large
    assert await listed(again) == {1, 2, 3}


async def test_a_burst_that_outruns_the_spare_segment_is_read_back_whole(home: Home, disk: Disk) -> None:
    ledger = await home.open(segment_bytes=2048)
    disk.forget()
    disk.is_free.clear()  # the thread is busy: it cannot bring the next segment in time
    thens = [accepting(ledger, 0)]
    await until(lambda: disk.counts["fdatasync"])
    for number in range(1, 100):
        thens.append(accepting(ledger, number))
        await asyncio.sleep(0)
    disk.is_free.set()
    for then in thens:
        assert await answer(then) is None
    assert set(found(await home.image().open(segment_bytes=2048))) == set(range(100))


async def fill(ledger: EmbeddedLedger, numbers: range) -> None:
    """Whole segments of records that are finished and indexed."""
    for number in numbers:
        await finish(ledger, record(number, result=b'"' + b"x" * 700 + b'"'))
    await ledger.list(ALL)


async def test_work_that_is_accepted_in_the_turn_in_which_it_ended_is_not_open(home: Home) -> None:
    """A caller was given up on just when its outcome came: nothing of it may run again."""
    ledger = await home.open()
    ended = heard()
    ledger.finish(record(1), ended.set_result)
    accepted = accepting(ledger, 1)
    assert (await answer(ended), await answer(accepted)) == (None, None)
    assert not any(segment.open_ids for segment in ledger._chain.segments)
    assert (await home.image().open()).open_work() == []


async def test_a_sweep_removes_segments_that_nothing_needs(home: Home) -> None:
    ledger = await home.open(segment_bytes=1024)
    await fill(ledger, range(10))
    assert len(home.segments()) > 5
    await ledger.sweeper.sweep()
    assert len(home.segments()) == 1
    await finish(ledger, record(100))
    again = await home.image().open(segment_bytes=1024)
    assert await listed(again) == {*range(10), 100}


async def test_segments_stay_until_the_index_has_their_records(home: Home) -> None:
    ledger = await home.open(segment_bytes=1024)
    late = msgspec.structs.replace(record(1), has_all_logs=False)
    await finish(ledger, late)
    await fill(ledger, range(2, 10))
    before = home.segments()
    await ledger.sweeper.sweep()
    assert home.segments() == before
    ledger.add_logs(id_of(1), ("late",))
    await ledger.get("ns", id_of(1))
    await ledger.list(ALL)
    await ledger.sweeper.sweep()
    assert len(home.segments()) == 1
    assert await ledger.get("ns", id_of(1)) == record(1, logs=("late",))


async def test_open_work_holds_its_segment_and_is_copied_when_that_is_old(home: Home) -> None:
    ledger = await home.open(segment_bytes=1024)
    await accept(ledger, 1001, 1002, 1003)
    await accept(ledger, 1004)
    await start(ledger, 1002, 1003)
    await finish(ledger, record(1003))
    await fill(ledger, range(2))
    first = home.segments()[0]
    await ledger.sweeper.sweep()
    assert first in home.segments()
    await fill(ledger, range(2, 10))
    await ledger.sweeper.sweep()
    assert first not in home.segments()
    assert found(await home.image().open(segment_bytes=1024)) == {1001: False, 1002: True, 1004: False}

    await start(ledger, 1001)
    await fill(ledger, range(10, 20))
    await ledger.sweeper.sweep()  # a copy of the copy
    await finish(ledger, record(1004))
    again = await home.image().open(segment_bytes=1024)
    assert found(again) == {1001: True, 1002: True}
    assert await listed(again) == {*range(20), 1003, 1004}

    await finish(ledger, record(1001), record(1002))
    await fill(ledger, range(20, 22))
    await ledger.sweeper.sweep()
    assert len(home.segments()) == 1
    assert found(await home.image().open(segment_bytes=1024)) == {}


async def test_a_copy_does_not_open_again_what_ends_at_the_same_time(home: Home, monkeypatch) -> None:
    ledger = await home.open(segment_bytes=1024)
    await accept(ledger, 1001, 1002)
    await fill(ledger, range(10))
    thens = []

    async def read_while_work_goes_on(function, *values: object) -> object:
        found = function(*values)
        then = heard()
        ledger.start([id_of(1002)], then.set_result)
        thens.extend((then, finishing(ledger, record(1001))))  # not written yet when the copies are made
        return found

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "to_thread", read_while_work_goes_on)
        await ledger.sweeper.sweep()
    for then in thens:
        assert await answer(then) is None
    await fill(ledger, range(10, 20))
    await ledger.sweeper.sweep()
    assert found(await home.image().open(segment_bytes=1024)) == {1002: True}


async def test_sweeps_at_the_same_time_remove_nothing_twice(home: Home) -> None:
    ledger = await home.open(segment_bytes=1024)
    await accept(ledger, 1001)
    await fill(ledger, range(12))
    await asyncio.gather(*(ledger.sweeper.sweep() for _ in range(3)))
    await accept(ledger, 1002)
    again = await home.image().open(segment_bytes=1024)
    assert found(again) == {1001: False, 1002: False}
    assert await listed(again) == set(range(12))


async def test_a_close_during_a_sweep_loses_nothing(home: Home) -> None:
    retention = settings.Retention(every_s=5.0)
    ledger = await home.open(segment_bytes=1024, retention=retention)
    await accept(ledger, 1001)
    await fill(ledger, range(12))
    await asyncio.sleep(0)
    home.clock.advance(5.0)
    await until(lambda: len(home.segments()) < 8)  # it has begun to remove
    await ledger.close()
    again = await home.open(segment_bytes=1024)
    assert found(again) == {1001: False}
    assert await listed(again) == set(range(12))


async def test_a_sweep_removes_records_by_age(home: Home) -> None:
    ledger = await home.open(retention=settings.Retention(days=2.0))
    await finish(ledger, *(record(number, ms=NOW_MS - number * DAY_MS) for number in range(5)))
    assert await listed(ledger) == set(range(5))
    assert await ledger.sweeper.sweep() == 2
    assert await listed(ledger) == {0, 1, 2}
    assert await ledger.get("ns", id_of(4, NOW_MS - 4 * DAY_MS)) is None
    assert await ledger.sweeper.sweep() == 0


@pytest.mark.parametrize(
    ("own", "kept"), [(1.0, 2), (0.5, 1), (3.0, 4), (0.0, 5), (1e300, 5), (None, 3)], ids=lambda value: str(value)
)
async def test_a_namespace_may_have_a_retention_of_its_own(home: Home, own: float | None, kept: int) -> None:
    async def own_days() -> dict[str, float]:
        return {"elsewhere": 0.1} if own is None else {"ns": own}

    ledger = await home.open(retention=settings.Retention(days=2.0), own_days=own_days)
    await finish(ledger, *(record(number, ms=NOW_MS - number * DAY_MS) for number in range(5)))
    assert await listed(ledger) == set(range(5))
    assert await ledger.sweeper.sweep() == 5 - kept
    assert await listed(ledger) == set(range(kept))


async def test_each_sweep_asks_for_how_long_namespaces_keep_their_records(home: Home) -> None:
    days: dict[str, float] = {}
    errors: list[Exception] = [Corrupt()]

    async def own_days() -> dict[str, float]:
        if errors:
            raise errors.pop()
        return days

    ledger = await home.open(retention=settings.Retention(days=2.0), own_days=own_days)
    await finish(ledger, *(record(number, ms=NOW_MS - number * DAY_MS) for number in range(5)))
    assert await listed(ledger) == set(range(5))
    assert await ledger.sweeper.sweep() == 0  # not known: nothing goes
    assert await ledger.sweeper.sweep() == 2
    days["ns"] = 1.0
    assert await ledger.sweeper.sweep() == 1
    assert await listed(ledger) == {0, 1}


async def test_a_namespace_that_keeps_its_records_does_not_keep_them_from_the_bound_of_bytes(home: Home) -> None:
    async def own_days() -> dict[str, float]:
        return {"ns": 0.0}

    ledger = await home.open(retention=settings.Retention(days=2.0, bytes=1), own_days=own_days)
    await finish(ledger, record(1))
    assert await listed(ledger) == {1}
    assert await ledger.sweeper.sweep() == 1


async def test_a_sweep_removes_the_oldest_records_beyond_a_size(home: Home) -> None:
    ledger = await home.open(retention=settings.Retention(days=0.0, bytes=1_500_000))
    numbers = range(2500)
    await finish(
        ledger,
        *(record(number, ms=NOW_MS - 100 * DAY_MS + number, result=b'"' + b"x" * 500 + b'"') for number in numbers),
    )
    await ledger.list(ALL)
    removed = await ledger.sweeper.sweep()
    assert removed in (1000, 2000)
    assert await ledger.count(ALL) == 2500 - removed
    assert await ledger.get("ns", id_of(removed - 1, NOW_MS - 100 * DAY_MS + removed - 1)) is None
    assert await ledger.get("ns", id_of(removed, NOW_MS - 100 * DAY_MS + removed)) is not None


async def test_without_bounds_records_are_kept(home: Home) -> None:
    ledger = await home.open(retention=settings.Retention(days=0.0, bytes=0))
    await finish(ledger, record(1, ms=1))
    assert await ledger.sweeper.sweep() == 0
    assert await listed(ledger) == {1}


# ── a disk that is full or fails ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreUnavailable)]
)
async def test_a_write_that_fails_is_told_and_new_work_refused_until_it_succeeds(
    home: Home, disk: Disk, number: int, expected: type[ServiceError]
) -> None:
    ledger = await home.open()
    await accept(ledger, 1)
    await finish(ledger, record(2))
    disk.errors, disk.takes_zeros = {"pwrite": number, "posix_fallocate": number}, True
    refused = [accepting(ledger, 3), finishing(ledger, record(4))]
    for then in refused:
        assert isinstance(await answer(then), expected)
    for _ in range(2):
        with pytest.raises(expected):
            ledger.check_room()
    assert await ledger.get("ns", id_of(2)) == record(2)  # reads go on
    assert await ledger.get("ns", id_of(4)) is None

    tries = disk.counts["posix_fallocate"]
    home.clock.advance(module.SYNC_EVERY_S)
    await until(lambda: disk.counts["posix_fallocate"] > tries and not ledger._chain.is_spare_asked)
    with pytest.raises(expected):
        ledger.check_room()

    disk.errors = {}
    home.clock.advance(module.SYNC_EVERY_S)
    await until(lambda: refusal(ledger) is None)
    ledger.check_room()
    await accept(ledger, 5)
    again = await home.image().open()
    assert found(again) == {1: False, 5: False}
    assert await listed(again) == {2}


async def test_an_outcome_of_accepted_work_is_written_once_there_is_room_again(home: Home, disk: Disk) -> None:
    ledger = await home.open()
    await accept(ledger, 1)
    disk.errors = {"pwrite": errno.ENOSPC, "posix_fallocate": errno.ENOSPC}
    for then in [finishing(ledger, record(1)), finishing(ledger, record(2))]:
        assert isinstance(await answer(then), StoreFull)
    assert await ledger.get("ns", id_of(1)) is None
    disk.errors = {}
    home.clock.advance(module.SYNC_EVERY_S)
    await until(lambda: refusal(ledger) is None)
    await until(lambda: id_of(1) in ledger._unindexed)
    assert await ledger.get("ns", id_of(1)) == record(1)
    assert await ledger.get("ns", id_of(2)) is None  # its caller was told: nobody has its id
    again = await home.image().open()
    assert (found(again), await listed(again)) == ({}, {1})


async def test_without_a_next_segment_work_under_way_ends_and_new_work_is_refused(home: Home, disk: Disk) -> None:
    ledger = await home.open(segment_bytes=8192)
    disk.errors = {"posix_fallocate": errno.ENOSPC}
    number = 0
    while refusal(ledger) is None:
        ledger.check_room()
        await finish(ledger, record(number))
        await until(lambda: not ledger._chain.is_spare_asked)  # the thread has said whether there is room
        number += 1
    with pytest.raises(StoreFull):
        ledger.check_room()
    await finish(ledger, record(1000))  # there is room for what is under way
    (path,) = home.segments()
    assert frames_of(path)[-1].end > 8192 * 3 // 4
    disk.errors = {}
    home.clock.advance(module.SYNC_EVERY_S)
    await until(lambda: refusal(ledger) is None)
    for more in range(2000, 2050):
        await finish(ledger, record(more))
    assert await listed(await home.image().open(segment_bytes=8192)) == {*range(number), 1000, *range(2000, 2050)}


async def test_a_refusal_is_a_new_exception_each_time(home: Home, disk: Disk) -> None:
    ledger = await home.open()
    disk.errors = {"pwrite": errno.ENOSPC}
    await answer(accepting(ledger, 1))
    raised = []
    for _ in range(3):
        try:
            ledger.check_room()
        except StoreFull as error:
            raised.append(error)
    assert len(set(map(id, raised))) == 3  # one that is raised again collects the frames of all who raised it
    disk.errors = {}


async def test_a_part_of_a_failed_write_is_not_read_back(home: Home, monkeypatch) -> None:
    ledger = await home.open()
    await accept(ledger, 1)
    pwrite, pieces = os.pwrite, iter([2 * (MESSAGE_BYTES + 100)])  # some whole entries, then the disk is full

    def fail_after_a_piece(descriptor: int, data: memoryview, at: int) -> int:
        if not any(data):
            return pwrite(descriptor, data, at)
        length = next(pieces, None)
        if length is None:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(descriptor, data[:length], at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail_after_a_piece)
        for then in [accepting(ledger, 2), accepting(ledger, 3), accepting(ledger, 4)]:
            assert isinstance(await answer(then), StoreFull)
    assert found(await home.image().open()) == {1: False}
    await accept(ledger, 5)
    assert found(await home.image().open()) == {1: False, 5: False}


async def test_records_that_are_not_indexed_are_bounded(home: Home) -> None:
    ledger = await home.open(unindexed_records=10)
    await finish(ledger, *(record(number) for number in range(10)))
    ledger.check_room()
    await finish(ledger, record(10))
    with pytest.raises(Overloaded):
        ledger.check_room()
    home.clock.advance(module.INDEX_EVERY_S)
    await until(lambda: refusal(ledger) is None)
    assert await listed(ledger) == set(range(11))


async def test_their_bytes_are_bounded(home: Home) -> None:
    ledger = await home.open(unindexed_bytes=100_000)
    await finish(ledger, record(1, result=b'"' + b"x" * 60_000 + b'"'))
    ledger.check_room()
    await finish(ledger, record(2, result=b'"' + b"x" * 60_000 + b'"'))
    with pytest.raises(Overloaded):
        ledger.check_room()
    home.clock.advance(module.INDEX_EVERY_S)
    await until(lambda: refusal(ledger) is None)


async def test_a_full_index_refuses_new_work_and_loses_nothing(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    ledger = await home.open()
    await home.index.write(lambda db: db.execute("PRAGMA max_page_count=1").fetchone())
    (pages,) = await home.index.write(lambda db: db.execute("PRAGMA max_page_count").fetchone())
    await finish(ledger, *(record(number, result=b'"' + b"x" * 5000 + b'"') for number in range(20)))
    home.clock.advance(module.INDEX_EVERY_S)
    await until(lambda: refusal(ledger) is StoreFull)
    assert await ledger.get("ns", id_of(7)) is not None
    await home.index.write(lambda db: db.execute(f"PRAGMA max_page_count={pages + 1000}").fetchone())

    def is_room() -> bool:
        home.clock.advance(module.INDEX_EVERY_S)
        return refusal(ledger) is None

    await until(is_room)
    assert await listed(ledger) == set(range(20))


# ── the index ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_index_that_knows_more_than_the_log_does_not_hide_what_is_written_next(home: Home) -> None:
    """A power cut may take entries from the log that the index, synced by its own rules, has kept."""
    ledger = await home.open()
    await accept(ledger, 1)
    await finish(ledger, *(record(number) for number in range(2, 30)))
    await ledger.list(ALL)  # indexed
    image = home.image()
    (path,) = image.segments()
    size = path.stat().st_size
    overwrite(path, frames_of(path)[0].end, bytes(size - frames_of(path)[0].end))  # what was not synced is lost
    again = await image.open()
    assert found(again) == {1: False}
    await finish(again, record(100))
    assert 100 in await listed(await image.image().open())


async def test_a_log_that_was_moved_away_does_not_hide_what_is_written_next(home: Home) -> None:
    ledger = await home.open()
    await finish(ledger, *(record(number) for number in range(30)))
    await ledger.list(ALL)
    image = home.image()
    shutil.rmtree(image.folder / "ledger")
    await finish(await image.open(), record(100))
    assert await listed(await image.image().open()) == {*range(30), 100}


async def test_a_lost_index_is_made_again_from_the_log(home: Home) -> None:
    ledger = await home.open()
    await finish(ledger, *(record(number, logs=("line",)) for number in range(30)))
    await ledger.list(ALL)
    image = home.image()
    image.forget_index()
    again = await image.open()
    assert await listed(again) == set(range(30))
    assert await again.get("ns", id_of(3)) == record(3, logs=("line",))


async def test_the_last_record_of_an_id_is_the_one_that_is_kept(home: Home) -> None:
    ledger = await home.open()
    first, last = record(1, result=b'"first"'), record(1, result=b'"last"')
    await finish(ledger, first, record(2), last)
    assert await ledger.count(ALL) == 2
    assert await ledger.get("ns", id_of(1)) == last
    image = home.image()
    image.forget_index()
    again = await image.open()
    assert await again.get("ns", id_of(1)) == last
    assert await again.count(ALL) == 2


# ── late logs ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_reader_waits_for_late_logs(home: Home) -> None:
    ledger = await home.open()
    await finish(ledger, msgspec.structs.replace(record(1), has_all_logs=False))
    reading = asyncio.ensure_future(ledger.get("ns", id_of(1)))
    await asyncio.sleep(0)
    assert not reading.done()
    ledger.add_logs(id_of(1), ("late",))
    assert await reading == record(1, logs=("late",))


async def test_a_reader_does_not_wait_for_ever(home: Home, monkeypatch) -> None:
    ledger = await home.open()
    entry = msgspec.structs.replace(record(1, logs=("early",)), has_all_logs=False)
    await finish(ledger, entry)
    with monkeypatch.context() as patched:
        patched.setattr(unindexed, "LOGS_WAIT_S", 0.01)
        assert await ledger.get("ns", id_of(1)) == entry
    ledger.add_logs(id_of(1), ("early", "late"))
    assert await ledger.get("ns", id_of(1)) == record(1, logs=("early", "late"))


async def test_logs_that_never_come_are_said_to_be_missing(home: Home) -> None:
    ledger = await home.open()
    await finish(ledger, msgspec.structs.replace(record(1, logs=("early",)), has_all_logs=False))
    home.clock.advance(unindexed.LOGS_LIMIT_S - 0.01)
    assert await ledger.list(ALL) == []
    home.clock.advance(0.01)
    expected = record(1, logs=("early", wording.LOGS_INCOMPLETE))
    assert await ledger.list(ALL) == [expected]
    assert await ledger.get("ns", id_of(1)) == expected


async def test_late_logs_and_their_time_are_read_back_after_a_kill(home: Home) -> None:
    ledger = await home.open()
    phases = Phases(0, 5, None, None, 20, 420, None, 440)
    entry = record(1)
    entry = msgspec.structs.replace(entry, head=msgspec.structs.replace(entry.head, phases=phases))
    await finish(ledger, msgspec.structs.replace(entry, has_all_logs=False))
    ledger.add_logs(id_of(1), ("late",), 9000)
    expected = await ledger.get("ns", id_of(1))
    image = home.image()
    image.forget_index()
    again = await image.open()
    assert await again.get("ns", id_of(1)) == expected
    assert expected is not None
    assert expected.head.phases == msgspec.structs.replace(phases, logs=9000)


async def test_logs_that_a_kill_took_are_said_to_be_missing(home: Home) -> None:
    ledger = await home.open()
    await finish(ledger, msgspec.structs.replace(record(1), has_all_logs=False))
    again = await home.image().open()
    assert await again.list(ALL) == [record(1, logs=(wording.LOGS_INCOMPLETE,))]


@pytest.mark.parametrize("size", [module.INLINE_LOGS_BYTES, module.INLINE_LOGS_BYTES + 1])
async def test_logs_lie_in_the_entry_itself_up_to_a_size(home: Home, size: int) -> None:
    ledger = await home.open(segment_bytes=1 << 20)
    entry = record(1, logs=("x" * size,))
    await finish(ledger, entry)
    assert await ledger.get("ns", id_of(1)) == entry
    types = [frame.type for frame in frames_of(home.segments()[0])]
    inline = size <= module.INLINE_LOGS_BYTES
    assert types == ([frames.Type.FINISHED] if inline else [frames.Type.FINISHED, frames.Type.LOGS])
    image = home.image()
    image.forget_index()
    assert await (await image.open(segment_bytes=1 << 20)).get("ns", id_of(1)) == entry
