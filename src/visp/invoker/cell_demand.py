"""What draws on stem cells: the cold starts of the last minute, and the uses that are foretold."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from visp.invoker.prewarm import WORTH_S, Cell, Wanted, counts, follow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from visp.invoker.keepalive import Policy, Usage

SECOND_S = 1.0
EXPECTED_LIMIT = 10_000
"""Foretold uses that are remembered; beyond it, no more are until some are past."""
FAINT = 0.5
"""A level below this asks for none."""


class CellDemand:
    """How many stem cells of each sort to have. One for a pool, which tells it what happens."""

    def __init__(self, wanted: Iterable[Wanted], most: int, policy: Policy, now_s: float) -> None:
        self._wanted = tuple(wanted)
        self._most = most
        self._policy = policy
        self._second_s = now_s
        self._drawn: dict[Cell, int] = {}
        self._levels: dict[Cell, float] = {}
        self._start_s: dict[Cell, float] = {}
        self._foretold: list[tuple[float, int, float, Cell, Usage]] = []
        """A heap: from when, until when, and the usage, whose `last_s` says whether it came meanwhile."""
        self._due: list[tuple[float, float, Cell, Usage]] = []
        self._serial = 0

    def draw(self, cell: Cell) -> None:
        """A cold start of the sort, with a stem cell or without."""
        self._drawn[cell] = self._drawn.get(cell, 0) + 1

    def started(self, cell: Cell, took_s: float) -> None:
        """How long a container of the sort took to start: not all are worth preparing."""
        self._start_s[cell] = took_s

    def start_s(self, cell: Cell) -> float:
        """How long the last start of one took; 0 where none was measured."""
        return self._start_s.get(cell, 0.0)

    def gone(self, usage: Usage, cell: Cell) -> None:
        """The last container of an action went; when it will be used again may be known."""
        expected = self._policy.expected_s(usage)
        if expected is not None and len(self._foretold) < EXPECTED_LIMIT:
            self._serial += 1
            from_s, until_s = usage.last_s + expected[0], usage.last_s + expected[1]
            heapq.heappush(self._foretold, (from_s, self._serial, until_s, cell, usage))

    def counts(self, now_s: float) -> dict[Cell, int]:
        """How many of each sort to have now."""
        self._pass_seconds(now_s)
        while self._foretold and self._foretold[0][0] <= now_s:
            _, _, until_s, cell, usage = heapq.heappop(self._foretold)
            self._due.append((until_s, usage.last_s, cell, usage))
        self._due = [due for due in self._due if due[0] > now_s and due[3].last_s == due[1]]
        expected: dict[Cell, int] = {}
        for _, _, cell, _ in self._due:
            expected[cell] = expected.get(cell, 0) + 1
        return counts(self._wanted, self._levels, expected, self._most)

    def _pass_seconds(self, now_s: float) -> None:
        passed = int((now_s - self._second_s) / SECOND_S)
        if passed == 0:
            return
        for cell in {**self._levels, **self._drawn}:
            drawn = self._drawn.get(cell, 0) if self._start_s.get(cell, WORTH_S) >= WORTH_S else 0
            level = follow(self._levels.get(cell, 0.0), drawn, passed)
            if level >= FAINT:
                self._levels[cell] = level
            else:
                self._levels.pop(cell, None)
        self._drawn.clear()
        self._second_s = now_s
