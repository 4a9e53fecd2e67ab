"""One page with the results: the table, the plots, and profiles of what is not met. It needs nothing but itself."""

from __future__ import annotations

import argparse
import io
import math
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench import machine, measure, profile, table
from bench.load import Broken
from bench.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Chart, Finding

MISSING = "plots need matplotlib: pip install 'visp[plot]'"
WIDTH_IN, HEIGHT_IN, BAR_IN = 7.2, 3.6, 0.3
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 88rem; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse; font-size: 13px } th { text-align: left }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #d8dee4; vertical-align: top }
td.figure { white-space: nowrap; font-variant-numeric: tabular-nums }
.pass { color: #1a7f37 } .FAIL { color: #cf222e; font-weight: 600 }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem }
.plots svg { width: 40rem; max-width: 100%; height: auto } pre { background: #f6f8fa; padding: .8rem; overflow-x: auto }
"""
FIGURES = (2, 3, 4)


def render(report: Report) -> str:
    """The page. Raises `Broken` where matplotlib is not installed."""
    here = "".join(f"<li>{escape(line)}</li>" for line in machine.lines(report.machine))
    rows = "".join(_row(finding) for finding in report.findings)
    heads = "".join(f"<th>{escape(head)}</th>" for head in table.HEADS)
    plots = "".join(f"<figure>{_drawn(chart)}</figure>" for chart in measure.merged(report.charts))
    failures = "".join(
        f"<p><b>{escape(name)}</b> could not be measured: {escape(reason)}</p>"
        for name, reason in report.failures.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>visp: benchmarks of {report.began}</title>'
        f"<style>{STYLE}</style><h1>visp: benchmarks of {report.began}</h1><ul>{here}</ul>"
        f"<p>Each figure is the median of {report.rig.rounds} rounds that took turns with the floor's, with the least "
        f"and the greatest.</p><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{failures}"
        f'<h2>Plots</h2><div class="plots">{plots}</div>{_profiles(report)}</html>\n'
    )


def _row(finding: Finding) -> str:
    cells = table.row(finding)
    verdict = table.VERDICTS[finding.is_met]
    return (
        "<tr>"
        + "".join(
            f'<td class="{"figure" if column in FIGURES else verdict if cell == verdict else ""}">{escape(cell)}</td>'
            for column, cell in enumerate(cells)
        )
        + "</tr>"
    )


def _profiles(report: Report) -> str:
    missed = sorted({finding.goal for finding in report.findings if finding.is_met is False})
    if not missed:
        return ""
    parts = ["<h2>Where the time of what is not met goes</h2>"]
    for name in missed:
        lines = report.profiles.get(name)
        shown = (
            f"<pre>{escape(profile.table(list(lines)))}</pre>"
            if lines
            else f"<p>Not profiled in this run: <code>python -m bench profile {escape(name)}</code></p>"
        )
        parts.append(f"<h3>{escape(name)}</h3>{shown}")
    return "".join(parts)


# ── plots ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _drawn(chart: Chart) -> str:
    """A chart as inline SVG."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise Broken(MISSING) from None
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.name, "font.size": 9}):
        is_bars = chart.style == "bars"
        height_in = 0.9 + BAR_IN * len(chart.series) if is_bars else HEIGHT_IN
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes: Any = figure.subplots()
        if is_bars:
            _bars(axes, chart)
        else:
            _lines(axes, chart)
        axes.set_title(chart.title, fontsize=10)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        axes.grid(alpha=0.3)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue().partition("<svg")[2].join(("<svg", ""))


def _bars(axes: Any, chart: Chart) -> None:
    values = [series.y[0] for series in chart.series]
    positions = range(len(values))
    drawn = axes.barh(positions, values, color=[_color(series.label) for series in chart.series])
    axes.bar_label(drawn, [table.number(value) for value in values], padding=3)
    axes.set_yticks(positions, [series.label for series in chart.series])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    if chart.is_x_log:
        axes.set_xscale("log")


def _color(label: str) -> str:
    return "#8c959f" if label.startswith("floor") else "#0969da"


def _lines(axes: Any, chart: Chart) -> None:
    for series in chart.series:
        if chart.style == "step":
            axes.step(series.x, series.y, where="post", label=series.label)
        else:
            axes.plot(series.x, series.y, marker="o", markersize=3, label=series.label)
    if chart.is_x_log:
        axes.set_xscale("log")
        ticks = _ticks([x for series in chart.series for x in series.x])
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.minorticks_off()
    if chart.is_y_log:
        axes.set_yscale("log")
    axes.set_ylim(bottom=0 if not chart.is_y_log else None)
    axes.legend(fontsize=8)


def _ticks(values: Sequence[float]) -> list[float]:
    """Where a logarithmic axis is labelled: at its values if they are few, else at round ones among them. Pure."""
    distinct = sorted({value for value in values if value > 0})
    if len(distinct) <= 8:
        return distinct
    low, high = math.floor(math.log10(distinct[0])), math.ceil(math.log10(distinct[-1]))
    every = (1.0, 2.0, 5.0) if high - low <= 2 else (1.0,)
    steps = [step * 10.0**power for power in range(low, high + 1) for step in every]
    return [step for step in steps if distinct[0] <= step <= distinct[-1]] or [distinct[0], distinct[-1]]


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench page", description="Makes the page of kept results again.")
    parser.add_argument("results", type=Path, help="a JSON file of bench/results/")
    path = parser.parse_args(arguments).results
    try:
        path.with_suffix(".html").write_text(render(msgspec.json.decode(path.read_bytes(), type=Report)))
    except (OSError, msgspec.MsgspecError, Broken) as error:
        sys.exit(f"bench: {error}")
    print(path.with_suffix(".html"))
