"""A disk in memory that behaves as badly as a disk may.

What was written is seen by whoever reads; what was synced survives a power cut. Of the rest each sector is there, is
not there or is torn, whatever the order of the writes was; a file that was made, renamed or removed is so once its
folder was synced, and perhaps before. Folders themselves do not get lost. A sync may fail: then the process must end,
and what it would have made durable is treated as by a power cut. Space may end, and a write may fail half-way.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import random
from collections.abc import Callable
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, NoReturn

SECTOR = 512
FIRST_DESCRIPTOR = 1_000_000


class File:
    """Content as it is read, content as it is durable, and in order what lies between: `(at, bytes)` or a size."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes] | int] = []

    def write(self, at: int, data: bytes) -> None:
        _write(self.data, at, data)
        self.pending.append((at, data))

    def resize(self, size: int) -> None:
        _resize(self.data, size)
        self.pending.append(size)

    def sync(self) -> None:
        for change in self.pending:
            self._settle(change)
        self.pending.clear()

    def lose_power(self, chance: random.Random) -> None:
        for change in self.pending:
            if isinstance(change, int):
                if chance.random() < 0.5:
                    _resize(self.durable, change)
                continue
            at, data = change
            for start, piece in _torn(at, data, chance):
                _write(self.durable, start, piece)
        self.pending.clear()
        self.data = bytearray(self.durable)

    def _settle(self, change: tuple[int, bytes] | int) -> None:
        if isinstance(change, int):
            _resize(self.durable, change)
        else:
            _write(self.durable, *change)


def _write(content: bytearray, at: int, data: bytes) -> None:
    if len(content) < at + len(data):
        content.extend(bytes(at + len(data) - len(content)))
    content[at : at + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    if len(content) > size:
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def _torn(at: int, data: bytes, chance: random.Random) -> list[tuple[int, bytes]]:
    """What of each sector of an unsynced write is on the disk."""
    if chance.random() < 0.4:
        return [(at, data)]
    pieces, place, end = [], at, at + len(data)
    while place < end:
        upto = min(end, place - place % SECTOR + SECTOR)
        length = chance.choice((upto - place, upto - place, 0, chance.randrange(upto - place)))
        pieces.append((place, data[place - at :][:length]))
        place = upto
    return pieces


class Faults:
    """How often the disk fails, each a chance for one call. `is_full`: nothing can be reserved."""

    def __init__(self, write: float = 0.0, short: float = 0.0, sync: float = 0.0) -> None:
        self.write = write
        self.short = short
        self.sync = sync
        self.is_full = False


class Disk:
    """The files, by path. `note` hears of every call, and may end the process there."""

    def __init__(self, chance: random.Random, note: Callable[[str], None], lost: Callable[[], None]) -> None:
        self.chance = chance
        self._note = note
        self._lost = lost
        self.faults = Faults()
        self._names: dict[str, File] = {}
        self._durable_names: dict[str, File] = {}
        self._renamed: list[tuple[str, str]] = []
        self._open: dict[int, tuple[str, File | None]] = {}
        self._next = FIRST_DESCRIPTOR
        self.path: type[PurePosixPath] = type("SimPath", (_SimPath,), {"disk": self, "__slots__": ()})
        self.os = _Os(self)

    # ── what happens to it ──────────────────────────────────────────────────────────────────────────────────────

    def end_process(self) -> None:
        """Descriptors are closed, and the next process begins; what it sees is what was written."""
        self._open.clear()

    def lose_power(self) -> None:
        self.end_process()
        for old, new in self._renamed:  # each is durable, or is not
            file = self._names.get(new)
            if file is None or self._durable_names.get(new) is file:
                continue
            if self.chance.random() < 0.6:
                self._durable_names[new] = file
            elif self._durable_names.get(old) is None and self.chance.random() < 0.5:
                self._durable_names[old] = file
        for name in [name for name in self._durable_names if name not in self._names]:
            if self.chance.random() < 0.5:  # removed, and the folder was not synced
                del self._durable_names[name]
        self._renamed.clear()
        self._names = dict(sorted(self._durable_names.items()))
        for file in self._names.values():
            file.lose_power(self.chance)

    # ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, path: object, flags: int, mode: int = 0o777, **_: object) -> int:
        name = str(path)
        file = self._names.get(name)
        if file is None and flags & os.O_CREAT:
            self._note(f"create {_short(name)}")
            file = self._names[name] = File()
        elif file is not None and flags & os.O_TRUNC:
            file.resize(0)
        self._next += 1
        self._open[self._next] = (name, file)  # no file: a folder
        return self._next

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def file(self, descriptor: int) -> File:
        try:
            file = self._open[descriptor][1]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
        assert file is not None
        return file

    def pwrite(self, descriptor: int, data: Any, at: int) -> int:
        file, content = self.file(descriptor), bytes(data)
        if self.chance.random() < self.faults.write:
            part = content[: self.chance.randrange(len(content) + 1)]
            code = self.chance.choice((errno.EIO, errno.ENOSPC))
            if code == errno.EIO:  # a full disk writes less, and says so
                file.write(at, part)
            self._note(f"write fails {_short(self._open[descriptor][0])} {at}")
            raise OSError(code, os.strerror(code))
        if len(content) > 1 and self.chance.random() < self.faults.short:
            content = content[: self.chance.randrange(1, len(content))]
        self._note(f"write {_short(self._open[descriptor][0])} {at}+{len(content)}")
        file.write(at, content)
        return len(content)

    def preadv(self, descriptor: int, views: list[memoryview], at: int) -> int:
        data, done = self.file(descriptor).data, 0
        for view in views:
            piece = data[at + done : at + done + len(view)]
            view[: len(piece)] = piece
            done += len(piece)
        return done

    def sync(self, descriptor: int) -> None:
        name, file = self._open[descriptor]
        self._note(f"sync {_short(name)}")
        if self.chance.random() < self.faults.sync:
            self._note(f"sync fails {_short(name)}")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if file is not None:
            file.sync()
        else:
            self._sync_folder(name)
        self._note(f"synced {_short(name)}")

    def _sync_folder(self, folder: str) -> None:
        """What its names stand for now is durable; of others nothing is known that was not before."""
        self._durable_names = _outside(self._durable_names, folder) | _inside(self._names, folder)
        self._renamed = [(old, new) for old, new in self._renamed if new.rpartition("/")[0] != folder]

    def resize(self, descriptor: int, size: int) -> None:
        self._note(f"resize {_short(self._open[descriptor][0])} {size}")
        self.file(descriptor).resize(size)

    def reserve(self, descriptor: int, at: int, length: int) -> None:
        if self.faults.is_full:
            self._note("disk full")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file = self.file(descriptor)
        if at + length > len(file.data):
            self.resize(descriptor, at + length)

    def size(self, descriptor: int) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(self.file(descriptor).data))

    def rename(self, old: object, new: object) -> None:
        self._note(f"rename {_short(str(new))}")
        file = self._names[str(new)] = self._names.pop(str(old))
        self._open = {fd: (str(new) if held is file else name, held) for fd, (name, held) in self._open.items()}
        self._renamed.append((str(old), str(new)))

    def unlink(self, name: str, *, missing_ok: bool) -> None:
        self._note(f"unlink {_short(name)}")
        if self._names.pop(name, None) is None and not missing_ok:
            raise FileNotFoundError(name)

    def names(self) -> list[str]:
        return list(self._names)

    def exit(self, status: int) -> NoReturn:
        """`os._exit` after a sync that failed: what the kernel then holds is unknown."""
        self._lost()
        raise AssertionError("the process goes on")


