"""The ledger's files: numbered segments, each preallocated, written at an offset, synced in order.

A segment is called by the offset of its first byte in the whole log. All functions but `write` may block: they are for
start-up and for the ledger's own thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

import msgspec

from visp.errors import StoreUnavailable

SUFFIX = ".seg"
SPARE = "spare-"
_NAME = re.compile(r"[0-9a-f]{16}\.seg")


class NotUndone(Exception):
    """A part of what was not to be written is in the file: only reading it back tells what the log holds."""


class Segment:
    """One file: `base` is the log's offset of its first byte, `used` how much of it holds frames."""

    __slots__ = ("base", "descriptor", "open_ids", "path", "size_bytes", "used")

    def __init__(self, path: Path, base: int, descriptor: int, size_bytes: int, used: int = 0) -> None:
        self.path = path
        self.base = base
        self.descriptor = descriptor
        self.size_bytes = size_bytes
        self.used = used
        self.open_ids: set[str] = set()

    @property
    def end(self) -> int:
        return self.base + self.used

    def write(self, data: bytes) -> None:
        """Appends; raises `OSError`, and then nothing counts as written: what a part of it left is made zeros again.

        Raises `NotUndone` when that fails too.
        """
        at, view = self.used, memoryview(data)
        try:
            while view:
                written = os.pwrite(self.descriptor, view, at)
                at, view = at + written, view[written:]
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)  # then nothing of the last call was written
            self._undo(at if is_full else self.used + len(data))
            raise
        self.used = at

    def _undo(self, end: int) -> None:
        at = self.used
        try:
            while at < end:
                at += os.pwrite(self.descriptor, bytes(end - at), at)
        except OSError as error:
            raise NotUndone(error) from error

    def sync(self) -> None:
        os.fdatasync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)

    def remove(self) -> None:
        """Durably, so that of several that are removed in order none comes back alone."""
        self.close()
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)


class Spare(msgspec.Struct, frozen=True):
    """A preallocated file without a place in the log yet."""

    path: Path
    descriptor: int
    size_bytes: int

    def remove(self) -> None:
        os.close(self.descriptor)
        self.path.unlink(missing_ok=True)


def allocate(folder: Path, size_bytes: int) -> Spare:
    """A file with its blocks reserved; raises `OSError`, as when the disk is full, and leaves nothing then."""
    path = folder / f"{SPARE}{os.urandom(6).hex()}"  # one may be under way in the thread while the loop needs another
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _reserve(descriptor, size_bytes)
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return Spare(path, descriptor, size_bytes)


def _reserve(descriptor: int, size_bytes: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size_bytes)


def adopt(spare: Spare, base: int) -> Segment:
    """Gives a spare its place. Quick: a rename; the folder is synced with the segment's first frames."""
    path = spare.path.with_name(f"{base:016x}{SUFFIX}")
    os.rename(spare.path, path)
    return Segment(path, base, spare.descriptor, spare.size_bytes)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_existing(folder: Path) -> list[Segment]:
    """The segments of an earlier run, in order; raises `StoreUnavailable` for a file that is none."""
    for path in folder.glob(f"{SPARE}*"):
        path.unlink()
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    for path in paths:
        if _NAME.fullmatch(path.name) is None:
            raise StoreUnavailable(f"{path} is no segment of a ledger: move it away")
    segments = []
    for path in paths:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        segments.append(Segment(path, int(path.stem, 16), descriptor, os.fstat(descriptor).st_size))
    return segments


def load(segment: Segment) -> bytearray:
    """The segment's bytes, with the zeros behind what is used: a frame may end in zeros too."""
    data = bytearray(segment.size_bytes)
    view, at = memoryview(data), 0
    while at < len(data) and (got := os.preadv(segment.descriptor, [view[at:]], at)):
        at += got
    return data


def cut(segment: Segment) -> None:
    """Makes zeros of everything behind what is used, so that no old frame can follow a new one; synced."""
    os.ftruncate(segment.descriptor, segment.used)
    with contextlib.suppress(OSError):  # a full disk: the segment is shorter then
        _reserve(segment.descriptor, segment.size_bytes)
    segment.size_bytes = os.fstat(segment.descriptor).st_size
    os.fsync(segment.descriptor)
