"""Large results of the index: files that come and go with their rows."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from visp.entity.activation import ActivationHead, ActivationRecord, new_id
from visp.errors import Corrupt, StoreFull
from visp.store.base import ActivationQuery
from visp.store.index import SqliteActivations
from visp.store.values import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW_MS = 1_700_000_000_000
LARGE = b'"' + b"x" * LARGE_BYTES + b'"'


def record(start_ms: int, result: bytes) -> ActivationRecord:
    head = ActivationHead(
        id=new_id(start_ms),
        namespace="ns",
        subject="who",
        name="a",
        version="0.0.1",
        start_ms=start_ms,
        size=len(result),
    )
    return ActivationRecord(head=head, result=result)


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SqliteActivations]:
    index = await SqliteActivations.open(tmp_path / "activations-0.db")
    yield index
    await index.close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "activations-0.values").glob("*/*"))


async def test_large_result_is_a_file_and_reads_as_any_other(index: SqliteActivations, tmp_path: Path) -> None:
    small, large = record(NOW_MS, b"{}"), record(NOW_MS + 1, LARGE)
    await index.put([small, large], 0)
    assert files(tmp_path) == [large.head.id]
    assert await index.get("ns", large.head.id) == large
    assert await index.list(ActivationQuery(namespace="ns", limit=9)) == [large, small]
    borrowed = await SqliteActivations.borrow(tmp_path / "activations-0.db")
    assert await borrowed.some("ns", [large.head.id]) == [large]
    await borrowed.close()


async def test_record_without_its_file_is_damaged(index: SqliteActivations, tmp_path: Path) -> None:
    small, large = record(NOW_MS, b"{}"), record(NOW_MS + 1, LARGE)
    await index.put([small, large], 0)
    (tmp_path / "activations-0.values" / large.head.id[-2:] / large.head.id).unlink()
    with pytest.raises(Corrupt):
        await index.get("ns", large.head.id)
    assert await index.list(ActivationQuery(namespace="ns", limit=9)) == [small]


async def test_file_goes_with_its_row(index: SqliteActivations, tmp_path: Path) -> None:
    records = [record(NOW_MS + at, LARGE) for at in range(3)]
    await index.put(records, 0)
    assert await index.sweep(NOW_MS + 2, 0) == 2
    assert files(tmp_path) == [records[2].head.id]
    assert await index.sweep(None, 0, {"ns": NOW_MS + 3}) == 1
    assert files(tmp_path) == []


async def test_files_count_for_the_bound(index: SqliteActivations, tmp_path: Path) -> None:
    await index.put([record(NOW_MS + at, LARGE) for at in range(20)], 0)
    assert await index.sweep(None, 30 * LARGE_BYTES) == 0
    assert await index.sweep(None, 10 * LARGE_BYTES) == 20  # the oldest thousand at once
    assert files(tmp_path) == []


async def test_what_a_crash_left_goes_at_the_next_start(tmp_path: Path) -> None:
    index = await SqliteActivations.open(tmp_path / "activations-0.db")
    kept = record(NOW_MS, LARGE)
    await index.put([kept], 0)
    await index.close()
    for swept in (new_id(NOW_MS - 1), new_id(NOW_MS + 1), "stray"):
        folder = tmp_path / "activations-0.values" / swept[-2:]
        folder.mkdir(exist_ok=True)
        (folder / swept).write_bytes(LARGE)
    index = await SqliteActivations.open(tmp_path / "activations-0.db")
    assert files(tmp_path) == [kept.head.id]
    assert await index.sweep(None, LARGE_BYTES) == 1  # what was there is counted
    await index.close()


async def test_full_disk_is_said_and_nothing_of_the_group_is_kept(
    index: SqliteActivations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    small, large = record(NOW_MS, b"{}"), record(NOW_MS + 1, LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreFull):
            await index.put([small, large], 7)
    assert await index.indexed_to() == 0
    assert await index.get("ns", small.head.id) is None
    await index.put([small, large], 7)
    assert await index.get("ns", large.head.id) == large


async def test_disk_that_takes_a_part_gets_the_rest(index: SqliteActivations, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:10_000])))
        large = record(NOW_MS, LARGE)
        await index.put([large], 0)
    assert await index.get("ns", large.head.id) == large


async def test_what_was_made_before_the_disk_was_full_is_gone_and_not_counted(
    index: SqliteActivations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = record(NOW_MS, LARGE)
    await index.put([there], 0)
    records = [record(NOW_MS + at, LARGE) for at in range(1, 4)]
    write, left = os.write, [LARGE_BYTES * 2]

    def write_while_there_is_room(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        size = write(descriptor, bytes(data[: left[0]]))
        left[0] -= size
        return size

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_while_there_is_room)
        with pytest.raises(StoreFull):
            await index.put([there, *records], 7)
    assert files(tmp_path) == [there.head.id]
    assert index._values.size_bytes == len(LARGE)
    await index.put(records, 7)
    assert index._values.size_bytes == 4 * len(LARGE)
    assert [one async for one in _each(index, [there, *records])] == [there, *records]


async def _each(index: SqliteActivations, records: list[ActivationRecord]) -> AsyncIterator[ActivationRecord | None]:
    for one in records:
        yield await index.get("ns", one.head.id)


async def test_bound_holds_for_large_results_as_they_come(index: SqliteActivations, tmp_path: Path) -> None:
    bound = 20 * LARGE_BYTES
    for at in range(3):
        await index.put([record(NOW_MS + at * 1000 + number, LARGE) for number in range(100)], at)
        await index.sweep(None, bound)
        assert index._values.size_bytes == len(LARGE) * len(files(tmp_path))
        assert index._values.size_bytes <= bound
