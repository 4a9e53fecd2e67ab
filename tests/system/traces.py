"""What a server's containers leave on its machine, and how tests wait for what must come.

A container is a process tree below its server, a group in each hierarchy of cgroups, and a folder among the cells.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from visp.client.running import Server
from visp.container.cells import instance_of

T = TypeVar("T")

EVERY_S = 0.01
CGROUPS = Path("/sys/fs/cgroup")


def until(condition: Callable[[], T], within_s: float = 10.0, what: object = "") -> T:
    """The first true value of `condition`; fails when there is none in time. `what` may be called for its text."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what() if callable(what) else what} (last: {value!r})")
        time.sleep(EVERY_S)
    return value


class Seen(msgspec.Struct, frozen=True):
    """A process that cannot be mistaken for a later one with its number."""

    pid: int
    started: str

    @property
    def lives(self) -> bool:
        return _look(self.pid) == self

    @property
    def name(self) -> str:
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/comm").read_text().strip()
        return ""

    @property
    def command(self) -> str:
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        return ""


def _look(pid: int) -> Seen | None:
    """None for what is gone, or dead and not yet waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else Seen(pid, fields[19])


TEMPLATES = ("visp-template", "visp-zygote")
"""What stands by for starts to come."""


def below(pid: int) -> list[Seen]:
    """Every living process that descends from one; not the janitor, who works when all else is over, nor templates."""
    return [seen for seen in _descendants(pid) if "visp-janitor" not in seen.command and seen.name not in TEMPLATES]


def standing(pid: int) -> list[Seen]:
    """Templates that descend from a process."""
    return [seen for seen in _descendants(pid) if seen.name in TEMPLATES]


def _descendants(pid: int) -> list[Seen]:
    found: list[Seen] = []
    parents = [pid]
    for parent in parents:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text().split()
                parents += map(int, children)
                found += [seen for child in children if (seen := _look(int(child))) is not None]
    return found


class Traces:
    """Of the server with this data folder, which may be dead."""

    def __init__(self, data_dir: Path, cells_dir: Path) -> None:
        self._instance = instance_of(data_dir.resolve())
        self._cells = cells_dir / self._instance / "cells"

    def folders(self) -> list[Path]:
        try:
            return list(self._cells.iterdir())
        except FileNotFoundError:  # it goes, too
            return []

    def parents(self) -> list[Path]:
        """Of its groups; a search of the whole machine."""
        name = f"visp-{self._instance}"
        return [Path(folder) / name for folder, names, _ in os.walk(CGROUPS) if name in names]

    def groups(self) -> list[Path]:
        return groups_in(self.parents())

    def members(self) -> list[int]:
        """Processes in the groups."""
        return members_of(self.groups())

    def left(self) -> list[str]:
        """All of it, as text."""
        return [str(path) for path in (*self.folders(), *self.groups())] + [str(pid) for pid in self.members()]


def groups_in(parents: list[Path]) -> list[Path]:
    found: list[Path] = []
    for parent in parents:
        with suppress(FileNotFoundError):  # it vanishes while we look
            found += [entry for entry in parent.iterdir() if entry.is_dir()]
    return found


def members_of(groups: list[Path]) -> list[int]:
    pids: set[int] = set()
    for group in groups:
        with suppress(OSError):
            pids.update(map(int, (group / "cgroup.procs").read_text().split()))
    return sorted(pids)


def traces_of(server: Server) -> Traces:
    """Of a server of `running.running`."""
    return Traces(server.data_dir, server.data_dir.parent / "cells")


def annotation(record: Any, key: str) -> Any:
    """An annotation's value; None when there is none."""
    return next((entry["value"] for entry in record["annotations"] if entry["key"] == key), None)


def texts(record: Any, stream: str = "") -> list[str]:
    """Log lines without their stamps: those of one stream, or `stream: line` of all."""
    lines = [line.partition(" ")[2] for line in record["logs"]]
    return [line.removeprefix(f"{stream}: ") for line in lines if line.startswith(stream)] if stream else lines


def rss_kib(pid: int, field: str = "VmRSS") -> int:
    """A line of a process's memory in `/proc`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise AssertionError(f"{pid} has no {field}")


class Peak:
    """How far a process's resident memory rises above what it is now."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the highest is now
        self._before = rss_kib(pid)

    @property
    def mib(self) -> float:
        return (rss_kib(self._pid, "VmHWM") - self._before) / 1024


def stored(api: Any, id: str, within_s: float = 10.0) -> Any:
    """The record of an activation, which is there soon."""

    def look() -> Any:
        answer = api.get(f"activations/{id}")
        return json.loads(answer.body) if answer.status == 200 else None

    return until(look, within_s, f"no record of {id}")


def shards_of(server: Server) -> dict[int, int]:
    """The process of each shard by its number."""
    pids: dict[int, int] = {}
    for seen in below(server.pid):
        _, is_shard, number = seen.command.partition(" -m visp.shards ")
        if is_shard:
            pids[int(number)] = seen.pid
    return pids
