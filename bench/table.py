"""The table at the end: a line for each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Finding, Spread

HEADS = ("goal", "what", "visp", "floor", "ratio", "promise", "", "note")
VERDICTS = {True: "pass", False: "FAIL", None: "–"}


def render(findings: Sequence[Finding]) -> str:
    return lay((HEADS, *(row(finding) for finding in findings)))


def lay(lines: Sequence[tuple[str, ...]]) -> str:
    """Lines of cells in columns, the first with the heads."""
    rows = list(lines)
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("─" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )


def row(finding: Finding) -> tuple[str, ...]:
    """A finding's cells, under the heads."""
    return (
        finding.goal,
        finding.what,
        spread(finding.ours, finding.unit),
        spread(finding.floor, finding.unit),
        spread(finding.ratio, "×"),
        finding.promise,
        VERDICTS[finding.is_met],
        finding.note,
    )


def spread(given: Spread | None, unit: str) -> str:
    """`median (least–greatest) unit`."""
    if given is None:
        return ""
    if len(given.rounds) == 1:
        return f"{number(given.median)} {unit}"
    return f"{number(given.median)} ({number(given.low)}–{number(given.high)}) {unit}"


def number(value: float) -> str:
    """Three digits that matter."""
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
        if size >= 1
        else f"{value:.3f}"
    )
