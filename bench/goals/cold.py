"""How cold starts are measured: each of a new action, in a pool at rest, beside one start of the floor."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from bench.load import Broken
from bench.measure import Chart, interleaved
from bench.processes import wait_until_quiet
from bench.server import GREETING, NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measure import Series
    from bench.rig import Rig
    from bench.server import Platform


class ColdStarts:
    """Starts of one code, each under a name of its own."""

    def __init__(self, visp: Platform, code: str, kind: str, main: str | None = None) -> None:
        self._visp = visp
        self._code = code
        self._kind = kind
        self._main = main
        self._count = 0

    def start_s(self) -> float:
        """Seconds of a new action's first invocation: container, init, run. Its container is gone afterwards."""
        self._count += 1
        name = f"cold{self._count}"
        self._visp.put_action(name, self._code, self._kind, main=self._main)
        with self._visp.ready_to_run(name, NAME) as run:
            wait_until_quiet(self._visp.pid)
            took_s, result = run()
        if result != GREETING:
            raise Broken(f"the action answered {result}")
        self._visp.delete_action(name)
        wait_until_quiet(self._visp.pid)
        return took_s


def medians_ms(rig: Rig, *sides: Callable[[], float]) -> tuple[list[float], ...]:
    """The median start of each round, for each side; the sides take turns start by start."""
    rounds: tuple[list[float], ...] = tuple([] for _ in sides)
    for _ in range(rig.rounds):
        for side, starts_s in zip(rounds, interleaved(rig.starts, *sides), strict=True):
            side.append(statistics.median(starts_s) * 1000)
    return rounds


def chart(*bars: Series) -> Chart:
    """Cold starts of every kind in one picture."""
    return Chart(name="cold", title="Cold starts, p50", x_label="milliseconds", series=bars, style="bars")
