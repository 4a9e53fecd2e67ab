"""Routes without authentication: what this server is, whether it lives, whether it is ready."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Literal

from visp import __version__, wording
from visp.api.errors import JSON, TEXT, HttpAnswer, json_answer
from visp.entity import limits
from visp.entity.runtime_manifest import render_runtimes

if TYPE_CHECKING:
    from starlette.requests import Request

    from visp.api.context import Services

ISSUES = "https://github.com/apache/openwhisk/issues"
SLACK = "http://slack.openwhisk.org"
DOCKER_SDK = "https://github.com/apache/openwhisk-runtime-docker/releases/download/sdk%400.1.0/blackbox-0.1.0.tar.gz"
IOS_SDK = "https://github.com/openwhisk/openwhisk-client-swift/releases/download/0.2.3/starterapp-0.2.3.zip"
OPENAPI_MARKS = ("application/vnd.oai.openapi+json", "openapi=3.1")
"""In `Accept`: OpenAPI 3.1 is wanted."""


async def root(_: Request, services: Services) -> HttpAnswer:
    """The info document, as deployment tools read it; numbers are what an ordinary namespace gets."""
    defaults = services.settings.limits
    duration, memory, logs = limits.TIMEOUT_MS, limits.MEMORY_MB, limits.LOGS_MB
    bounds = {
        "min_action_duration": duration.low,
        "max_action_duration": duration.high,
        "min_action_memory": memory.low * limits.MIB,
        "max_action_memory": memory.high * limits.MIB,
        "min_action_logs": logs.low * limits.MIB,
        "max_action_logs": logs.high * limits.MIB,
    }
    document = {
        "description": "OpenWhisk",
        "support": {"github": ISSUES, "slack": SLACK},
        "api_paths": ["/api/v1"],
        "limits": {
            "actions_per_minute": defaults.invocations_per_minute,
            "triggers_per_minute": defaults.fires_per_minute,
            "concurrent_actions": defaults.concurrent_invocations,
            "sequence_length": limits.SEQUENCE_LIMIT,
        }
        | {f"default_{name}": value for name, value in bounds.items()}
        | bounds,
        "runtimes": render_runtimes(services.manifest),
    }
    return json_answer(document, is_routed=False)


async def api(_: Request, services: Services) -> HttpAnswer:
    """What the API is; `wsk property get` shows `build` and `buildno`."""
    return json_answer(
        {
            "description": "OpenWhisk API",
            "api_version": "1.0.0",
            "api_version_path": "v1",
            "build": services.build,
            "buildno": f"visp-{__version__}",
            "swagger_paths": {"ui": "/docs", "api-docs": "/api-docs"},
        }
    )


async def ping(_: Request, __: Services) -> HttpAnswer:
    return HttpAnswer(200, b"pong", TEXT, is_routed=False)


async def ready(_: Request, services: Services) -> HttpAnswer:
    """200 once containers may run and recovery is over; else 503 with what is missing."""
    reason = services.unready()
    if reason is None:
        return HttpAnswer(200, b"ready", TEXT, is_routed=False)
    return HttpAnswer(503, reason.encode(), TEXT, is_routed=False, headers=(("Retry-After", "1"),))


async def invokers(_: Request, services: Services) -> HttpAnswer:
    """Invokers and their health, as OpenWhisk's operators ask for it."""
    states = {f"invoker{entry.id}/0": "up" if entry.is_up else "down" for entry in services.fleet.view()}
    return json_answer(states, is_routed=False)


async def healthy_invokers(_: Request, services: Services) -> HttpAnswer:
    return json_answer(sum(entry.is_up for entry in services.fleet.view()), is_routed=False)


async def invokers_ready(_: Request, services: Services) -> HttpAnswer:
    fleet = services.fleet.view()
    healthy = f"{sum(entry.is_up for entry in fleet)}/{len(fleet)}"
    is_ready = bool(fleet) and all(entry.is_up for entry in fleet)
    return json_answer({"healthy" if is_ready else "unhealthy": healthy}, 200 if is_ready else 500, is_routed=False)


async def active_activations(_: Request, services: Services) -> HttpAnswer:
    """The ids of activations in flight."""
    return json_answer(services.acks.ids(), is_routed=False)


async def disable(request: Request, services: Services) -> HttpAnswer:
    """Takes this server out of service: it says that it is not ready, and goes on with what it is asked."""
    operator = services.settings.operator
    expected = f"{operator.user}:{operator.password}".encode()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    try:
        presented = base64.b64decode(given, validate=True) if scheme.lower() == "basic" else b""
    except binascii.Error:
        presented = b""
    is_set = bool(operator.user and operator.password)
    if not hmac.compare_digest(presented, expected) or not is_set:
        return HttpAnswer(401, wording.OPERATOR_WRONG.encode(), TEXT, is_routed=False)
    services.disable()
    return HttpAnswer(200, wording.DISABLED.encode(), TEXT, is_routed=False)


async def docker_sdk(_: Request, __: Services) -> HttpAnswer:
    """What `wsk sdk install docker` asks for: where OpenWhisk's own edge sends it."""
    return HttpAnswer(301, headers=(("Location", DOCKER_SDK),), is_routed=False)


async def ios_sdk(_: Request, __: Services) -> HttpAnswer:
    """The same of `wsk sdk install ios`."""
    return HttpAnswer(301, headers=(("Location", IOS_SDK),), is_routed=False)


async def in_flight(_: Request, services: Services) -> HttpAnswer:
    """How many activations are in flight."""
    return json_answer(len(services.acks), is_routed=False)


async def api_docs(request: Request, _: Services) -> HttpAnswer:
    """The API as a document: Swagger 2.0, which old clients read, or OpenAPI 3.1 for those who ask for it."""
    accept = request.headers.get("accept", "")
    is_new = request.query_params.get("version") == "3.1" or any(mark in accept for mark in OPENAPI_MARKS)
    body = await asyncio.to_thread(_document, "openapi" if is_new else "swagger")
    return HttpAnswer(200, body, JSON, headers=(("Vary", "Accept"),))


async def docs(_: Request, __: Services) -> HttpAnswer:
    return HttpAnswer(308, headers=(("Location", "docs/index.html?url=/api/v1/api-docs"),))


async def docs_page(_: Request, __: Services) -> HttpAnswer:
    """The same document to read. What `url` says is not looked at: the page is about this server."""
    body = await asyncio.to_thread(_document, "page")
    from visp.api.page import POLICY  # the page was made by now

    headers = (("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"))
    return HttpAnswer(200, body, "text/html; charset=UTF-8", headers=headers)


def _document(form: Literal["openapi", "swagger", "page"]) -> bytes:
    """Made, and all that makes it imported, when it is first asked for: it takes a tenth of a second."""
    from visp.api import openapi

    return openapi.FORMS[form]()
