"""Routes of actions: list, get, put, invoke, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api import deferred, events, gateway, progress, queries
from visp.api.errors import JSON, HttpAnswer, json_answer
from visp.api.streaming import streamed
from visp.controller.invoke import Invocation
from visp.controller.packages import query_of
from visp.controller.primitive import Accepted, Answer, Finished
from visp.controller.resolver import package_of
from visp.entitlement.rights import check_owner
from visp.entity import action as actions
from visp.entity.action import Action
from visp.entity.activation import STATUS_WORDS, Status, render
from visp.entity.names import FullyQualifiedName, parse_name
from visp.entity.payload import parse_object
from visp.errors import BadRequest
from visp.store.base import EntityQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.api.context import Call
    from visp.api.events import EventStream

COLLECTION = "actions"

_STATUS_OF_OUTCOME = {
    Status.SUCCESS: 200,
    Status.APPLICATION_ERROR: 502,
    Status.DEVELOPER_ERROR: 502,
    Status.INTERNAL_ERROR: 500,
}
_HTTP_STATUS = tuple(_STATUS_OF_OUTCOME[Status(code)] for code in range(len(STATUS_WORDS)))


async def list_actions(call: Call) -> HttpAnswer:
    check_owner(call.identity, call.namespace, call.namespace)
    page = queries.page(call.query, COLLECTION)
    query = EntityQuery(collection=COLLECTION, namespace=call.namespace, skip=page.skip, limit=page.limit)
    if page.is_count:
        return json_answer({COLLECTION: await call.services.crud.count(query)})
    return json_answer([actions.render_summary(action) for action in await call.services.crud.list(Action, query)])


async def list_package_actions(call: Call) -> HttpAnswer:
    """Actions of a package; of a binding, those of its provider."""
    name = FullyQualifiedName(call.namespace, None, parse_name(call.segment("package")))
    found = await call.services.resolver.package(call.identity, name, name.id)
    page = queries.page(call.query, COLLECTION)
    query = query_of(found.provider, page.skip, page.limit)
    if page.is_count:
        return json_answer({COLLECTION: await call.services.crud.count(query)})
    caller = call.identity.namespace
    listed = await call.services.crud.list(Action, query)
    return json_answer([actions.render_summary(actions.seen_from(action, caller)) for action in listed])


async def get_action(call: Call) -> HttpAnswer:
    """A packaged one with the parameters of its package, and of the binding it is found through."""
    name = call.name()
    await call.services.resolver.check(call.identity, name)
    has_code = queries.boolean(call.query, "code", default=True)
    resolved = await call.services.resolver.resolve(call.identity, name)
    code = await call.services.crud.code_of(resolved.action) if has_code else None
    shown = actions.render(actions.seen_from(resolved.action, call.identity.namespace), code)
    if resolved.binding is not None and not has_code:
        shown["binding"] = resolved.binding
    return json_answer(shown)


async def put_action(call: Call) -> HttpAnswer | EventStream:
    """With `build=wait` its code is built before it is stored; as lines of JSON, what that prints comes first."""
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    if name.package is not None:
        await call.services.packages.check_open(package_of(name))
    body = await call.body()
    overwrite = queries.boolean(call.query, "overwrite")
    is_awaited = queries.is_build_awaited(call.query)
    crud, builds, namespace = call.services.crud, call.services.builds, call.identity.namespace
    put = crud.read_action(call.identity, body)
    del body  # there may be much of it, and what follows may take long

    async def store(hear: Callable[[str], None] | None) -> HttpAnswer:
        build = (lambda exec: builds.run(namespace, exec, hear)) if is_awaited else None
        action = await crud.put_action(call.identity, name, put, overwrite=overwrite, build=build)
        if not is_awaited:
            builds.begin(namespace, action.exec)
        sent = None if put.exec is None or put.exec.code is None else put.exec.code.inline
        return json_answer(actions.render(action, sent or await crud.code_of(action)))

    if is_awaited and events.is_asked_for(call.request.headers.get("accept"), progress.MEDIA_TYPE):
        return progress.stream(call, store)
    return await store(None)


async def delete_action(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    if name.package is not None:
        await call.services.packages.check_open(package_of(name))
    crud = call.services.crud
    action = await crud.get(Action, name)
    code = await crud.code_of(action)
    await crud.delete_action(name)
    return json_answer(actions.render(action, code))


async def invoke_action(call: Call) -> HttpAnswer | EventStream:
    """The slow way into the same controller functions that the door calls; it fills the caches for the door.

    Blocking, and accepted as events: the parts of the result as they come.
    """
    name = call.name()
    invoke = call.services.invoke
    await invoke.obtain(call.identity)
    invoke.charge(call.identity)
    is_own = gateway.is_own(name)
    if is_own:
        check_owner(call.identity, name.namespace, name.id)
    else:
        await call.services.resolver.check(call.identity, name)
    invoke.check_size(call.identity, call.announced_bytes)
    is_blocking = queries.boolean(call.query, "blocking")
    is_result = queries.boolean(call.query, "result")
    wait_ms = queries.wait_ms(call.query, call.services.settings.limits.blocking_wait_ms)
    body = await call.body()
    fields = parse_object(body)  # what is malformed is told before what is absent
    if is_own:
        invoke.check_size(call.identity, len(body))
        return http_answer(await gateway.invoke(call, name, fields, is_blocking=is_blocking), is_result=is_result)
    resolved = await call.services.resolver.resolve(call.identity, name)
    await call.services.resolver.check_parts(call.identity, resolved.action)
    invoke.check_size(call.identity, len(body))
    due = deferred.due_ms(call, is_blocking=is_blocking)

    given = Invocation(
        identity=call.identity,
        action=resolved.action,
        resolved=resolved,
        body=body,
        transid=call.transid,
        received_ms=call.received_ms,
        wait_s=wait_ms / 1000 if is_blocking else None,
        is_forced=call.is_forced,
    )
    if is_blocking and events.is_asked_for(call.request.headers.get("accept")):
        if deferred.IDEMPOTENCY_KEY in call.request.headers:
            raise BadRequest(wording.STREAMED_WITH_KEY)
        return await streamed(call, given)

    def begin(id: str | None, then: Callable[[Answer], None]) -> bool:
        invocation = given if id is None else msgspec.structs.replace(given, id=id)
        if due is None:
            invoke.start(invocation, then)
        else:
            call.services.later.delay(invoke.message(invocation), due, then)
        return True

    answer = await deferred.begun(call, body, begin, is_blocking=is_blocking)
    assert answer is not None
    return http_answer(answer, is_result=is_result)


def http_answer(answer: Answer, *, is_result: bool) -> HttpAnswer:
    """What the caller of an invoke or fire is sent; raises what a `Refused` carries."""
    if isinstance(answer, Finished):
        head, result = answer.head, answer.result
        body = result if is_result or result[:1] == b"[" else render(head, result, answer.logs)
        return HttpAnswer(_HTTP_STATUS[head.status], body, JSON, activation_id=head.id, ran=head)
    if isinstance(answer, Accepted):
        return HttpAnswer(202, b'{"activationId":"%b"}' % answer.id.encode(), JSON, activation_id=answer.id)
    raise answer.error
