"""In what order an outbox is told, and which ids that were missing are looked for again. Pure.

Ids are taken before their transactions end, so that a smaller one may appear after a larger one. A row is told once no
transaction that was open when it was read can be older than its own; an id that is skipped is remembered until every
transaction that was open then has ended, and a while longer, for one that had its id and had not begun to write.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from visp.feed.base import Json

GAPS_MOST = 1000
"""Ids that are remembered: the last ones."""
WHILE_MS = 60_000


class Gap(msgspec.Struct, frozen=True):
    """`next` is the first transaction that did not exist yet when the id was missing."""

    id: int
    next: int
    seen_ms: int


class Gaps(msgspec.Struct, frozen=True):
    """`last` is the largest id that was told; `now_ms` when this is looked at."""

    last: int
    gaps: tuple[Gap, ...]
    now_ms: int

    @classmethod
    def read(cls, kept: Mapping[str, Json], now_ms: int) -> Gaps:
        return cls(kept["id"], tuple(Gap(*gap) for gap in kept.get("gaps", ())), now_ms)

    def kept(self) -> Json:
        kept: dict[str, Json] = {"id": self.last}
        if self.gaps:
            kept["gaps"] = [[gap.id, gap.next, gap.seen_ms] for gap in self.gaps]
        return kept

    def ids(self) -> list[int]:
        return [gap.id for gap in self.gaps]

    def after(self, id: int, next: int, now_ms: int) -> Gaps:
        """An id was told, late or as the next one."""
        if id <= self.last:
            return Gaps(self.last, tuple(gap for gap in self.gaps if gap.id != id), now_ms)
        missing = range(max(self.last + 1, id - GAPS_MOST), id)
        gaps = (*self.gaps, *(Gap(one, next, now_ms) for one in missing))
        return Gaps(id, gaps[-GAPS_MOST:], now_ms)

    def without(self, horizon: int) -> Gaps:
        """What can come no more is forgotten: `horizon` is the oldest transaction that is open."""
        alive = tuple(gap for gap in self.gaps if gap.next > horizon or self.now_ms - gap.seen_ms < WHILE_MS)
        return Gaps(self.last, alive, self.now_ms)


def seen(rows: Sequence[Mapping[str, Any]], last: int) -> list[Any]:
    """Of rows in the order of ids those that may be told: late ones, and on until the first that must wait."""
    late = [row for row in rows if row["id"] <= last]
    return [*late, *takewhile(lambda row: row["settled"], (row for row in rows if row["id"] > last))]
