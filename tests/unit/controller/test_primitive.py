"""One action: blocking, accepted, or a part of a composite."""

from typing import Any

import pytest

from visp.bus.messages import ActivationMessage, Detached, decode_activation
from visp.controller.primitive import Accepted, Finished, Refused
from visp.entity.activation import Outcome, Status
from visp.errors import Overloaded, StoreFull, StoreUnavailable

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
    message = decode_activation(work.message)
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
    assert decode_activation(work.message) == message


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
    order = controller.order(await controller.add("hello"))
    for run in (
        lambda: controller.primitive.run_blocking(order, 60.0, controller.answers.append),
        lambda: controller.primitive.run_accepted(order, controller.answers.append),
        lambda: controller.primitive.run_part(order, controller.answers.append),
        lambda: controller.primitive.publish_accepted(order),
    ):
        with pytest.raises(Overloaded):
            run()
    assert (len(controller.acks), controller.ledger.entries, controller.hands.messages) == (0, [], [])


async def test_ids_are_ordered_by_time(controller: Any) -> None:
    first = controller.primitive.new_id()
    controller.clock.advance(1)
    second = controller.primitive.new_id()
    assert first < second
    assert len(first) == len(second) == 32
