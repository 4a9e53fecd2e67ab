"""Forty kills of real servers under load: the clients' log is the judge. `make crash` makes as many as one likes."""

from __future__ import annotations

import os
import random

import pytest
from tests.crash.__main__ import table
from tests.crash.harness import run

pytestmark = pytest.mark.slow  # a server is started for nearly every kill

KILLS = 40
POINTS = 12


def test_forty_kills_lose_nothing_and_run_nothing_twice() -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    report = run(KILLS, seed)
    print(table(report))
    assert report.violations == []
    assert report.kills >= KILLS
    assert len(report.reached) >= POINTS, f"not reached in time: {report.missed}"
