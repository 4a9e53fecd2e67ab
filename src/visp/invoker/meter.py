"""What an invoker counts: how long each phase takes, why starts were cold, what came of runs, and how full it is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from visp.container.base import Way
from visp.entity.activation import STATUS_WORDS
from visp.invoker.slot import State
from visp.telemetry.metrics import Distribution, Family, Histogram, Tally

if TYPE_CHECKING:
    from visp.entity.activation import Phases
    from visp.invoker.pool import Pool

PHASE_SECONDS = "visp_phase_seconds"
COLD_STARTS = "visp_cold_starts_total"
OUTCOMES = "visp_activations_total"
MEMORY_USED = "visp_pool_memory_used_bytes"
MEMORY_LIMIT = "visp_pool_memory_limit_bytes"
CONTAINERS = "visp_containers"
MADE = "visp_containers_made_total"
REMOVED = "visp_containers_removed_total"
WAITING = "visp_queue_length"

_MIB = 1024 * 1024


class Meter:
    """The counters of one invoker. `record` is called for every activation and costs a few additions."""

    def __init__(self) -> None:
        self._wait = Histogram()
        self._create = Histogram()
        self._init = Histogram()
        self._run = Histogram()
        self._logs = Histogram()
        self._cold = Tally()
        self._outcomes = Tally()

    def record(self, kind: str, status: int, phases: Phases) -> None:
        """Counts an activation that has come to its end."""
        run, answered, logs = phases.run, phases.answered, phases.logs
        self._outcomes.add(kind, STATUS_WORDS[status])
        self._wait.add(phases.placed - phases.queued)
        if run is not None and answered is not None:
            self._run.add(answered - run)
        if logs is not None and answered is not None:
            self._logs.add(logs - answered)
        if phases.cold is not None:
            self._record_cold(kind, phases, phases.cold)

    def _record_cold(self, kind: str, phases: Phases, reason: str) -> None:
        self._cold.add(kind, reason)
        if phases.created is not None:
            self._create.add(phases.created - phases.placed)
        if phases.initialised is not None:
            self._init.add(phases.initialised - (phases.placed if phases.created is None else phases.created))

    def record_late_logs(self, took_us: int) -> None:
        """Counts logs that came after the outcome was recorded."""
        self._logs.add(took_us)

    def families(self, pool: Pool) -> list[Family]:
        """What was counted, and the pool as it is now."""
        phases = {
            "wait": self._wait,
            "create": self._create,
            "init": self._init,
            "run": self._run,
            "logs": self._logs,
        }
        return [
            Family(
                PHASE_SECONDS,
                "How long a phase of an activation took: wait (for a container), create, init, run, logs.",
                "histogram",
                {(name,): histogram.shown() for name, histogram in phases.items()},
                ("phase",),
            ),
            Family(COLD_STARTS, "Cold starts by kind and reason.", "counter", self._cold.samples(), ("kind", "reason")),
            Family(
                OUTCOMES,
                "Activations of actions that came to their end, by kind and status.",
                "counter",
                self._outcomes.samples(),
                ("kind", "status"),
            ),
            Family(MEMORY_USED, "Memory of containers, by their actions' limits.", "gauge", {(): pool.used_mb * _MIB}),
            Family(MEMORY_LIMIT, "Memory that containers may use together.", "gauge", {(): pool.memory_mb * _MIB}),
            Family(CONTAINERS, "Containers by state.", "gauge", _by_state(pool), ("state",)),
            Family(
                MADE,
                "Containers that were made: started, forked from a template, or copied from a program that waited.",
                "counter",
                {(way.value,): pool.shelf.made[way] for way in Way},
                ("way",),
            ),
            Family(
                REMOVED,
                "Idle containers that gave way to another action (evicted), or were idle for too long (expired).",
                "counter",
                {("evicted",): pool.shelf.evicted, ("expired",): pool.shelf.expired},
                ("reason",),
            ),
            Family(WAITING, "Activations that wait for a container.", "gauge", {(): pool.waiting}),
        ]


def _by_state(pool: Pool) -> dict[tuple[str, ...], float | Distribution]:
    """How many containers are in each state; those of a state without any too, so that no series ever ends."""
    found = Counter(slot.state for slot in pool.shelf.slots.values())
    return {(state.name.lower(),): found[state] for state in State if state is not State.GONE}
