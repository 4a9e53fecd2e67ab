"""The memory of a process tree where no cgroup bounds it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signal import Signals


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, parents first."""
    out = [pid]
    for parent in out:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    out += map(int, file.read().split())
    return out


def used_bytes(pid: int) -> int:
    """Proportional set size of the whole tree."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError), open(f"/proc/{member}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
                    break
    return total


def signal_tree(pid: int, number: Signals) -> None:
    """To every process of the tree; twice, since one may have forked in between."""
    for _ in range(2):
        for member in tree(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member, number)
