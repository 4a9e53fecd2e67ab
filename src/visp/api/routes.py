"""The whole surface as one table, and the application that walks it.

Paths are matched before they are percent-decoded, so that an encoded slash cannot change the route. Under `/api/v1`
and `/v2` authentication comes first, then the route: an unknown path is 401 without a key. As in OpenWhisk's assembled
server a known path with a verb it lacks is 404, and outside of the API everything unknown is 405 with `Allow: OPTIONS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path

from visp import wording
from visp.api import (
    actions,
    activations,
    artifacts,
    auth,
    deferred,
    encoding,
    events,
    feeds,
    gateway,
    hooked,
    info,
    managed,
    metrics,
    namespaces,
    packages,
    paths,
    queries,
    rules,
    site,
    socket,
    subscriptions,
    timing,
    triggers,
    web,
)
from visp.api.context import Call, Services
from visp.api.errors import CORS, TEXT, HttpAnswer, error_answer, render
from visp.api.events import EventStream
from visp.api.heads import URI_LIMIT_BYTES
from visp.api.inside import INSIDE
from visp.controller import webaction
from visp.entity.gateway import domain_of, parse_place
from visp.errors import UnknownRoute
from visp.telemetry import log, transid

if TYPE_CHECKING:
    import re
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from visp.api.inside import Inside

    Open = Callable[[Request, Services], Awaitable[HttpAnswer]]
    Guarded = Callable[[Call], Awaitable[HttpAnswer | EventStream]]

API = "/api/v1"
TENANTS = ("/v1/", "/v2/")
"""What the gateway's own API has below it, in its two forms."""

OPEN: tuple[tuple[str, str, Open], ...] = (
    ("GET", "/", info.root),
    ("GET", "/ping", info.ping),
    ("GET", "/ready", info.ready),
    ("GET", "/metrics", metrics.metrics),
    ("GET", "/invokers", info.invokers),
    ("GET", "/invokers/healthy/count", info.healthy_invokers),
    ("GET", "/invokers/ready", info.invokers_ready),
    ("GET", "/activation", info.active_activations),
    ("GET", "/activation/", info.active_activations),
    ("GET", "/activation/count", info.in_flight),
    ("POST", "/disable", info.disable),
    ("GET", "/v1/health-check", artifacts.health),
    ("GET", "/blackbox.tar.gz", info.docker_sdk),
    ("GET", "/OpenWhiskIOSStarterApp.zip", info.ios_sdk),
    ("GET", "/api/v1", info.api),
    ("GET", "/api/v1/", info.api),
    ("GET", "/api/v1/api-docs", info.api_docs),
    ("GET", "/api/v1/api-docs/", info.api_docs),
    ("GET", "/api/v1/docs", info.docs),
    ("GET", "/api/v1/docs/index.html", info.docs_page),
)
"""Without authentication."""

_NS = "/api/v1/namespaces/{namespace}"
_APIS = "/api/v1/web/whisk.system/apimgmt"

