"""What happened in a simulation, in totals; `report.py` makes figures of it."""

from __future__ import annotations

from array import array

from visp.invoker.job import Cold
from visp.sim.tally import Quantiles, Series


class Outcome:
    """Memory × time in MB s; `…_of` are columns by action, or by namespace."""

    def __init__(self, actions: int, namespaces: int) -> None:
        self.arrived = self.finished = self.refused = 0
        self.cold = self.into_cells = 0
        self.reasons: dict[Cold, int] = dict.fromkeys(Cold, 0)
        self.evicted = self.expired = 0
        self.cells_started = self.cells_used = 0
        self.queueing = Quantiles()
        """From arrival until a container was chosen."""
        self.delay = Quantiles()
        """From arrival until the run began: queueing and a cold start."""
        self.end_s = 0.0
        self.busy_mb_s = self.starting_mb_s = self.idle_mb_s = self.cells_mb_s = 0.0
        self.arrived_of = array("L", bytes(8 * actions))
        self.cold_of = array("L", bytes(8 * actions))
        self.runs_of = array("L", bytes(8 * namespaces))
        self.slowdown_of = array("d", bytes(8 * namespaces))
        """Summed over a namespace's runs."""
        self.series = Series(("busy_mb", "starting_mb", "idle_mb", "waiting", "arrived", "cold"))
