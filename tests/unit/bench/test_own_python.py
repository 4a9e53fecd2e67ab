"""visp's own Python for a warm invocation stays where it is recorded, in ratio to a fixed piece of Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind to count with: apt-get install valgrind")
@pytest.mark.slow  # valgrind makes a process fifty times slower
def test_own_python_has_not_grown() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "bench", "gate"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
