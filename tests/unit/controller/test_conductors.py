"""Conductors: what they and their components are given, what ends them, what is recorded, how they go on."""

import json
from typing import Any

import msgspec
import pytest

from visp import wording
from visp.bus.messages import ActivationMessage, StepMessage, decode_task
from visp.controller.composites import Found
from visp.controller.primitive import Accepted, Finished
from visp.entity.activation import ActivationHead, ActivationRecord, Outcome, Status
from visp.entity.limits import SEQUENCE_LIMIT
from visp.entity.parameters import plain

CONDUCTS = plain("conductor", True)


def ok(value: Any) -> Outcome:
    result = json.dumps(value, separators=(",", ":")).encode()
    is_error = isinstance(value, dict) and "error" in value
    return Outcome(Status.APPLICATION_ERROR if is_error else Status.SUCCESS, result, len(result))


def says(*values: Any) -> Any:
    """An action that answers with these, one after the other; the last one for ever."""
    left = list(values)
    return lambda _: ok(left.pop(0) if len(left) > 1 else left[0])


async def run(controller: Any, content: bytes = b"{}", wait_s: float | None = 60.0) -> Any:
    order = controller.order(controller.entities.peek("guest/conductor"), content)
    controller.composites.start(order, wait_s, controller.answers.append)
    return await controller.answer()


def asked(controller: Any) -> list[tuple[str, Any]]:
    return [(message.action.removeprefix("guest/"), json.loads(message.content)) for message in controller.hands.runs]


@pytest.fixture
async def conductor(controller: Any) -> Any:
    return await prepared(controller)


async def prepared(controller: Any) -> Any:
    await controller.add("conductor", annotations=CONDUCTS, parameters=plain("own", 1))
    await controller.add("one", parameters=plain("p", 2))
    return controller


async def test_it_runs_a_component_and_is_told_the_result_under_its_state(conductor: Any) -> None:
    conductor.hands.answers = {
        "conductor": says({"action": "one", "params": {"x": 1}, "state": {"s": 9}}, {"params": {"done": True}}),
        "one": says({"s": 0, "y": 3}),
    }
    finished = await run(conductor, b'{"a":0}')
    assert asked(conductor) == [
        ("conductor", {"own": 1, "a": 0}),
        ("one", {"p": 2, "x": 1}),
        ("conductor", {"own": 1, "s": 9, "y": 3}),
    ]
    assert isinstance(finished, Finished)
    assert finished.result == b'{"done":true}'
    head = finished.head
    assert (head.kind, head.is_conductor, head.is_topmost, head.size) == ("sequence", True, True, None)
    assert (head.duration_ms, head.cause, head.status) == (30, None, Status.SUCCESS)
    assert finished.logs == tuple(message.id for message in conductor.hands.runs)
    assert {message.cause for message in conductor.hands.runs} == {head.id}
    assert len(conductor.acks) == 0


async def test_without_an_action_its_result_is_the_composition_s(conductor: Any) -> None:
    conductor.hands.answers = {"conductor": says({"hello": "end"})}
    finished = await run(conductor)
    assert (finished.result, len(finished.logs)) == (b'{"hello":"end"}', 1)


@pytest.mark.parametrize("status", [Status.APPLICATION_ERROR, Status.DEVELOPER_ERROR, Status.INTERNAL_ERROR])
async def test_its_own_failure_ends_it(conductor: Any, status: Status) -> None:
    conductor.hands.answers = {"conductor": lambda _: Outcome(status, b'{"error":"no","action":"one"}', 3)}
    finished = await run(conductor)
    assert (finished.head.status, finished.result) == (status, b'{"error":"no","action":"one"}')
    assert finished.head.size is None


async def test_a_component_s_failure_is_its_own_to_judge(conductor: Any) -> None:
    conductor.hands.answers = {
        "conductor": says({"action": "one", "state": {"s": 1}}, {"caught": True}),
        "one": says({"error": "no"}),
    }
    finished = await run(conductor)
    assert asked(conductor)[-1] == ("conductor", {"own": 1, "error": "no", "s": 1})
    assert finished.head.status == Status.SUCCESS


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (5, "Failed to parse action name from json value 5 during composition."),
        ("/x", 'Failed to parse action name from json value "/x" during composition.'),
        ("gone", "Failed to resolve action with name 'guest/gone' during composition."),
        ("pkg/gone", "Failed entitlement check for action with name 'guest/pkg/gone' during composition."),
        ("/other/x", "Failed entitlement check for action with name 'other/x' during composition."),
    ],
)
async def test_it_is_told_why_a_component_cannot_run(conductor: Any, action: Any, sentence: str) -> None:
    conductor.hands.answers = {"conductor": says({"action": action, "state": {"s": 1}}, {"params": {}})}
    finished = await run(conductor)
    assert asked(conductor)[-1] == ("conductor", {"own": 1, "error": sentence, "s": 1})
    assert (finished.head.status, len(finished.logs)) == (Status.SUCCESS, 2)


