"""When it is worth asking again."""

from visp.clock import ManualClock
from visp.controller.drain import Drain


def test_it_follows_the_rate_of_what_ends() -> None:
    clock = ManualClock()
    drain = Drain(clock)
    assert drain.retry_after_s(1000) == 1, "nothing is known yet"
    drain.ended += 20
    clock.advance(2.0)
    assert drain.retry_after_s(1000) == 5, "fifty of them, ten a second"
    assert drain.retry_after_s(100) == 1
    drain.ended += 1
    clock.advance(2.0)
    assert drain.retry_after_s(100_000) == 60, "no longer than a minute"


def test_where_nothing_ends_it_is_long() -> None:
    clock = ManualClock()
    drain = Drain(clock)
    clock.advance(5.0)
    assert drain.retry_after_s(10) == 60
