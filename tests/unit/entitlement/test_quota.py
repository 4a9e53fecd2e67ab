"""The pace and the windows of the gateway, and that their tables stay small."""

from __future__ import annotations

import pytest

from visp.clock import ManualClock
from visp.entitlement.quota import Pace, Window

A, B = ("a",), ("b",)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_call_within_the_gap_is_refused(clock: ManualClock) -> None:
    pace = Pace(clock)
    assert pace.wait_ms(A, 600) == 0
    assert pace.wait_ms(B, 600) == 0
    clock.advance(0.2)
    assert pace.wait_ms(A, 600) == 400
    clock.advance(0.4)
    assert pace.wait_ms(A, 600) == 0


def test_a_window_counts_and_begins_anew(clock: ManualClock) -> None:
    window = Window(clock)
    clock.advance(60 - clock.now_ms() / 1000 % 60)
    assert [window.wait_s(A, 2, 60) for _ in range(4)] == [0, 0, 60, 60]
    assert window.wait_s(B, 2, 60) == 0
    clock.advance(59.5)
    assert window.wait_s(A, 2, 60) == 1
    clock.advance(0.5)
    assert window.wait_s(A, 2, 60) == 0
    assert window.wait_s(A, 0, 60) == 60


def test_the_tables_are_bounded(clock: ManualClock) -> None:
    pace, window = Pace(clock, limit=20), Window(clock, limit=20)
    for number in range(200):
        key = (str(number),)
        assert pace.wait_ms(key, 1000) == 0
        assert window.wait_s(key, 1, 3600) == 0
        assert len(pace._free_at_ms) <= 20
        assert len(window._counts) <= 20
    assert pace.wait_ms(("199",), 1000) > 0
    assert window.wait_s(("199",), 1, 3600) > 0


def test_what_has_run_out_goes_first(clock: ManualClock) -> None:
    window = Window(clock, limit=3)
    window.wait_s(A, 1, 3600)
    window.wait_s(B, 1, 1)
    window.wait_s(("c",), 1, 1)
    clock.advance(2)
    window.wait_s(("d",), 1, 1)
    assert window.wait_s(A, 1, 3600) > 0
