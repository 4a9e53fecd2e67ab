"""The report as pictures, by matplotlib (the extra `visp[plot]`), which is imported only here and only when asked."""

from __future__ import annotations

import html
import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from visp.sim.report import PolicyReport, Report

SUFFIXES = (".svg", ".png", ".pdf", ".html")
COLOURS = ("#2f6fab", "#c8553d", "#588157", "#8d6a9f")
PERCENT = 100.0


class PlotError(Exception):
    """No picture can be made; the sentence says why."""


def need(path: Path) -> None:
    """Raises `PlotError` when the file's suffix is none of `SUFFIXES`, or matplotlib is missing."""
    if path.suffix not in SUFFIXES:
        raise PlotError(f"{path}: a plot's name ends in one of {', '.join(SUFFIXES)}")
    try:
        import_module("matplotlib.figure")
    except ImportError:
        raise PlotError("plots need matplotlib: pip install 'visp[plot]'") from None


def write(report: Report, path: Path) -> None:
    """Raises `PlotError` as `need` does, `OSError` when the file cannot be written."""
    need(path)
    matplotlib = import_module("matplotlib")
    # The same report gives the same bytes: ids in an SVG are made from a salt, and no date goes into the file.
    with matplotlib.rc_context({"svg.hashsalt": "visp", "svg.fonttype": "none"}):
        figure = _figure(report)
        if path.suffix != ".html":
            metadata = (
                {"Date": None} if path.suffix == ".svg" else {"CreationDate": None} if path.suffix == ".pdf" else {}
            )
            figure.savefig(path, metadata=metadata)
            return
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    svg = drawing.getvalue()
    title = html.escape(report.workload)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>body{{margin:0}}svg{{width:100%;height:auto}}</style>\n{svg[svg.index('<svg') :]}</html>\n",
        encoding="utf-8",
    )


def _figure(report: Report) -> Any:
    figure = import_module("matplotlib.figure").Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(2, 3)
    _bars(axes[0][0], report)
    _distribution(axes[0][1], report)
    _trade(axes[0][2], report)
    _delays(axes[1][0], report)
    _memory(axes[1][1], report)
    _slowdowns(axes[1][2], report)
    figure.suptitle(report.workload, fontsize=10)
    return figure


def _each(report: Report) -> list[tuple[str, PolicyReport]]:
    return [(COLOURS[index % len(COLOURS)], one) for index, one in enumerate(report.policies)]


def _name(axes: Any, title: str, across: str, up: str, *, has_legend: bool = True) -> None:
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.grid(visible=True, alpha=0.25)
    if has_legend:
        axes.legend(fontsize=8)


def _bars(axes: Any, report: Report) -> None:
    for colour, one in _each(report):
        axes.bar(one.policy, one.cold_starts.share * PERCENT, color=colour)
    _name(axes, "Cold starts", "", "% of invocations", has_legend=False)


def _distribution(axes: Any, report: Report) -> None:
    for colour, one in _each(report):
        shares = [share * PERCENT for share in one.cold_starts.of_actions]
        axes.plot(shares, range(len(shares)), color=colour, label=one.policy)
    _name(axes, "Cold starts of each action", "% of its invocations", "% of actions")


def _trade(axes: Any, report: Report) -> None:
    for colour, one in _each(report):
        axes.scatter(one.memory.wasted_gb_h, one.cold_starts.of_actions_p75 * PERCENT, color=colour, label=one.policy)
    _name(axes, "What cold starts cost", "wasted memory, GB h", "cold starts of the action at 75 %, %")


def _delays(axes: Any, report: Report) -> None:
    points = ("p50", "p90", "p99", "longest")
    for colour, one in _each(report):
        for style, what, delay in (("-", "delay", one.delay_ms), (":", "queueing", one.queueing_ms)):
            values = [max(1e-3, getattr(delay, point)) for point in points]
            axes.plot(points, values, style, color=colour, marker="o", label=f"{one.policy}, {what}")
    axes.set_yscale("log")
    _name(axes, "Delay until the run begins", "", "ms")


def _memory(axes: Any, report: Report) -> None:
    total_mb = report.setup.invokers * report.setup.memory_mb
    for colour, one in _each(report):
        column = one.timeline.columns.index
        hours = [at * one.timeline.step_s / 3600 for at in range(len(one.timeline.rows))]
        for style, name, label in (("-", "busy_mb", "busy"), (":", "idle_mb", "idle")):
            shares = [row[column(name)] / total_mb * PERCENT for row in one.timeline.rows]
            axes.plot(hours, shares, style, color=colour, label=f"{one.policy}, {label}")
    _name(axes, "Memory of all invokers", "hours", "%")


def _slowdowns(axes: Any, report: Report) -> None:
    for colour, one in _each(report):
        slowdowns = one.fairness.slowdowns
        axes.plot(slowdowns, range(len(slowdowns)), color=colour, label=one.policy)
    axes.set_xscale("log")
    _name(axes, "Slowdown of each namespace", "time with delay / time of the run", "% of namespaces")
