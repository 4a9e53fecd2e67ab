"""Two commits side by side: `python -m bench compare A B [NAME …]`.

Each is taken out of git into a folder that is thrown away (a folder may be named as well: `.` is the working tree), its
server started beside the other's, and both are loaded in turn, A B B A. What a round gives is B's figure by A's; the
verdict is a test over the rounds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from bench import load, machine, table, verdict
from bench.goals.burst import CLIENTS as BURST_CLIENTS
from bench.goals.cold import ColdStarts
from bench.goals.cpu import invocation_us
from bench.load import Broken
from bench.measure import Finding, interleaved, ratio, spread
from bench.server import HELLO_NODE, HELLO_PYTHON, NODE_KIND, NOOP, PYTHON_KIND, Platform, platform
from visp.client.running import NotReady
from visp.errors import VispError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

ROOT = Path(__file__).parents[1]
ROUNDS = 8
SECONDS = 2
STARTS = 8
MANY = 32
HEADS = ("what", "B", "A", "B by A", "verdict")


class Version(msgspec.Struct, frozen=True):
    """One side: its source, and an interpreter that has what it needs."""

    revision: str
    source: Path
    python: str

    def server(self, settings: dict[str, object]) -> AbstractContextManager[Platform]:
        environment = {"PYTHONPATH": str(self.source / "src")}
        return platform(settings, python=self.python, env=environment)


class Measure(msgspec.Struct, frozen=True):
    """One figure: how it is got of a prepared server, and which way is better."""

    what: str
    unit: str
    is_more_better: bool
    begin: Callable[[Platform], Callable[[], float]]
    settings: dict[str, object] = {}


def _warm(visp: Platform) -> Callable[[], float]:
    visp.put_action("noop", NOOP)
    visp.load("actions/noop", clients=1, seconds=1)
    return lambda: visp.load("actions/noop", clients=1, seconds=SECONDS).p50_us / 1000


def _throughput(visp: Platform) -> Callable[[], float]:
    visp.put_action("noop", NOOP)
    visp.load("actions/noop", clients=MANY, seconds=1)
    return lambda: visp.load("actions/noop", clients=MANY, seconds=SECONDS).per_s


def _cpu(visp: Platform) -> Callable[[], float]:
    visp.put_action("noop", NOOP)
    visp.load("actions/noop", clients=MANY, seconds=1)
    return lambda: invocation_us(visp, MANY, SECONDS)


def _sequence(visp: Platform) -> Callable[[], float]:
    visp.put_action("noop", NOOP)
    visp.put("actions", "three", {"exec": {"kind": "sequence", "components": ["/_/noop"] * 3}})
    visp.load("actions/three", clients=1, seconds=1)
    return lambda: visp.load("actions/three", clients=1, seconds=SECONDS).p50_us / 1000


def _accepted(visp: Platform) -> Callable[[], float]:
    visp.put_action("noop", NOOP)
    visp.load("actions/noop", clients=BURST_CLIENTS, seconds=1)

    def accepted() -> float:
        taken = visp.load(
            "actions/noop", clients=BURST_CLIENTS, seconds=SECONDS, query="blocking=false", may_refuse=True
        )
        visp.settle()
        return taken.per_s

    return accepted


def _cold(code: str, kind: str) -> Callable[[Platform], Callable[[], float]]:
    def begin(visp: Platform) -> Callable[[], float]:
        starts = ColdStarts(visp, code, kind)
        return lambda: median(starts.start_s() for _ in range(STARTS)) * 1000

    return begin


NO_CELLS: dict[str, object] = {"pool.stem_cells": 0}

MEASURES = {
    "warm": Measure("warm call, 1 client: p50", "ms", False, _warm),
    "throughput": Measure(f"warm calls, {MANY} clients", "/s", True, _throughput),
    "cpu": Measure(f"CPU of a warm call, {MANY} clients", "µs", False, _cpu),
    "sequence": Measure("sequence of three, 1 client: p50", "ms", False, _sequence),
    "accepted": Measure(f"accepted (202), {BURST_CLIENTS} clients", "/s", True, _accepted),
    "cold_python": Measure("cold Python, no stem cell: p50", "ms", False, _cold(HELLO_PYTHON, PYTHON_KIND), NO_CELLS),
    "cold_node": Measure("cold Node.js, stem cell: p50", "ms", False, _cold(HELLO_NODE, NODE_KIND)),
}


def compared(a: Version, b: Version, names: list[str], rounds: int) -> Iterator[Finding]:
    for name in names:
        measure = MEASURES[name]
        print(f"{name} …", file=sys.stderr, flush=True)
        with a.server(measure.settings) as one, b.server(measure.settings) as other:
            first, second = interleaved(rounds, measure.begin(one), measure.begin(other))
        times = ratio(second, first)
        yield Finding(
            goal=name,
            what=measure.what,
            unit=measure.unit,
            ours=spread(second),
            floor=spread(first),
            ratio=times,
            note=verdict.of_ratios(times.rounds, is_more_better=measure.is_more_better),
        )


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────


def take(revision: str, folder: Path) -> Version:
    """A revision of git, laid out in `folder`, or a folder as it is. Raises `Broken`.

    What needs the same packages as this tree runs on its interpreter; else it gets an environment of its own.
    """
    if Path(revision).is_dir():
        source = Path(revision).resolve()
    else:
        source = folder
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", "--format=tar", revision], capture_output=True, check=False
        )
        if archive.returncode != 0:
            raise Broken(f"git: {archive.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
    wanted = source / "requirements.txt"
    if wanted.read_bytes() == (ROOT / "requirements.txt").read_bytes():
        return Version(revision, source, sys.executable)
    print(f"{revision} needs other packages: an environment is made for it …", file=sys.stderr, flush=True)
    venv.create(folder / ".venv", with_pip=True)
    python = str(folder / ".venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(wanted)]
    if subprocess.run(install, check=False).returncode != 0:
        raise Broken(f"the packages of {revision} cannot be installed")
    return Version(revision, source, python)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench compare", description="Measures two commits side by side.")
    parser.add_argument("a", metavar="A", help="a revision of git, or a folder with a working tree")
    parser.add_argument("b", metavar="B", help="the same; ratios are B by A")
    parser.add_argument("names", nargs="*", metavar="name", help=f"one or more of: {', '.join(MEASURES)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each takes its turn ({ROUNDS})")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in MEASURES]:
        parser.error(f"nothing that is compared is called {', '.join(unknown)}: choose from {', '.join(MEASURES)}")
    if not load.is_installed():
        sys.exit(f"bench: {load.MISSING}")
    try:
        with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
            a, b = (take(revision, _folder(folder, side)) for side, revision in (("a", options.a), ("b", options.b)))
            findings = list(compared(a, b, options.names or list(MEASURES), options.rounds))
    except (Broken, NotReady, VispError, TimeoutError) as error:
        sys.exit(f"bench: {error}")
    rows = [
        (f.what, table.spread(f.ours, f.unit), table.spread(f.floor, f.unit), table.spread(f.ratio, "×"), f.note)
        for f in findings
    ]
    print(f"\nA: {options.a}   B: {options.b}   load average {os.getloadavg()[0]:.2f}   {machine.cpu()}\n")
    print(table.lay((HEADS, *rows)))


def _folder(parent: str, side: str) -> Path:
    folder = Path(parent) / side
    folder.mkdir()
    return folder
