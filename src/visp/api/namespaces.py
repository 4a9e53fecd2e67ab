"""Routes of namespaces: the caller's own, and its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.api.errors import HttpAnswer, json_answer
from visp.entitlement.rights import check_owner
from visp.entity.subject import render_limits

if TYPE_CHECKING:
    from visp.api.context import Call


async def list_namespaces(call: Call) -> HttpAnswer:
    """Exactly one: the key's."""
    return json_answer([call.identity.namespace])


async def get_limits(call: Call) -> HttpAnswer:
    check_owner(call.identity, call.namespace, call.namespace)
    return json_answer(render_limits(call.identity.limits))