async def test_one_without_an_end_is_ended(conductor: Any) -> None:
    conductor.hands.answers = {"conductor": says({"action": "one"}), "one": says({})}
    finished = await run(conductor)
    assert finished.head.status == Status.APPLICATION_ERROR
    assert json.loads(finished.result) == {"error": "Too many actions in the composition."}
    assert len(finished.logs) == 3 * SEQUENCE_LIMIT + 1


async def test_nested_conductors_share_their_counts_and_have_records(conductor: Any) -> None:
    await conductor.add("inner", annotations=CONDUCTS)
    conductor.hands.answers = {
        "conductor": says({"action": "inner"}),
        "inner": says({"action": "one"}),
        "one": says({}),
    }
    finished = await run(conductor)
    assert json.loads(finished.result) == {"error": "Too many actions in the composition."}
    turns = sum(name != "one" for name, _ in asked(conductor))
    assert (turns, len(asked(conductor)) - turns) == (2 * SEQUENCE_LIMIT + 1, SEQUENCE_LIMIT)
    inner = await conductor.ledger.get("guest", finished.logs[1])
    assert (inner.head.is_topmost, inner.head.cause, inner.head.is_conductor) == (False, finished.head.id, True)


async def test_a_sequence_is_one_component_and_counts_for_itself(conductor: Any) -> None:
    await conductor.add_sequence("seq", *["one"] * 40)
    conductor.hands.answers = {
        "conductor": says({"action": "seq"}, {"action": "seq"}, {"params": {}}),
        "one": says({}),
    }
    finished = await run(conductor)
    assert (finished.head.status, len(finished.logs)) == (Status.SUCCESS, 5)


async def test_a_conductor_is_one_action_of_a_sequence(conductor: Any) -> None:
    await conductor.add_sequence("seq", "conductor", "one")
    conductor.hands.answers = {"conductor": says({"action": "one"}, {"params": {"z": 1}}), "one": says({"y": 1})}
    order = conductor.order(conductor.entities.peek("guest/seq"))
    conductor.composites.start(order, 60.0, conductor.answers.append)
    finished = await conductor.answer()
    assert asked(conductor)[-1] == ("one", {"p": 2, "z": 1})
    inner = await conductor.ledger.get("guest", finished.logs[0])
    assert (inner.head.is_conductor, inner.head.cause, len(inner.logs)) == (True, order.id, 3)


class Known:
    """Orders of messages that a start found."""

    def __init__(self, controller: Any) -> None:
        self._controller = controller
        self.unrun: list[str] = []

    async def order_of(self, message: ActivationMessage) -> Any:
        action = self._controller.entities.peek(message.action)
        if action is None:
            return None
        order = self._controller.order(action, message.content)
        return msgspec.structs.replace(order, id=message.id, cause=message.cause)

    async def end_unrun(self, message: ActivationMessage) -> None:
        self.unrun.append(message.id)


