"""Whose turn it is, and who may take what from whom."""

import pytest

from visp.invoker import fair
from visp.invoker.fair import Accounts, gives_way, may_evict


def test_who_was_charged_least_is_next() -> None:
    accounts = Accounts()
    for name in ("a", "b"):
        accounts.arrive(name)
    accounts.charge("a", 256, 1.0)
    assert accounts.waiting_turn("b") < accounts.waiting_turn("a")
    accounts.charge("b", 512, 1.0)
    assert accounts.waiting_turn("a") < accounts.waiting_turn("b")


def test_two_that_always_wait_get_equal_shares_of_memory_and_time() -> None:
    accounts = Accounts()
    cost = {"a": 256 * 0.1, "b": 1024 * 0.5}
    got = dict.fromkeys(cost, 0.0)
    for name in cost:
        accounts.arrive(name)
    for _ in range(1000):
        name = min(cost, key=accounts.waiting_turn)
        got[name] += cost[name]
        accounts.charge(name, 1, cost[name])
    assert got["a"] == pytest.approx(got["b"], rel=0.01)


def test_idleness_earns_nothing() -> None:
    accounts = Accounts()
    accounts.arrive("a")
    for _ in range(100):
        accounts.charge("a", 256, 1.0)
    accounts.arrive("late")
    assert accounts.waiting_turn("late") == 256 * 99, "where the one before it began, not at nought"


def test_who_waits_keeps_its_turn_while_others_are_served() -> None:
    accounts = Accounts()
    accounts.arrive("a")
    accounts.charge("a", 256, 1.0)
    accounts.arrive("b")
    turn = accounts.waiting_turn("b")
    for _ in range(5):
        accounts.charge("a", 256, 1.0)
    assert accounts.waiting_turn("b") == turn


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair, "LIMIT", 10)
    accounts = Accounts()
    for number in range(100):
        accounts.charge(f"n{number}", 256, 1.0)
        accounts.arrive(f"m{number}")
    assert len(accounts._turns) <= 10


@pytest.mark.parametrize(
    ("taker_mb", "giver_mb", "may"),
    [(0, 256, True), (256, 256, False), (256, 512, True), (4096, 256, False)],
    ids=["a newcomer gets its first", "as much as the other", "less than the other", "a flood"],
)
def test_idle_containers_go_to_who_holds_less(taker_mb: int, giver_mb: int, may: bool) -> None:
    assert may_evict(256, taker_mb, giver_mb) is may


def test_a_container_with_work_gives_way_only_to_who_still_holds_no_more_afterwards() -> None:
    assert gives_way(256, 0, 256, 512)
    assert not gives_way(256, 0, 256, 256)
    assert not gives_way(256, 256, 256, 512)
