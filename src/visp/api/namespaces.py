"""Routes of namespaces: the caller's own, its limits, and its packages, of which there are none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp import wording
from visp.api import queries
from visp.api.errors import HttpAnswer, json_answer
from visp.entitlement.rights import check_owner
from visp.entity.subject import render_limits
from visp.errors import NotFound

if TYPE_CHECKING:
    from visp.api.context import Call


async def list_namespaces(call: Call) -> HttpAnswer:
    """Exactly one: the key's."""
    return json_answer([call.identity.namespace])


async def get_limits(call: Call) -> HttpAnswer:
    check_owner(call.identity, call.namespace, call.namespace)
    return json_answer(render_limits(call.identity.limits))


async def list_packages(call: Call) -> HttpAnswer:
    """Anyone may list the packages of any namespace."""
    page = queries.page(call.query, "packages")
    return json_answer({"packages": 0} if page.is_count else [])


async def get_package(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    raise NotFound(wording.resource_missing(name.id))


async def delete_package(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    raise NotFound()
