"""What every blob store promises, and what the one in files does when a file is not as it was written."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from visp.errors import Corrupt, StoreFull, StoreUnavailable
from visp.store.base import BlobStore
from visp.store.filesystem import FileBlobs
from visp.store.memory import MemoryBlobs

EVEN_THE_YOUNGEST = -1.0
"""As `older_than_s`: what was written before a second from now."""


@pytest.fixture(params=["memory", "files"])
def blobs(request, tmp_path) -> BlobStore:
    return MemoryBlobs() if request.param == "memory" else FileBlobs(tmp_path / "blobs")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "blobs"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"print(1)", bytes(range(256)) * 1000])
async def test_a_blob_is_read_by_its_sha_256(blobs: BlobStore, content: bytes) -> None:
    digest = await blobs.put(content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert await blobs.get(digest) == content


async def test_the_same_bytes_are_one_blob(blobs: BlobStore) -> None:
    assert await blobs.put(b"code") == await blobs.put(b"code")
    assert await blobs.sweep(frozenset(), EVEN_THE_YOUNGEST) == 1


async def test_a_blob_that_is_not_there_is_corrupt(blobs: BlobStore) -> None:
    with pytest.raises(Corrupt):
        await blobs.get("0" * 64)


async def test_a_sweep_spares_what_is_used_and_what_is_young(blobs: BlobStore) -> None:
    used, unused = await blobs.put(b"used"), await blobs.put(b"unused")
    assert await blobs.sweep(frozenset({used}), 3600.0) == 0
    assert await blobs.get(unused) == b"unused"
    assert await blobs.sweep(frozenset({used}), EVEN_THE_YOUNGEST) == 1
    assert await blobs.get(used) == b"used"
    with pytest.raises(Corrupt):
        await blobs.get(unused)


async def test_a_sweep_of_nothing(blobs: BlobStore) -> None:
    assert await blobs.sweep(frozenset(), 0.0) == 0


async def test_the_same_bytes_are_one_file(folder: Path) -> None:
    blobs = FileBlobs(folder)
    digest = await blobs.put(b"code")
    await blobs.put(b"code")
    assert files(folder) == [folder / digest[:2] / digest]


@pytest.mark.parametrize("damage", [b"kode", b"cod", b"", b"code and more"])
async def test_wrong_bytes_are_corrupt_until_the_right_ones_are_put_again(folder: Path, damage: bytes) -> None:
    blobs = FileBlobs(folder)
    digest = await blobs.put(b"code")
    (folder / digest[:2] / digest).write_bytes(damage)
    with pytest.raises(Corrupt):
        await blobs.get(digest)
    assert await blobs.put(b"code") == digest
    assert await blobs.get(digest) == b"code"


async def test_putting_an_old_blob_again_makes_it_young(folder: Path) -> None:
    blobs = FileBlobs(folder)
    digest = await blobs.put(b"code")
    os.utime(folder / digest[:2] / digest, (1, 1))
    await blobs.put(b"code")
    assert await blobs.sweep(frozenset(), 3600.0) == 0
    os.utime(folder / digest[:2] / digest, (1, 1))
    assert await blobs.sweep(frozenset(), 3600.0) == 1


async def test_a_draft_that_a_killed_server_left_is_swept(folder: Path) -> None:
    blobs = FileBlobs(folder)
    digest = await blobs.put(b"code")
    draft = folder / digest[:2] / f".{digest}.abc"
    draft.write_bytes(b"co")
    os.utime(draft, (1, 1))
    assert await blobs.sweep(frozenset({digest}), 3600.0) == 1
    assert files(folder) == [folder / digest[:2] / digest]


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreUnavailable)]
)
async def test_a_disk_that_fails_leaves_no_file(monkeypatch, folder: Path, number: int, expected: type) -> None:
    blobs = FileBlobs(folder)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(expected):
            await blobs.put(b"code")
    assert files(folder) == []
    digest = await blobs.put(b"code")
    assert await blobs.get(digest) == b"code"


async def test_a_name_whose_sync_failed_is_made_anew(monkeypatch, folder: Path) -> None:
    """A sync that succeeds after one that failed says nothing of what the first one was for."""
    blobs = FileBlobs(folder)
    fsync, replace, named = os.fsync, os.replace, list[Path]()

    def fail_for_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    def note(draft: Path, path: Path) -> None:
        named.append(path)
        replace(draft, path)

    monkeypatch.setattr(os, "replace", note)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail_for_folders)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await blobs.put(b"code")
    await blobs.put(b"code")
    assert len(named) == 3
    await blobs.put(b"code")
    assert len(named) == 3


async def test_the_names_of_file_and_folders_are_synced_before_a_put_is_answered(monkeypatch, folder: Path) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", note)
    digest = await FileBlobs(folder).put(b"code")
    assert {str(folder / digest[:2]), str(folder), str(folder.parent)} <= set(synced[1:])
    assert digest in synced[0]
