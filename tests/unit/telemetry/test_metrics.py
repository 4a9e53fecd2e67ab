"""Counting: buckets by powers of two, labels, and who is asked at a scrape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import visp
from visp.telemetry.metrics import HIGHEST, LOWEST, Family, Histogram, Registry, Tally


@pytest.mark.parametrize(
    ("us", "bound_us"), [(0, 64), (1, 64), (64, 64), (65, 128), (128, 128), (129, 256), (1 << 28, 1 << 28)]
)
def test_a_duration_is_in_the_first_bucket_that_holds_it(us: int, bound_us: int) -> None:
    histogram = Histogram()
    histogram.add(us)
    first = next(bound for bound, count in histogram.shown().buckets if count)
    assert first == bound_us / 1e6


def test_buckets_are_cumulative_and_end_with_all() -> None:
    histogram = Histogram()
    for us in (10, 100, 1000, 10**12):
        histogram.add(us)
    shown = histogram.shown()
    counts = [count for _, count in shown.buckets]
    assert counts == sorted(counts)
    assert (counts[0], counts[-2], counts[-1]) == (1, 3, 4)
    assert [bound for bound, _ in shown.buckets[:-1]] == [2**bits / 1e6 for bits in range(LOWEST, HIGHEST + 1)]
    assert shown.buckets[-1][0] == float("inf")
    assert shown.sum_s == pytest.approx(1_000_000.00111)


def test_a_tally_counts_by_labels() -> None:
    tally = Tally()
    for labels in (("a", "x"), ("a", "y"), ("a", "x")):
        tally.add(*labels)
    assert tally.samples() == {("a", "x"): 2, ("a", "y"): 1}


def test_every_source_is_asked_at_each_scrape() -> None:
    registry = Registry({"shard": "0"})
    asked: list[str] = []

    def source(name: str) -> list[Family]:
        asked.append(name)
        return [Family(name, "", "gauge", {(): len(asked)})]

    registry.add(lambda: source("one"))
    registry.add(lambda: source("two"))
    assert [family.name for family in registry.families()] == ["one", "two"]
    assert [family.samples for family in registry.families()] == [{(): 3}, {(): 4}]


def test_every_metric_is_documented() -> None:
    root = Path(visp.__file__).parent
    constant = re.compile(r'^[A-Z_]+ = "(visp_\w+)"', re.MULTILINE)
    named = {name for path in root.rglob("*.py") for name in constant.findall(path.read_text())}
    page = (root.parents[1] / "docs" / "operations.md").read_text()
    assert named
    assert named == set(re.findall(r"`(visp_\w+)`", page))
