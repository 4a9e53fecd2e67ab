"""The processes of a container where no cgroup holds them: its tree, and who left it but carries its mark."""

from __future__ import annotations

import contextlib
import os
import signal

MARK = "VISP_CONTAINER"
"""The variable by which a plain process and all that it starts can be found again, whoever their parent is by then."""
MARKED_ROUNDS = 50


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, parents first."""
    out = [pid]
    for parent in out:
        out += children(parent)
    return out


def children(pid: int) -> list[int]:
    """Those that a process has by now."""
    out: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
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


def signal_tree(pid: int, number: signal.Signals) -> None:
    """To every process of the tree; twice, since one may have forked in between."""
    for _ in range(2):
        for member in tree(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member, number)


def end_tree(pid: int) -> None:
    """SIGKILL to all of it. They are stopped before: what is killed alone leaves those that it had just begun."""
    signal_tree(pid, signal.SIGSTOP)
    signal_tree(pid, signal.SIGKILL)


def marked(name: str) -> list[int]:
    """Processes that were started with `MARK` and a value that begins with `name`."""
    found: list[int] = []
    wanted = f"\0{MARK}={name}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                if wanted in b"\0" + file.read():
                    found.append(int(entry))
    return found


def end_of_uid(uid: int) -> None:
    """SIGKILL to all that a uid of its own runs, until there are none."""
    for _ in range(MARKED_ROUNDS):
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _owner(entry) == uid]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def tasks_of(uid: int) -> int:
    """How many threads a user runs now."""
    count = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _owner(entry) == uid:
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{entry}/task"))
    return count


def _owner(pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def end_marked(name: str) -> None:
    """SIGKILL to all of them, until there are none: one may have forked in between."""
    for _ in range(MARKED_ROUNDS):
        pids = marked(name)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
