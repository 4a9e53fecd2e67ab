"""What placement sees of the invokers."""

from visp.bus.messages import Ping
from visp.clock import ManualClock
from visp.scheduler.fleet import SILENT_S, Fleet


def test_who_is_silent_is_down_until_it_is_heard_again() -> None:
    clock = ManualClock()
    fleet = Fleet(clock)
    fleet.heard(Ping(0, 1024, 0, 0))
    clock.advance(SILENT_S - 1)
    fleet.heard(Ping(1, 1024, 0, 0))
    assert [entry.is_up for entry in fleet.view()] == [True, True]
    clock.advance(1.5)
    assert [entry.is_up for entry in fleet.view()] == [False, True]
    fleet.heard(Ping(0, 1024, 0, 0))
    assert [entry.is_up for entry in fleet.view()] == [True, True]


def test_who_is_gone_is_not_seen() -> None:
    fleet = Fleet(ManualClock())
    for id in (0, 1):
        fleet.heard(Ping(id, 1024, 0, 0))
    fleet.gone(1)
    fleet.gone(1)
    assert [entry.id for entry in fleet.view()] == [0]


def test_what_was_sent_elsewhere_is_counted_until_the_next_ping() -> None:
    fleet = Fleet(ManualClock())
    fleet.heard(Ping(1, 1024, 512, 0, ("ns/a",)))
    (seen,) = fleet.view()
    fleet.placed(1, "ns/a", 256)
    assert (seen.warm, seen.used_mb, seen.waiting) == (set(), 512, 0)
    fleet.placed(1, "ns/a", 256)
    assert (seen.used_mb, seen.waiting) == (768, 0)
    fleet.placed(1, "ns/b", 512)
    assert (seen.used_mb, seen.waiting) == (768, 1)
    fleet.heard(Ping(1, 1024, 512, 0, ("ns/a",)))
    (seen,) = fleet.view()
    assert (seen.warm, seen.used_mb, seen.waiting) == ({"ns/a"}, 512, 0)


def test_the_own_invoker_is_asked() -> None:
    clock, used_mb = ManualClock(), [0]
    fleet = Fleet(clock)
    fleet.ask(lambda: Ping(0, 1024, used_mb[0], 0))
    assert fleet.view()[0].used_mb == 0
    used_mb[0] = 256
    clock.advance(0.02)
    assert fleet.view()[0].used_mb == 256
    fleet.placed(0, "ns/a", 512)
    assert fleet.view()[0].used_mb == 768
    clock.advance(0.02)
    assert fleet.view()[0].used_mb == 256
