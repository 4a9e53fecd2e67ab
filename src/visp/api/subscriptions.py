"""Routes of subscriptions: which clients may call an API that asks for a key, under its owner's own key.

Paths, bodies and sentences are those of OpenWhisk's gateway (`/v2/{tenant}/subscriptions`). The tenant is the key's
namespace, by name, uuid or `_`; an API is named by its base path, or by the id that clients of routes make of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api.errors import HttpAnswer, json_answer
from visp.api.managed import refusal
from visp.entity.api import normal_base_path
from visp.entity.names import CALLERS_NAMESPACE
from visp.entity.payload import parse_object
from visp.errors import BadRequest, Forbidden

if TYPE_CHECKING:
    from visp.api.context import Call

ARTIFACT = "artifact_id"


async def add_subscription(call: Call) -> HttpAnswer:
    """Adds a client, or replaces one of the same id."""
    namespace = _tenant(call)
    fields = parse_object(await call.body())
    artifact, client, secret = (_text(fields, name) for name in (ARTIFACT, "client_id", "client_secret"))
    if artifact is None:
        return refusal(400, wording.gateway_field_missing(ARTIFACT))
    if client is None:
        return refusal(400, wording.gateway_field_missing("client_id"))
    base_path = await _api(call, namespace, artifact)
    if base_path is None:
        return refusal(404, wording.unknown_api(artifact))
    try:
        await call.services.gateway.subscriptions.add(namespace, base_path, client, secret)
    except BadRequest as error:
        return refusal(400, error.sentence)
    return json_answer({"message": wording.subscribed(client, artifact)})


async def put_subscription(call: Call) -> HttpAnswer:
    """The same."""
    return await add_subscription(call)


async def list_subscriptions(call: Call) -> HttpAnswer:
    """Ids of clients; their secrets nobody knows."""
    namespace = _tenant(call)
    artifact = call.query.get(ARTIFACT)
    if artifact is None:
        return refusal(400, wording.ARTIFACT_MISSING)
    base_path = await _api(call, namespace, artifact)
    if base_path is None:
        return refusal(404, wording.unknown_api(artifact))
    return json_answer(await call.services.gateway.subscriptions.clients(namespace, base_path))


async def drop_subscription(call: Call) -> HttpAnswer:
    """From the answer on the client's calls are refused."""
    namespace = _tenant(call)
    artifact = call.query.get(ARTIFACT)
    if artifact is None:
        return refusal(400, wording.ARTIFACT_MISSING)
    base_path = await _api(call, namespace, artifact)
    client = call.segment("client")
    if base_path is None or not await call.services.gateway.subscriptions.drop(namespace, base_path, client):
        return refusal(404, wording.NO_SUBSCRIPTION)
    return HttpAnswer(204)


def _tenant(call: Call) -> str:
    """The namespace of the path, which must be the key's; raises `Forbidden`."""
    identity, given = call.identity, call.segment("tenant")
    if given not in (CALLERS_NAMESPACE, identity.namespace, identity.namespace_uuid):
        raise Forbidden(wording.not_authorized([f"{given}/subscriptions"]))
    return identity.namespace


async def _api(call: Call, namespace: str, artifact: str) -> str | None:
    """The base path of an API that there is."""
    base_path = normal_base_path(artifact.removeprefix(f"API:{namespace}:").removeprefix("API:_:"))
    table = await call.services.gateway.table(namespace)
    return base_path if base_path in table.plans else None


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    try:
        return msgspec.json.decode(fields[name], type=str)
    except (KeyError, msgspec.DecodeError):
        return None
