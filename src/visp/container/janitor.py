"""Cleans up behind a server that was killed: a shell that waits for its end, and outlives it.

Containers die with their server; their folders and groups would stay until its next start. The shell holds the reading
end of a pipe whose other end only the server has, so whatever ends the server ends its wait.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from visp.container import spawn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from visp.container.spawn import Process

SHELL = "/bin/sh"
GONE_S = 5.0

_SCRIPT = """
read -r nothing
prefix=$1 mark=$2
shift 2
if [ -n "$mark" ]; then
  for file in $(grep -lz "^$mark" /proc/[0-9]*/environ); do
    pid=${file#/proc/}
    kill -9 "${pid%/environ}"
  done
fi
for parent in "$@"; do
  for folder in "$parent/$prefix"*; do
    [ -d "$folder" ] || continue
    [ -f "$folder/cgroup.kill" ] && echo 1 > "$folder/cgroup.kill"
    if [ -f "$folder/cgroup.procs" ]; then
      tries=0
      until rmdir "$folder" || [ $tries -ge 100 ]; do
        kill -9 $(cat "$folder/cgroup.procs")
        sleep 0.02
        tries=$((tries + 1))
      done
    else
      rm -rf "$folder"
    fi
  done
  rmdir "$parent"
done
"""
"""Fixed text; what it works on comes as words.

A prefix of names, the variable by which plain processes are found or nothing, and the folders in which those names are
removed.
"""


class Janitor:
    """Waits beside one server; `close` sends it to work and waits for its end."""

    def __init__(self, process: Process, pipe: int) -> None:
        self._process = process
        self._pipe = pipe

    @classmethod
    def hire(cls, prefix: str, parents: Sequence[Path], mark: str = "") -> Janitor:
        """For everything in these folders whose name begins with `prefix`; raises `StartFailed`.

        And for every process with a variable that begins with `mark`.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            process = spawn.start(
                [SHELL, "-c", _SCRIPT, "visp-janitor", prefix, mark, *map(str, parents)],
                {"PATH": "/usr/bin:/bin"},
                {0: reader, 1: null, 2: null},
            )
        finally:
            os.close(reader)
            os.close(null)
        return cls(process, writer)

    async def close(self) -> None:
        os.close(self._pipe)
        await asyncio.wait([self._process.exited], timeout=GONE_S)
