"""Rates by the wall-clock minute, concurrency by what is in flight."""

import pytest

from visp.clock import ManualClock
from visp.entitlement.throttle import Throttle
from visp.entity.subject import Identity, UserLimits
from visp.errors import Throttled


def identity(**limits: int) -> Identity:
    values = {"invocations_per_minute": 2, "fires_per_minute": 1, "concurrent_invocations": 1} | limits
    return Identity(subject="guest", namespace="guest", namespace_uuid="u", limits=UserLimits(**values))


def test_the_third_of_two_is_refused_and_counted() -> None:
    throttle = Throttle(ManualClock())
    throttle.charge_invocation(identity())
    throttle.charge_invocation(identity())
    with pytest.raises(Throttled, match=r"\(count: 3, allowed: 2\)"):
        throttle.charge_invocation(identity())
    with pytest.raises(Throttled, match=r"\(count: 4, allowed: 2\)"):
        throttle.charge_invocation(identity())


def test_a_new_minute_begins_anew() -> None:
    clock = ManualClock()
    throttle = Throttle(clock)
    throttle.charge_fire(identity())
    with pytest.raises(Throttled):
        throttle.charge_fire(identity())
    clock.advance(60)
    throttle.charge_fire(identity())


def test_a_limit_of_none_refuses_the_first() -> None:
    with pytest.raises(Throttled, match=r"\(count: 1, allowed: 0\)"):
        Throttle(ManualClock()).charge_invocation(identity(invocations_per_minute=0))


def test_what_is_in_flight_counts_until_it_leaves() -> None:
    throttle = Throttle(ManualClock())
    throttle.enter("u")
    with pytest.raises(Throttled, match=r"Too many concurrent requests in flight \(count: 1, allowed: 1\)"):
        throttle.charge_invocation(identity())
    throttle.leave("u")
    throttle.charge_invocation(identity())
    assert throttle.in_flight("u") == 0