GUARDED: tuple[tuple[str, str, Guarded], ...] = (
    ("GET", "/api/v1/namespaces", namespaces.list_namespaces),
    ("GET", "/api/v1/namespaces/", namespaces.list_namespaces),
    ("GET", f"{_NS}/limits", namespaces.get_limits),
    ("GET", f"{_NS}/limits/", namespaces.get_limits),
    ("GET", f"{_NS}/packages", packages.list_packages),
    ("GET", f"{_NS}/packages/", packages.list_packages),
    ("GET", f"{_NS}/packages/{{name}}", packages.get_package),
    ("PUT", f"{_NS}/packages/{{name}}", packages.put_package),
    ("DELETE", f"{_NS}/packages/{{name}}", packages.delete_package),
    ("GET", f"{_NS}/packages/{{name}}/web", site.get_site),
    ("PUT", f"{_NS}/packages/{{name}}/web", site.put_site),
    ("DELETE", f"{_NS}/packages/{{name}}/web", site.delete_site),
    ("GET", f"{_NS}/actions", actions.list_actions),
    ("GET", f"{_NS}/actions/", actions.list_actions),
    ("GET", f"{_NS}/actions/{{name}}", actions.get_action),
    ("PUT", f"{_NS}/actions/{{name}}", actions.put_action),
    ("POST", f"{_NS}/actions/{{name}}", actions.invoke_action),
    ("DELETE", f"{_NS}/actions/{{name}}", actions.delete_action),
    ("GET", f"{_NS}/actions/{{package}}/", actions.list_package_actions),
    ("GET", f"{_NS}/actions/{{package}}/{{name}}", actions.get_action),
    ("PUT", f"{_NS}/actions/{{package}}/{{name}}", actions.put_action),
    ("POST", f"{_NS}/actions/{{package}}/{{name}}", actions.invoke_action),
    ("DELETE", f"{_NS}/actions/{{package}}/{{name}}", actions.delete_action),
    ("GET", f"{_NS}/triggers", triggers.list_triggers),
    ("GET", f"{_NS}/triggers/", triggers.list_triggers),
    ("GET", f"{_NS}/triggers/{{name}}", triggers.get_trigger),
    ("PUT", f"{_NS}/triggers/{{name}}", triggers.put_trigger),
    ("POST", f"{_NS}/triggers/{{name}}", triggers.fire_trigger),
    ("DELETE", f"{_NS}/triggers/{{name}}", triggers.delete_trigger),
    ("GET", f"{_NS}/feeds", feeds.list_feeds),
    ("GET", f"{_NS}/feeds/{{name}}", feeds.get_feed),
    ("PUT", f"{_NS}/feeds/{{name}}", feeds.create_feed),
    ("POST", f"{_NS}/feeds/{{name}}", feeds.change_feed),
    ("DELETE", f"{_NS}/feeds/{{name}}", feeds.delete_feed),
    ("GET", f"{_NS}/rules", rules.list_rules),
    ("GET", f"{_NS}/rules/", rules.list_rules),
    ("GET", f"{_NS}/rules/{{name}}", rules.get_rule),
    ("PUT", f"{_NS}/rules/{{name}}", rules.put_rule),
    ("POST", f"{_NS}/rules/{{name}}", rules.set_rule_status),
    ("DELETE", f"{_NS}/rules/{{name}}", rules.delete_rule),
    ("GET", f"{_NS}/activations", activations.list_activations),
    ("GET", f"{_NS}/activations/", activations.list_activations),
    ("GET", f"{_NS}/activations/{{id}}", activations.get_activation),
    ("GET", f"{_NS}/activations/{{id}}/", activations.get_activation),
    ("GET", f"{_NS}/activations/{{id}}/result", activations.get_result),
    ("GET", f"{_NS}/activations/{{id}}/logs", activations.get_logs),
    ("GET", f"{_NS}/delayed", deferred.list_delayed),
    ("DELETE", f"{_NS}/delayed/{{id}}", deferred.cancel_delayed),
    ("POST", f"{_NS}/connections/{{id}}", socket.say_to_connection),
    ("DELETE", f"{_NS}/connections/{{id}}", socket.close_connection),
    ("GET", f"{_NS}/deadletters", deferred.list_letters),
    ("GET", f"{_NS}/deadletters/{{id}}", deferred.get_letter),
    ("POST", f"{_NS}/deadletters/{{id}}", deferred.replay_letter),
    ("DELETE", f"{_NS}/deadletters/{{id}}", deferred.drop_letter),
    ("GET", "/v2/{tenant}/apis", artifacts.list_documents),
    ("POST", "/v2/{tenant}/apis", artifacts.add_document),
    ("PUT", "/v2/{tenant}/apis", artifacts.put_document),
    ("GET", "/v2/{tenant}/apis/{api}", artifacts.get_document),
    ("PUT", "/v2/{tenant}/apis/{api}", artifacts.replace_document),
    ("DELETE", "/v2/{tenant}/apis/{api}", artifacts.delete_document),
    ("GET", "/v1/tenants", artifacts.list_tenants),
    ("PUT", "/v1/tenants", artifacts.put_tenant),
    ("GET", "/v1/tenants/{tenant}", artifacts.get_tenant),
    ("PUT", "/v1/tenants/{tenant}", artifacts.replace_tenant),
    ("DELETE", "/v1/tenants/{tenant}", artifacts.delete_tenant),
    ("GET", "/v1/tenants/{tenant}/apis", artifacts.list_tenants_apis),
    ("GET", "/v1/apis", artifacts.list_first),
    ("PUT", "/v1/apis", artifacts.put_first),
    ("GET", "/v1/apis/{api}", artifacts.get_first),
    ("PUT", "/v1/apis/{api}", artifacts.replace_first),
    ("DELETE", "/v1/apis/{api}", artifacts.delete_first),
    ("GET", "/v1/apis/{api}/tenant", artifacts.tenant_of_first),
    ("PUT", "/v1/subscriptions", artifacts.put_first_subscription),
    ("DELETE", "/v1/subscriptions", artifacts.drop_first_subscription),
    ("GET", "/v2/{tenant}/subscriptions", subscriptions.list_subscriptions),
    ("POST", "/v2/{tenant}/subscriptions", subscriptions.add_subscription),
    ("PUT", "/v2/{tenant}/subscriptions", subscriptions.put_subscription),
    ("DELETE", "/v2/{tenant}/subscriptions/{client}", subscriptions.drop_subscription),
)
"""With a key."""

