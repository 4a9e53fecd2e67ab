"""Routes of rules: list, get, put, set status, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.api import queries
from visp.api.errors import TEXT, HttpAnswer, json_answer
from visp.entitlement.rights import check_owner
from visp.entity import rule as rules
from visp.entity.rule import Rule
from visp.entity.trigger import RuleStatus
from visp.store.base import EntityQuery

if TYPE_CHECKING:
    from visp.api.context import Call

COLLECTION = "rules"


async def list_rules(call: Call) -> HttpAnswer:
    check_owner(call.identity, call.namespace, call.namespace)
    page = queries.page(call.query, COLLECTION)
    query = EntityQuery(collection=COLLECTION, namespace=call.namespace, skip=page.skip, limit=page.limit)
    if page.is_count:
        return json_answer({COLLECTION: await call.services.crud.count(query)})
    return json_answer([rules.render(entry, None) for entry in await call.services.crud.list(Rule, query)])


async def get_rule(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    rule = await call.services.crud.get(Rule, name)
    return json_answer(rules.render(rule, await call.services.crud.status_of(rule)))


async def put_rule(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    body = await call.body()
    overwrite = queries.boolean(call.query, "overwrite")
    rule, status = await call.services.crud.put_rule(call.identity, name, body, overwrite=overwrite)
    return json_answer(rules.render(rule, status))


async def set_rule_status(call: Call) -> HttpAnswer:
    """`{"status": "active" | "inactive"}`; the answer is the text `OK`."""
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    status = rules.parse_status(await call.body())
    await call.services.crud.set_rule_status(name, status)
    return HttpAnswer(200, b"OK", TEXT)


async def delete_rule(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    return json_answer(rules.render(await call.services.crud.delete_rule(name), RuleStatus.INACTIVE))
