"""Limits on whole process trees: a group in each hierarchy that can be written.

Version 1 controllers hold the limits where they are mounted; a bare version 2 tree beside them freezes and kills. On a
pure version 2 machine one group does both. A normal user without a delegated tree has none: then rlimits bound each
process, and `watch` their sum.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path("/sys/fs/cgroup")
V1 = ("memory", "pids", "cpu")
PROCESSES, THREADS = "cgroup.procs", "tasks"
CPU_SHARES_OF_A_GIB = 1024
GONE_S = 1.0
EMPTY_CHECK_S = 0.002
FILE_BYTES = 65536

_JOIN = 'unset PWD; while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
"""Moves itself into each group named before `--`, then becomes what follows. The text is fixed; all else are words."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    memory_bytes: int
    processes: int


class Group:
    """One container's groups. Methods write small files of the kernel and do not wait."""

    def __init__(self, folders: dict[str, Path], late: deque[Path]) -> None:
        """`late` is where it leaves folders that cannot be removed in time."""
        self._folders = folders
        self._late = late
        self._v2 = folders.get("unified")
        self._limits: Limits | None = None

    @property
    def join(self) -> tuple[str, ...]:
        """Files into which a process of one thread writes 0 to move itself here.

        Where a thread may be moved alone, that takes no lock of all threads: the kernel waits some 10 ms for that one.
        """
        return tuple(str(folder / (PROCESSES if folder == self._v2 else THREADS)) for folder in self._folders.values())

    @property
    def born_in(self) -> Path | None:
        """The folder of a group in which a process can be born, which takes no time; the others are joined."""
        return self._v2

    @property
    def joined_by(self) -> tuple[Path, ...]:
        """Files as `join`, of those groups in which none can be born."""
        return tuple(folder / THREADS for folder in self._folders.values() if folder != self._v2)

    def limit(self, limits: Limits) -> None:
        """Bounds what is in it, and what will be; what is bounded so already costs nothing."""
        if limits == self._limits:
            return
        is_raised = self._limits is not None and limits.memory_bytes > self._limits.memory_bytes
        self._limits = limits
        for hierarchy, folder in self._folders.items():
            values = [*_values(hierarchy, limits).items()]
            for file, value in reversed(values) if is_raised else values:  # memory may never exceed memory with swap
                _set(f"{folder}/{file}", value)

    @property
    def can_freeze(self) -> bool:
        return self._v2 is not None

    @property
    def bounds_memory(self) -> bool:
        return "memory" in self._folders or _has(self._v2, "memory.max")

    def freeze(self, is_frozen: bool) -> None:
        assert self._v2 is not None
        (self._v2 / "cgroup.freeze").write_text("1" if is_frozen else "0")

    def kill(self) -> None:
        """SIGKILL to all, also to those that fork meanwhile."""
        if _has(self._v2, "cgroup.kill"):
            assert self._v2 is not None
            (self._v2 / "cgroup.kill").write_text("1")
            return
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, 9)

    def has_run_out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of the group for its memory."""
        for folder, name in ((self._folders.get("memory"), "memory.oom_control"), (self._v2, "memory.events")):
            if folder is None:
                continue
            with contextlib.suppress(OSError, ValueError):
                for line in _read(f"{folder}/{name}").splitlines():
                    word, _, count = line.partition(" ")
                    if word == "oom_kill" and int(count) > 0:
                        return True
        return False

    def remove(self) -> None:
        """Kills what is left and removes the groups; blocks up to a second. What takes longer goes with a later one."""
        _sweep(self._late)
        until = time.monotonic() + GONE_S
        left = [folder for folder in self._folders.values() if not _is_removed(folder)]
        while left and time.monotonic() < until:
            if self._pids():
                with contextlib.suppress(OSError):
                    self.kill()
            time.sleep(EMPTY_CHECK_S)
            left = [folder for folder in left if not _is_removed(folder)]
        self._late.extend(left)

    def _pids(self) -> list[int]:
        out: set[int] = set()
        for folder in self._folders.values():
            with contextlib.suppress(OSError):
                out.update(map(int, _read(f"{folder}/{PROCESSES}").split()))
        return [pid for pid in out if pid > 0]


class Cgroups:
    """Where this server's groups lie; each of its containers gets a group of its own below."""

    def __init__(self, parents: dict[str, Path]) -> None:
        self._parents = parents
        self._late: deque[Path] = deque()

    @classmethod
    def find(cls, name: str) -> Cgroups:
        """The hierarchies that can be written here, each with a parent group called `name` made in it."""
        parents: dict[str, Path] = {}
        for hierarchy, base in _bases():
            folder = base / name
            try:
                folder.mkdir(exist_ok=True)
                if hierarchy == "unified":
                    _enable(base)
                    _enable(folder)
            except OSError:
                continue
            parents[hierarchy] = folder
        return cls(parents)

    @property
    def bounds_memory(self) -> bool:
        return "memory" in self._parents or "memory" in _controllers(self._parents.get("unified"))

    @property
    def can_freeze(self) -> bool:
        return "unified" in self._parents

    @property
    def hierarchies(self) -> tuple[str, ...]:
        return tuple(self._parents)

    def make(self, name: str, limits: Limits | None = None) -> Group | None:
        """A group, without limits if none are given; None where nothing can be written."""
        folders: dict[str, Path] = {}
        for hierarchy, parent in self._parents.items():
            folders[hierarchy] = folder = parent / name
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
        group = Group(folders, self._late) if folders else None
        if group is not None and limits is not None:
            group.limit(limits)
        return group

    def reap(self) -> int:
        """Ends and removes what an earlier server left; how many groups."""
        names = {entry.name for parent in self._parents.values() for entry in parent.iterdir() if entry.is_dir()}
        for name in names:
            Group({hierarchy: parent / name for hierarchy, parent in self._parents.items()}, self._late).remove()
        return len(names)

    @property
    def parents(self) -> tuple[Path, ...]:
        """Where this server's groups lie."""
        return tuple(self._parents.values())


