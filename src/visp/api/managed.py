"""The gateway's managed endpoints: an API's operations over web actions, which are called inside, and over targets
elsewhere.

`/gw/<namespace><base path>/…` and `/api/<namespace's uuid><base path>/…` are the same, and `/api/v1` is the platform's
own. Source: OpenWhisk's gateway, whose order of checks this is: CORS, security, verb, backend, policies.
"""

from __future__ import annotations

import asyncio
import random
from functools import lru_cache
from time import perf_counter_ns
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import msgspec

from visp import wording
from visp.api import proxied, web
from visp.api.context import collected
from visp.api.errors import JSON, HttpAnswer
from visp.api.events import EventStream
from visp.api.kept import place_of
from visp.controller import webaction
from visp.controller.backends import Unanswered
from visp.controller.gateway import Denied
from visp.controller.webaction import Address
from visp.entity import mapping
from visp.entity.api import normal_base_path
from visp.entity.gateway import Place, routed, url_of
from visp.entity.payload import encode
from visp.errors import BodyTooLarge, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from visp.api.context import Services
    from visp.api.inside import Inside
    from visp.entity.gateway import Found, Operation, Plan, Table, Target
    from visp.entity.subject import Identity

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
FOR_ALL: web.Headers = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", METHODS),
    ("Access-Control-Allow-Credentials", "true"),
)


class Came(msgspec.Struct, frozen=True):
    """How a request came: headers by lower-case name, `path` whole and raw, `id` its transaction."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    peer: str
    scheme: str
    id: str


async def at_domain(
    request: Request, services: Services, id: str, namespace: str, domain: str
) -> HttpAnswer | EventStream:
    """What a request is sent that came to a domain of a namespace: the API that has it answers, and nothing else."""
    table = await services.gateway.table(namespace)
    base_path, owner = table.domains.get(domain), await services.identities.owner_of(namespace)
    if base_path is None or owner is None:
        return refusal(404, wording.GATEWAY_NOT_FOUND)
    place = Place(owner.namespace_uuid, True, below(base_path, request.scope["raw_path"].decode("latin-1")))
    return await answer(request, services, id, None, place, base_path)


def below(base_path: str, path: str) -> str:
    """A path at the domain of the API with this base path, as it would be among all of its namespace's."""
    return path if base_path == "/" else quote(base_path) + path


async def answer(
    request: Request,
    services: Services,
    id: str,
    inside: Inside | None,
    place: Place,
    base_path: str | None = None,
) -> HttpAnswer | EventStream:
    """What a request for a managed endpoint is sent; with a `base_path` by this API alone."""
    came = Came(
        method=request.method,
        path=request.scope["raw_path"].decode("latin-1"),
        query=request.scope["query_string"].decode("latin-1"),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw},
        peer="" if request.client is None else request.client.host,
        scheme=request.url.scheme,
        id=id,
    )
    begun_ns = perf_counter_ns()
    headers, namespace = came.headers, await _namespace(services, place)
    if namespace is None:
        return refusal(404, wording.GATEWAY_NOT_FOUND)
    table = await services.gateway.table(namespace)
    if request.method in ("GET", "HEAD") and not place.is_uuid:
        shown = await _shown(table, namespace, place.rest)
        if shown is not None:
            return shown
    found = table.find(place.rest)
    if found is None or base_path not in (None, found.resource.plan.base_path):
        return refusal(404, wording.GATEWAY_NOT_FOUND)
    plan = found.resource.plan
    if plan.has_cors and request.method == "OPTIONS":
        return with_cors(HttpAnswer(200, is_routed=False), headers, is_question=True)
    try:
        made = await _within(request, services, inside, came, namespace, found, place.rest)
    except Denied as denied:
        made = denial(denied)
    count(services, namespace, plan, made, begun_ns)
    return dressed(made, plan, headers)


def count(services: Services, namespace: str, plan: Plan, made: HttpAnswer | EventStream, begun_ns: int) -> None:
    """Counts a call that is answered so; `begun_ns` is of `perf_counter_ns`."""
    status = made.head.status if isinstance(made, EventStream) else made.status
    services.gateway.calls.add(namespace, plan.base_path, status, (perf_counter_ns() - begun_ns) // 1000)


async def _namespace(services: Services, place: Place) -> str | None:
    if not place.name:
        return None
    identities = services.identities
    owner = await (identities.by_uuid(place.name) if place.is_uuid else identities.owner_of(place.name))
    return None if owner is None else owner.namespace


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
    inside: Inside | None,
    came: Came,
    namespace: str,
    found: Found,
    path: str,
) -> HttpAnswer | EventStream:
    """Raises `Denied`."""
    gateway, resource = services.gateway, found.resource
    passed = await gateway.check(namespace, resource, came.method, came.headers, came.query)
    operation = resource.operations.get(came.method)
    if operation is None:
        raise Denied(404, wording.VERB_NOT_SUPPORTED)
    await gateway.admit(namespace, found, operation, passed.client)
    is_routed = operation.routing is not None and operation.routing.header in came.headers
    keeping = operation.keeping if came.method == "GET" and not is_routed else None
    place = None
    if keeping is not None:
        place = place_of(keeping, resource.checks(came.method), came.headers, (namespace, path, came.query))
    if place is not None and (kept := services.kept.find(place, operation)) is not None:
        return kept
    target, method = _target(operation, came.headers), operation.backend_verb or came.method
    if target is None or method not in webaction.METHODS:
        return failed(came.headers, 500)
    follows = path if target.takes_path else found.rest
    caller = await web.caller_of(request, services, inside)
    made: HttpAnswer | EventStream
    if target.origin:
        if url_of(target, follows, "") is None:
            raise Denied(404, wording.GATEWAY_NOT_FOUND)
        await _charge(services, namespace)
        own = msgspec.structs.replace(came, headers=proxied.passed_on(came.headers, is_key_ours=caller is not None))
        parts = passed_on(own, operation, found, passed.headers, await _body(request))
        url = url_of(target, follows, parts.query) or ""
        try:
            made = await proxied.run(services, namespace, method, url, parts.headers, parts.body)
        except Unanswered as failure:
            return failed(came.headers, failure.status)
    else:
        address = webaction.parse_address(target.path + follows)
        if address is None:
            return failed(came.headers, 500)
        parts = passed_on(came, operation, found, passed.headers, await _body(request))
        asked = web.Asked(
            method=method,
            headers=parts.headers,
            shown=list(parts.headers.items()),
            query=parts.query,
            caller=caller,
            body=_Given(services, parts.body).take,
        )
        made = await web.run(asked, services, came.id, address)
    if keeping is not None and place is not None and isinstance(made, HttpAnswer):
        services.kept.keep(place, operation, keeping, made)
    return made


