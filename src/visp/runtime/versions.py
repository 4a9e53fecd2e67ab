"""What programs say of their version: asked once for each state of their file, and remembered across starts.

A start would otherwise wait for a Java, a PHP and a Ruby that nobody may need.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import msgspec

ASK = ("--version",)
ANSWER_S = 5.0
REMEMBERED = 256
FILE_BYTES = 1 << 20
ROOT_CACHE = Path("/var/cache/visp")
FILE = "versions.json"

_lock = threading.Lock()
_known: dict[str, str] = {}
_loaded: Path | None = None


def version_of(program: str, ask: tuple[str, ...] = ASK) -> str:
    """What a program, by its path on the host, says of its version; empty where it says nothing. Blocks."""
    try:
        found = os.stat(program)
    except OSError:
        return ""
    state = (program, ask, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    key = repr(state)
    with _lock:
        _load()
        known = _known.get(key)
    if known is not None:
        return known
    said = _asked(program, ask)
    if said:
        with _lock:
            _known[key] = said
            while len(_known) > REMEMBERED:
                del _known[next(iter(_known))]
            _save()
    return said


def _asked(program: str, ask: tuple[str, ...]) -> str:
    try:
        asked = subprocess.run([program, *ask], capture_output=True, text=True, timeout=ANSWER_S, env={}, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (asked.stdout or asked.stderr).strip()


def _file() -> Path:
    if os.geteuid() == 0:
        return ROOT_CACHE / FILE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visp" / FILE


def _load() -> None:
    """Once; what others could have written does not count, nor what does not read."""
    global _loaded
    with contextlib.suppress(OSError, RuntimeError, msgspec.DecodeError, UnicodeDecodeError):
        path = _file()
        if _loaded == path:
            return
        _loaded = path
        found = path.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & 0o022 and found.st_size <= FILE_BYTES:
            _known.update(msgspec.json.decode(path.read_bytes(), type=dict[str, str]))


def _save() -> None:
    """A memory that cannot be written is none."""
    with contextlib.suppress(OSError, RuntimeError):
        path = _file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{FILE}.{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(_known))
        draft.chmod(0o600)
        draft.replace(path)
