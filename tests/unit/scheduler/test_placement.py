"""Which invoker runs an activation: the cases in their order."""

from typing import Any

import pytest

from visp.scheduler.fleet import InvokerView
from visp.scheduler.placement import home_of, place

A = "ns/a"


def view(id: int, used_mb: int = 0, waiting: int = 0, *warm: str, is_up: bool = True) -> InvokerView:
    return InvokerView(id, 1024, used_mb, waiting, is_up, set(warm))


HOME = home_of((0, 1, 2), "ns", A)
OTHERS = [id for id in (0, 1, 2) if id != HOME]


def fleet(**changed: Any) -> list[InvokerView]:
    """Three invokers with room; `home`, `here` and `third` are given otherwise."""
    named = {"home": HOME, "here": OTHERS[0], "third": OTHERS[1]}
    return sorted(
        (view(id, *changed.get(name, ())) for name, id in named.items()),
        key=lambda invoker: invoker.id,
    )


HERE, THIRD = OTHERS
FULL = (1024, 0)


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        (fleet(here=(1024, 5, A), home=(0, 0, A)), HERE),
        (fleet(home=(1024, 5, A), third=(0, 0, A)), HOME),
        (fleet(third=(0, 0, A)), HERE),
        (fleet(here=FULL), HOME),
        (fleet(here=FULL, home=FULL), THIRD),
        (fleet(here=FULL, home=FULL, third=FULL), HERE),
        (fleet(here=(1024, 3), home=(1024, 1), third=(1024, 1)), HOME),
        (fleet(here=(1024, 3), home=(1024, 2), third=(1024, 1)), THIRD),
        (fleet(here=(1024 - 255, 0)), HOME),
        (fleet(here=(1024 - 256, 0)), HERE),
    ],
    ids=[
        "warm here",
        "warm at home",
        "room here, though it is warm elsewhere",
        "room at home",
        "room elsewhere",
        "no room: as many wait everywhere",
        "no room: fewest wait, home first",
        "no room: fewest wait",
        "one megabyte too little",
        "just enough",
    ],
)
def test_the_cases_in_their_order(seen: list[InvokerView], chosen: int) -> None:
    assert place(seen, HERE, "ns", A, 256) == chosen


def test_everyone_agrees_on_a_home_and_homes_are_spread() -> None:
    full_here = {here: [view(id, 1024 if id == here else 0) for id in (0, 1, 2)] for here in (0, 1, 2)}
    for number in range(30):
        action = f"ns/{number}"
        expected = home_of((0, 1, 2), "ns", action)
        chosen = {place(full_here[here], here, "ns", action, 256) for here in (0, 1, 2) if here != expected}
        assert chosen == {expected}
    assert {home_of((0, 1, 2), "ns", f"ns/{number}") for number in range(30)} == {0, 1, 2}


def test_one_invoker_needs_no_choice() -> None:
    assert place([view(0, 1024, 99)], 0, "ns", A, 256) == 0
    assert place([view(0, is_up=False)], 0, "ns", A, 256) is None
    assert place([], 0, "ns", A, 256) is None


def test_who_is_down_is_not_chosen() -> None:
    down = [view(0, is_up=False), view(1, 1024, 9), view(2, is_up=False)]
    assert place(down, 0, "ns", A, 256) == 1
    assert place([view(0, is_up=False), view(1, is_up=False)], 0, "ns", A, 256) is None
