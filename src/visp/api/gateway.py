"""The management of APIs: what in OpenWhisk are the three web actions of `/whisk.system/apimgmt`, answered natively.

They are reached as web actions, with the key of whoever's APIs are meant, and as actions by the owner of `whisk.system`
for any namespace. Like all web actions they run for every method; what fails is told as a failing action, with 502.
Source: OpenWhisk's route management. Which tenant a client names opens nothing: a caller has the APIs of its key alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.api import web
from visp.api.errors import HttpAnswer
from visp.controller import webaction
from visp.controller.apis import Apis
from visp.controller.primitive import Accepted, Answer, Finished
from visp.entity import api as apis
from visp.entity import apidoc, openapi
from visp.entity.activation import ActivationHead, Status
from visp.entity.media import parse_media_type
from visp.entity.payload import JsonObject, encode
from visp.entity.subject import SYSTEM
from visp.errors import ApiRefused, BadRequest, RequestError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request

    from visp.api.context import Call, Services
    from visp.api.inside import Inside
    from visp.controller.webaction import Address
    from visp.entity.names import FullyQualifiedName
    from visp.entity.subject import Identity

PACKAGE = "apimgmt"
OPENAPI, SWAGGER = "openapi", "swagger"
PARSED_AT_ONCE_BYTES = 64 * 1024
"""What is longer is read in another thread."""

_decode = msgspec.json.Decoder().decode


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the three is asked for: `fields` are query and body together, `size_bytes` is about their length."""

    namespace: str
    fields: JsonObject
    size_bytes: int
    base_url: str
    apis: Apis

    def text(self, name: str) -> str | None:
        """A field as text; None for one that is missing or empty, or neither text nor number."""
        value = self.value(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        return value if isinstance(value, str) and value else None

    def value(self, name: str) -> Any:
        raw = self.fields.get(name)
        try:
            return None if raw is None else _decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise ApiRefused(wording.api_field_unparsable(name)) from None


async def create_api(asked: Asked) -> object:
    """Adds an operation, or replaces the API by a document; the API as it is then."""

    def read() -> apidoc.Given:
        return apidoc.parse(asked.value("apidoc"), asked.text("responsetype"), asked.namespace, asked.base_url)

    given = read() if asked.size_bytes <= PARSED_AT_ONCE_BYTES else await asyncio.to_thread(read)
    api = await asked.apis.create(asked.namespace, given)
    return apis.render(api, apis.gateway_url(asked.base_url, api))


async def get_api(asked: Asked) -> object:
    """The namespace's APIs, or those of one base path or title; with `format=openapi` their documents in that form."""
    found: Sequence[apis.Api] = await asked.apis.of(asked.namespace)
    name = asked.text("basepath")
    if name is not None:
        found = apis.named(found, name)
    is_openapi = asked.text("format") == OPENAPI
    listed = []
    for api in apis.page(found, asked.text("skip"), asked.text("limit")):
        url = apis.gateway_url(asked.base_url, api)
        document = openapi.from_swagger(api.document, url) if is_openapi else api.document
        listed.append(apis.render_listed(apis.render(api, url, document)))
    return {"apis": listed}


async def delete_api(asked: Asked) -> object:
    """Takes away an API, a path of it, or one operation."""
    name, path, verb = asked.text("basepath"), asked.text("relpath"), asked.text("operation")
    if name is None:
        raise ApiRefused(wording.BASEPATH_REQUIRED)
    if path is None and verb is not None:
        raise ApiRefused(wording.RELPATH_REQUIRED)
    await asked.apis.delete(asked.namespace, name, path, None if verb is None else verb.lower())
    return {}


ACTIONS: dict[str, Callable[[Asked], Awaitable[object]]] = {
    "createApi": create_api,
    "getApi": get_api,
    "deleteApi": delete_api,
}


def is_own(name: FullyQualifiedName) -> bool:
    """Whether an action of this name is one of the three."""
    return name.namespace == SYSTEM and name.package == PACKAGE and name.name in ACTIONS


def base_url(request: Request) -> str:
    """Where the caller reached this server."""
    return f"{request.url.scheme}://{request.headers['host']}"


def _no_caller(action: str) -> ApiRefused:
    return ApiRefused(wording.API_NO_KEY if action == "createApi" else wording.API_NO_CALLER)


# ── as web actions ──────────────────────────────────────────────────────────────────────────────────────────────


async def answer(request: Request, services: Services, id: str, inside: Inside | None, address: Address) -> HttpAnswer:
    """What a request for one of the three is sent."""
    if request.method not in webaction.METHODS:
        return web.refusal(405, wording.WEB_METHODS, id, headers=(("Allow", ", ".join(sorted(webaction.METHODS))),))
    cors = webaction.cors(request.headers.get("access-control-request-headers"))
    if request.method == "OPTIONS":
        return HttpAnswer(200, is_routed=False, headers=cors)
    caller = await web.caller_of(request, services, inside)
    status = 200
    try:
        if caller is None:
            raise _no_caller(address.name.name)
        told = encode(await ACTIONS[address.name.name](await _asked(request, services, caller)))
    except ApiRefused as error:
        status, told = error.status, encode({"error": error.sentence})
    except (RequestError, ServiceError) as error:
        return web.told(error, id, headers=cors)
    shown = encode({"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": msgspec.Raw(told)})
    outcome = Status.SUCCESS if status == 200 else Status.APPLICATION_ERROR
    result = shown if outcome is Status.SUCCESS else b'{"error":%b}' % shown
    accept = request.headers.get("accept")
    if len(result) > web.PRETTY_AT_ONCE_BYTES:
        return await asyncio.to_thread(web.shaped, outcome, result, address.extension, accept, cors, id)
    return web.shaped(outcome, result, address.extension, accept, cors, id)


async def _asked(request: Request, services: Services, caller: Identity) -> Asked:
    """The caller's own namespace pays for it, as for an invocation."""
    await services.invoke.obtain(caller)
    services.invoke.charge(caller)
    services.invoke.check_size(caller, int(request.headers.get("content-length", "0")))
    query = request.scope["query_string"].decode("latin-1")
    body = await web.body_of(request, services, caller)
    fields = webaction.query_fields(query) if query else {}
    sent = webaction.sent(parse_media_type(request.headers.get("content-type", "")), body) if body else {}
    if isinstance(sent, dict):
        fields = fields | sent
    if not webaction.RESERVED.isdisjoint(fields):
        raise BadRequest(wording.RESERVED_PARAMETERS)
    return Asked(
        namespace=caller.namespace,
        fields=fields,
        size_bytes=len(body),
        base_url=base_url(request),
        apis=services.apis,
    )


# ── as actions ──────────────────────────────────────────────────────────────────────────────────────────────────


async def invoke(call: Call, name: FullyQualifiedName, fields: JsonObject, *, is_blocking: bool) -> Answer:
    """What an invocation by the owner of `whisk.system` comes to: the namespace meant is in `__ow_user` or `namespace`.

    The result is bare. No record of it is kept.
    """
    services = call.services
    asked = Asked(
        namespace="",
        fields=fields,
        size_bytes=sum(map(len, map(bytes, fields.values()))),
        base_url=base_url(call.request),
        apis=services.apis,
    )
    status, result = Status.SUCCESS, b""
    try:
        namespace = asked.text(webaction.USER) or (None if name.name == "createApi" else asked.text("namespace"))
        if namespace is None:
            raise _no_caller(name.name)
        result = encode(await ACTIONS[name.name](msgspec.structs.replace(asked, namespace=namespace)))
    except ApiRefused as error:
        status, result = Status.APPLICATION_ERROR, encode({"error": error.sentence})
    id = services.invoke.new_id()
    if not is_blocking:
        return Accepted(id)
    now_ms = services.clock.now_ms()
    head = ActivationHead(
        id=id,
        namespace=SYSTEM,
        subject=call.identity.subject,
        name=name.name,
        version="0.0.1",
        start_ms=call.received_ms,
        end_ms=now_ms,
        duration_ms=max(now_ms - call.received_ms, 0),
        status=status,
        path=name.id,
    )
    return Finished(head, result)
