"""Counts that several shards share: exact for small limits, cheap for large ones."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.clock import ManualClock
from visp.entitlement.leases import KEPT_S, LeasedThrottle, Lent, Wanted, home_of
from visp.entitlement.throttle import block
from visp.entity.subject import Identity, UserLimits
from visp.errors import StoreUnavailable, Throttled


class Shards:
    """Throttles that lend to one another by calls; `asked` counts the questions."""

    def __init__(self, count: int = 3) -> None:
        self.clock = ManualClock()
        self.asked = 0
        self.down: set[int] = set()
        self.all = [LeasedThrottle(self.clock, own, count, Way(self, own)) for own in range(count)]


class Way:
    """One shard's way to the others."""

    def __init__(self, shards: Shards, own: int) -> None:
        self._shards = shards
        self._own = own

    async def lend(self, home: int, wanted: Wanted) -> Lent:
        self._shards.asked += 1
        await asyncio.sleep(0)
        if home in self._shards.down:
            raise StoreUnavailable
        return self._shards.all[home].lend(self._own, wanted)

    def settle(self, home: int, namespace_uuid: str, places: int) -> None:
        self._shards.all[home].settled(self._own, namespace_uuid, places)


def caller(uuid: str = "u", **limits: int) -> Identity:
    values = {"invocations_per_minute": 60, "fires_per_minute": 60, "concurrent_invocations": 1_000} | limits
    return Identity(subject="guest", namespace="guest", namespace_uuid=uuid, limits=UserLimits(**values))


async def is_admitted(throttle: LeasedThrottle, identity: Identity) -> bool:
    if not throttle.reserve(identity, 1):
        await throttle.obtain(identity, 1)
    try:
        throttle.charge_invocation(identity)
    except Throttled:
        return False
    return True


@given(st.lists(st.integers(0, 2), min_size=80, max_size=200), st.integers(0, 70))
def test_a_small_limit_is_exact_wherever_the_attempts_come(attempts: list[int], limit: int) -> None:
    async def run() -> None:
        shards = Shards()
        who = caller(invocations_per_minute=limit)
        together = (is_admitted(shards.all[shard], who) for shard in attempts)
        assert sum(await asyncio.gather(*together)) == min(limit, len(attempts))
        shards.clock.advance(60)
        assert sum([await is_admitted(shards.all[shard], who) for shard in attempts]) == min(limit, len(attempts))

    asyncio.run(run())


