"""How much is measured, and with which programs."""

from __future__ import annotations

import msgspec

from bench import load
from bench.load import Broken
from bench.server import NODE_KIND, PYTHON_KIND
from visp import premises
from visp.runtime import local
from visp.settings import Settings, runtimes_folder

RECORDS = 1_000_000
ACTIONS, RULES = 100_000, 10_000


class Rig(msgspec.Struct, frozen=True, kw_only=True):
    """What every benchmark is given."""

    rounds: int
    seconds: int
    """Of one load."""
    starts: int
    """Cold starts in a round."""
    bursts: int
    """Of accepted work."""
    burst_s: int
    connections: tuple[int, ...]
    """Of the curve of throughput."""
    containers: tuple[int, ...]
    """Of the curve of memory."""
    records: int
    """How many are stored where many are; `actions` and `rules` likewise."""
    actions: int
    rules: int
    idle: int
    """Connections on which nothing happens."""
    alarms: int
    changes: int
    growth: tuple[int, ...]
    """What parts of them the curves of growth stop at: one in so many."""
    node: str
    python: str


def build(*, rounds: int | None, is_quick: bool, records: int | None = None) -> Rig:
    """The usual amount, or as much as shows that everything works. Raises `Broken` where a program is missing."""
    if not load.is_installed():
        raise Broken(load.MISSING)
    return Rig(
        rounds=rounds or (1 if is_quick else 7),
        seconds=1 if is_quick else 3,
        starts=2 if is_quick else 10,
        bursts=1 if is_quick else 3,
        burst_s=1 if is_quick else 5,
        connections=(1, 8, 64) if is_quick else (1, 2, 4, 8, 16, 32, 64, 128),
        containers=(1, 4) if is_quick else (1, 2, 5, 10, 20, 30, 40, 50),
        records=records or (RECORDS // 50 if is_quick else RECORDS),
        actions=ACTIONS // 50 if is_quick else ACTIONS,
        rules=RULES // 50 if is_quick else RULES,
        idle=500 if is_quick else 10_000,
        alarms=200 if is_quick else 10_000,
        changes=5_000 if is_quick else 30_000,
        growth=(100, 1) if is_quick else (1000, 100, 10, 1),
        node=_program(NODE_KIND),
        python=_program(PYTHON_KIND),
    )


def _program(kind: str) -> str:
    """The program that runs the kind, so that floors run on the same."""
    entry, home = premises.read_manifest(Settings()).find(kind), runtimes_folder(Settings())
    found = None if entry is None or entry.local is None else local.find_program(entry.local, home)
    if found is not None:
        return local.on_host(found, home)
    raise Broken(f"no program on this machine runs {kind}: `visp doctor` says what is missing")
