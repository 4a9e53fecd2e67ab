"""Routes of packages and bindings: list, get, put, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp import wording
from visp.api import queries
from visp.api.errors import HttpAnswer, json_answer
from visp.entitlement.rights import check_owner
from visp.entity import package as packages
from visp.entity.action import seen_from
from visp.entity.package import Package
from visp.errors import NotFound
from visp.store.base import EntityQuery

if TYPE_CHECKING:
    from visp.api.context import Call

COLLECTION = "packages"


async def list_packages(call: Call) -> HttpAnswer:
    """Anyone may list the packages of any namespace: its owner all of them, others those that are published."""
    page = queries.page(call.query, COLLECTION)
    query = EntityQuery(
        collection=COLLECTION,
        namespace=call.namespace,
        only_published=call.namespace != call.identity.namespace,
        skip=page.skip,
        limit=page.limit,
    )
    if page.is_count:
        return json_answer({COLLECTION: await call.services.crud.count(query)})
    return json_answer([packages.render_summary(package) for package in await call.services.crud.list(Package, query)])


async def get_package(call: Call) -> HttpAnswer:
    """With what is in it; a binding shows what is in its provider, and the parameters of both."""
    name = call.name()
    try:
        found = await call.services.resolver.package(call.identity, name, name.id)
    except NotFound:
        raise NotFound(wording.resource_missing(name.id)) from None
    shown = packages.render(found.binding or found.provider, found.parameters)
    caller = call.identity.namespace
    content = [seen_from(action, caller) for action in await call.services.packages.actions(found.provider)]
    return json_answer(shown | packages.render_content(content))


async def put_package(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    body = await call.body()
    overwrite = queries.boolean(call.query, "overwrite")
    return json_answer(
        packages.render(await call.services.packages.put(call.identity, name, body, overwrite=overwrite))
    )


async def delete_package(call: Call) -> HttpAnswer:
    """`force` deletes its actions first."""
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    is_forced = queries.boolean(call.query, "force")
    return json_answer(packages.render(await call.services.packages.delete(name, is_forced=is_forced)))
