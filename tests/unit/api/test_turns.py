"""Whose request begins in a turn of the loop, over a loop whose turns are made by hand."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, cast

from visp.api.turns import AT_ONCE, SHARED_S, Turns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

TURN_S = 0.001


class Loop:
    """Calls what is due in a turn; its time stands still meanwhile."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._later, (self.now_s + delay_s, len(self._later), call))

    def turn(self, after_s: float = TURN_S) -> None:
        self.now_s += after_s
        while self._later and self._later[0][0] <= self.now_s:
            self._soon.append(heapq.heappop(self._later)[2])
        due, self._soon = self._soon, []
        for call in due:
            call()


class Door:
    """Requests as the front door hands them in; `begun` is the order in which they begin."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.turns = Turns(cast("asyncio.AbstractEventLoop", cast("Any", self.loop)))
        self.begun: list[str] = []

    def ask(self, namespace: str, count: int = 1) -> None:
        for _ in range(count):
            if namespace != self.turns.latest:
                self.turns.meet(namespace)
            if self.turns.is_shared and not self.turns.may_begin(namespace):
                self.turns.wait(namespace, lambda: self.begun.append(namespace))
            else:
                self.begun.append(namespace)


def test_alone_a_namespace_never_waits() -> None:
    door = Door()
    door.ask("a", 64)
    assert door.begun == ["a"] * 64


def test_one_request_does_not_wait_for_the_many_of_another() -> None:
    door = Door()
    door.ask("b")
    door.loop.turn()
    door.ask("a", 64)
    assert door.begun == ["b"] + ["a"] * AT_ONCE
    door.loop.turn()
    door.ask("b")
    assert door.begun[-1] == "b"
    assert len(door.begun) == 2 + 2 * AT_ONCE


def test_every_request_begins_in_the_order_of_its_namespace() -> None:
    door = Door()
    order: list[int] = []
    door.ask("b")
    door.ask("a")
    for number in range(3 * AT_ONCE):
        door.turns.wait("a", lambda number=number: order.append(number))  # type: ignore[misc]
    for _ in range(3):
        door.loop.turn()
    assert order == list(range(3 * AT_ONCE))


def test_many_namespaces_take_turns() -> None:
    door = Door()
    for namespace in "abc":
        door.ask(namespace)
    door.loop.turn()
    door.begun.clear()
    for namespace in "abc":
        door.ask(namespace, 3 * AT_ONCE)
    door.loop.turn()
    assert [door.begun.count(namespace) for namespace in "abc"] == [2 * AT_ONCE] * 3
    door.loop.turn()
    assert [door.begun.count(namespace) for namespace in "abc"] == [3 * AT_ONCE] * 3


def test_new_request_of_a_namespace_does_not_overtake_its_own() -> None:
    door = Door()
    door.ask("b")
    door.ask("a", 2 * AT_ONCE)
    door.loop.now_s += TURN_S  # the loop looked for what is new before it went on
    assert not door.turns.may_begin("a")
    assert door.turns.may_begin("b")


def test_alone_again_after_a_while() -> None:
    door = Door()
    door.ask("b")
    door.ask("a")
    door.loop.turn(SHARED_S / 2)
    door.ask("b")
    door.loop.turn(SHARED_S / 2)
    assert door.turns.is_shared  # since the other one was there
    door.loop.turn(SHARED_S)
    assert not door.turns.is_shared
    door.begun.clear()
    door.ask("b", 64)
    assert door.begun == ["b"] * 64
