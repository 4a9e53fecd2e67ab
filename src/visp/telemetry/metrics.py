"""What is counted while visp runs, as plain numbers; only a scrape makes text of them.

Each part counts for itself, names its own measures, and offers them as families when it is asked. Counting is adding to
an integer: no lock (one thread counts), no label look-up where there is one label set, nothing of a metrics library.
Names follow Prometheus' habits: `visp_` first, base units (seconds, bytes), `_total` at the end of a counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Source = Callable[[], "Iterable[Family]"]

LOWEST, HIGHEST = 6, 28
"""Histograms have a bucket for each power of two of microseconds between these: 64 µs to 268 s."""
_SLOTS = 64


class Distribution(msgspec.Struct, frozen=True):
    """A histogram as it is shown: upper bounds (seconds, inclusive) with cumulative counts, the last one of all
    (`inf`), and the sum in seconds.
    """

    buckets: tuple[tuple[float, int], ...]
    sum_s: float


class Family(msgspec.Struct, frozen=True):
    """One metric with all its samples: values of the labels → value."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    samples: dict[tuple[str, ...], float | Distribution]
    labels: tuple[str, ...] = ()


class Tally:
    """Counts by values of labels, which must come from a small closed set: kinds, states, reasons; never names."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str, count: int = 1) -> None:
        if count:
            self._counts[labels] = self._counts.get(labels, 0) + count

    def samples(self) -> dict[tuple[str, ...], float | Distribution]:
        return dict(self._counts)


class Histogram:
    """Durations in whole microseconds, by powers of two: the bucket is the number's length in bits."""

    __slots__ = ("_counts", "_sum_us")

    def __init__(self) -> None:
        self._counts = [0] * (_SLOTS + 1)
        self._sum_us = 0

    def add(self, us: int) -> None:
        """Counts one; 2^n itself belongs to the bucket up to 2^n."""
        self._counts[(us - 1).bit_length()] += 1
        self._sum_us += us

    def shown(self) -> Distribution:
        buckets = tuple((2**bits / 1e6, sum(self._counts[: bits + 1])) for bits in range(LOWEST, HIGHEST + 1))
        return Distribution((*buckets, (float("inf"), sum(self._counts))), self._sum_us / 1e6)


class Registry:
    """Where the parts of one server offer what they count. `labels` are on every sample: which shard it is."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self._sources: list[Source] = []

    def add(self, source: Source) -> None:
        """`source` is asked at each scrape, on the event loop, and must not wait for anything."""
        self._sources.append(source)

    def families(self) -> list[Family]:
        return [family for source in self._sources for family in source()]
