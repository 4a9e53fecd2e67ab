"""A trigger fires: one activation for each active rule, and a record that tells what each came to."""

import json
from typing import Any

import pytest

from visp.bus.messages import decode_task
from visp.controller.fire import Firing, NothingToDo
from visp.controller.primitive import Accepted, Order, Refused
from visp.entity.activation import Outcome, Status
from visp.entity.names import FullyQualifiedName
from visp.entity.parameters import plain
from visp.entity.trigger import RuleLink, RuleStatus, Trigger
from visp.errors import Malformed, Overloaded, StoreFull, Throttled


def trigger(*links: tuple[str, str, RuleStatus], **fields: Any) -> Trigger:
    """Rules as `(rule, action, status)`."""
    rules = {f"guest/{rule}": RuleLink(FullyQualifiedName("guest", None, to), status) for rule, to, status in links}
    return Trigger(name=FullyQualifiedName("guest", None, "tick"), rules=rules, **fields)


def firing(controller: Any, of: Trigger, body: bytes = b"", **fields: Any) -> Firing:
    values: dict[str, Any] = {
        "identity": controller.identity,
        "trigger": of,
        "body": body,
        "headers": {},
        "transid": "t",
        "received_ms": controller.clock.now_ms(),
    }
    return Firing(**(values | fields))


ACTIVE, INACTIVE = RuleStatus.ACTIVE, RuleStatus.INACTIVE


async def fire(controller: Any, of: Trigger, body: bytes = b"", **fields: Any) -> Any:
    assert controller.fire.start(firing(controller, of, body, **fields), controller.answers.append) is None
    return await controller.answer()


async def logs_of(controller: Any, id: str) -> list[dict[str, Any]]:
    record = await controller.ledger.get("guest", id)
    return [json.loads(entry) for entry in record.logs]


@pytest.mark.parametrize("of", [trigger(), trigger(("r", "hello", INACTIVE))], ids=["no rule", "none active"])
async def test_without_an_active_rule_nothing_happens(controller: Any, of: Trigger) -> None:
    await controller.add("hello")
    assert controller.fire.start(firing(controller, of), controller.answers.append) == NothingToDo()
    await controller.settle()
    assert (controller.answers, controller.ledger.entries, controller.hands.messages) == ([], [], [])


async def test_each_active_rule_runs_its_action(controller: Any) -> None:
    await controller.add("hello", parameters=plain("a", 0) | plain("own", 1))
    await controller.add("other")
    of = trigger(("r1", "hello", ACTIVE), ("r2", "other", ACTIVE), ("r3", "other", INACTIVE), parameters=plain("t", 2))
    accepted = await fire(controller, of, b'{"a":3}', headers={"x-a": "b", "authorization": "secret"})
    assert isinstance(accepted, Accepted)
    hello, other = controller.hands.runs
    assert json.loads(hello.content) == {"a": 3, "own": 1, "t": 2, "__ow_headers": {"x-a": "b"}}
    assert json.loads(other.content) == {"a": 3, "t": 2, "__ow_headers": {"x-a": "b"}}
    assert (hello.is_accepted, hello.cause, hello.subject) == (True, None, "someone")
    assert await logs_of(controller, accepted.id) == [
        {"statusCode": 0, "success": True, "activationId": hello.id, "rule": "guest/r1", "action": "guest/hello"},
        {"statusCode": 0, "success": True, "activationId": other.id, "rule": "guest/r2", "action": "guest/other"},
        {
            "statusCode": 1,
            "success": False,
            "rule": "guest/r3",
            "action": "guest/other",
            "error": "Rule 'guest/r3' is inactive, action 'guest/other' was not activated.",
        },
    ]


async def test_record_and_children_are_accepted_together(controller: Any) -> None:
    await controller.add("hello")
    accepted = await fire(controller, trigger(("r1", "hello", ACTIVE), ("r2", "hello", ACTIVE)), b'{"a":1}')
    ids = [message.id for message in controller.hands.runs]
    assert controller.ledger.entries == ["accepted " + " ".join(ids)]
    assert [decode_task(work.message).id for work in controller.ledger.works] == ids
    record = await controller.ledger.get("guest", accepted.id)
    assert (record.head.name, record.head.path, record.head.duration_ms) == ("tick", None, None)
    assert record.result == b'{"a":1}'


