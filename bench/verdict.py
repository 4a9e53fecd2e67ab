"""Whether two versions differ, from ratios that interleaved rounds gave. Pure."""

from __future__ import annotations

import math
import statistics
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SURE = 0.05
"""How often noise alone may be taken for a difference."""
LEAST_CHANGE = 0.01
"""A smaller one is none, however sure."""


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference"
    UNSURE = "too few rounds to tell"


def of_ratios(ratios: Sequence[float], *, is_more_better: bool) -> Verdict:
    """What rounds say whose figures were so many times the other version's."""
    logs = [math.log(ratio) for ratio in ratios]
    if 2 / 2 ** len(logs) > SURE:
        return Verdict.UNSURE  # even if all of them agreed
    change = math.exp(statistics.median(logs)) - 1
    if abs(change) < LEAST_CHANGE or chance(logs) > SURE:
        return Verdict.SAME
    return Verdict.BETTER if (change > 0) == is_more_better else Verdict.WORSE


def chance(differences: Sequence[float]) -> float:
    """How likely differences are to lie so much on one side if they have none: Wilcoxon's signed-rank test, exact and
    two-sided. Zeros say nothing and are left out; equal sizes share their ranks.
    """
    ranked = _double_ranks([abs(value) for value in differences if value])
    signs = [value > 0 for value in differences if value]
    if not ranked:
        return 1.0
    above = sum(rank for rank, is_positive in zip(ranked, signs, strict=True) if is_positive)
    least = min(above, sum(ranked) - above)
    ways = [1] + [0] * sum(ranked)  # how many choices of signs give each sum of ranks
    for rank in ranked:
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    return float(min(1.0, 2 * sum(ways[: least + 1]) / 2 ** len(ranked)))


def _double_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the rank of each: whole numbers, even where equals share the mean of theirs."""
    ordered = sorted(sizes)
    return [2 * ordered.index(size) + ordered.count(size) + 1 for size in sizes]
