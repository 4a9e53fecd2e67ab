"""Who waits for which activation, and what is in flight."""

import pytest

from visp.bus import base as topics
from visp.bus.memory import MemoryBus
from visp.bus.messages import CompletionAck, ResultAck
from visp.clock import ManualClock
from visp.controller.acks import Acks
from visp.entitlement.throttle import Throttle
from visp.entity.activation import ActivationHead
from visp.errors import Overloaded
from visp.settings import Queue


class Table:
    """Acks over a bus, and what their waiters heard."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.clock = ManualClock()
        self.throttle = Throttle(self.clock)
        self.acks = Acks(self.throttle, Queue(activations=2, payload_bytes=100), self.bus, self.clock)
        self.heard: list[ResultAck] = []

    def enter(self, id: str, payload_bytes: int = 1) -> None:
        self.acks.register(id, "u", payload_bytes, self.heard.append)

    def result(self, id: str) -> ResultAck:
        head = ActivationHead(id=id, namespace="n", subject="s", name="a", version="0.0.1", start_ms=0)
        ack = ResultAck(head, b"{}")
        self.bus.publish(topics.ACKS, ack)
        return ack

    def complete(self, id: str) -> None:
        self.bus.publish(topics.ACKS, CompletionAck(id))


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_waiter_hears_its_result_once(table: Table) -> None:
    table.enter("a")
    ack = table.result("a")
    table.result("a")
    assert table.heard == [ack]


def test_a_result_that_is_complete_frees_the_place_after_its_waiter_has_heard(table: Table) -> None:
    places: list[int] = []
    table.acks.register("a", "u", 1, lambda _: places.append(len(table.acks)))
    head = ActivationHead(id="a", namespace="n", subject="s", name="a", version="0.0.1", start_ms=0)
    table.bus.publish(topics.ACKS, ResultAck(head, b"{}", is_complete=True))
    assert (places, len(table.acks)) == ([1], 0)


def test_a_result_that_nobody_waits_for_is_dropped(table: Table) -> None:
    table.result("unknown")
    table.acks.register("a", "u", 1, None)
    table.result("a")
    assert table.heard == []


def test_a_waiter_that_is_gone_hears_nothing_and_the_run_goes_on(table: Table) -> None:
    table.enter("a")
    table.acks.forget("a")
    table.result("a")
    assert table.heard == []
    assert len(table.acks) == 1


def test_the_place_is_free_after_the_completion_not_the_result(table: Table) -> None:
    table.enter("a")
    table.result("a")
    assert (len(table.acks), table.throttle.in_flight("u")) == (1, 1)
    table.complete("a")
    assert (len(table.acks), table.throttle.in_flight("u")) == (0, 0)


def test_completing_twice_frees_one_place(table: Table) -> None:
    table.enter("a")
    table.enter("b")
    table.complete("a")
    table.complete("a")
    table.complete("unknown")
    assert (len(table.acks), table.throttle.in_flight("u")) == (1, 1)


def test_no_more_in_flight_than_allowed(table: Table) -> None:
    table.enter("a")
    table.acks.check_room()
    table.enter("b")
    with pytest.raises(Overloaded, match=r"allowed: 2; setting \[queue\] activations"):
        table.acks.check_room()
    table.complete("a")
    table.acks.check_room()


def test_no_more_bytes_in_flight_than_allowed(table: Table) -> None:
    table.enter("a", 100)
    with pytest.raises(Overloaded):
        table.acks.check_room()
    table.complete("a")
    table.acks.check_room()