WEB: tuple[tuple[str, str, Callable[[gateway.Asked], Awaitable[object]]], ...] = (
    ("POST", f"{_APIS}/createApi", gateway.create_api),
    ("POST", f"{_APIS}/createApi.http", gateway.create_api),
    ("GET", f"{_APIS}/getApi", gateway.get_api),
    ("GET", f"{_APIS}/getApi.http", gateway.get_api),
    ("DELETE", f"{_APIS}/deleteApi", gateway.delete_api),
    ("DELETE", f"{_APIS}/deleteApi.http", gateway.delete_api),
)
"""Web actions that are the platform's own, by the method that clients use: they are found as web actions are."""


class Site:
    """The ASGI application: everything that the door does not answer itself."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._compress_bytes = services.settings.http.compress_bytes
        self._timing = services.settings.http.server_timing
        self._open = {(method, path): handler for method, path, handler in OPEN}
        self._guarded = [(method, compile_path(path)[0], handler) for method, path, handler in GUARDED]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await socket.serve(scope, receive, send, self._services)
            return
        request = Request(scope, receive)
        id = transid.of_request(request.headers.get("x-request-id", "").encode("latin-1", "replace") or None)
        answer: HttpAnswer | EventStream
        try:
            answer = await self._answer(request, id)
        except ClientDisconnect:
            return
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            answer = render(error, id)
        if isinstance(answer, EventStream):
            await events.respond(answer, id, receive, send)
            return
        if answer.ran is not None and self._is_timed(request):
            answer = timing.timed(answer)
        if self._compress_bytes:
            accepted = request.headers.get("accept-encoding", "")
            answer = await encoding.encoded(answer, accepted, self._compress_bytes, is_head=request.method == "HEAD")
        await respond(answer, id, scope, receive, send)

    def _is_timed(self, request: Request) -> bool:
        if self._timing != "asked":
            return self._timing == "always"
        is_asked = request.headers.get(timing.ASKED, "").lower() == "on"
        return is_asked and not request.scope["raw_path"].startswith(webaction.PREFIX.encode())

    async def _answer(self, request: Request, id: str) -> HttpAnswer | EventStream:
        path: str = request.scope["raw_path"].decode("latin-1")
        if len(path) + len(request.scope["query_string"]) > URI_LIMIT_BYTES:
            return error_answer(414, wording.uri_too_long(URI_LIMIT_BYTES), id, is_routed=False)
        domains = self._services.domains
        if domains and INSIDE not in request.scope.get("state", {}):
            domain = domain_of(request.headers.get("host", ""))
            if domain in domains:
                return await managed.at_domain(request, self._services, id, domains[domain], domain)
        is_api = path == API or path.startswith((API + "/", *TENANTS))
        inside: Inside | None = request.scope.get("state", {}).get(INSIDE)
        if path.startswith(webaction.PREFIX):
            address = webaction.parse_address(path)
            if address is not None and gateway.is_own(address.name):
                return await gateway.answer(request, self._services, id, inside, address)
            answer = None if address is None else await web.answer(request, self._services, id, inside, address)
            if answer is None or (isinstance(answer, HttpAnswer) and answer.status == 404 and not answer.activation_id):
                answer = await site.serve(request, self._services) or answer
            if answer is not None:
                return answer
        place = parse_place(path)
        if place is not None:
            return await managed.answer(request, self._services, id, inside, place)
        if path.startswith(hooked.PREFIX):
            return await hooked.answer(request, self._services, id)
        if request.method == "OPTIONS":
            return _options(is_api)
        if inside is not None and not is_api and path != "/":
            return _only_options(id)  # what is an operator's is not a container's
        handler = self._open.get((request.method, path))
        if handler is not None:
            return await handler(request, self._services)
        if not is_api:
            return _only_options(id)
        return await self._guarded_answer(request, path, id, inside)

    async def _guarded_answer(
        self, request: Request, path: str, id: str, inside: Inside | None
    ) -> HttpAnswer | EventStream:
        services = self._services
        peer = request.client.host if request.client else None
        identity = await auth.identify(services.identities, request.headers, peer, inside)
        paths.check_names(request.method, path)
        found = self._match(request.method, path)
        if found is None:
            raise UnknownRoute()
        handler, request.scope["path_params"] = found
        call = Call(
            request=request,
            services=services,
            identity=identity,
            transid=id,
            query=queries.parse_query(request.scope["query_string"]),
            received_ms=services.clock.now_ms(),
        )
        return await handler(call)

    def _match(self, method: str, path: str) -> tuple[Guarded, Mapping[str, str]] | None:
        for verb, pattern, handler in self._guarded:
            if verb == method and (match := _fullmatch(pattern, path)) is not None:
                return handler, match
        return None


def _fullmatch(pattern: re.Pattern[str], path: str) -> dict[str, str] | None:
    match = pattern.match(path)
    return None if match is None else match.groupdict()


def _options(is_api: bool) -> HttpAnswer:
    if is_api:
        return HttpAnswer(200, b"OK", TEXT)
    allowed = (CORS[0], CORS[1], ("Access-Control-Allow-Methods", "OPTIONS, GET, POST"))
    return HttpAnswer(200, b"OK", TEXT, is_routed=False, headers=allowed)


def _only_options(id: str) -> HttpAnswer:
    return error_answer(405, wording.ONLY_OPTIONS, id, is_routed=False, headers=(("Allow", "OPTIONS"),))


async def respond(answer: HttpAnswer, id: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends an answer; the response to HEAD has its head alone."""
    response = Response(answer.body, answer.status)
    del response.headers["content-length"]
    for name, value in answer.all_headers(id):
        response.headers.append(name, value)
    if answer.status not in (204, 304):
        response.headers["content-length"] = str(len(answer.body))
    if log.is_on("debug"):
        client = (scope["client"] or ("unknown",))[0]
        log.debug(
            "api.answered", transid=id, client=client, method=scope["method"], path=scope["path"], status=answer.status
        )
    await response(scope, receive, send)