def _inside(names: dict[str, File], folder: str) -> dict[str, File]:
    return {name: file for name, file in names.items() if name.rpartition("/")[0] == folder}


def _outside(names: dict[str, File], folder: str) -> dict[str, File]:
    return {name: file for name, file in names.items() if name.rpartition("/")[0] != folder}


def _short(name: str) -> str:
    """Names of spare files are drawn: they say nothing."""
    last = name.rpartition("/")[2]
    return last.partition("-")[0]


class _Os:
    """The module `os` as the ledger sees it; constants and what needs no disk are the real one's."""

    def __init__(self, disk: Disk) -> None:
        self.open, self.close, self.rename = disk.open, disk.close, disk.rename
        self.pwrite, self.preadv = disk.pwrite, disk.preadv
        self.fsync = self.fdatasync = disk.sync
        self.ftruncate, self.posix_fallocate, self.fstat = disk.resize, disk.reserve, disk.size
        self._exit = disk.exit

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class _SimPath(PurePosixPath):
    """A path on a simulated disk: as much of `pathlib.Path` as the ledger asks for."""

    __slots__ = ()
    disk: Disk

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Folders are always there."""

    def glob(self, pattern: str) -> list[_SimPath]:
        inside = [self._of(name) for name in self.disk.names() if name.rpartition("/")[0] == str(self)]
        return [path for path in inside if fnmatch.fnmatchcase(path.name, pattern)]

    def iterdir(self) -> list[_SimPath]:
        start = f"{self}/"
        found = {name[len(start) :].partition("/")[0] for name in self.disk.names() if name.startswith(start)}
        return [self._of(start + name) for name in sorted(found)]

    def is_dir(self) -> bool:
        return any(name.startswith(f"{self}/") for name in self.disk.names())

    def exists(self) -> bool:
        return str(self) in self.disk.names() or self.is_dir()

    def unlink(self, missing_ok: bool = False) -> None:
        self.disk.unlink(str(self), missing_ok=missing_ok)

    def _of(self, name: str) -> _SimPath:
        return type(self)(name)
