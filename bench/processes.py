"""What processes use of the machine: CPU time, memory, and when a tree of them has come to rest."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

QUIET_WINDOW_S = 0.05
QUIET_SHARE = 0.02
"""A tree is at rest when it uses less of one core than this."""
QUIET_WITHIN_S = 10.0
SANDBOXES = ("bwrap", "visp-cell")

_PER_PROCESS = 2
"""The kernel's number of the clock that counts a process's time on a core, all its threads together."""


class Process(msgspec.Struct, frozen=True):
    pid: int
    parent: int
    name: str


def cpu_s(pid: int) -> float:
    """User and system time of a process and its threads, those that have ended included; not of its children.

    The same sum as utime and stime in `/proc/<pid>/stat`, in nanoseconds where those tick each 10 ms.
    """
    return time.clock_gettime((~pid << 3) | _PER_PROCESS)


def descendants(pid: int) -> list[Process]:
    """Every process below this one, parents before their children."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := _read(int(entry))) is not None:
            children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [process.pid for process in below]
    return found


def server_processes(pid: int) -> list[int]:
    """The server's own processes: it and what it started, without the sandboxes and what runs in them."""
    skipped: set[int] = set()
    own = [pid]
    for process in descendants(pid):
        if process.name in SANDBOXES or process.parent in skipped:
            skipped.add(process.pid)
        else:
            own.append(process.pid)
    return own


def rss_mb(pids: list[int]) -> float:
    """Resident memory of these processes; what they share counts for each."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids) / (1 << 20)


def pss_mb(pids: list[int]) -> float:
    """Memory of these processes, what they share with others divided by how many share it; of those that are there."""
    total_kb = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024


def is_stopped(pid: int) -> bool:
    """Whether the process stands still: stopped by a signal, or frozen with its control group."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "Tt":
            return True
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    unified = next((line[3:] for line in groups if line.startswith("0::")), None)
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        with contextlib.suppress(OSError):
            if unified is not None and "frozen 1" in Path(f"{root}{unified}/cgroup.events").read_text():
                return True
    return False


def wait_until_quiet(pid: int) -> None:
    """Until nothing below this process, nor itself, starts, ends or works.

    Raises `TimeoutError` when it does not come to rest.
    """
    until_s = time.monotonic() + QUIET_WITHIN_S
    before, used_s = _usage(pid)
    while True:
        time.sleep(QUIET_WINDOW_S)
        after, now_used_s = _usage(pid)
        if after == before and now_used_s - used_s < QUIET_SHARE * QUIET_WINDOW_S:
            return
        if time.monotonic() > until_s:
            raise TimeoutError(f"process {pid} does not come to rest within {QUIET_WITHIN_S} s")
        before, used_s = after, now_used_s


def _usage(pid: int) -> tuple[set[int], float]:
    pids, used_s = set[int](), 0.0
    for number in [pid, *(process.pid for process in descendants(pid))]:
        try:
            used_s += cpu_s(number)
        except OSError:
            continue  # it has ended meanwhile
        pids.add(number)
    return pids, used_s


def _read(pid: int) -> Process | None:
    try:
        head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return None
    return Process(pid, int(rest.split()[1]), head.partition("(")[2])