def found(controller: Any) -> dict[str, Found]:
    """What the ledger would hold open at a start."""
    return {
        work.id: Found(decode_task(work.message), is_started=False)  # type: ignore[arg-type]
        for work in controller.ledger.works
    }


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_an_accepted_one_goes_on_after_a_crash_from_the_run_it_was_at(
    conductor: Any, successor: Any, at: int
) -> None:
    await prepared(successor)
    replies = [ok({"action": "one", "state": {"s": 1}}), ok({"y": 2}), ok({"params": {"end": 1}})]
    accepted = await run(conductor, b'{"a":0}', None)
    assert isinstance(accepted, Accepted)
    for number, reply in enumerate(replies):
        await conductor.until(lambda number=number: len(conductor.hands.runs) > number)
        if number == at:
            works = found(conductor)  # what a start would find, had it crashed now
        message = conductor.hands.runs[number]
        conductor.hands.finish(message.id, reply)
        if number < at:
            record_of(successor, message, reply)
    await conductor.until(lambda: len(conductor.acks) == 0)

    step = works[accepted.id].task
    assert isinstance(step, StepMessage)
    assert step.part == conductor.hands.runs[at].id
    orders = Known(successor)
    successor.composites.go_on(await orders.order_of(step.run), step, works, orders)
    for number, reply in enumerate(replies[at:]):
        await successor.until(lambda number=number: len(successor.hands.runs) > number)
        successor.hands.finish(successor.hands.runs[number].id, reply)
    await successor.until(lambda: f"finished {accepted.id}" in successor.ledger.entries)
    record = await successor.ledger.get("guest", accepted.id)
    assert (record.result, record.head.status, len(record.logs)) == (b'{"end":1}', Status.SUCCESS, 3)
    assert record.logs[: at + 1] == tuple(message.id for message in conductor.hands.runs[: at + 1])
    assert asked(successor)[-1] == ("conductor", {"own": 1, "s": 1, "y": 2})


def record_of(controller: Any, message: ActivationMessage, outcome: Outcome) -> None:
    """The invoker's part: the run's record ends it in the ledger."""
    head = ActivationHead(
        id=message.id,
        namespace="guest",
        subject="someone",
        name=message.action.removeprefix("guest/"),
        version="0.0.1",
        start_ms=0,
        end_ms=10,
        duration_ms=10,
        status=outcome.status,
        path=message.action,
        kind="python:3.11",
        cause=message.cause,
    )
    controller.ledger.finish(ActivationRecord(head=head, result=outcome.result), lambda _: None)


async def test_a_nested_one_that_had_not_begun_begins_after_a_crash(conductor: Any, successor: Any) -> None:
    for controller in (conductor, await prepared(successor)):
        await controller.add_sequence("seq", "one")
        await controller.add_sequence("outer", "seq")
    order = conductor.order(conductor.entities.peek("guest/outer"))
    conductor.composites.start(order, None, conductor.answers.append)
    await conductor.until(lambda: len(conductor.hands.runs) == 1)
    works = found(conductor)
    step = works[order.id].task
    assert isinstance(step, StepMessage)
    inner = works[step.part].task
    assert isinstance(inner, StepMessage)
    works[step.part] = Found(inner.run, is_started=False)  # its own step was not written yet
    conductor.hands.finish(conductor.hands.runs[0].id, ok({}))

    orders = Known(successor)
    successor.hands.answers = {"one": says({"done": 1})}
    successor.composites.go_on(await orders.order_of(step.run), step, works, orders)
    await successor.until(lambda: f"finished {order.id}" in successor.ledger.entries)
    nested = await successor.ledger.get("guest", step.part)
    assert (nested.head.kind, nested.head.is_topmost, nested.result) == ("sequence", False, b'{"done":1}')


async def test_a_conductor_is_told_of_a_component_that_a_crash_interrupted(conductor: Any, successor: Any) -> None:
    await prepared(successor)
    accepted = await run(conductor, b"{}", None)
    await conductor.until(lambda: len(conductor.hands.runs) == 1)
    turn = conductor.hands.runs[0]
    conductor.hands.finish(turn.id, ok({"action": "one", "state": {"s": 1}}))
    record_of(successor, turn, ok({}))
    await conductor.until(lambda: len(conductor.hands.runs) == 2)
    part = conductor.hands.runs[1]
    works = found(conductor)
    works[part.id] = Found(works[part.id].task, is_started=True)
    conductor.hands.finish(part.id, ok({}))
    await conductor.until(lambda: len(conductor.hands.runs) == 3)
    conductor.hands.finish(conductor.hands.runs[2].id, ok({}))

    step = works[accepted.id].task
    assert isinstance(step, StepMessage)
    orders = Known(successor)
    successor.hands.answers = {"conductor": says({"params": {"caught": True}})}
    successor.composites.go_on(await orders.order_of(step.run), step, works, orders)
    await successor.until(lambda: f"finished {accepted.id}" in successor.ledger.entries)
    assert [name for name, _ in asked(successor)] == ["conductor"]
    assert asked(successor)[0][1] == {"own": 1, "s": 1, "error": wording.INTERRUPTED}
    record = await successor.ledger.get("guest", accepted.id)
    assert (record.result, len(record.logs)) == (b'{"caught":true}', 3)
