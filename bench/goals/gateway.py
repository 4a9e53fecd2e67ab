"""Calls of an API that asks for a key and counts, beside blocking invocations of the same action on the same server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.goals import Goal
from bench.measure import beside_invocations
from bench.server import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Finding
    from bench.rig import Rig

GOAL = Goal("gateway", "calls of an API with a key and a rate limit, 1 and 32 clients")
RATIO = 0.75
KEY = "a-key-of-a-client"
CODE = "const main = () => ({body: {ok: true}})"
DOCUMENT = {
    "swagger": "2.0",
    "info": {"title": "shop", "version": "1"},
    "basePath": "/shop",
    "paths": {
        "/page": {
            "get": {
                "operationId": "page",
                "responses": {},
                "x-visp-quota": {"rate": 10**9, "unit": "day", "by": "key"},
            }
        }
    },
    "securityDefinitions": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
    "x-ibm-configuration": {
        "cors": {"enabled": True},
        "assembly": {
            "execute": [{"invoke": {"target-url": "http://here/api/v1/web/guest/default/page.http", "verb": "keep"}}]
        },
    },
}


def measure(rig: Rig) -> Iterator[Finding]:
    with platform() as visp:
        visp.put_action("page", CODE, annotations={"web-export": True})
        visp.put_api(DOCUMENT, client=KEY)
        yield from beside_invocations(
            GOAL.name,
            rig.rounds,
            rig.seconds,
            RATIO,
            lambda clients, seconds: visp.load_api("/shop/page", KEY, clients=clients, seconds=seconds),
            lambda clients, seconds: visp.load("actions/page", clients=clients, seconds=seconds),
        )
