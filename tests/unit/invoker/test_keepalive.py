"""What idle containers are worth, how long they stay, and when the next use is foretold."""

import math
import random

import pytest

from visp.invoker.job import Cold
from visp.invoker.keepalive import (
    HALF_LIFE_S,
    LINGER_S,
    POLICIES,
    SEEN_PAUSES,
    GreedyDual,
    LeastRecent,
    Pauses,
    Timeout,
    Usage,
)

LONGEST_S = 600.0
DUAL = GreedyDual()


def used(times: int = 1, *, cold_s: float | None = None, pause_s: float = 0.0, pauses: int = 0) -> Usage:
    usage = Usage(0.0)
    usage.uses = times
    usage.cold_s = cold_s
    for _ in range(pauses):
        usage.pauses.add(pause_s)
    return usage


def worth(usage: Usage, *, memory_mb: int = 256, age: float = 0.0, now_s: float = 0.0) -> float:
    return DUAL.priority(usage, memory_mb, age, 0.0, now_s)


def test_what_is_used_more_or_costs_more_or_holds_less_is_worth_more() -> None:
    usual = worth(used(2, cold_s=0.1))
    assert worth(used(3, cold_s=0.1)) > usual
    assert worth(used(2, cold_s=0.2)) > usual
    assert worth(used(2, cold_s=0.1), memory_mb=128) > usual


def test_use_counts_less_as_it_gets_older() -> None:
    usage = used(8, cold_s=0.1)
    fresh = worth(usage)
    assert worth(usage, now_s=HALF_LIFE_S) == pytest.approx(fresh / 2)
    usage.uses += 4
    assert worth(usage, now_s=HALF_LIFE_S) == pytest.approx(fresh)


def test_what_was_used_after_an_eviction_is_worth_more_than_what_was_not() -> None:
    favourite = worth(used(100, cold_s=0.1))
    assert worth(used(1, cold_s=0.1), age=favourite) > favourite


def test_without_history_a_container_stays_as_long_as_it_may() -> None:
    assert DUAL.keep_s(used(pause_s=5.0, pauses=SEEN_PAUSES - 1), LONGEST_S) == LONGEST_S
    assert DUAL.expected_s(used(pause_s=300.0, pauses=SEEN_PAUSES - 1)) is None


def test_ordinary_pauses_are_no_reason_to_give_a_container_up() -> None:
    assert DUAL.keep_s(used(pause_s=1.5, pauses=20), LONGEST_S) == LONGEST_S
    assert DUAL.keep_s(used(pause_s=20.0, pauses=20), 5.0) == 5.0


def test_an_action_with_regular_long_pauses_gives_its_memory_back_and_is_expected() -> None:
    usage = used(pause_s=900.0, pauses=20)
    assert DUAL.keep_s(usage, LONGEST_S) == LINGER_S
    expected = DUAL.expected_s(usage)
    assert expected is not None
    assert expected[0] < 900.0 < expected[1]
    assert expected[1] - expected[0] < 300.0


def test_irregular_long_pauses_foretell_nothing() -> None:
    usage = used()
    chance = random.Random(7)
    for _ in range(50):
        usage.pauses.add(chance.uniform(60.0, 3600.0))
    assert DUAL.expected_s(usage) is None
    assert DUAL.keep_s(usage, LONGEST_S) == LONGEST_S


def test_pauses_are_between_the_bounds() -> None:
    pauses = Pauses()
    chance = random.Random(3)
    seen = sorted(chance.lognormvariate(3, 1) for _ in range(200))
    for pause_s in seen:
        pauses.add(pause_s)
    counted = [pause_s for pause_s in seen if pause_s >= Pauses.SHORTEST_S]
    low_s, high_s = pauses.bounds_s(0.05, 0.99)
    assert sum(pause_s < low_s for pause_s in counted) <= 0.05 * len(counted)
    assert sum(pause_s < high_s for pause_s in counted) >= 0.99 * len(counted)


def test_short_pauses_do_not_count_and_endless_ones_do() -> None:
    pauses = Pauses()
    pauses.add(0.99)
    assert pauses.total == 0
    pauses.add(1e9)
    assert pauses.total == 1
    assert pauses.bounds_s(0.05, 0.99)[0] >= 4 * 3600


def test_what_an_action_did_long_ago_is_forgotten() -> None:
    pauses = Pauses()
    for _ in range(Pauses.LIMIT):
        pauses.add(10.0)
    for _ in range(4 * Pauses.LIMIT):
        pauses.add(1000.0)
    assert pauses.total < Pauses.LIMIT
    assert pauses.bounds_s(0.05, 0.99)[0] > 500


def test_the_rivals() -> None:
    usage = used(5, pause_s=20.0, pauses=20)
    for rival in (Timeout(), LeastRecent()):
        assert rival.priority(usage, 128, 0.0, 3.0, 9.0) == 3.0
        assert rival.expected_s(usage) is None
    assert Timeout().keep_s(usage, 6 * LONGEST_S) == LONGEST_S
    assert LeastRecent().keep_s(usage, LONGEST_S) == math.inf
    assert set(POLICIES) == {"greedy-dual", "timeout", "lru"}


def test_a_service_time_falls_sooner_than_it_rises() -> None:
    usage = Usage(0.0)
    for seconds in (1.0, 0.0):
        usage.served(seconds)
    assert usage.service_s == pytest.approx(0.5)
    usage.served(1.0)
    assert usage.service_s == pytest.approx(0.6)


def test_arrivals_are_counted_over_a_second_at_least() -> None:
    usage = Usage(0.0)
    usage.uses = 10
    assert usage.arrivals(5, 0.5) == 0.0
    assert usage.arrivals(5, 1.5) == pytest.approx(10.0)
    usage.uses = 12
    assert usage.arrivals(3, 2.0) == pytest.approx(10.0), "not yet a second"
    assert usage.arrivals(3, 3.5) == 0.0, "nothing came since"


def test_why_a_start_was_cold() -> None:
    usage = Usage(0.0)
    assert usage.why_cold(1, is_busy=False) is Cold.FIRST_USE
    usage.revision = 1
    usage.gone = Cold.EVICTED
    assert usage.why_cold(2, is_busy=False) is Cold.NEW_REVISION
    assert usage.why_cold(1, is_busy=True) is Cold.ALL_BUSY
    assert usage.why_cold(1, is_busy=False) is Cold.EVICTED
