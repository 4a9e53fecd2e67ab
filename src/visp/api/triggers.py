"""Routes of triggers: list, get, put, fire, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.api import deferred, queries
from visp.api.actions import http_answer
from visp.api.errors import HttpAnswer, json_answer
from visp.controller.fire import Firing
from visp.entitlement.rights import check_owner
from visp.entity import trigger as triggers
from visp.entity.payload import parse_object
from visp.entity.trigger import Trigger
from visp.store.base import EntityQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.api.context import Call
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
    """202 with the activation's id, 204 when no rule is active."""
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
    firing = Firing(
        identity=call.identity,
        trigger=trigger,
        body=body,
        headers=dict(call.request.headers.items()),
        transid=call.transid,
        received_ms=call.received_ms,
        is_forced=call.is_forced,
    )

    def begin(id: str | None, then: Callable[[Answer], None]) -> bool:
        if due is None:
            return fire.start(firing, then, id) is None
        call.services.later.delay(fire.message(firing, id), due, then)
        return True

    answer = await deferred.begun(call, body, begin, is_blocking=False)
    return HttpAnswer(204) if answer is None else http_answer(answer, is_result=False)