@given(st.integers(-5, 10_000_000), st.integers(1, 500))
def test_a_block_is_at_most_a_hundredth_or_what_is_asked_for(left: int, wanted: int) -> None:
    lent = block(left, wanted)
    assert 0 <= lent <= max(0, left)
    assert lent <= max(wanted, left // 100)
    assert lent >= min(wanted, left)


async def test_a_large_limit_is_asked_for_a_few_times() -> None:
    shards = Shards()
    who = caller(invocations_per_minute=1_000_000)
    away = shards.all[(home_of("u", 3) + 1) % 3]
    for _ in range(5_000):
        assert await is_admitted(away, who)
        away.enter("u")
        away.leave("u")
    assert shards.asked == 2  # a block of attempts, and one of places


async def test_many_at_once_ask_together() -> None:
    shards = Shards()
    who = caller(invocations_per_minute=50)
    away = shards.all[(home_of("u", 3) + 1) % 3]
    assert sum(await asyncio.gather(*(is_admitted(away, who) for _ in range(80)))) == 50
    assert shards.asked <= 10  # not once for each


async def test_what_is_over_is_refused_without_asking_and_says_how_many() -> None:
    shards = Shards()
    who = caller(invocations_per_minute=2)
    away = shards.all[(home_of("u", 3) + 1) % 3]
    assert [await is_admitted(away, who) for _ in range(3)] == [True, True, False]
    asked = shards.asked
    assert away.reserve(who, 1)
    with pytest.raises(Throttled, match=r"\(count: 4, allowed: 2\)"):
        away.charge_invocation(who)
    assert shards.asked == asked


async def test_places_in_flight_are_exact_and_come_back() -> None:
    shards = Shards()
    who = caller(concurrent_invocations=3)
    home = home_of("u", 3)
    order = [shards.all[(home + step) % 3] for step in (0, 1, 2)]
    for throttle in order:
        assert await is_admitted(throttle, who)
        throttle.enter("u")
    for throttle in order:
        assert not await is_admitted(throttle, who)
    order[1].leave("u")
    assert await is_admitted(order[2], who)
    order[2].enter("u")
    assert not await is_admitted(order[0], who)
    for throttle in (order[0], order[2], order[2]):
        throttle.leave("u")
    assert [await is_admitted(throttle, who) for throttle in order] == [True] * 3
    assert order[0]._lent_places("u") == 2  # what is reserved for the two and has not begun


async def test_parts_count_though_they_are_not_charged() -> None:
    shards = Shards()
    who = caller(concurrent_invocations=3)
    home = home_of("u", 3)
    here, away = shards.all[home], shards.all[(home + 1) % 3]
    for _ in range(3):
        away.enter("u")
    assert not await is_admitted(here, who)
    away.leave("u")
    assert await is_admitted(here, who)


async def test_a_shard_that_is_lost_holds_nothing_and_tells_again_what_it_holds() -> None:
    shards = Shards()
    who = caller(concurrent_invocations=1)
    home = home_of("u", 3)
    here, away = shards.all[home], shards.all[(home + 1) % 3]
    assert await is_admitted(away, who)
    away.enter("u")
    assert not await is_admitted(here, who)
    here.lost((home + 1) % 3)
    assert await is_admitted(here, who)
    away.found(home)
    assert not await is_admitted(here, who)


async def test_without_the_home_shard_nothing_is_lent() -> None:
    shards = Shards()
    who = caller()
    home = home_of("u", 3)
    shards.down.add(home)
    with pytest.raises(StoreUnavailable):
        await is_admitted(shards.all[(home + 1) % 3], who)
    assert await is_admitted(shards.all[home], who)


async def test_what_is_reserved_is_there_though_the_minute_ends_before_it_is_charged() -> None:
    """And no longer than for one more minute."""
    shards = Shards()
    who = caller(invocations_per_minute=1)
    away = shards.all[(home_of("u", 3) + 1) % 3]
    for minutes, is_there in ((1, True), (2, False)):
        await away.obtain(who, 1)
        for _ in range(minutes):
            shards.clock.advance(60)
            away.reserve(who, 0, 1)  # which looks at the clock
        if is_there:
            away.charge_invocation(who)
        with pytest.raises(Throttled):
            away.charge_invocation(who)
        shards.clock.advance(120)


async def test_unused_places_go_back_with_the_minute() -> None:
    shards = Shards()
    who = caller(concurrent_invocations=10_000)
    home = home_of("u", 3)
    away = shards.all[(home + 1) % 3]
    assert await is_admitted(away, who)
    away.enter("u")
    away.leave("u")
    assert shards.all[home]._lent_places("u") == 99  # a hundredth, but for the one that came back
    shards.clock.advance(60)
    away.reserve(who, 1)
    assert shards.all[home]._lent_places("u") == 0


async def test_a_place_is_for_one_request_and_free_again_when_it_was_not_needed() -> None:
    shards = Shards()
    who = caller(concurrent_invocations=2)
    home = home_of("u", 3)
    away = shards.all[(home + 1) % 3]
    assert sum(await asyncio.gather(*(is_admitted(away, who) for _ in range(5)))) == 2
    away.enter("u")
    assert not await is_admitted(shards.all[home], who)
    shards.clock.advance(KEPT_S)  # the other was refused for another reason
    away.leave("u")
    assert shards.all[home]._lent_places("u") == 0
    assert await is_admitted(shards.all[home], who)
