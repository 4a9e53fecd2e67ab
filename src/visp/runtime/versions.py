"""What programs say of their version: asked once for each state of their file, and remembered across starts.

A start would otherwise wait for a Java, a PHP and a Ruby that nobody may need.
"""

from __future__ import annotations

import os
import subprocess

from visp.remembered import Memory

ASK = ("--version",)
ANSWER_S = 5.0

_memory = Memory("versions.json", 256)


def version_of(program: str, ask: tuple[str, ...] = ASK) -> str:
    """What a program, by its path on the host, says of its version; empty where it says nothing. Blocks."""
    try:
        found = os.stat(program)
    except OSError:
        return ""
    state = (program, ask, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    key = repr(state)
    known = _memory.get(key)
    if known is not None:
        return known
    said = _asked(program, ask)
    if said:
        _memory.put(key, said)
    return said


def _asked(program: str, ask: tuple[str, ...]) -> str:
    try:
        asked = subprocess.run([program, *ask], capture_output=True, text=True, timeout=ANSWER_S, env={}, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (asked.stdout or asked.stderr).strip()
