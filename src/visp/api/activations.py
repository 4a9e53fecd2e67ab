"""Routes of activations: list, get, result, logs. Read-only, own namespace only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.api import queries
from visp.api.errors import JSON, HttpAnswer, json_answer
from visp.entitlement.rights import check_owner
from visp.entity.activation import ActivationRecord, parse_id, render, render_response, summary
from visp.errors import NotFound

if TYPE_CHECKING:
    from visp.api.context import Call

COLLECTION = "activations"


async def list_activations(call: Call) -> HttpAnswer:
    check_owner(call.identity, call.namespace, call.namespace)
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


async def get_activation(call: Call) -> HttpAnswer:
    has_phases = _has_phases(call)
    record = await _record(call)
    return HttpAnswer(200, render(record.head, record.result, record.logs, has_phases=has_phases), JSON)


async def get_result(call: Call) -> HttpAnswer:
    record = await _record(call)
    return HttpAnswer(200, render_response(record.head, record.result), JSON)


async def get_logs(call: Call) -> HttpAnswer:
    return json_answer({"logs": (await _record(call)).logs})


def _has_phases(call: Call) -> bool:
    """Whether the annotation of our own is asked for: without `phases=true` records are OpenWhisk's to the letter."""
    return queries.boolean(call.query, "phases")


async def _record(call: Call) -> ActivationRecord:
    id = parse_id(call.segment("id"))
    check_owner(call.identity, call.namespace, f"{call.namespace}/{id}")
    record = await call.services.activations.get(call.namespace, id)
    if record is None:
        raise NotFound()
    return record
