"""What is generated has the published distributions (their sources stand in `sim/published.py`)."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from visp.sim import published
from visp.sim.generator import PERIODIC, Generated
from visp.sim.workload import WorkloadError

DAY_S = 86_400
ACTIONS = 20_000


@pytest.fixture(scope="module")
def workload() -> Generated:
    return Generated(actions=ACTIONS, seconds=DAY_S, seed=3)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[int(part * len(values))]


def test_popularity(workload):
    daily = sorted(rate * DAY_S for rate in workload.rates)
    assert sum(rate <= 24 for rate in daily) / ACTIONS == pytest.approx(0.45, abs=0.005)
    assert sum(rate <= 1440 for rate in daily) / ACTIONS == pytest.approx(0.814, abs=0.005)
    popular = daily[int(0.814 * ACTIONS) :]
    assert sum(popular) / sum(daily) == pytest.approx(0.996, abs=0.001)
    assert daily[-1] / daily[0] > 10**7.5  # 8 orders of magnitude, of which a sample misses the ends


def test_durations(workload):
    averages = list(workload.mean_run_s)
    # The log-normal's own quantiles, then what the paper says of the functions in words.
    assert quantile(averages, 0.5) == pytest.approx(0.684, rel=0.06)
    assert quantile(averages, 0.25) == pytest.approx(0.139, rel=0.08)
    assert quantile(averages, 0.75) == pytest.approx(3.36, rel=0.08)
    assert sum(average < 1 for average in averages) / ACTIONS == pytest.approx(0.5, abs=0.08)
    assert sum(average < 60 for average in averages) / ACTIONS == pytest.approx(0.96, abs=0.02)


def test_memory(workload):
    limits = list(workload.actions.memory_mb)
    assert published.burr_mb(0.5) == pytest.approx(139.6, rel=0.001)
    step = published.MEMORY_STEP_MB
    for part in (0.1, 0.5, 0.9):
        assert quantile(limits, part) == pytest.approx(published.burr_mb(part), abs=step)
    # "90 % never consume more than 400 MB, half allocate at most 170 MB"
    assert sum(limit <= 170 for limit in limits) / ACTIONS >= 0.5
    assert sum(limit <= 400 for limit in limits) / ACTIONS >= 0.9


def test_inter_arrival_times_share_out_as_published(workload):
    assert sum(cv == PERIODIC for cv in workload.cv) / ACTIONS == pytest.approx(0.20, abs=0.01)
    assert sum(cv > 1 for cv in workload.cv) / ACTIONS == pytest.approx(0.40, abs=0.015)


def test_pauses_vary_as_their_action_says():
    workload = Generated(actions=300, seconds=DAY_S, seed=5, invocations=300_000)
    times = defaultdict(list)
    for at_s, action, _ in workload.arrivals():
        times[action].append(at_s)
    for action, of_action in times.items():
        if len(of_action) < 3000 or workload.cv[action] > 3:
            continue  # too few to judge by
        pauses = [after - before for before, after in pairwise(of_action)]
        measured = statistics.pstdev(pauses) / statistics.fmean(pauses)
        assert measured == pytest.approx(workload.cv[action], rel=0.25, abs=0.01)


def test_namespaces_have_as_many_actions_as_applications_functions(workload):
    sizes = Counter(Counter(workload.actions.namespace).values())
    namespaces = sum(sizes.values())
    assert sizes[1] / namespaces == pytest.approx(0.54, abs=0.03)
    assert sum(count for size, count in sizes.items() if size <= 10) / namespaces == pytest.approx(0.95, abs=0.02)


def test_about_as_many_come_as_asked_for():
    workload = Generated(actions=2000, seconds=3600, seed=1, invocations=50_000)
    arrivals = list(workload.arrivals())
    assert len(arrivals) == pytest.approx(50_000, rel=0.1)
    assert [at_s for at_s, _, _ in arrivals] == sorted(at_s for at_s, _, _ in arrivals)
    assert all(0 <= at_s < 3600 and 0 < run_s <= 600 for at_s, _, run_s in arrivals)


def test_a_seed_replays():
    def first(seed: int) -> list[tuple[float, int, float]]:
        return list(Generated(actions=50, seconds=3600, seed=seed, invocations=500).arrivals())

    assert first(1) == first(1) != first(2)
    same = Generated(actions=50, seconds=3600, seed=1, invocations=500)
    assert list(same.arrivals()) == list(same.arrivals())


@pytest.mark.parametrize("actions", [0, 1_000_001])
def test_sizes_that_cannot_be_are_refused(actions):
    with pytest.raises(WorkloadError, match="between 1 and 1000000"):
        Generated(actions=actions, seconds=1, seed=1)
