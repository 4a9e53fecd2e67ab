"""Routes of subscriptions: which clients may call an API that asks for a key, under its owner's own key.

Paths, bodies and sentences are those of OpenWhisk's gateway (`/v2/{tenant}/subscriptions`). The tenant is the key's
namespace, by name, uuid or `_`; an API is named by its base path, by its id,
or by the one that clients of routes make of it.

A client has a `scope`: the API (`artifact_id`), one of its paths (`resource`, beside that), or all of the `tenant`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api.errors import HttpAnswer, json_answer
from visp.api.managed import refusal
from visp.controller.subscriptions import place_of
from visp.entity.api import normal_base_path
from visp.entity.artifact import base_path_of as artifact_of
from visp.entity.gateway import API_SCOPE, RESOURCE_SCOPE, SCOPES, TENANT_SCOPE
from visp.entity.names import CALLERS_NAMESPACE
from visp.entity.payload import parse_object
from visp.errors import BadRequest, Forbidden, VispError

if TYPE_CHECKING:
    from visp.api.context import Call

ARTIFACT, SCOPE_FIELD, RESOURCE = "artifact_id", "scope", "resource"


async def add_subscription(call: Call) -> HttpAnswer:
    """Adds a client, or replaces one of the same id."""
    namespace = tenant_of(call)
    fields = parse_object(await call.body())
    artifact, client, secret, scope, resource = (
        _text(fields, name) for name in (ARTIFACT, "client_id", "client_secret", SCOPE_FIELD, RESOURCE)
    )
    try:
        if artifact is None and scope != TENANT_SCOPE:
            raise Refused(400, wording.gateway_field_missing(ARTIFACT))
        if client is None:
            raise Refused(400, wording.gateway_field_missing("client_id"))
        where = await place(call, namespace, artifact, scope, resource)
        await call.services.gateway.subscriptions.add(namespace, where, client, secret)
    except Refused as refused:
        return refused.answer()
    except BadRequest as error:
        return refusal(400, error.sentence)
    return json_answer({"message": wording.subscribed(client, artifact or namespace)})


async def put_subscription(call: Call) -> HttpAnswer:
    """The same."""
    return await add_subscription(call)


async def list_subscriptions(call: Call) -> HttpAnswer:
    """Ids of clients; their secrets nobody knows."""
    namespace = tenant_of(call)
    try:
        where = await _asked(call, namespace)
    except Refused as refused:
        return refused.answer()
    return json_answer(await call.services.gateway.subscriptions.clients(namespace, where))


async def drop_subscription(call: Call) -> HttpAnswer:
    """From the answer on the client's calls are refused."""
    namespace = tenant_of(call)
    try:
        where = await _asked(call, namespace)
    except Refused as refused:
        return refused.answer() if refused.status == 400 else refusal(404, wording.NO_SUBSCRIPTION)
    if not await call.services.gateway.subscriptions.drop(namespace, where, call.segment("client")):
        return refusal(404, wording.NO_SUBSCRIPTION)
    return HttpAnswer(204)


class Refused(VispError):
    """What is asked for is not there, or no such thing; told as the gateway tells it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    def answer(self) -> HttpAnswer:
        return refusal(self.status, self.sentence)


async def _asked(call: Call, namespace: str) -> str:
    """Where the clients are that a query means. Raises `Refused`."""
    artifact, scope = call.query.get(ARTIFACT), call.query.get(SCOPE_FIELD)
    if artifact is None and scope != TENANT_SCOPE:
        raise Refused(400, wording.ARTIFACT_MISSING)
    return await place(call, namespace, artifact, scope, call.query.get(RESOURCE))


async def place(call: Call, namespace: str, artifact: str | None, scope: str | None, resource: str | None) -> str:
    """Where the clients of an API, of one of its paths, or of all the namespace's APIs are kept. Raises `Refused`."""
    scope = scope or (API_SCOPE if resource is None else RESOURCE_SCOPE)
    if scope not in SCOPES:
        raise Refused(400, wording.bad_scope(SCOPES))
    base_path, path = "", ""
    if scope != TENANT_SCOPE:
        table = await call.services.gateway.table(namespace)
        base_path = base_path_of(namespace, artifact or "")
        if base_path not in table.plans:
            raise Refused(404, wording.unknown_api(artifact or ""))
        if scope == RESOURCE_SCOPE:
            if not resource:
                raise Refused(400, wording.gateway_field_missing(RESOURCE))
            path = ("" if base_path == "/" else base_path) + "/" + resource.removeprefix("/")
            if path not in table.resources:
                raise Refused(404, wording.unknown_resource(resource))
    found = place_of(scope, base_path, path)
    assert found is not None
    return found


def base_path_of(namespace: str, artifact: str) -> str:
    """Of an API by its base path, by its id, or by the one that clients of routes make of it."""
    found = artifact_of(artifact)
    if found is not None:
        return found
    return normal_base_path(artifact.removeprefix(f"API:{namespace}:").removeprefix("API:_:"))


def tenant_of(call: Call) -> str:
    """The namespace of the path, which must be the key's; raises `Forbidden`."""
    identity, given = call.identity, call.segment("tenant")
    if given not in (CALLERS_NAMESPACE, identity.namespace, identity.namespace_uuid):
        raise Forbidden(wording.not_authorized([f"{given}/{call.request.url.path.split('/')[3]}"]))
    return identity.namespace


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    try:
        return msgspec.json.decode(fields[name], type=str)
    except (KeyError, msgspec.DecodeError):
        return None