def passed_on(came: Came, operation: Operation, found: Found, told: Mapping[str, str], body: bytes) -> mapping.Parts:
    """The request as the web action gets it; `told` are headers of the gateway's own. Pure."""
    parts = mapping.Parts(dict(came.headers), came.query, body, dict(found.values))
    mapping.apply(operation.changes, parts)
    parts.headers["content-length"] = str(len(parts.body))
    parts.headers |= told
    parts.headers |= _forwarded(came, parts.headers.get("host", ""))
    return parts


def _target(operation: Operation, headers: Mapping[str, str]) -> Target | None:
    """Raises `Denied`."""
    routing = operation.routing
    if routing is not None and headers.get(routing.header):
        target = routed(routing, headers[routing.header])
        if target is None:
            raise Denied(403, wording.NOT_WHITELISTED)
        return target
    split = operation.split
    if split is not None and random.random() * 100 < split.percent:
        return split.target
    return operation.target


def address_of(operation: Operation, found: Found, path: str) -> Address | None:
    """The web action of an operation that is inside: behind it comes the whole path, or what followed the resource."""
    target = _target(operation, {})
    if target is None:
        return None
    follows = path if target.takes_path else found.rest
    begin = _parsed(target.path)
    if begin is None:  # what follows may be a part of the name
        return webaction.parse_address(target.path + follows)
    return Address(begin.name, begin.extension, begin.rest + follows)


@lru_cache(maxsize=1000)
def _parsed(path: str) -> Address | None:
    return webaction.parse_address(path)


async def _charge(services: Services, namespace: str) -> None:
    """A call that goes elsewhere counts as an invocation of the namespace; raises `Denied`."""
    owner = await services.identities.owner_of(namespace)
    if owner is None:
        raise Denied(404, wording.GATEWAY_NOT_FOUND)
    try:
        await services.invoke.obtain(owner)
        services.invoke.charge(owner)
    except RequestError as error:
        raise Denied(error.status, error.sentence, tuple(error.headers)) from None


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
    try:
        return await collected(request, BODY_BYTES)
    except BodyTooLarge:
        raise Denied(413, wording.gateway_body_too_large(BODY_BYTES)) from None


def _forwarded(came: Came, host: str) -> dict[str, str]:
    """Tells the action how the request came. What a caller says of that itself is not passed on."""
    return {
        "x-forwarded-url": f"{came.scheme}://{host}{came.path}" + (f"?{came.query}" if came.query else ""),
        "x-forwarded-for": came.peer,
        "x-forwarded-host": host,
        "x-forwarded-port": web_port(host, came.scheme),
        "x-forwarded-proto": came.scheme,
        "x-real-ip": came.peer,
        "x-request-id": came.id,
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


def denial(denied: Denied) -> HttpAnswer:
    """How a refusal of the gateway is answered."""
    return refusal(denied.status, denied.sentence, denied.headers)


def failed(headers: Mapping[str, str], status: int) -> HttpAnswer:
    """The gateway cannot do what its document says."""
    body = encode({"code": status, "message": wording.GATEWAY_FAILED})
    named = (("X-Gateway-Host", headers.get("host", "")),)
    return HttpAnswer(500, body, JSON, is_routed=False, headers=named)


def dressed(made: HttpAnswer | EventStream, plan: Plan, asked: Mapping[str, str]) -> HttpAnswer | EventStream:
    """With what the gateway says to browsers, where the API's document says something of that."""
    if plan.has_cors is None:
        return made
    return with_cors(made, asked) if plan.has_cors else without_cors(made)


def with_cors(
    made: HttpAnswer | EventStream, asked: Mapping[str, str], *, is_question: bool = False
) -> HttpAnswer | EventStream:
    """The gateway's headers in the place of the web action's own."""
    origin, wanted = asked.get("origin"), asked.get("access-control-request-headers")
    own = FOR_ALL if not origin else (("Access-Control-Allow-Origin", origin), *FOR_ALL[1:])
    if is_question and wanted:
        own = (*own, ("Access-Control-Allow-Headers", wanted))
    return _with_own(made, own)


def without_cors(made: HttpAnswer | EventStream) -> HttpAnswer | EventStream:
    return _with_own(made, ())


def _with_own(made: HttpAnswer | EventStream, own: web.Headers) -> HttpAnswer | EventStream:
    """With these headers in the place of all that say something to browsers."""
    head = made.head if isinstance(made, EventStream) else made
    if head.headers is not webaction.USUAL_CORS:
        own = (*(header for header in head.headers if not header[0].lower().startswith(_CORS)), *own)
    head = msgspec.structs.replace(head, headers=own)
    if isinstance(made, EventStream):
        made.head = head
        return made
    return head
