"""Large results as files beside the index of records, each under its record's id.

What is put into a row goes to SQLite's log whole, and from there into its file later: for a megabyte that costs several
times what a file costs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from visp.errors import Corrupt
from visp.store.segments import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LARGE_BYTES = 64 * 1024
"""What is larger is a file."""
SPREAD_DIGITS = 2
"""The last ones of an id, which are random, name the folder that it lies in: the first ones are the time."""


class Values:
    """The files of one index; `size_bytes` is what they take. Every function may block, and raises `OSError`.

    Of those that write one thread calls one at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size_bytes = 0

    def prepare(self, has_record: Callable[[str], bool]) -> None:
        """Finds out what there is, and removes what a crash has left: files of no record."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for path in self.folder.glob("*/*"):
            if has_record(path.name):
                self.size_bytes += path.stat().st_size
            else:
                path.unlink()

    def put(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """On disk when this returns, so that a record which is found has its result.

        When it raises, what it has made is gone again: on a full disk that is room for others.
        """
        folders: set[Path] = set()
        made: list[str] = []
        try:
            for id, content in contents:
                path = self.path(id)
                if not path.parent.exists():
                    path.parent.mkdir(mode=0o700)
                    folders.add(self.folder)
                folders.add(path.parent)
                if not path.exists():
                    made.append(id)
                self._write(path, content)
            for folder in folders:
                sync_folder(folder)
        except OSError:
            self.remove(made)
            raise

    def _write(self, path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(descriptor).st_size
        try:
            view = memoryview(content)
            while view:  # a disk that is nearly full takes a part
                view = view[os.write(descriptor, view) :]
            os.ftruncate(descriptor, len(content))
            os.fdatasync(descriptor)
        finally:
            self.size_bytes += os.fstat(descriptor).st_size - size
            os.close(descriptor)

    def get(self, id: str) -> bytes:
        """Raises `Corrupt` when there is none."""
        try:
            return self.path(id).read_bytes()
        except FileNotFoundError:
            raise Corrupt() from None

    def remove(self, ids: Iterable[str]) -> None:
        for id in ids:
            path = self.path(id)
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            self.size_bytes -= size

    def path(self, id: str) -> Path:
        return self.folder / id[-SPREAD_DIGITS:] / id
