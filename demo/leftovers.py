"""What a server has on this machine besides itself, and what of it remains: processes, control groups, cell folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = Path("/sys/fs/cgroup")
PREFIX = "visp-"


class Process(NamedTuple):
    """A process of this boot: numbers are used again, a number with its start time is not."""

    pid: int
    started: str


class Belongings(NamedTuple):
    """Everything that a running server has for its containers."""

    processes: frozenset[Process]
    groups: frozenset[str]
    cells: frozenset[Path]

    @classmethod
    def of(cls, pid: int, cells_dir: Path) -> Belongings:
        """Those of the server with this process id, which keeps its cells below `cells_dir`."""
        below = _below(pid)
        groups = {name for process in below for name in _groups_of(process.pid)}
        return cls(frozenset(below), frozenset(groups), frozenset(_cells(cells_dir)))

    def remaining(self) -> Belongings:
        """What of it is still there."""
        folders = {Path(path).name for path, _, _ in os.walk(GROUPS)} if self.groups else set()
        return Belongings(
            self.processes & {process for process, _ in _parents()},
            self.groups & folders,
            frozenset(cell for cell in self.cells if cell.exists()),
        )


def _parents() -> Iterator[tuple[Process, int]]:
    """Every process that lives, and the id of its parent. Source: proc(5), `/proc/PID/stat`."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if state not in ("Z", "X"):  # what has ended and is not collected yet holds nothing
                yield Process(int(folder.name), rest[17]), int(parent)


def _below(pid: int) -> set[Process]:
    """The process's children, theirs, and so on."""
    children: dict[int, list[Process]] = {}
    for process, parent in _parents():
        children.setdefault(parent, []).append(process)
    found: set[Process] = set()
    waiting = [pid]
    while waiting:
        these = children.get(waiting.pop(), [])
        found.update(these)
        waiting += (process.pid for process in these)
    return found


def _groups_of(pid: int) -> Iterator[str]:
    """The server's own name in the paths of a container's control groups."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        yield from (name for name in line.rpartition(":")[2].split("/") if name.startswith(PREFIX))


def _cells(cells_dir: Path) -> Iterator[Path]:
    """Each container's own folder: a server keeps them in `<instance>/cells`."""
    yield from cells_dir.glob("*/cells/*")
