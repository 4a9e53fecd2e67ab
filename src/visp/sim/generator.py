"""A workload out of the published distributions: as many actions as wanted, the same for the same seed.

Popularity is stratified, not drawn: of n actions the i-th gets the (i + ½)/n quantile, so that even a small workload
has the published skew. Who gets which is drawn, and so is everything else.
"""

from __future__ import annotations

import heapq
import math
from array import array
from random import Random
from typing import TYPE_CHECKING

from visp.sim import published
from visp.sim.workload import LONGEST_RUN_S, Actions, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.sim.workload import Arrival

ACTIONS_LIMIT = 1_000_000
POISSON, PERIODIC = 1.0, 0.0
"""Coefficients of variation (CV) of the pauses between two arrivals, which are gamma-distributed; above 1: bursts."""


class Generated:
    """Arrivals of `actions` actions over `seconds`.

    `invocations`: all rates are multiplied by one factor, so that about so many come; None: the published rates.
    Raises `WorkloadError` for sizes that cannot be.
    """

    def __init__(
        self,
        *,
        actions: int,
        seconds: float,
        seed: int,
        invocations: int | None = None,
        cold_s: float = published.COLD_MEDIAN_S,
    ) -> None:
        if not 1 <= actions <= ACTIONS_LIMIT:
            raise WorkloadError(f"{actions} actions: between 1 and {ACTIONS_LIMIT} can be simulated")
        self._seconds = seconds
        self._seed = seed
        self.actions = Actions()
        self.cv = array("d")
        self.mean_run_s = array("d")
        self.rates = array("d", [0.0]) * actions
        """Arrivals a second."""
        rng = Random(f"actions {seed}")
        self._draw(rng, actions, cold_s)
        natural = sum(self.rates) * seconds
        self.factor = 1.0 if invocations is None else invocations / natural
        for action in range(actions):
            self.rates[action] *= self.factor
        self.source = (
            f"generated: {actions} actions, {seconds / 3600:g} h, {self.factor:.6g} × the published rates, seed {seed}"
        )

    def _draw(self, rng: Random, actions: int, cold_s: float) -> None:
        order = array("I", range(actions))
        rng.shuffle(order)
        body = published.MINUTELY_SHARE
        periodic = published.PERIODIC_SHARE / body
        bursty = published.BURSTY_SHARE / (1.0 - published.PERIODIC_SHARE)
        namespace, left = -1, 0
        for action in range(actions):
            if left == 0:
                namespace, left = namespace + 1, published.actions_of_a_namespace(rng)
            left -= 1
            memory_mb = published.memory_limit_mb(published.burr_mb(rng.random()))
            self.actions.add(namespace, memory_mb, published.cold_start_s(rng, cold_s))
            self.mean_run_s.append(published.average_run_s(rng, LONGEST_RUN_S))
            quantile = (order[action] + 0.5) / actions
            self.rates[action] = published.invocations_a_day(quantile) / published.DAY_S
            # Timers fire once a minute at most: the periodic ones are among those that come no more often.
            if quantile < body and rng.random() < periodic:
                self.cv.append(PERIODIC)
            elif rng.random() < bursty:
                self.cv.append(published.bursty_cv(rng))
            else:
                self.cv.append(POISSON)

    def arrivals(self) -> Iterator[Arrival]:
        rng = Random(f"arrivals {self._seed}")
        seconds, rates, cvs = self._seconds, self.rates, self.cv
        log, exp, random, gauss, gamma = math.log, math.exp, rng.random, rng.gauss, rng.gammavariate
        # Every process has been going on for long: 0 lies anywhere within a pause, the rather the longer that is. Of
        # gamma-distributed pauses, the one that a point in time falls into has one more in its shape.
        due = []
        for action, rate in enumerate(rates):
            squared = cvs[action] * cvs[action]
            around_s = 1.0 if squared == PERIODIC else gamma(1.0 / squared + 1.0, squared)
            at_s = around_s * random() / rate
            if at_s < seconds:
                due.append((at_s, action))
        heapq.heapify(due)
        # exp(σ·N) has the mean exp(σ²/2): divided by that, the runs average what the action's average says.
        sigma = published.RUN_LOG_SIGMA
        averages = array("d", (mean / exp(sigma * sigma / 2) for mean in self.mean_run_s))
        while due:
            at_s, action = due[0]
            yield at_s, action, min(LONGEST_RUN_S, averages[action] * exp(sigma * gauss(0.0, 1.0)))
            cv = cvs[action]
            if cv == POISSON:
                pause_s = -log(1.0 - random()) / rates[action]
            elif cv == PERIODIC:
                pause_s = 1.0 / rates[action]
            else:
                squared = cv * cv
                pause_s = gamma(1.0 / squared, squared) / rates[action]
            if at_s + pause_s < seconds:
                heapq.heapreplace(due, (at_s + pause_s, action))
            else:
                heapq.heappop(due)
