"""What was found out of this machine, for one user, in whichever data folder: remembered across starts.

Each memory is a JSON object in the user's cache folder. It may be lost at any time, and then it is found out anew.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import msgspec

ROOT_CACHE = Path("/var/cache/visp")
FILE_BYTES = 1 << 20


def cache_folder() -> Path:
    """Raises `RuntimeError` where the user has no home."""
    if os.geteuid() == 0:
        return ROOT_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visp"


class Memory:
    """At most `limit` texts by keys, the oldest goes; `folder` is the user's cache folder if none is given."""

    def __init__(self, file: str, limit: int, folder: Path | None = None) -> None:
        self._file = file
        self._limit = limit
        self._folder = folder
        self._known: dict[str, str] = {}
        self._loaded: Path | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> str | None:
        """What is known; reads the file once."""
        with self._lock:
            if key not in self._known:
                self._load()
            return self._known.get(key)

    def put(self, key: str, value: str) -> None:
        """Also writes it, beside what others have written meanwhile; a memory that cannot be written is none."""
        with self._lock:
            self._loaded = None
            self._load()
            self._known.pop(key, None)
            self._known[key] = value
            while len(self._known) > self._limit:
                del self._known[next(iter(self._known))]
            with contextlib.suppress(OSError, RuntimeError):
                path = self._path()
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft = path.with_name(f".{self._file}.{os.getpid()}")
                draft.write_bytes(msgspec.json.encode(self._known))
                draft.chmod(0o600)
                draft.replace(path)

    def _path(self) -> Path:
        return (self._folder or cache_folder()) / self._file

    def _load(self) -> None:
        """What others could have written does not count, nor what does not read."""
        with contextlib.suppress(OSError, RuntimeError, msgspec.DecodeError, UnicodeDecodeError):
            path = self._path()
            if self._loaded == path:
                return
            self._loaded = path
            found = path.stat()
            if found.st_uid == os.geteuid() and not found.st_mode & 0o022 and found.st_size <= FILE_BYTES:
                self._known |= msgspec.json.decode(path.read_bytes(), type=dict[str, str])
