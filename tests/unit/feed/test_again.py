"""What was lost is tried again soon, and less often the longer it is away."""

from __future__ import annotations

import pytest

from visp.feed.again import LAST_AGAIN_S, SOON_S, Waits


@pytest.mark.parametrize("away_s", [0.5, 5.0, 60.0, 61.0, 300.0, 3600.0])
def test_what_is_back_is_found_soon(away_s: float) -> None:
    now_s, tries = 1000.0, 0
    waits = Waits(now_s)
    while now_s < 1000.0 + away_s:
        now_s += waits.next_s(now_s)
        tries += 1
    late_s = now_s - 1000.0 - away_s
    assert late_s <= max(SOON_S, min(away_s / 8, LAST_AGAIN_S))
    assert tries <= 12 + away_s / 20


def test_the_first_waits_are_short() -> None:
    waits = Waits(0.0)
    assert [waits.next_s(0.0) for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert waits.next_s(24 * 3600.0) == 16.0
    assert [waits.next_s(24 * 3600.0) for _ in range(3)] == [32.0, 60.0, 60.0]
