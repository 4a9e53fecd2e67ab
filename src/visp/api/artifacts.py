"""Routes of the gateway's own management API: APIs as documents (`/v2`), and in their first form (`/v1`).

A tenant is the namespace of the key that asks, by name, uuid or `_`; what is made here is what `createApi` makes, in
the same store. Paths, bodies and sentences are those of OpenWhisk's gateway.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api.errors import TEXT, HttpAnswer, json_answer
from visp.api.gateway import PARSED_AT_ONCE_BYTES, base_url
from visp.api.managed import refusal
from visp.api.subscriptions import Refused, place, tenant_of
from visp.entity import api as apis
from visp.entity import artifact, openapi
from visp.entity.apidoc import Given
from visp.entity.gateway import API_SCOPE, RESOURCE_SCOPE, TENANT_SCOPE
from visp.entity.names import CALLERS_NAMESPACE
from visp.errors import ApiRefused, BadRequest, Forbidden

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from visp.api.context import Call, Services
    from visp.entity.api import Api, Document

_decode = msgspec.json.Decoder().decode


async def health(_: Request, __: Services) -> HttpAnswer:
    """That the gateway is there."""
    return HttpAnswer(200, wording.GATEWAY_READY.encode(), TEXT)


# ── documents ───────────────────────────────────────────────────────────────────────────────────────────────────


async def add_document(call: Call) -> HttpAnswer:
    """Makes an API, or replaces the one with its base path."""
    return await _answered(_put(call, tenant_of(call), None, _read_swagger, _shown))


async def put_document(call: Call) -> HttpAnswer:
    """The same."""
    return await add_document(call)


async def replace_document(call: Call) -> HttpAnswer:
    """Replaces an API by its id."""
    return await _answered(_put(call, tenant_of(call), call.segment("api"), _read_swagger, _shown))


async def list_documents(call: Call) -> HttpAnswer:
    """All of the tenant, by base path."""
    found = _page(call, await _found(call, tenant_of(call), call.query.get("basePath"), call.query.get("title")))
    return json_answer([_shown(call, api) for api in found])


async def get_document(call: Call) -> HttpAnswer:
    """One."""
    return await _answered(_one(call, tenant_of(call), _shown))


async def delete_document(call: Call) -> HttpAnswer:
    """It is gone at once, and so are its clients."""
    return await _answered(_delete(call, tenant_of(call), HttpAnswer(204)))


# ── the first form ──────────────────────────────────────────────────────────────────────────────────────────────


async def put_first(call: Call) -> HttpAnswer:
    """Makes an API, or replaces the one with its base path, or with its `id`."""
    return await _answered(_put(call, call.identity.namespace, None, _read_resources, _shown_first))


async def replace_first(call: Call) -> HttpAnswer:
    """Replaces an API by its id."""
    return await _answered(_put(call, call.identity.namespace, call.segment("api"), _read_resources, _shown_first))


async def list_first(call: Call) -> HttpAnswer:
    """All of the caller, by base path."""
    found = await _found(call, call.identity.namespace, _filter(call, "basePath"), _filter(call, "name"))
    return json_answer([_shown_first(call, api) for api in found])


async def get_first(call: Call) -> HttpAnswer:
    """One."""
    return await _answered(_one(call, call.identity.namespace, _shown_first))


async def tenant_of_first(call: Call) -> HttpAnswer:
    """Whose it is."""
    return await _answered(_one(call, call.identity.namespace, lambda call, _: _tenant(call)))


async def delete_first(call: Call) -> HttpAnswer:
    """It is gone at once, and so are its clients."""
    return await _answered(_delete(call, call.identity.namespace, json_answer({})))


async def list_tenants(call: Call) -> HttpAnswer:
    """The caller."""
    tenant = _tenant(call)
    is_meant = all(_filter(call, name) in (None, tenant[name]) for name in ("namespace", "instance"))
    return json_answer([tenant] if is_meant else [])


async def put_tenant(call: Call) -> HttpAnswer:
    """Nothing is made: a tenant is a namespace, which is the operator's to make."""
    return await _answered(_checked_tenant(call))


