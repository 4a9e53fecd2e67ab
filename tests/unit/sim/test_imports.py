"""The simulator decides with the server's own functions, and touches nothing else of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from visp import sim

PURE_OF_THE_INVOKER = {"cell_demand", "fair", "job", "keepalive", "plan", "prewarm", "waiting"}
MODULES = sorted(Path(sim.__file__).parent.glob("*.py"))


def imported(path: Path) -> set[str]:
    return {
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("visp")
    }


def test_of_the_platform_only_the_deciding_parts_are_imported():
    outside = {name for path in MODULES for name in imported(path) if not name.startswith("visp.sim")}
    allowed = {"visp.scheduler.placement", *(f"visp.invoker.{name}" for name in PURE_OF_THE_INVOKER)}
    assert outside <= allowed
    assert {"visp.invoker.plan", "visp.invoker.keepalive", "visp.scheduler.placement"} <= outside


def test_no_loop_no_socket_and_no_plots_are_loaded_with_it():
    script = "import sys, visp.sim.compare, visp.sim.generator; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=60)
    assert not {"asyncio", "socket", "matplotlib", "starlette"} & set(out.stdout.split())
