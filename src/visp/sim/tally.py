"""Counting over many values in little memory: quantiles, and averages over time."""

from __future__ import annotations

import math
from array import array


class Quantiles:
    """Of durations in seconds: bins of 1 % from a microsecond to 36 years; zeros are told apart."""

    BINS_AN_OCTAVE = 64
    SHORTEST_S = 1e-6
    BINS = 50 * BINS_AN_OCTAVE

    def __init__(self) -> None:
        self._bins = array("Q", bytes(8 * self.BINS))
        self.zeros = 0
        self.count = 0
        """Of those above zero."""
        self.sum_s = 0.0
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        if seconds < self.SHORTEST_S:
            self.zeros += 1
            return
        self.count += 1
        self.sum_s += seconds
        if seconds > self.longest_s:
            self.longest_s = seconds
        bin = int(math.log2(seconds / self.SHORTEST_S) * self.BINS_AN_OCTAVE)
        self._bins[min(bin, self.BINS - 1)] += 1

    @property
    def mean_s(self) -> float:
        total = self.zeros + self.count
        return self.sum_s / total if total else 0.0

    def at(self, quantile: float) -> float:
        """The value that this part of all do not exceed, within 1 %."""
        wanted = max(1, math.ceil(quantile * (self.zeros + self.count)))
        seen = self.zeros
        if seen >= wanted:
            return 0.0
        for bin, number in enumerate(self._bins):
            seen += number
            if seen >= wanted:
                return float(min(self.longest_s, self.SHORTEST_S * 2.0 ** ((bin + 1) / self.BINS_AN_OCTAVE)))
        return self.longest_s


class Series:
    """Samples of a few quantities at equal steps of time; when there are too many, every second one goes."""

    LIMIT = 480

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.step_s = 1.0
        self.next_s = 0.0
        self.rows: list[tuple[float, ...]] = []

    def take(self, now_s: float, row: tuple[float, ...]) -> None:
        """The quantities as they have been since the last event, at each step up to now."""
        while self.next_s <= now_s:
            self.rows.append(row)
            if len(self.rows) > self.LIMIT:
                self.rows = self.rows[::2]
                self.step_s *= 2
            self.next_s = len(self.rows) * self.step_s