async def test_nothing_is_answered_that_the_ledger_does_not_hold(controller: Any) -> None:
    await controller.add("hello")
    controller.ledger.error = StoreFull()
    refused = await fire(controller, trigger(("r", "hello", ACTIVE)))
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, StoreFull)


async def test_an_action_that_is_gone_is_told_in_the_log(controller: Any) -> None:
    accepted = await fire(controller, trigger(("r", "gone", ACTIVE)))
    assert await logs_of(controller, accepted.id) == [
        {
            "statusCode": 1,
            "success": False,
            "rule": "guest/r",
            "action": "guest/gone",
            "error": "The requested resource does not exist.",
        }
    ]
    assert controller.hands.messages == []


async def test_the_children_count_as_invocations(controller: Any) -> None:
    await controller.add("hello")
    controller.identity = controller.caller(invocations_per_minute=1)
    accepted = await fire(controller, trigger(("r1", "hello", ACTIVE), ("r2", "hello", ACTIVE)))
    first, second = await logs_of(controller, accepted.id)
    assert first["success"]
    assert second["error"] == "Too many requests in the last minute (count: 2, allowed: 1)."
    assert len(controller.hands.runs) == 1


async def test_a_foreign_action_is_not_run(controller: Any) -> None:
    link = RuleLink(FullyQualifiedName("else", None, "hello"), ACTIVE)
    of = Trigger(name=FullyQualifiedName("guest", None, "tick"), rules={"guest/r": link})
    accepted = await fire(controller, of)
    (entry,) = await logs_of(controller, accepted.id)
    assert entry["error"] == "The supplied authentication is not authorized to access 'else/hello'."


async def test_what_is_no_object_is_refused_before_anything_is_begun(controller: Any) -> None:
    with pytest.raises(Malformed):
        controller.fire.start(firing(controller, trigger(("r", "hello", ACTIVE)), b"[1]"), controller.answers.append)
    assert controller.ledger.entries == []


async def test_a_sequence_is_begun_after_its_start_is_recorded(controller: Any) -> None:
    await controller.add("one")
    await controller.add_sequence("seq", "one")
    accepted = await fire(controller, trigger(("r", "seq", ACTIVE)))
    (entry,) = await logs_of(controller, accepted.id)
    child = entry["activationId"]
    await controller.until(lambda: controller.hands.runs)
    part = controller.hands.runs[0].id
    assert controller.ledger.entries == [f"accepted {child}", f"started {child}", f"accepted {child} {part}"]
    controller.hands.finish(controller.hands.runs[0].id, Outcome(Status.SUCCESS, b"{}"))
    await controller.until(lambda: len(controller.acks) == 0)
    assert (await controller.ledger.get("guest", child)).head.kind == "sequence"


async def test_what_cannot_be_published_now_stays_accepted(controller: Any) -> None:
    await controller.add("hello")

    def refuse(order: Order, **_: bool) -> None:
        raise Overloaded

    controller.primitive.publish_accepted = refuse
    accepted = await fire(controller, trigger(("r", "hello", ACTIVE)))
    assert isinstance(accepted, Accepted)
    assert len(controller.ledger.works) == 1
    assert controller.hands.messages == []


async def test_fires_are_counted(controller: Any) -> None:
    identity = controller.caller(fires_per_minute=1)
    controller.fire.charge(identity)
    with pytest.raises(Throttled):
        controller.fire.charge(identity)


async def test_actions_are_brought_into_memory(controller: Any) -> None:
    await controller.add("hello")
    of = trigger(("r1", "hello", ACTIVE), ("r2", "gone", INACTIVE))
    controller.entities.forget("guest/hello")
    assert not controller.fire.has_all_in_memory(controller.identity, of)
    await controller.fire.load(controller.identity, of)
    assert controller.fire.has_all_in_memory(controller.identity, of)
