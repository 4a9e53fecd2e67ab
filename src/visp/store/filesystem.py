"""Large values as files under their SHA-256."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from typing import TYPE_CHECKING

from visp.errors import Corrupt, StoreFull, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path


class FileBlobs:
    """A `BlobStore` in a folder: `ab/abcdef…`. A file appears under its name only when it is whole and on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
            if path.exists():
                os.utime(path)  # a sweep spares what was written lately
                return digest
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_name(f".{digest}.{os.urandom(6).hex()}")
            try:
                with open(draft, "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _translate(error) from error
        return digest

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
        for path in self._folder.glob("*/*"):
            if path.name not in used and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


def _translate(error: OSError) -> StoreFull | StoreUnavailable:
    return StoreFull() if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnavailable()
