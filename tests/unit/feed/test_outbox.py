"""The order of an outbox, and ids that come late."""

from __future__ import annotations

from visp.feed.outbox import GAPS_MOST, WHILE_MS, Gap, Gaps, seen


def row(id: int, settled: bool = True) -> dict[str, object]:
    return {"id": id, "settled": settled}


def test_it_waits_at_the_first_row_that_others_may_come_before() -> None:
    rows = [row(3, False), row(5), row(6), row(7, False), row(8)]
    assert [one["id"] for one in seen(rows, 4)] == [3, 5, 6]


def test_ids_that_are_missing_are_looked_for_until_nobody_can_write_them() -> None:
    gaps = Gaps(4, (), 0).after(7, next=100, now_ms=0)
    assert (gaps.last, gaps.ids()) == (7, [5, 6])
    assert gaps.after(5, next=101, now_ms=1).ids() == [6]
    kept = Gaps.read(gaps.kept(), WHILE_MS)
    assert kept.without(horizon=99).ids() == [5, 6]
    assert kept.without(horizon=100).ids() == []
    assert Gaps.read(gaps.kept(), WHILE_MS - 1).without(horizon=100).ids() == [5, 6]


def test_no_more_than_so_many_are_remembered() -> None:
    gaps = Gaps(0, (Gap(-1, 1, 0),), 0).after(10**9, next=1, now_ms=0)
    assert len(gaps.gaps) == GAPS_MOST
    assert gaps.gaps[-1].id == 10**9 - 1
