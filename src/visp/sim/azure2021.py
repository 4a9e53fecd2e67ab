"""The Azure Functions trace of 2021: a line for each invocation with its application, function, end and duration.

Columns `app,func,end_timestamp,duration`, both times in seconds; the lines are in no order. An invocation arrived at
its end less its duration; the first that arrived is at 0. An application is a namespace; memory and cold starts, of
which this trace says nothing, are drawn by the seed and the function's name (`published`).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from visp.sim import published
from visp.sim.tables import Rows
from visp.sim.workload import LONGEST_RUN_S, Actions, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from visp.sim.workload import Arrival

INVOCATIONS_LIMIT = 20_000_000
"""They are sorted in memory, about 60 bytes each; the released trace has 2 million."""


class Azure2021:
    """Raises `WorkloadError` for a file that is not of this form."""

    def __init__(self, path: Path, *, seed: int, cold_s: float = published.COLD_MEDIAN_S) -> None:
        self.actions = Actions()
        self._starts_s = array("d")
        self._runs_s = array("f")
        self._numbers = array("I")
        names: list[str] = []
        namespaces: dict[str, int] = {}
        known: dict[tuple[str, str], int] = {}
        rows = Rows(path, ("app", "func", "end_timestamp", "duration"))
        for application, function, end, duration, *_ in rows.read():
            number = known.get((application, function))
            if number is None:
                dice = published.own_dice(seed, "function", application, function)
                memory_mb = published.memory_limit_mb(published.burr_mb(dice.random()))
                namespace = namespaces.setdefault(application, len(namespaces))
                number = self.actions.add(namespace, memory_mb, published.cold_start_s(dice, cold_s))
                known[application, function] = number
                names.append(function)
            run_s = rows.number(duration, "duration")
            self._starts_s.append(rows.number(end, "end_timestamp") - run_s)
            self._runs_s.append(min(LONGEST_RUN_S, max(published.SHORTEST_RUN_S, run_s)))
            self._numbers.append(number)
            if len(self._numbers) > INVOCATIONS_LIMIT:
                raise rows.wrong(f"more than {INVOCATIONS_LIMIT} invocations: cut the file")
        if not names:
            raise WorkloadError(f"{path}: no invocation in it")
        self.actions.names = names
        self.actions.namespaces = list(namespaces)
        # By time; of the same time in the file's order.
        self._order = array("I", sorted(range(len(self._starts_s)), key=self._starts_s.__getitem__))
        self.source = f"Azure Functions 2021: {path}, {len(self._order)} invocations of {len(names)} functions"

    def arrivals(self) -> Iterator[Arrival]:
        first_s = self._starts_s[self._order[0]]
        for at in self._order:
            yield self._starts_s[at] - first_s, self._numbers[at], self._runs_s[at]