async def replace_tenant(call: Call) -> HttpAnswer:
    """The same."""
    return await put_tenant(call)


async def get_tenant(call: Call) -> HttpAnswer:
    """The caller."""
    if not _is_own(call, call.segment("tenant")):
        return refusal(404, wording.unknown_tenant(call.segment("tenant")))
    return json_answer(_tenant(call))


async def delete_tenant(call: Call) -> HttpAnswer:
    """Never."""
    raise Forbidden(wording.TENANT_KEPT)


async def list_tenants_apis(call: Call) -> HttpAnswer:
    """All of the caller."""
    if not _is_own(call, call.segment("tenant")):
        return refusal(404, wording.unknown_tenant(call.segment("tenant")))
    return await list_first(call)


async def put_first_subscription(call: Call) -> HttpAnswer:
    """Adds a key."""

    async def add(where: str, key: str) -> str:
        await call.services.gateway.subscriptions.add(call.identity.namespace, where, key, None)
        return wording.SUBSCRIPTION_CREATED

    return await _answered(_subscription(call, add))


async def drop_first_subscription(call: Call) -> HttpAnswer:
    """Takes it away."""

    async def drop(where: str, key: str) -> str:
        await call.services.gateway.subscriptions.drop(call.identity.namespace, where, key)
        return wording.SUBSCRIPTION_DELETED

    return await _answered(_subscription(call, drop))


# ── what they share ─────────────────────────────────────────────────────────────────────────────────────────────


async def _answered(making: Awaitable[HttpAnswer]) -> HttpAnswer:
    """What is refused, as the gateway tells it."""
    try:
        return await making
    except Refused as refused:
        return refused.answer()
    except artifact.Unfit as unfit:
        return refusal(400, unfit.sentence)
    except (ApiRefused, BadRequest) as error:
        return refusal(400, error.sentence)


def _shown(call: Call, api: Api) -> object:
    return {
        "artifact_id": artifact.id_of(api.base_path),
        "managed_url": apis.gateway_url(base_url(call.request), api),
        "open_api_doc": api.document,
    }


def _shown_first(call: Call, api: Api) -> object:
    return artifact.render_resources(api, _tenant(call), apis.gateway_url(base_url(call.request), api))


def _tenant(call: Call) -> Document:
    return {"id": call.identity.namespace_uuid, "namespace": call.identity.namespace, "instance": ""}


def _is_own(call: Call, given: object) -> bool:
    return given in (CALLERS_NAMESPACE, call.identity.namespace, call.identity.namespace_uuid)


def _filter(call: Call, name: str) -> str | None:
    return call.query.get(f"filter[where][{name}]")


async def _found(call: Call, namespace: str, base_path: str | None, title: str | None) -> list[Api]:
    """Those with this base path and title, where they are said."""
    wanted = None if base_path is None else apis.normal_base_path(base_path)
    return [
        api
        for api in await call.services.apis.of(namespace)
        if wanted in (None, api.base_path) and title in (None, api.title)
    ]


def _page(call: Call, found: list[Api]) -> list[Api]:
    return apis.page(found, call.query.get("skip"), call.query.get("limit"))


async def _by_id(call: Call, namespace: str, id: str) -> Api:
    """Raises `Refused`."""
    base_path = artifact.base_path_of(id)
    found = [] if base_path is None else await _found(call, namespace, base_path, None)
    if not found:
        raise Refused(404, wording.unknown_api(id))
    return found[0]


async def _one(call: Call, namespace: str, show: Callable[[Call, Api], object]) -> HttpAnswer:
    return json_answer(show(call, await _by_id(call, namespace, call.segment("api"))))


async def _delete(call: Call, namespace: str, answer: HttpAnswer) -> HttpAnswer:
    api = await _by_id(call, namespace, call.segment("api"))
    await call.services.apis.delete(namespace, api.base_path, None, None)
    return answer


async def _body(call: Call) -> tuple[Document, int]:
    """An object, and how long it was. Raises `Refused`."""
    body = await call.bytes()
    if not body.strip():
        raise Refused(400, wording.REQUEST_BODY_MISSING)
    try:
        given = await asyncio.to_thread(_decode, body) if len(body) > PARSED_AT_ONCE_BYTES else _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        given = None
    if not isinstance(given, dict):
        raise Refused(400, wording.REQUEST_BODY_NO_OBJECT)
    return given, len(body)


