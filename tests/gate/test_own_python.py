"""visp's own Python for a warm invocation stays where it is recorded, in ratio to a fixed piece of Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # a thousand batches and as many references, in a process of its own: nothing of pytest is measured
def test_own_python_has_not_grown() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "bench", "gate"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
