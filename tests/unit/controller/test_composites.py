"""Sequences: what each part is given, how they end, what is recorded of them."""

import json
from typing import Any

import msgspec

from visp.bus.messages import Detached
from visp.controller.primitive import Accepted, Finished, Refused
from visp.entity.activation import Outcome, Status
from visp.entity.limits import SEQUENCE_LIMIT
from visp.entity.parameters import Parameter, plain
from visp.errors import StoreFull


def answer(result: bytes, status: Status = Status.SUCCESS) -> Any:
    return lambda _: Outcome(status, result, len(result))


async def run(controller: Any, name: str, content: bytes = b"{}", wait_s: float | None = 60.0) -> Any:
    order = controller.order(controller.entities.peek(f"guest/{name}"), content)
    controller.composites.start(order, wait_s, controller.answers.append)
    return await controller.answer()


async def test_each_part_gets_the_result_of_the_one_before(controller: Any) -> None:
    await controller.add("one")
    await controller.add("two", parameters=plain("p", 1) | plain("b", 2))
    await controller.add_sequence("both", "one", "two")
    controller.hands.answers = {"one": answer(b'{"b":3}'), "two": answer(b'{"c":4}')}
    finished = await run(controller, "both", b'{"a":1}')
    assert isinstance(finished, Finished)
    assert [json.loads(message.content) for message in controller.hands.runs] == [{"a": 1}, {"p": 1, "b": 3}]
    assert finished.result == b'{"c":4}'
    assert {message.cause for message in controller.hands.runs} == {finished.head.id}


async def test_the_record_sums_up_its_parts(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("both", "one", "one")
    controller.hands.answers = {"one": answer(b'{"b":3}')}
    finished = await run(controller, "both")
    head = finished.head
    assert (head.kind, head.duration_ms, head.limits.memory_mb, head.size) == ("sequence", 20, 256, 7)
    assert (head.is_topmost, head.cause, head.status) == (True, None, 0)
    assert finished.logs == tuple(message.id for message in controller.hands.runs)
    stored = await controller.ledger.get("guest", head.id)
    assert (stored.head, stored.result, stored.logs) == (head, b'{"b":3}', finished.logs)
    assert len(controller.acks) == 0


async def test_an_error_ends_it(controller: Any) -> None:
    await controller.add("bad")
    await controller.add("never")
    await controller.add_sequence("both", "bad", "never")
    controller.hands.answers = {"bad": answer(b'{"error":"no"}', Status.APPLICATION_ERROR)}
    finished = await run(controller, "both")
    assert (finished.head.status, finished.result) == (Status.APPLICATION_ERROR, b'{"error":"no"}')
    assert len(finished.logs) == len(controller.hands.runs) == 1


async def test_an_array_replaces_everything(controller: Any) -> None:
    await controller.add("one")
    await controller.add("two", parameters={"p": Parameter(msgspec.Raw(b"1"))})
    await controller.add_sequence("both", "one", "two")
    controller.hands.answers = {"one": answer(b"[1]"), "two": answer(b"{}")}
    await run(controller, "both")
    assert controller.hands.runs[1].content == b"[1]"


async def test_a_part_that_is_gone_ends_it(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("both", "one", "gone")
    controller.hands.answers = {"one": answer(b"{}")}
    finished = await run(controller, "both")
    assert finished.head.status == Status.APPLICATION_ERROR
    assert json.loads(finished.result) == {"error": "Sequence component does not exist."}
    assert len(finished.logs) == 1


async def test_nested_sequences_have_records_of_their_own(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("inner", "one")
    await controller.add_sequence("outer", "inner", "one")
    controller.hands.answers = {"one": answer(b'{"x":1}')}
    finished = await run(controller, "outer")
    inner = await controller.ledger.get("guest", finished.logs[0])
    assert (inner.head.name, inner.head.is_topmost, inner.head.cause) == ("inner", False, finished.head.id)
    assert controller.hands.runs[0].cause == inner.head.id
    assert finished.head.duration_ms == 20
    assert len(controller.acks) == 0


async def test_no_more_parts_than_allowed_nested_ones_counted(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("inner", *["one"] * (SEQUENCE_LIMIT - 1))
    await controller.add_sequence("outer", "inner", "one", "one")
    controller.hands.answers = {"one": answer(b"{}")}
    finished = await run(controller, "outer")
    assert json.loads(finished.result) == {"error": "Too many actions in the sequence."}
    assert len(controller.hands.runs) == SEQUENCE_LIMIT


async def test_a_long_sequence_of_instant_answers_does_not_recurse(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("many", *["one"] * SEQUENCE_LIMIT)
    controller.hands.answers = {"one": answer(b'{"x":1}')}
    assert (await run(controller, "many")).result == b'{"x":1}'


async def test_accepted_it_is_marked_as_started_with_its_acceptance(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("seq", "one")
    accepted = await run(controller, "seq", wait_s=None)
    assert isinstance(accepted, Accepted)
    await controller.until(lambda: controller.hands.runs)
    part = controller.hands.runs[0]
    assert part.is_accepted
    assert controller.ledger.entries == [
        f"accepted {accepted.id}",
        f"started {accepted.id}",
        f"accepted {accepted.id} {part.id}",
    ]
    controller.hands.finish(controller.hands.runs[0].id, Outcome(Status.SUCCESS, b"{}"))
    await controller.until(lambda: len(controller.acks) == 0)
    assert (await controller.ledger.get("guest", accepted.id)).result == b"{}"


async def test_a_blocking_caller_is_told_the_id_at_the_deadline(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("seq", "one")
    accepted = await run(controller, "seq", wait_s=0.001)
    assert isinstance(accepted, Accepted)
    part = controller.hands.runs[0]
    assert controller.ledger.entries == [f"accepted {part.id}", f"accepted {accepted.id}", f"started {accepted.id}"]
    assert controller.hands.messages[-1] == Detached(part.id)
    controller.hands.finish(controller.hands.runs[0].id, Outcome(Status.SUCCESS, b"{}"))
    await controller.until(lambda: len(controller.acks) == 0)
    assert controller.answers == []
    assert await controller.ledger.get("guest", accepted.id) is not None


async def test_without_a_record_there_is_no_outcome(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("seq", "one")
    controller.hands.answers = {"one": answer(b"{}")}
    controller.ledger.error = StoreFull()
    refused = await run(controller, "seq")
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, StoreFull)
    assert len(controller.acks) == 0


async def test_a_part_that_cannot_be_placed_ends_it_with_a_record(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("seq", "one")
    controller.clock.advance(60)
    finished = await run(controller, "seq")
    assert finished.head.status == Status.INTERNAL_ERROR
    assert json.loads(finished.result) == {"error": "Sequence failed."}
