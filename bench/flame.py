"""A flame graph as one SVG: functions as boxes over their callers, as wide as their share of the samples. Pure."""

from __future__ import annotations

import zlib
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH, ROW, LETTER = 1200.0, 17, 6.6
LEAST = 0.6
"""Narrower boxes are left out."""


class _Frame:
    """A function in one place of the tree; `count` are the samples in it and in what it called."""

    __slots__ = ("called", "count")

    def __init__(self) -> None:
        self.count = 0
        self.called: dict[str, _Frame] = {}


def render(samples: Mapping[tuple[str, ...], int]) -> str:
    """The graph of stacks (outermost first) with how often each was seen."""
    root = _Frame()
    for stack, count in samples.items():
        frame = root
        frame.count += count
        for function in stack:
            frame = frame.called.setdefault(function, _Frame())
            frame.count += count
    boxes: list[tuple[str, int, float, float, int]] = []
    _lay(root, 0, 0.0, WIDTH / max(1, root.count), boxes)
    height = (max((depth for _, depth, _, _, _ in boxes), default=0) + 1) * ROW
    drawn = "".join(_box(box, height, root.count) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height}" font-family="monospace" '
        f'font-size="11">{drawn}</svg>'
    )


def _lay(frame: _Frame, depth: int, left: float, scale: float, boxes: list[tuple[str, int, float, float, int]]) -> None:
    for function, called in sorted(frame.called.items()):
        width = called.count * scale
        if width >= LEAST:
            boxes.append((function, depth, left, width, called.count))
            _lay(called, depth + 1, left, scale, boxes)
        left += width


def _box(box: tuple[str, int, float, float, int], height: int, whole: int) -> str:
    function, depth, left, width, count = box
    top = height - (depth + 1) * ROW
    letters = int(width / LETTER) - 1
    shown = function if len(function) <= letters else function[: max(0, letters - 1)] + "…" if letters > 2 else ""
    hue = zlib.crc32(function.encode()) % 50
    return (
        f"<g><title>{escape(function)}: {count / whole:.1%}</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue},85%,62%)"/>'
        f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(shown)}</text></g>'
    )
