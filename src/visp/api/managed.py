"""The gateway's managed endpoints: an API's operations over web actions, which are called inside.

`/gw/<namespace><base path>/…` and `/api/<namespace's uuid><base path>/…` are the same, and `/api/v1` is the platform's
own. Source: OpenWhisk's gateway, whose order of checks this is: CORS, security, verb, backend, policies.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from visp import wording
from visp.api import web
from visp.api.errors import JSON, HttpAnswer
from visp.api.events import EventStream
from visp.api.kept import place_of
from visp.controller import webaction
from visp.controller.gateway import Denied
from visp.entity import mapping
from visp.entity.api import normal_base_path
from visp.entity.names import is_name
from visp.entity.payload import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from visp.api.context import Services
    from visp.api.inside import Inside
    from visp.controller.webaction import Address
    from visp.entity.gateway import Found, Operation, Table, Target
    from visp.entity.subject import Identity

BY_NAME, BY_UUID = "/gw/", "/api/"
_TENANT = re.compile(rf"{BY_UUID}[0-9A-Fa-f]{{8}}(-[0-9A-Fa-f]{{4}}){{3}}-[0-9A-Fa-f]{{12}}(/|\Z)")
BODY_BYTES = 5 * 1024 * 1024

PAGE, DOCUMENT = "/docs", "/openapi.json"
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
SHOWN: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    PAGE: ("text/html; charset=UTF-8", (_NO_SNIFFING,)),
    DOCUMENT: (JSON, (_NO_SNIFFING, ("Access-Control-Allow-Origin", "*"))),
}
"""Behind the base path of an API: what shows it, with type and headers."""

METHODS = "GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS"
_CORS = "access-control-"


def is_managed(path: str) -> bool:
    """Whether a path as it came is the gateway's; below `/api/` all but uuids is what it is on OpenWhisk's server."""
    return path.startswith(BY_NAME) or _TENANT.match(path) is not None


async def answer(
    request: Request, services: Services, id: str, inside: Inside | None, path: str
) -> HttpAnswer | EventStream:
    """What a request for a managed endpoint is sent; `path` as it came."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
    namespace, rest = await _namespace(services, path)
    if namespace is None:
        return refusal(404, wording.GATEWAY_NOT_FOUND)
    table = await services.gateway.table(namespace)
    if request.method in ("GET", "HEAD") and path.startswith(BY_NAME):
        shown = await _shown(table, namespace, rest)
        if shown is not None:
            return shown
    found = table.find(rest)
    if found is None:
        return refusal(404, wording.GATEWAY_NOT_FOUND)
    plan = found.resource.plan
    if plan.has_cors and request.method == "OPTIONS":
        return with_cors(HttpAnswer(200, is_routed=False), headers, is_question=True)
    try:
        made = await _within(request, services, id, inside, namespace, found, rest, headers)
    except Denied as denied:
        made = refusal(denied.status, denied.sentence, denied.headers)
    if plan.has_cors is None:
        return made
    return with_cors(made, headers) if plan.has_cors else without_cors(made)


async def _namespace(services: Services, path: str) -> tuple[str | None, str]:
    """Whose APIs a path is among, and what follows."""
    prefix = BY_NAME if path.startswith(BY_NAME) else BY_UUID
    given, slash, rest = path[len(prefix) :].partition("/")
    name = unquote(given, errors="surrogateescape")
    if not is_name(name):
        return None, ""
    identities = services.identities
    owner = await (identities.owner_of(name) if prefix == BY_NAME else identities.by_uuid(name))
    return None if owner is None else owner.namespace, slash + rest


async def _shown(table: Table, namespace: str, path: str) -> HttpAnswer | None:
    """The page of an API or its document, where the API itself has nothing at their path."""
    for name, (kind, headers) in SHOWN.items():
        plan = table.plans.get(normal_base_path(unquote(path.removesuffix(name)))) if path.endswith(name) else None
        if plan is None or not plan.is_shown or table.find(path, is_whole=True) is not None:
            continue
        from visp.api import portal

        make = portal.page if name == PAGE else portal.rendered
        body = await asyncio.to_thread(make, namespace, plan)
        policy = (("Content-Security-Policy", portal.POLICY),) if name == PAGE else ()
        return HttpAnswer(200, body, kind, is_routed=False, headers=(*policy, *headers))
    return None


