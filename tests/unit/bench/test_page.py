"""The page of a run stands by itself."""

import re

from bench import page
from bench.machine import Machine
from bench.measure import Chart, Finding, Series, bar, spread
from bench.profile import Line
from bench.report import Report
from bench.rig import Rig

MACHINE = Machine(
    cpu="a <fast> one",
    cores=2,
    memory_gb=8.0,
    kernel="6.1",
    python="3.11.2",
    node="v20.0.0",
    action_python="3.11.2",
    bwrap="0.8",
    wrk="4.1",
    user="root",
    load_average=(0.0, 0.0, 0.0),
    visp="1",
    revision="abc",
)
RIG = Rig(
    rounds=2,
    seconds=1,
    starts=1,
    bursts=1,
    burst_s=1,
    connections=(1,),
    containers=(1,),
    records=1,
    actions=1,
    idle=500,
    alarms=200,
    changes=200,
    rules=1,
    growth=(1,),
    node="node",
    python="python",
)
REPORT = Report(
    began="2026-01-01T00:00:00Z",
    machine=MACHINE,
    rig=RIG,
    findings=(
        Finding(goal="warm", what="p50", unit="ms", ours=spread([1.0, 2.0, 3.0]), promise="≤ 5 ms", is_met=True),
        Finding(goal="cpu", what="CPU", unit="µs", ours=spread([70.0]), promise="≤ 60 µs", is_met=False),
        Finding(goal="fire", what="rate", unit="/s", ours=spread([7.0]), promise="≥ 9 /s", is_met=False),
    ),
    charts=(
        Chart(
            name="growth", title="Growth", x_label="n", series=(Series("cost", (1.0, 10.0), (1.0, 1.1)),), is_x_log=True
        ),
        Chart(
            name="cold", title="Cold", x_label="ms", series=(bar("Python", 4.0), bar("floor: fork", 3.0)), style="bars"
        ),
    ),
    failures={"large": "wrk saw errors"},
    profiles={"cpu": (Line(40.0, 60.0, "encode (a.py:1)"),)},
)


def test_the_page_has_figures_plots_failures_and_profiles() -> None:
    html = page.render(REPORT)
    assert "2.00 (1.00–3.00) ms" in html
    assert html.count("<svg") == 2
    assert "wrk saw errors" in html
    assert "encode (a.py:1)" in html, "what is not met is explained by its profile"
    assert "python -m bench profile fire" in html, "or by how to get one"
    assert "a &lt;fast&gt; one" in html


def test_it_loads_nothing_from_elsewhere() -> None:
    loads = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(https?:[^\"')>]*)", page.render(REPORT))
    assert loads == []


def test_a_logarithmic_axis_is_labelled_where_people_look() -> None:
    assert page._ticks([1, 8, 64]) == [1, 8, 64]
    assert page._ticks([float(value) for value in range(1, 101)]) == [1, 2, 5, 10, 20, 50, 100]
