"""Large values as files under their SHA-256."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

from visp.errors import Corrupt, StoreFull, StoreUnavailable
from visp.store.segments import sync_folder

if TYPE_CHECKING:
    from pathlib import Path


class FileBlobs:
    """A `BlobStore` in a folder: `ab/abcdef…`. A file appears under its name only when it is whole and on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._naming = threading.Lock()  # a sweep must not remove what a put has just found or named
        self._doubtful: set[str] = set()
        """Blobs whose names could not be synced: a later sync that succeeds says nothing of them."""

    async def put(self, content: bytes) -> str:
        return await asyncio.to_thread(self._put, content)

    async def get(self, digest: str) -> bytes:
        return await asyncio.to_thread(self._get, digest)

    async def sweep(self, used: frozenset[str], older_than_s: float) -> int:
        return await asyncio.to_thread(self._sweep, used, older_than_s)

    def _put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        path = self._path(digest)
        try:
            if digest not in self._doubtful and self._has(path, content):
                return digest
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_name(f".{digest}.{os.urandom(6).hex()}")
            try:
                with open(draft, "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                with self._naming:
                    os.replace(draft, path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            self._sync_names(path)
            self._doubtful.discard(digest)
        except OSError as error:
            raise _translate(error) from error
        return digest

    def _has(self, path: Path, content: bytes) -> bool:
        """Whether the blob is there and whole (one that was damaged is written anew), and makes it young then."""
        with self._naming:
            try:
                if path.stat().st_size != len(content) or path.read_bytes() != content:
                    return False
            except FileNotFoundError:
                return False
            os.utime(path)  # a sweep spares what was written lately
        self._sync_names(path)  # another put may have named it and not be done yet
        return True

    def _get(self, digest: str) -> bytes:
        try:
            content = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise Corrupt() from None
        except OSError as error:
            raise _translate(error) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise Corrupt()
        return content

    def _sweep(self, used: frozenset[str], older_than_s: float) -> int:
        before = time.time() - older_than_s
        removed = 0
        try:
            for path in self._folder.glob("*/*"):
                with self._naming, contextlib.suppress(FileNotFoundError):  # a draft has got its name meanwhile
                    if path.name not in used and path.stat().st_mtime < before:
                        path.unlink()
                        removed += 1
        except OSError as error:
            raise _translate(error) from error
        return removed

    def _sync_names(self, path: Path) -> None:
        """Makes the blob's name durable, and those of the folders that may have been made for it."""
        try:
            for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
                sync_folder(folder)
        except OSError:
            self._doubtful.add(path.name)
            raise

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


def _translate(error: OSError) -> StoreFull | StoreUnavailable:
    return StoreFull() if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable()
