"""Segment files: appended, cut, found again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from visp.errors import StoreUnavailable
from visp.store import segments
from visp.store.segments import Segment


@pytest.fixture
def segment(tmp_path: Path):
    made = segments.adopt(segments.allocate(tmp_path, 4096), 0)
    yield made
    made.close()


def content(segment: Segment) -> bytes:
    return segment.path.read_bytes()


def test_a_new_segment_is_reserved_zero_and_called_by_its_base(tmp_path: Path) -> None:
    made = segments.adopt(segments.allocate(tmp_path, 4096), 0x1F)
    assert made.path.name == "000000000000001f.seg"
    assert content(made) == bytes(4096)
    assert (made.base, made.used, made.end) == (0x1F, 0, 0x1F)
    assert [path.name for path in tmp_path.iterdir()] == [made.path.name]
    made.close()


def test_writes_follow_one_another(segment: Segment) -> None:
    segment.write(b"one")
    segment.write(b"two")
    assert segment.used == 6
    assert content(segment) == b"onetwo" + bytes(4090)


def test_a_write_in_pieces_is_whole(monkeypatch, segment: Segment) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: pwrite(descriptor, data[:2], at))
    segment.write(b"12345")
    assert segment.used == 5
    assert content(segment)[:6] == b"12345\0"


def test_what_a_failed_write_left_is_undone(monkeypatch, segment: Segment) -> None:
    segment.write(b"kept")
    pwrite, calls = os.pwrite, iter([3])

    def fail_in_the_middle(descriptor: int, data: memoryview, at: int) -> int:
        length = next(calls, None)
        if length is not None:
            return pwrite(descriptor, data[:length], at)
        monkeypatch.setattr(os, "pwrite", pwrite)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", fail_in_the_middle)
    with pytest.raises(OSError, match="full"):
        segment.write(b"refused")
    assert segment.used == 4
    assert content(segment) == b"kept" + bytes(4092)


def test_a_failed_write_that_cannot_be_undone_says_so(monkeypatch, segment: Segment) -> None:
    pwrite, calls = os.pwrite, iter([3])

    def fail_after_a_piece(descriptor: int, data: memoryview, at: int) -> int:
        length = next(calls, None)
        if length is None:
            raise OSError(errno.EIO, "gone")
        return pwrite(descriptor, data[:length], at)

    monkeypatch.setattr(os, "pwrite", fail_after_a_piece)
    with pytest.raises(segments.NotUndone):
        segment.write(b"refused")


def test_a_full_disk_leaves_no_spare(monkeypatch, tmp_path: Path) -> None:
    def fail(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(OSError, match="full"):
        segments.allocate(tmp_path, 4096)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_cannot_reserve_will_do(monkeypatch, tmp_path: Path, number: int) -> None:
    def fail(descriptor: int, offset: int, length: int) -> None:
        raise OSError(number, "cannot")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    made = segments.adopt(segments.allocate(tmp_path, 4096), 0)
    assert content(made) == bytes(4096)
    made.close()


def test_two_spares_at_once_are_two_files(tmp_path: Path) -> None:
    first, second = segments.allocate(tmp_path, 4096), segments.allocate(tmp_path, 4096)
    one, two = segments.adopt(first, 0), segments.adopt(second, 10)
    one.write(b"one")
    two.write(b"two")
    assert content(one)[:3] == b"one"
    assert content(two)[:3] == b"two"
    one.close()
    two.close()


@pytest.mark.parametrize("tail", [b"x", b"x\0\0\0\0", bytes(2000)])
def test_a_segment_is_loaded_with_the_zeros_at_its_end(segment: Segment, tail: bytes) -> None:
    segment.write(b"head" + tail)
    assert segments.load(segment) == b"head" + tail + bytes(4096 - 4 - len(tail))


def test_what_is_cut_is_zero_and_reserved_again(segment: Segment) -> None:
    segment.write(b"keep" + b"drop" * 500)
    segment.used = 4
    segments.cut(segment)
    assert content(segment) == b"keep" + bytes(4092)
    assert segment.size_bytes == 4096


def test_a_cut_on_a_full_disk_makes_the_segment_shorter(monkeypatch, segment: Segment) -> None:
    segment.write(b"keepdrop")
    segment.used = 4

    def fail(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    segments.cut(segment)
    assert content(segment) == b"keep"
    assert segment.size_bytes == 4


def test_segments_are_found_in_order_and_left_spares_removed(tmp_path: Path) -> None:
    for base in (0x10, 0, 0xA):
        segments.adopt(segments.allocate(tmp_path, 4096), base).close()
    os.close(segments.allocate(tmp_path, 4096).descriptor)
    found = segments.open_existing(tmp_path)
    assert [segment.base for segment in found] == [0, 0xA, 0x10]
    assert [segment.size_bytes for segment in found] == [4096] * 3
    assert len(list(tmp_path.iterdir())) == 3
    for segment in found:
        segment.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.seg", "0.seg", "000000000000001F.seg"])
def test_a_file_that_is_no_segment_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(StoreUnavailable, match=rf"{name} is no segment of a ledger: move it away"):
        segments.open_existing(tmp_path)
