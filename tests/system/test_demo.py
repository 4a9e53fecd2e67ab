"""The demo tells its story without a surprise, and would not keep one to itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parents[2] / "demo"
STEPS = 9


def needs() -> str | None:
    """What keeps the demo from running here."""
    for program, package in (("bwrap", "bubblewrap"), ("node", "nodejs")):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    if not (DEMO / "node_modules").is_dir():
        return "demo/node_modules is missing: npm ci --prefix demo"
    if any(importlib.util.find_spec(module) is None for module in ("markdown", "PIL")):
        return "markdown or pillow is not installed: make install"
    return None


MISSING = needs()
can_run = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


@can_run
@pytest.mark.slow  # a whole story: a server, two dozen commands, and a photograph of 12 megapixels; some ten seconds
def test_the_story_comes_as_expected() -> None:
    done = subprocess.run([sys.executable, DEMO / "run.py"], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{STEPS} of {STEPS} steps came as expected" in done.stdout
    assert "\x1b" not in done.stdout


@can_run
@pytest.mark.slow  # starts a server for the demo
def test_sigterm_takes_the_server_along() -> None:
    with subprocess.Popen([sys.executable, DEMO / "run.py"], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if "visp namespace list" in line)
        theirs = load("leftovers").Belongings.of(demo.pid, DEMO / "none")
        demo.terminate()
        demo.stdout.read()
    assert demo.returncode == 128 + signal.SIGTERM
    assert len(theirs.processes) > 1
    assert not theirs.remaining().processes


SURPRISES = """
from run import say, tell
from stage import Stage, Surprise
from steps import Step, Told

def come(stage): return Told({"colour": "blue"}, {"colour": "blue"})
def come_otherwise(stage): return Told({"colour": "blue"}, {"colour": "red"})
def refuse(stage): raise Surprise("the painter is ill")
def fall(stage): return 1 / 0

with Stage(say) as stage:
    raise SystemExit(tell([Step(one.__name__, "A wall is painted.", one) for one in PAINTERS], stage))
"""


def paint(*painters: str) -> subprocess.CompletedProcess[str]:
    """The runner over steps that need no server."""
    program = SURPRISES.replace("PAINTERS", f"({', '.join(painters)},)")
    environ = os.environ | {"PYTHONPATH": str(DEMO)}
    argv = [sys.executable, "-c", program]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)


@can_run
def test_what_comes_as_expected_is_no_surprise() -> None:
    done = paint("come", "come")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 steps came as expected" in done.stdout


@can_run
def test_another_value_is_shown_against_what_was_expected() -> None:
    done = paint("come_otherwise", "come")
    assert done.returncode == 1
    assert '- "colour": "blue"' in done.stdout
    assert '+ "colour": "red"' in done.stdout
    assert "1 of 2 steps came as expected" in done.stdout


@can_run
@pytest.mark.parametrize(("painter", "said"), [("refuse", "the painter is ill"), ("fall", "ZeroDivisionError")])
def test_a_step_that_cannot_go_on_is_a_surprise(painter: str, said: str) -> None:
    done = paint("come", painter)
    assert done.returncode == 1
    assert said in done.stdout
    assert "1 of 2 steps came as expected" in done.stdout


def test_a_process_and_a_cell_are_seen_until_they_are_gone(tmp_path: Path) -> None:
    cell = tmp_path / "instance" / "cells" / "one"
    cell.mkdir(parents=True)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        had = load("leftovers").Belongings.of(os.getpid(), tmp_path)
        seen = had.remaining()
    cell.rmdir()
    left = had.remaining()
    assert child.pid in {process.pid for process in seen.processes}
    assert seen.cells == {cell}
    assert child.pid not in {process.pid for process in left.processes}
    assert not left.cells


def load(module: str) -> Any:
    """A module of the demo, which is no package."""
    spec = importlib.util.spec_from_file_location(f"demo_{module}", DEMO / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
