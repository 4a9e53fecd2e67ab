"""The table at the end: a line for each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Finding, Spread

HEADS = ("goal", "what", "visp", "floor", "ratio", "promise", "", "note")
VERDICTS = {True: "pass", False: "FAIL", None: "–"}


def render(findings: Sequence[Finding]) -> str:
    rows = [HEADS, *(_row(finding) for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    rows.insert(1, tuple("─" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        finding.goal,
        finding.what,
        _spread(finding.ours, finding.unit),
        _spread(finding.floor, finding.unit),
        _spread(finding.ratio, "×"),
        finding.promise,
        VERDICTS[finding.is_met],
        finding.note,
    )


def _spread(spread: Spread | None, unit: str) -> str:
    """`median (least–greatest) unit`."""
    if spread is None:
        return ""
    if len(spread.rounds) == 1:
        return f"{_number(spread.median)} {unit}"
    return f"{_number(spread.median)} ({_number(spread.low)}–{_number(spread.high)}) {unit}"


def _number(value: float) -> str:
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
