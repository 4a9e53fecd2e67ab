"""Routes of triggers: list, get, put, fire, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api import deferred, queries
from visp.api.actions import http_answer
from visp.api.errors import HttpAnswer, json_answer, render
from visp.api.progress import MEDIA_TYPE as LINES
from visp.controller.batches import BODY_MOST_BYTES, parse_batch, parse_lines
from visp.controller.fire import Firing
from visp.controller.primitive import Accepted, Refused
from visp.entitlement.rights import check_owner
from visp.entity import trigger as triggers
from visp.entity.payload import parse_object
from visp.entity.trigger import Trigger
from visp.errors import BadRequest, BodyTooLarge
from visp.store.base import EntityQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.api.context import Call
    from visp.controller.batches import Outcome
    from visp.controller.primitive import Answer

COLLECTION = "triggers"


async def list_triggers(call: Call) -> HttpAnswer:
    check_owner(call.identity, call.namespace, call.namespace)
    page = queries.page(call.query, COLLECTION)
    query = EntityQuery(collection=COLLECTION, namespace=call.namespace, skip=page.skip, limit=page.limit)
    if page.is_count:
        return json_answer({COLLECTION: await call.services.crud.count(query)})
    return json_answer([triggers.render_summary(entry) for entry in await call.services.crud.list(Trigger, query)])


async def get_trigger(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    return json_answer(triggers.render(await call.services.crud.get(Trigger, name)))


async def put_trigger(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    body = await call.body()
    overwrite = queries.boolean(call.query, "overwrite")
    return json_answer(
        triggers.render(await call.services.crud.put_trigger(call.identity, name, body, overwrite=overwrite))
    )


async def delete_trigger(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    return json_answer(triggers.render(await call.services.crud.delete_trigger(name)))


async def fire_trigger(call: Call) -> HttpAnswer:
    """202 with the activation's id, 204 when no rule is active; of a body in lines 200 with a line for each."""
    if call.request.headers.get("content-type", "").partition(";")[0].strip().lower() == LINES:
        return await _fire_lines(call)
    if "keyed" in call.query or "batch" in call.query:
        raise BadRequest(wording.LINES_EXPECTED)
    name = call.name()
    fire = call.services.fire
    await fire.obtain(call.identity)
    fire.charge(call.identity)
    check_owner(call.identity, name.namespace, name.id)
    call.services.invoke.check_size(call.identity, call.announced_bytes)
    body = await call.body()
    parse_object(body)  # what is malformed is told before what is absent
    trigger = await call.services.crud.get(Trigger, name)
    call.services.invoke.check_size(call.identity, len(body))
    await fire.load(call.identity, trigger)
    await fire.obtain(call.identity, trigger)
    due = deferred.due_ms(call)
    firing = _firing(call, trigger, body)

    def begin(id: str | None, then: Callable[[Answer], None]) -> bool:
        if due is None:
            return fire.start(firing, then, id) is None
        call.services.later.delay(fire.message(firing, id), due, then)
        return True

    answer = await deferred.begun(call, body, begin, is_blocking=False)
    return HttpAnswer(204) if answer is None else http_answer(answer, is_result=False)


async def _fire_lines(call: Call) -> HttpAnswer:
    """Each line of the body is a fire, and has a line of the answer: as `{"activationId"}`, `{"status": 204}` or
    `{"status", "error", "code"}`.
    """
    name = call.name()
    services = call.services
    check_owner(call.identity, name.namespace, name.id)
    is_keyed = queries.boolean(call.query, "keyed")
    numbered = parse_batch(call.query.get("batch"))
    if numbered is not None and not is_keyed:
        raise BadRequest(wording.BATCH_WITHOUT_KEYS)
    if "delay" in call.query or "at" in call.query:
        raise BadRequest(wording.MANY_LATER)
    if deferred.IDEMPOTENCY_KEY in call.request.headers:
        raise BadRequest(wording.MANY_WITH_KEY)
    if call.announced_bytes > BODY_MOST_BYTES:
        raise BodyTooLarge(call.announced_bytes, BODY_MOST_BYTES)
    body = await call.bytes()
    if len(body) > BODY_MOST_BYTES:
        raise BodyTooLarge(len(body), BODY_MOST_BYTES)
    lines = parse_lines(body, is_keyed=is_keyed)
    trigger = await services.crud.get(Trigger, name)
    await services.fire.load(call.identity, trigger)
    outcomes = await services.batches.fire(_firing(call, trigger, b""), lines, numbered)
    return HttpAnswer(200, b"".join(_line(outcome, call.transid) for outcome in outcomes), LINES)


def _line(outcome: Outcome, transid: str) -> bytes:
    if isinstance(outcome, Accepted):
        return b'{"activationId":"%b"}\n' % outcome.id.encode()
    if not isinstance(outcome, Refused):
        return b'{"status":204}\n'
    answer = render(outcome.error, transid)
    told: dict[str, object] = msgspec.json.decode(answer.body)
    return msgspec.json.encode({"status": answer.status, "error": told["error"], "code": told["code"]}) + b"\n"


def _firing(call: Call, trigger: Trigger, body: bytes) -> Firing:
    return Firing(
        identity=call.identity,
        trigger=trigger,
        body=body,
        headers=dict(call.request.headers.items()),
        transid=call.transid,
        received_ms=call.received_ms,
        is_forced=call.is_forced,
    )
