"""Figures: what they mean by example, and that a seed replays to the byte."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.invoker.keepalive import POLICIES
from visp.sim.compare import compare
from visp.sim.fleet import Setup
from visp.sim.generator import Generated
from visp.sim.report import Report, csv, table
from visp.sim.tally import Quantiles, Series
from visp.sim.workload import Actions, Arrival, Cut

SETUP = Setup(invokers=2, memory_mb=2048, starts_at_once=4, idle_s=600.0, stem_cells_most=4)
SCRIPT = """
import sys
from visp.sim.compare import compare
from visp.sim.fleet import Setup
from visp.sim.generator import Generated
from visp.sim.workload import Cut
setup = Setup(invokers=2, memory_mb=2048, starts_at_once=4, idle_s=600.0, stem_cells_most=4)
workload = Generated(actions=60, seconds=3600, seed=7, invocations=2000)
sys.stdout.buffer.write(compare(workload, setup, ["greedy-dual", "lru"], seed=7, cut=Cut()).to_json())
"""


class Given:
    """A workload by hand."""

    source = "by hand"

    def __init__(self, actions: Actions, arrivals: list[Arrival]) -> None:
        self.actions = actions
        self._arrivals = arrivals

    def arrivals(self):
        return iter(self._arrivals)


@pytest.fixture(scope="module")
def report() -> Report:
    workload = Generated(actions=100, seconds=3600, seed=7, invocations=2000)
    return compare(workload, SETUP, list(POLICIES), seed=7, cut=Cut())


def test_the_figures_of_a_small_run():
    actions = Actions()
    actions.add(0, 1024, 0.5)
    actions.add(1, 1024, 0.5)
    arrivals = [(0.0, 0, 1.0), (5.0, 0, 1.0), (8.5, 1, 1.0)]
    setup = Setup(invokers=1, memory_mb=2048, starts_at_once=4, idle_s=600.0, stem_cells_most=0)
    [one] = compare(Given(actions, arrivals), setup, ["timeout"], seed=1, cut=Cut()).policies
    assert (one.invocations, one.refused, one.end_s) == (3, 0, 10.0)
    assert one.cold_starts.share == pytest.approx(2 / 3)
    assert (one.cold_starts.of_actions_p50, one.cold_starts.of_actions_p75) == (0.5, 1.0)
    assert one.cold_starts.reasons == {"first use": 2}
    assert one.delay_ms.longest == 500
    assert one.queueing_ms.longest == 0
    assert one.memory.busy == pytest.approx(3 * 1024 / 20480)
    assert one.memory.starting == pytest.approx(1024 / 20480)
    assert one.memory.idle == pytest.approx((3.5 + 4.0) * 1024 / 20480)
    # Slowdowns: 1.25 on average for the first namespace, 1.5 for the second.
    assert one.fairness.unfairness == pytest.approx(1 - 2.75**2 / (2 * (1.25**2 + 1.5**2)))
    assert one.fairness.slowdown_worst == 1.5


def test_the_same_seed_gives_the_same_bytes(report):
    again = compare(
        Generated(actions=100, seconds=3600, seed=7, invocations=2000), SETUP, list(POLICIES), seed=7, cut=Cut()
    )
    other = compare(
        Generated(actions=100, seconds=3600, seed=8, invocations=2000), SETUP, list(POLICIES), seed=8, cut=Cut()
    )
    assert report.to_json() == again.to_json() != other.to_json()
    assert msgspec.json.decode(report.to_json(), type=Report) == report


def test_the_order_of_hashing_changes_nothing():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs != {b""}


def test_the_shares_of_memory_are_parts_of_one_whole(report):
    for one in report.policies:
        memory = one.memory
        assert 0 < memory.busy + memory.starting + memory.idle + memory.stem_cells <= 1
        assert one.memory.wasted_gb_h > 0
        assert len(one.cold_starts.of_actions) == 101


def test_a_policy_without_a_clock_never_expires(report):
    lru = next(one for one in report.policies if one.policy == "lru")
    assert lru.containers.expired == 0


def test_the_table_has_a_column_for_each_policy(report):
    head, *rows = table(report)
    assert head == ["", *POLICIES]
    assert all(len(row) == len(head) for row in rows)


def test_csv_has_a_line_for_each_policy(report):
    head, *lines = csv(report).splitlines()
    names = head.split(",")
    assert names[:2] == ["policy", "invocations"]
    assert "cold_starts.share" in names
    assert [line.split(",")[0] for line in lines] == list(POLICIES)
    assert all(len(line.split(",")) == len(names) for line in lines)


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_right_within_a_percent(values, part):
    tally = Quantiles()
    for value in values:
        tally.add(value)
    exact = sorted(values)[max(0, math.ceil(part * len(values)) - 1)]
    found = tally.at(part)
    assert found == pytest.approx(exact, rel=0.012, abs=2e-6)
    assert tally.mean_s == pytest.approx(sum(values) / len(values), rel=1e-6, abs=1e-6)


def test_a_series_thins_itself():
    series = Series(("x",))
    for now_s in range(5000):
        series.take(float(now_s), (now_s,))
    assert len(series.rows) <= Series.LIMIT
    assert series.step_s > 1
    assert all(abs(row[0] - at * series.step_s) <= series.step_s for at, row in enumerate(series.rows))
