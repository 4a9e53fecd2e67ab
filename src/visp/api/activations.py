"""Routes of activations: list, get, result, logs. Read-only, own namespace only.

A record that is not there yet can be waited for: `wait` gives the seconds, `Accept: text/event-stream` takes it as an
event. Of the collection the same header takes every record as it is finished.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from visp.api import events, queries
from visp.api.errors import JSON, HttpAnswer, json_answer
from visp.api.events import HEARTBEAT, EventStream, event
from visp.api.following import Following
from visp.entitlement.rights import check_owner
from visp.entity.activation import ActivationRecord, parse_id, render, render_response, summary
from visp.errors import NotFound, NotYet, VispError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from visp.api.context import Call

    Render = Callable[[ActivationRecord], bytes]

COLLECTION = "activations"


async def list_activations(call: Call) -> HttpAnswer | EventStream:
    check_owner(call.identity, call.namespace, call.namespace)
    if _asks_for_events(call):
        return await _follow(call)
    query, page, has_docs = queries.activations(call.query, call.namespace)
    has_phases = _has_phases(call)
    store = call.services.activations
    if page.is_count:
        return json_answer({COLLECTION: max(0, await store.count(query) - query.skip)})
    records = await store.list(query)
    if not has_docs:
        return json_answer([summary(record.head, has_phases=has_phases) for record in records])
    rendered = [render(r.head, r.result, r.logs, has_phases=has_phases) for r in records]
    return HttpAnswer(200, b"[" + b",".join(rendered) + b"]", JSON)


async def get_activation(call: Call) -> HttpAnswer | EventStream:
    return await _answer(call, _renderer(call))


async def get_result(call: Call) -> HttpAnswer | EventStream:
    return await _answer(call, lambda record: render_response(record.head, record.result))


async def get_logs(call: Call) -> HttpAnswer | EventStream:
    return await _answer(call, lambda record: json_answer({"logs": record.logs}).body)


def _has_phases(call: Call) -> bool:
    """Whether the annotation of our own is asked for: without `phases=true` records are OpenWhisk's to the letter."""
    return queries.boolean(call.query, "phases")


def _renderer(call: Call) -> Render:
    has_phases = _has_phases(call)
    return lambda record: render(record.head, record.result, record.logs, has_phases=has_phases)


def _asks_for_events(call: Call) -> bool:
    return events.is_asked_for(call.request.headers.get("accept"))


# ── one record ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def _answer(call: Call, render: Render) -> HttpAnswer | EventStream:
    """The record as it is asked for; raises `NotFound`, and `NotYet` for one that may still come."""
    id = parse_id(call.segment("id"))
    check_owner(call.identity, call.namespace, f"{call.namespace}/{id}")
    if _asks_for_events(call):
        return await _record_event(call, id, render)
    wait_s = queries.wait_s(call.query, call.services.settings.waits.longest_s)
    if wait_s is None:
        record = await call.services.activations.get(call.namespace, id)
        if record is None:
            raise NotFound()
    else:
        record = await _wait(call, id, wait_s)
    return HttpAnswer(200, render(record), JSON)


async def _wait(call: Call, id: str, wait_s: float) -> ActivationRecord:
    """Waits for as long as the client does; raises `ClientDisconnect` when it is gone."""
    waiting = asyncio.ensure_future(call.services.waits.record(call.identity, id, wait_s))
    gone = asyncio.ensure_future(events.until_gone(call.request.receive))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect()
        return waiting.result()
    finally:
        for task in (waiting, gone):
            task.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)


async def _record_event(call: Call, id: str, render: Render) -> EventStream:
    """One event, `record`, when it is there. What can never come is not waited for: that is said at once."""
    with contextlib.suppress(NotYet):
        await call.services.waits.record(call.identity, id, 0)
    return EventStream(when_there(call, id, render))


async def when_there(call: Call, id: str, render: Render) -> AsyncGenerator[bytes, None]:
    """The record's event; nothing when the time is over, or the server ends."""
    limits = call.services.settings.waits
    waiting = asyncio.ensure_future(call.services.waits.record(call.identity, id, limits.stream_s))
    try:
        while not (await asyncio.wait({waiting}, timeout=limits.heartbeat_s))[0]:
            yield HEARTBEAT
        record = waiting.result()
        yield event("record", render(record), record.head.id)
    except VispError:
        return  # the reader comes again, and is told why
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


# ── all records of a namespace ──────────────────────────────────────────────────────────────────────────────────────


async def _follow(call: Call) -> EventStream:
    """Events `record`, and `lost` with a count where the reader, or the server's memory, could not keep up."""
    render = _renderer(call)
    name, since_ms = queries.followed(call.query)
    last = call.request.headers.get("last-event-id")
    following = Following(
        services=call.services,
        namespace=call.namespace,
        name=name,
        since_ms=since_ms,
        last=parse_id(last) if last else None,
        render=render,
    )
    await following.begin()
    return EventStream(following.events(), following.close)
