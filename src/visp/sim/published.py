"""The published distributions of a large cloud's workload, and draws from them.

Sources, by the name that the comments use:

- ATC'20: Shahrad et al., "Serverless in the Wild: Characterizing and Optimizing the Serverless Workload at a Large
  Cloud Provider", USENIX ATC 2020. Its figures are of Azure Functions in July 2019.
- Dataset 2019: the trace released with it, and its description.

What those do not tell is an assumption of ours, and said to be one here and in docs/simulator.md. In Azure memory is
held, and kept warm, for an application; here for an action: popularity and memory of applications are taken for those
of actions.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from random import Random

DAY_S = 86_400.0

# ── popularity ──────────────────────────────────────────────────────────────────────────────────────────────────────

HOURLY_SHARE = 0.45
"""ATC'20, section 3.3: 45 % of the applications are invoked once an hour or less."""
MINUTELY_SHARE = 0.814
"""ATC'20, section 3.3: the 18.6 % that are invoked more than once a minute …"""
POPULAR_INVOCATIONS = 0.996
"""… make 99.6 % of all invocations. `TAIL_SHAPE` follows from this and the next."""
ORDERS_OF_MAGNITUDE = 8
"""ATC'20, abstract: between the least and the most invoked."""

LEAST_A_DAY = 1.0
HOURLY_A_DAY = 24.0
MINUTELY_A_DAY = 1440.0
MOST_A_DAY = LEAST_A_DAY * 10.0**ORDERS_OF_MAGNITUDE
TAIL_SHAPE = 0.6087
"""Of the Pareto distribution, cut at `MOST_A_DAY`, of those above once a minute: its mean gives the 99.6 %."""


def invocations_a_day(quantile: float) -> float:
    """How often an action is invoked on an average day, from the least (0) to the most popular (1).

    Between the published points the logarithm is interpolated; above once a minute it is the Pareto tail.
    """
    if quantile < HOURLY_SHARE:
        return _between(LEAST_A_DAY, HOURLY_A_DAY, quantile / HOURLY_SHARE)
    if quantile < MINUTELY_SHARE:
        return _between(HOURLY_A_DAY, MINUTELY_A_DAY, (quantile - HOURLY_SHARE) / (MINUTELY_SHARE - HOURLY_SHARE))
    rank = (quantile - MINUTELY_SHARE) / (1.0 - MINUTELY_SHARE)
    cut_off = math.pow(MINUTELY_A_DAY / MOST_A_DAY, TAIL_SHAPE)
    return MINUTELY_A_DAY * math.pow(1.0 - rank * (1.0 - cut_off), -1.0 / TAIL_SHAPE)


def _between(low: float, high: float, part: float) -> float:
    """The value at a part of the way from low to high on a logarithmic scale."""
    return low * math.pow(high / low, part)


# ── inter-arrival times ─────────────────────────────────────────────────────────────────────────────────────────────

PERIODIC_SHARE = 0.20
"""ATC'20, figure 6: about a fifth of the applications have a coefficient of variation (CV) near 0: timers, mostly."""
BURSTY_SHARE = 0.40
"""ATC'20, figure 6: about two fifths have a CV above 1. The rest lies around 1 here: Poisson."""
BURSTY_CV = (1.0, 10.0)
"""The range of figure 6; log-uniform between is our assumption."""


def bursty_cv(rng: Random) -> float:
    return _between(*BURSTY_CV, rng.random())


# ── durations ───────────────────────────────────────────────────────────────────────────────────────────────────────

DURATION_LOG_MEAN, DURATION_LOG_SIGMA = -0.38, 2.36
"""ATC'20, figure 7: a function's average execution time in seconds fits this log-normal distribution."""
SHORTEST_RUN_S = 0.001
RUN_LOG_SIGMA = 0.5
"""Spread of a function's runs around their average. Our assumption, after ATC'20, section 3.4: half of the functions
average below 1 s and reach 3 s at most, about what the 99th percentile of this spread gives."""


def average_run_s(rng: Random, longest_s: float) -> float:
    return min(longest_s, max(SHORTEST_RUN_S, rng.lognormvariate(DURATION_LOG_MEAN, DURATION_LOG_SIGMA)))


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MEMORY_C, MEMORY_K, MEMORY_SCALE_MB = 11.652, 0.221, 107.083
"""ATC'20, figure 8: an application's average allocated memory fits this Burr distribution."""
MEMORY_STEP_MB = 16
MEMORY_RANGE_MB = (32, 2048)
"""A limit is rounded up to whole steps and lies in this range. Our assumption: users state round limits."""


def burr_mb(quantile: float) -> float:
    """The inverse of F(x) = 1 - (1 + (x/scale)^c)^-k."""
    return MEMORY_SCALE_MB * math.pow(math.pow(1.0 - quantile, -1.0 / MEMORY_K) - 1.0, 1.0 / MEMORY_C)


def memory_limit_mb(needed_mb: float) -> int:
    low, high = MEMORY_RANGE_MB
    return min(high, max(low, math.ceil(needed_mb / MEMORY_STEP_MB) * MEMORY_STEP_MB))


# ── cold starts ─────────────────────────────────────────────────────────────────────────────────────────────────────

COLD_MEDIAN_S, COLD_LOG_SIGMA = 0.25, 0.7
"""Neither trace tells how long a start took. Our assumption: log-normal, half of them within a quarter of a second and
one in a hundred above 1.3 s; `--cold` states another median."""
CREATE_SHARE = 0.6
"""Of a cold start, what creating the container takes and a stem cell saves; the rest loads code. Our assumption."""


def cold_start_s(rng: Random, median_s: float) -> float:
    return median_s * math.exp(rng.gauss(0.0, COLD_LOG_SIGMA))


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────

FUNCTIONS_OF_AN_APPLICATION = ((0.54, 1), (0.70, 2), (0.80, 3), (0.88, 5), (0.95, 10), (0.9996, 100), (1.0, 500))
"""ATC'20, figure 1, cumulative: 54 % of the applications have one function, 95 % at most 10, 0.04 % more than 100.
Taken for the actions of a namespace; within a step log-uniform."""


def actions_of_a_namespace(rng: Random) -> int:
    drawn = rng.random()
    step = bisect.bisect_left(FUNCTIONS_OF_AN_APPLICATION, (drawn, 0))
    most = FUNCTIONS_OF_AN_APPLICATION[step][1]
    least = FUNCTIONS_OF_AN_APPLICATION[step - 1][1] + 1 if step else 1
    return min(most, int(_between(least, most + 1, rng.random())))


def own_dice(seed: int, *names: str) -> Random:
    """A generator of random numbers that belongs to a name: the same, whatever else is in the trace."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=8, key=str(seed).encode()[:64])
    return Random(int.from_bytes(digest.digest(), "big"))