def joined(shell: str, files: Sequence[str], argv: Sequence[str]) -> list[str]:
    """A command that moves itself into groups by their `join` files and then becomes `argv`; without any, `argv`."""
    return [shell, "-c", _JOIN, "sh", *files, "--", *argv] if files else list(argv)


def _bases() -> list[tuple[str, Path]]:
    """For each hierarchy, the group below which this process may make its own."""
    out: list[tuple[str, Path]] = []
    own = _own_groups()
    for controller in V1:
        mounted = ROOT / controller
        if (mounted / PROCESSES).exists() and controller in own:
            base = mounted / own[controller].lstrip("/")
            out.append((controller, base if base.is_dir() else mounted))
    unified = ROOT / "unified" if (ROOT / "unified" / PROCESSES).exists() else ROOT
    if (unified / "cgroup.controllers").exists():
        out.append(("unified", unified))
    return out


def _own_groups() -> dict[str, str]:
    out: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                out[controller] = path
    return out


def _enable(folder: Path) -> None:
    """Hands the controllers that there are on to the groups below."""
    for controller in _controllers(folder):
        if controller in V1:
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _controllers(folder: Path | None) -> list[str]:
    try:
        return [] if folder is None else (folder / "cgroup.controllers").read_text().split()
    except OSError:
        return []


def _values(hierarchy: str, limits: Limits) -> dict[str, str]:
    memory, processes = str(limits.memory_bytes), str(limits.processes)
    share = max(2, CPU_SHARES_OF_A_GIB * limits.memory_bytes >> 30)
    if hierarchy == "memory":
        return {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory}
    if hierarchy == "pids":
        return {"pids.max": processes}
    if hierarchy == "cpu":
        return {"cpu.shares": str(share)}
    return {
        "memory.max": memory,
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": processes,
        "cpu.weight": str(max(1, min(10_000, share * 100 // CPU_SHARES_OF_A_GIB))),
    }


def _read(file: str) -> str:
    """Of the kernel's own, which are short."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, FILE_BYTES).decode()
    finally:
        os.close(descriptor)


def _set(file: str, value: str) -> None:
    """Not every kernel has each file."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


def _sweep(late: deque[Path]) -> None:
    """Removes what can be removed by now, in whichever thread: who frees a full /tmp takes long to die."""
    for _ in range(len(late)):
        with contextlib.suppress(IndexError):
            folder = late.popleft()
            if not _is_removed(folder):
                late.append(folder)


def _is_removed(folder: Path) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _has(folder: Path | None, name: str) -> bool:
    return folder is not None and (folder / name).exists()