async def _within(
    request: Request,
    services: Services,
    id: str,
    inside: Inside | None,
    namespace: str,
    found: Found,
    path: str,
    headers: dict[str, str],
) -> HttpAnswer | EventStream:
    """Raises `Denied`."""
    gateway, plan = services.gateway, found.resource.plan
    query = request.scope["query_string"].decode("latin-1")
    passed = await gateway.check(namespace, plan, headers, query)
    operation = found.resource.operations.get(request.method)
    if operation is None:
        raise Denied(404, wording.VERB_NOT_SUPPORTED)
    await gateway.admit(namespace, found, operation, passed.client)
    keeping = operation.keeping if request.method == "GET" else None
    place = None if keeping is None else place_of(keeping, plan.checks, headers, (namespace, path, query))
    if place is not None and (kept := services.kept.find(place, operation)) is not None:
        return kept
    address = _address(_target(operation), found, path)
    if address is None:
        return failed(headers, 500)
    parts = mapping.Parts(headers, query, await _body(request), dict(found.values))
    mapping.apply(operation.changes, parts)
    parts.headers["content-length"] = str(len(parts.body))
    parts.headers |= passed.headers
    _forwarded(request, parts.headers, id)
    method = operation.backend_verb or request.method
    if method not in webaction.METHODS:
        return failed(headers, 500)
    made = await web.run(
        web.Asked(
            method=method,
            headers=parts.headers,
            shown=list(parts.headers.items()),
            query=parts.query,
            caller=await web.caller_of(request, services, inside),
            body=_Given(services, parts.body).take,
        ),
        services,
        id,
        address,
    )
    if keeping is not None and place is not None and isinstance(made, HttpAnswer):
        services.kept.keep(place, operation, keeping, made)
    return made


def _target(operation: Operation) -> Target | None:
    split = operation.split
    if split is not None and random.random() * 100 < split.percent:
        return split.target
    return operation.target


def _address(target: Target | None, found: Found, path: str) -> Address | None:
    """The web action: behind it comes the whole path, or what of it followed the resource."""
    if target is None:
        return None
    return webaction.parse_address(target.path + (path if target.takes_path else found.rest))


class _Given:
    """A body that was read already."""

    def __init__(self, services: Services, body: bytes) -> None:
        self._services = services
        self._body = body

    async def take(self, owner: Identity) -> bytes:
        """Raises `TooLarge`."""
        self._services.invoke.check_size(owner, len(self._body))
        return self._body


async def _body(request: Request) -> bytes:
    """Raises `Denied`."""
    if int(request.headers.get("content-length", "0")) > BODY_BYTES:
        raise Denied(413, wording.gateway_body_too_large(BODY_BYTES))
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_BYTES:
            raise Denied(413, wording.gateway_body_too_large(BODY_BYTES))
        chunks.append(chunk)
    return b"".join(chunks)


def _forwarded(request: Request, headers: dict[str, str], id: str) -> None:
    """Tells the action how the request came. What a caller says of that itself is not passed on."""
    host = headers.get("host", "")
    peer = "" if request.client is None else request.client.host
    scheme = request.url.scheme
    query = request.scope["query_string"].decode("latin-1")
    path = request.scope["raw_path"].decode("latin-1")
    port = web_port(host, scheme)
    headers |= {
        "x-forwarded-url": f"{scheme}://{host}{path}" + (f"?{query}" if query else ""),
        "x-forwarded-for": peer,
        "x-forwarded-host": host,
        "x-forwarded-port": port,
        "x-forwarded-proto": scheme,
        "x-real-ip": peer,
        "x-request-id": id,
    }


def web_port(host: str, scheme: str) -> str:
    """The port of `host[:port]`."""
    _, colon, port = host.rpartition(":")
    if colon and port.isdigit():
        return port
    return "443" if scheme == "https" else "80"


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def refusal(status: int, sentence: str, headers: tuple[tuple[str, str], ...] = ()) -> HttpAnswer:
    """An error as the gateway tells it."""
    body = encode({"status": status, "message": wording.gateway_error(sentence)})
    return HttpAnswer(status, body, JSON, is_routed=False, headers=headers)


def failed(headers: Mapping[str, str], status: int) -> HttpAnswer:
    """The gateway cannot do what its document says."""
    body = encode({"code": status, "message": wording.GATEWAY_FAILED})
    named = (("X-Gateway-Host", headers.get("host", "")),)
    return HttpAnswer(500, body, JSON, is_routed=False, headers=named)


def with_cors(
    made: HttpAnswer | EventStream, asked: Mapping[str, str], *, is_question: bool = False
) -> HttpAnswer | EventStream:
    """The gateway's headers in the place of the web action's own."""
    headers = [
        ("Access-Control-Allow-Origin", asked.get("origin") or "*"),
        ("Access-Control-Allow-Methods", METHODS),
        ("Access-Control-Allow-Credentials", "true"),
    ]
    wanted = asked.get("access-control-request-headers")
    if is_question and wanted:
        headers.append(("Access-Control-Allow-Headers", wanted))
    return _with_headers(without_cors(made), tuple(headers))


def without_cors(made: HttpAnswer | EventStream) -> HttpAnswer | EventStream:
    if isinstance(made, EventStream):
        made.head = _stripped(made.head)
        return made
    return _stripped(made)


def _stripped(head: HttpAnswer) -> HttpAnswer:
    kept = tuple(header for header in head.headers if not header[0].lower().startswith(_CORS))
    return msgspec.structs.replace(head, headers=kept)


def _with_headers(made: HttpAnswer | EventStream, headers: tuple[tuple[str, str], ...]) -> HttpAnswer | EventStream:
    if isinstance(made, EventStream):
        made.head = msgspec.structs.replace(made.head, headers=(*made.head.headers, *headers))
        return made
    return msgspec.structs.replace(made, headers=(*made.headers, *headers))