def _read_swagger(call: Call, given: Document) -> Document:
    document = openapi.to_swagger(given, base_url(call.request)) if openapi.is_openapi(given) else given
    artifact.check_swagger(document)
    return document


def _read_resources(call: Call, given: Document) -> Document:
    tenant = given.get("tenantId")
    if isinstance(given.get("name"), str) and isinstance(given.get("basePath"), str):
        if not isinstance(tenant, str):
            raise Refused(400, wording.gateway_field_missing("tenantId"))
        if not _is_own(call, tenant):
            raise Refused(404, wording.unknown_tenant(tenant))
    artifact.check_resources(given)
    return artifact.to_swagger(given)


async def _put(
    call: Call,
    namespace: str,
    id: str | None,
    read: Callable[[Call, Document], Document],
    show: Callable[[Call, Api], object],
) -> HttpAnswer:
    """An API that gets another base path has another id, and no clients."""
    before = None if id is None else await _by_id(call, namespace, id)
    given, size = await _body(call)
    if before is None and isinstance(given.get("id"), str) and read is _read_resources:
        before = await _by_id(call, namespace, given["id"])
    document = await asyncio.to_thread(read, call, given) if size > PARSED_AT_ONCE_BYTES else read(call, given)
    api = await call.services.apis.create(namespace, Given(document=document, is_gateways=True))
    if before is not None and before.base_path != api.base_path:
        await call.services.apis.delete(namespace, before.base_path, None, None)
    return json_answer(show(call, api))


async def _checked_tenant(call: Call) -> HttpAnswer:
    given, _ = await _body(call)
    id = call.segment("tenant") if "tenant" in call.request.path_params else given.get("id")
    if id is not None and not _is_own(call, id):
        raise Refused(404, wording.unknown_tenant(str(id)))
    for name in ("namespace", "instance"):
        if given.get(name) is None:
            raise Refused(400, wording.gateway_field_missing(name))
    if not _is_own(call, given["namespace"]):
        raise Forbidden(wording.not_authorized([str(given["namespace"])]))
    return json_answer(_tenant(call))


async def _subscription(call: Call, change: Callable[[str, str], Awaitable[str]]) -> HttpAnswer:
    given, _ = await _body(call)
    fields: dict[str, str] = {}
    for name in ("key", "scope", "tenantId"):
        value = given.get(name)
        if not isinstance(value, str):
            raise Refused(400, wording.gateway_field_missing(name))
        fields[name] = value
    if not _is_own(call, fields["tenantId"]):
        raise Refused(404, wording.unknown_tenant(fields["tenantId"]))
    scope, namespace = fields["scope"], call.identity.namespace
    id, resource = given.get("apiId"), given.get("resource")
    if scope == RESOURCE_SCOPE:
        if not isinstance(resource, str):
            raise Refused(400, wording.missing_from_body("resource"))
        where = await _place_of_resource(call, namespace, resource)
    elif scope == API_SCOPE:
        if not isinstance(id, str):
            raise Refused(400, wording.missing_from_body("apiId"))
        where = await place(call, namespace, id, scope, None)
    elif scope == TENANT_SCOPE:
        where = await place(call, namespace, None, scope, None)
    else:
        raise Refused(400, wording.SCOPE_INVALID)
    return HttpAnswer(200, (await change(where, fields["key"])).encode(), TEXT)


async def _place_of_resource(call: Call, namespace: str, resource: str) -> str:
    """Of a path with its base path, as a document writes it. Raises `Refused`."""
    table = await call.services.gateway.table(namespace)
    found = table.resources.get("/" + resource.removeprefix("/"))
    if found is None:
        raise Refused(404, wording.unknown_resource(resource))
    base_path = found.plan.base_path
    return await place(
        call, namespace, base_path, RESOURCE_SCOPE, found.path if base_path == "/" else found.path[len(base_path) :]
    )
