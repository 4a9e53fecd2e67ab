"""Where the time of a benchmark goes: `python -m bench profile NAME`.

While the benchmark runs, a sampler looks at its servers: py-spy, which sees Python's functions, else perf, which sees
only C's. Figures taken with it mean nothing; what is kept is a table of the functions that cost most, and a flame
graph.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import flame

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = Path(__file__).with_name("results")
PER_S = 250
STOP_S = 60.0
FUNCTIONS = 30
WAITING = ("_worker (concurrent/futures/thread.py",)
"""Where a thread that waits for work seems to work."""
MISSING = "no profiler is installed: pip install py-spy (sees Python), or perf (sees only C)"

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)
"""Where samples go while a benchmark is profiled."""


class Line(msgspec.Struct, frozen=True):
    """One function: how much of all samples were in it itself, and in it or what it called, in per cent."""

    own: float
    total: float
    function: str


# ── sampling ────────────────────────────────────────────────────────────────────────────────────────────────────


def is_possible() -> bool:
    return _py_spy() is not None


@contextlib.contextmanager
def attached(pid: int) -> Iterator[None]:
    """Samples the process for the block, if a benchmark is being profiled."""
    folder = _folder.get()
    if folder is None:
        yield
        return
    with subprocess.Popen(_sampler(pid, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sampler:
        try:
            yield
        finally:
            sampler.send_signal(signal.SIGINT)  # it writes what it has
            sampler.wait(STOP_S)


@contextlib.contextmanager
def into(folder: Path) -> Iterator[None]:
    """Servers that are measured in the block are sampled."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def _sampler(pid: int, folder: Path) -> list[str]:
    py_spy = _py_spy()
    if py_spy is not None:
        output = str(folder / f"{pid}.stacks")
        return [py_spy, "record", "-p", str(pid), "-r", str(PER_S), "-f", "raw", "-F", "-o", output]
    return ["perf", "record", "-q", "-F", str(PER_S), "-g", "-p", str(pid), "-o", str(folder / f"{pid}.perf")]


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


# ── what was seen ───────────────────────────────────────────────────────────────────────────────────────────────


def stacks(text: str) -> Counter[tuple[str, ...]]:
    """Samples as py-spy writes them: `outer;inner;innermost COUNT` a line, added up by stack, without waiting threads.

    Pure.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = tuple(stack.split(";"))
        if stack and count.isdigit() and not frames[-1].startswith(WAITING):
            found[frames] += int(count)
    return found


def heaviest(samples: Counter[tuple[str, ...]]) -> list[Line]:
    """The functions that cost most by themselves. Pure."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for stack, count in samples.items():
        own[stack[-1]] += count
        for function in set(stack):
            total[function] += count
    whole = sum(samples.values()) or 1
    return [
        Line(round(count / whole * 100, 1), round(total[function] / whole * 100, 1), function)
        for function, count in own.most_common(FUNCTIONS)
    ]


def table(lines: list[Line]) -> str:
    rows = [f"{line.own:6.1f} {line.total:6.1f}  {line.function}" for line in lines]
    return "\n".join(["  own %  all %  function", *rows])


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def of_benchmark(name: str) -> Counter[tuple[str, ...]]:
    """Runs a benchmark once, briefly, with its servers sampled by py-spy."""
    with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
        _run(name, Path(folder))
        return stacks("\n".join(path.read_text() for path in sorted(Path(folder).glob("*.stacks"))))


def _run(name: str, folder: Path) -> None:
    from bench import goals, rig  # they measure servers, which are sampled through this module

    amount = msgspec.structs.replace(rig.build(rounds=1, is_quick=True), seconds=5, starts=10)
    with into(folder):
        for _ in goals.benchmark(name).measure(amount):
            pass


def main(arguments: list[str]) -> None:
    from bench import goals
    from bench.load import Broken

    parser = argparse.ArgumentParser(prog="bench profile", description="Shows where the time of a benchmark goes.")
    parser.add_argument("name", choices=goals.NAMES, metavar="name", help=", ".join(goals.NAMES))
    name = parser.parse_args(arguments).name
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}-{name}"
    try:
        if _py_spy() is not None:
            samples = of_benchmark(name)
            text = table(heaviest(samples))
            path.with_suffix(".svg").write_text(flame.render(samples))
            print(f"{text}\n\n{path}.svg")
        elif shutil.which("perf") is not None:
            text = _with_perf(name)
            print("\n".join(text.splitlines()[:FUNCTIONS]))
        else:
            sys.exit(f"bench: {MISSING}")
    except (Broken, TimeoutError) as error:
        sys.exit(f"bench: {error}")
    path.with_suffix(".txt").write_text(text)
    print(f"{path}.txt")


def _with_perf(name: str) -> str:
    """perf's own report, of each server that was measured."""
    with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
        _run(name, Path(folder))
        reports = [
            subprocess.run(
                ["perf", "report", "--stdio", "--no-children", "-g", "none", "-i", str(path)],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            for path in sorted(Path(folder).glob("*.perf"))
        ]
    return "\n".join(line for report in reports for line in report.splitlines() if line and not line.startswith("#"))
