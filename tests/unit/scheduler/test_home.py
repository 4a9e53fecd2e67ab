"""An action's home: the same for all, spread evenly, and it stays when others come and go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.scheduler.placement import GROUP, Seen, choose, home_of

ACTIONS = [f"a{number}" for number in range(4000)]


def homes(ids: list[int]) -> list[int]:
    return [home_of(ids, "ns", action) for action in ACTIONS]


@given(st.sets(st.integers(0, 2**20), min_size=1, max_size=200), st.text(max_size=10), st.text(max_size=10))
def test_it_is_one_of_them(ids, namespace, action):
    assert home_of(sorted(ids), namespace, action) in ids


@pytest.mark.parametrize("count", [2, 3, 7, GROUP, GROUP + 1, 50])
def test_all_have_about_as_many(count):
    ids = [number * 3 + 5 for number in range(count)]
    found = Counter(homes(ids))
    assert all(found[id] == pytest.approx(len(ACTIONS) / count, rel=0.45) for id in ids)


@pytest.mark.parametrize("count", [2, 3, GROUP])
def test_of_a_small_fleet_only_the_actions_of_one_that_goes_move(count):
    ids = list(range(count))
    before, after = homes(ids), homes(ids[1:])
    assert all(now == was for was, now in zip(before, after, strict=True) if was != 0)


def test_of_a_large_fleet_few_others_move():
    ids = list(range(1000))
    before, after = homes(ids), homes(ids[:400] + ids[401:])
    moved = sum(now != was for was, now in zip(before, after, strict=True))
    assert moved < len(ACTIONS) * 0.015


def test_what_costs_a_look_at_all_is_asked_only_when_it_matters():
    def never() -> Seen:
        raise AssertionError

    def nowhere() -> int:
        raise AssertionError

    home = Seen(7, is_warm=False, free_mb=256)
    assert choose(256, None, home, never, nowhere) == 7
    assert choose(512, None, Seen(7, is_warm=True, free_mb=0), never, nowhere) == 7
    assert choose(512, None, home, lambda: Seen(8, is_warm=False, free_mb=512), nowhere) == 8
    assert choose(512, None, home, lambda: Seen(8, is_warm=False, free_mb=256), lambda: 9) == 9
