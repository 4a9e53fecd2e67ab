"""Pictures: each suffix gives its format, the same report the same bytes."""

from __future__ import annotations

import sys

import pytest

from visp.invoker.keepalive import POLICIES
from visp.sim import plots
from visp.sim.compare import compare
from visp.sim.fleet import Setup
from visp.sim.generator import Generated
from visp.sim.report import Report
from visp.sim.workload import Cut


@pytest.fixture(scope="module")
def report() -> Report:
    setup = Setup(invokers=1, memory_mb=2048, starts_at_once=4, idle_s=600.0, stem_cells_most=4)
    workload = Generated(actions=20, seconds=3600, seed=7, invocations=500)
    return compare(workload, setup, list(POLICIES), seed=7, cut=Cut())


@pytest.mark.slow  # matplotlib takes its time to import and to lay out
@pytest.mark.parametrize(
    ("name", "begins"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG"), ("a.html", b"<!doctype html>"), ("a.pdf", b"%PDF")]
)
def test_a_suffix_chooses_the_format(tmp_path, report, name, begins):
    pytest.importorskip("matplotlib")
    plots.write(report, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(begins)
    if name.endswith((".svg", ".html")):
        assert all(policy.encode() in first for policy in POLICIES)
        plots.write(report, tmp_path / name)
        assert (tmp_path / name).read_bytes() == first


def test_another_suffix_is_refused_before_the_work(tmp_path):
    with pytest.raises(plots.PlotError, match=r"a plot's name ends in one of \.svg"):
        plots.need(tmp_path / "a.gif")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(plots.PlotError, match=r"pip install 'visp\[plot\]'"):
        plots.need(tmp_path / "a.svg")
