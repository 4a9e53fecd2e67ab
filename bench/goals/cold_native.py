"""A cold start of a compiled binary, beside a fork and exec of it: in a sandbox that stands already, and in none."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import floors
from bench.goals import Goal
from bench.goals.cold import ColdStarts, chart, medians_ms
from bench.load import Broken
from bench.measure import Chart, Finding, bar, difference, ratio, spread
from bench.server import platform
from visp import premises
from visp.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("cold_native", "a cold Go binary in the sandbox: create, init, run")
FAMILY = "go"
ADDED_MS, RATIO = 8.0, 3.0
SOURCE = Path(floors.__file__).with_name("hello.go")
LINE, ANSWER = b'{"value":{"name":"World"}}\n', b'{"greeting":"Hello, World"}\n'


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    kind = _kind()
    if kind is None or shutil.which("go") is None:
        promise = f"≤ fork + exec + {ADDED_MS:.0f} ms"
        yield Finding(goal=GOAL.name, what="p50", promise=promise, note="not measured: no Go is installed")
        return
    with (
        tempfile.TemporaryDirectory(prefix="visp-bench-") as folder,
        platform({"pool.stem_cells": 0}) as ready,
        platform({"pool.stem_cells": 0, "container.blanks": 0}) as bare,
    ):
        binary = _built(Path(folder))
        code = base64.b64encode(binary.read_bytes()).decode()
        with floors.cell(rig.python, str(binary)) as cell:
            ready_ms, bare_ms, in_cell_ms, floor_ms = medians_ms(
                rig,
                ColdStarts(ready, code, kind).start_s,
                ColdStarts(bare, code, kind).start_s,
                lambda: cell.start_s(LINE, ANSWER),
                lambda: fork_exec_s(str(binary)),
            )
    times, added = ratio(ready_ms, in_cell_ms), difference(bare_ms, floor_ms)
    yield Finding(
        goal=GOAL.name,
        what="p50, a cell is ready; floor: fork and exec in a cell",
        unit="ms",
        ours=spread(ready_ms),
        floor=spread(in_cell_ms),
        ratio=times,
        promise=f"≤ {RATIO:.0f} × floor",
        is_met=times.median <= RATIO,
    )
    yield Finding(
        goal=GOAL.name,
        what="p50 added to fork and exec, no cell is ready",
        unit="ms",
        ours=added,
        floor=spread(floor_ms),
        promise=f"≤ {ADDED_MS:.0f} ms",
        is_met=added.median <= ADDED_MS,
    )
    yield chart(
        bar("Go binary, no cell", spread(bare_ms).median),
        bar("Go binary, a cell is ready", spread(ready_ms).median),
        bar("floor: fork and exec of it in a cell", spread(in_cell_ms).median),
    )


def _kind() -> str | None:
    """A kind of Go that runs here by programs of this machine."""
    kinds = [kind for kind in premises.read_manifest(Settings()).kinds() if kind.family == FAMILY]
    return next((kind.kind for kind in reversed(kinds) if kind.local is not None), None)


def _built(folder: Path) -> Path:
    binary = folder / "hello"
    environment = os.environ | {"CGO_ENABLED": "0", "GOCACHE": str(folder / "cache"), "GO111MODULE": "off"}
    built = subprocess.run(
        ["go", "build", "-ldflags", "-s -w", "-o", str(binary), str(SOURCE)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise Broken(f"go build: {built.stderr.strip()}")
    return binary


def fork_exec_s(binary: str) -> float:
    """Seconds from the start of the binary to its answer on descriptor 3."""
    inside, stdin = os.pipe()
    replies, outside = os.pipe()
    os.write(stdin, LINE)
    began_s = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, inside, 0), (os.POSIX_SPAWN_DUP2, outside, 3)]
    pid = os.posix_spawn(binary, [binary], floors.ENVIRONMENT, file_actions=actions)
    os.close(outside)
    answer = os.read(replies, floors.ANSWER_BYTES)
    took_s = time.perf_counter() - began_s
    for descriptor in (inside, stdin, replies):
        os.close(descriptor)
    os.waitpid(pid, 0)
    if answer != ANSWER:
        raise Broken(f"the binary answered {answer!r}")
    return took_s
