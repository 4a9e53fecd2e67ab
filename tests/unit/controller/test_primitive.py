"""One action: blocking, accepted, or a part of a composite."""

from typing import Any

import msgspec
import pytest

from visp.bus.base import invoker_topic
from visp.bus.messages import ActivationMessage, Detached, Message, Ping, decode_task
from visp.controller.invoke import Invocation
from visp.controller.primitive import Accepted, Finished, Primitive, Refused
from visp.entity.activation import Outcome, Status, shard_of
from visp.entity.limits import ActionLimits
from visp.errors import Overloaded, ServiceError, StoreFull, StoreUnavailable

GOOD = Outcome(Status.SUCCESS, b'{"a":1}', 7)


async def test_a_blocking_caller_gets_the_outcome(controller: Any) -> None:
    order = controller.order(await controller.add("hello"), b'{"n":1}')
    controller.primitive.run_blocking(order, 60.0, controller.answers.append)
    (message,) = controller.hands.runs
    assert message == ActivationMessage(
        id=order.id,
        transid="t",
        namespace="guest",
        namespace_uuid="u",
        subject="someone",
        action="guest/hello",
        revision=order.action.revision,
        content=b'{"n":1}',
        received_ms=order.received_ms,
        is_blocking=True,
    )
    controller.hands.finish(order.id, GOOD)
    answer = await controller.answer()
    assert isinstance(answer, Finished)
    assert (answer.head.id, answer.result) == (order.id, b'{"a":1}')
    assert len(controller.acks) == 0
    assert controller.ledger.entries == [], "the invoker records it, nobody accepts it"


async def test_at_the_deadline_it_becomes_accepted_work(controller: Any) -> None:
    order = controller.order(await controller.add("hello"))
    controller.primitive.run_blocking(order, 0.0, controller.answers.append)
    assert await controller.answer() == Accepted(order.id)
    assert controller.hands.messages[1:] == [Detached(order.id)]
    (work,) = controller.ledger.works
    message = decode_task(work.message)
    assert (message.id, message.is_accepted) == (order.id, True)
    assert len(controller.acks) == 1, "it still runs"
    controller.hands.finish(order.id, GOOD)
    await controller.settle()
    assert controller.answers == [], "answered once"
    assert len(controller.acks) == 0


async def test_an_outcome_that_comes_while_it_is_being_accepted_is_the_answer(controller: Any) -> None:
    order = controller.order(await controller.add("hello"))
    controller.primitive.run_blocking(order, 0.0, controller.answers.append)
    await controller.until(lambda: controller.ledger.entries)
    controller.hands.finish(order.id, GOOD)
    assert isinstance(await controller.answer(), Finished)
    await controller.settle()
    assert controller.answers == []


async def test_a_deadline_that_cannot_be_recorded_is_a_refusal(controller: Any) -> None:
    controller.ledger.error = StoreFull()
    order = controller.order(await controller.add("hello"))
    controller.primitive.run_blocking(order, 0.0, controller.answers.append)
    answer = await controller.answer()
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, StoreFull)


async def test_an_outcome_that_was_not_recorded_is_not_given_out(controller: Any) -> None:
    order = controller.order(await controller.add("hello"))
    controller.primitive.run_blocking(order, 60.0, controller.answers.append)
    controller.hands.finish(order.id, GOOD, error="disk full")
    answer = await controller.answer()
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, StoreFull)


async def test_accepted_work_is_answered_when_the_ledger_holds_it(controller: Any) -> None:
    order = controller.order(await controller.add("hello"))
    controller.primitive.run_accepted(order, controller.answers.append)
    assert controller.answers == [], "not before it is on disk"
    (message,) = controller.hands.runs
    assert message.is_accepted, "its start shares the sync"
    assert await controller.answer() == Accepted(order.id)
    (work,) = controller.ledger.works
    assert decode_task(work.message) == message


@pytest.mark.parametrize(
    ("error", "told"), [(StoreFull(), StoreFull), (OSError("disk"), StoreUnavailable)], ids=["full", "broken"]
)
async def test_what_the_ledger_does_not_hold_is_refused(
    controller: Any, error: Exception, told: type[Exception]
) -> None:
    controller.ledger.error = error
    controller.primitive.run_accepted(controller.order(await controller.add("hello")), controller.answers.append)
    answer = await controller.answer()
    assert isinstance(answer, Refused)
    assert type(answer.error) is told


async def test_a_part_is_neither_blocking_nor_accepted(controller: Any) -> None:
    order = controller.order(await controller.add("hello"))
    controller.primitive.run_part(order, controller.answers.append)
    (message,) = controller.hands.runs
    assert (message.is_blocking, message.is_accepted) == (False, False)
    controller.hands.finish(order.id, GOOD)
    assert isinstance(await controller.answer(), Finished)


async def test_without_an_invoker_nothing_is_begun(controller: Any) -> None:
    controller.clock.advance(60)
    action = await controller.add("hello")
    with pytest.raises(Overloaded):
        controller.primitive.place(controller.identity, action)
    invocation = Invocation(
        identity=controller.identity, action=action, body=b"{}", transid="t", received_ms=0, wait_s=60.0
    )
    with pytest.raises(Overloaded):
        controller.invoke.start(invocation, controller.answers.append)
    assert (len(controller.acks), controller.ledger.entries, controller.hands.messages) == (0, [], [])


async def test_ids_are_ordered_by_time(controller: Any) -> None:
    first = controller.primitive.new_id()
    controller.clock.advance(1)
    second = controller.primitive.new_id()
    assert first < second
    assert len(first) == len(second) == 32


async def test_who_waits_for_a_shard_that_is_lost_hears_so_and_is_given_no_id(controller: Any) -> None:
    order = controller.order(await controller.add("hello"))
    controller.primitive.run_blocking(order, 60.0, controller.answers.append)
    controller.acks.lost(1)
    assert controller.answers == []
    controller.acks.lost(0)
    refused = await controller.answer()
    assert isinstance(refused, Refused)
    assert type(refused.error) is ServiceError
    assert len(controller.acks) == 0
    assert controller.throttle.in_flight("u") == 0


async def test_the_id_names_the_shard_that_will_run_it(controller: Any) -> None:
    primitive = Primitive(
        acks=controller.acks,
        bus=controller.bus,
        ledger=controller.ledger,
        fleet=controller.fleet,
        clock=controller.clock,
        shard=1,
        shards=2,
    )
    controller.fleet.heard(Ping(0, 1024, 512, 0))
    controller.fleet.heard(Ping(1, 1024, 1024, 1))
    action = await controller.add("hello", limits=ActionLimits(memory_mb=256))
    chosen = [shard_of(primitive.place(controller.identity, action)) for _ in range(4)]
    assert chosen == [0, 0, 0, 1]  # what was sent there is counted: then there is no room, and one waits on each
    assert shard_of(primitive.new_id()) == 1
    heard = list[Message]()
    controller.bus.subscribe(invoker_topic(1), heard.append)
    order = msgspec.structs.replace(controller.order(action), id="0" * 12 + "05" + "0" * 18)
    primitive.publish_accepted(order)  # of a shard that there is no more: whoever has its ledger runs it
    assert [message.id for message in heard if isinstance(message, ActivationMessage)] == [order.id]
