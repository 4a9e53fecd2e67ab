"""Changes of one CouchDB database: how fast they become fires, and that none is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from bench.couch import NAME, PASSWORD, USER, couch
from bench.goals import Goal
from bench.load import Broken
from bench.measure import Finding, spread
from bench.server import NOOP, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig
    from bench.server import Platform

GOAL = Goal("changes", "changes of one CouchDB database that become fires of a trigger with one rule")
FIRED_PER_S = 5_000
PAGE = 200
PATIENCE_S = 300.0
POLL_S = 0.05


def measure(rig: Rig) -> Iterator[Finding]:
    """All are there at once; a fire counts when it is accepted durably and the source's position is kept."""
    with couch() as source, platform() as visp:
        visp.put_action("noop", NOOP)
        visp.put("triggers", "event", {})
        visp.put("rules", "on-event", {"trigger": "/_/event", "action": "/_/noop"})
        parameters = {
            "host": "127.0.0.1",
            "port": source.port,
            "protocol": "http",
            "dbname": NAME,
            "username": USER,
            "password": PASSWORD,
        }
        visp.put("feeds", "event", {"feed": "cloudant/changes", "parameters": parameters})
        rates, total = [], 0
        for _ in range(rig.bursts):
            _until(visp, lambda status: status["state"] == "live")
            began_s = time.monotonic()
            source.offer(rig.changes)
            total += rig.changes
            _until(visp, lambda status, total=total: status["fired"] >= total)
            rates.append(rig.changes / (time.monotonic() - began_s))
            visp.settle()
        fired = _fired(visp)
    if len(fired) != total or len(set(fired)) != total:
        raise Broken(f"{len(set(fired)):,} of {total:,} changes were fired, {len(fired) - len(set(fired)):,} twice")
    rate = spread(rates)
    yield Finding(
        goal=GOAL.name,
        what=f"{rig.changes:,} changes at once: fires",
        unit="/s",
        ours=rate,
        promise=f"≥ {FIRED_PER_S:,} /s",
        is_met=rate.median >= FIRED_PER_S,
        note="each fired once",
    )


def _until(visp: Platform, is_so: Any) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so(status := msgspec.json.decode(visp.get("/api/v1/namespaces/_/feeds/event"))["status"]):
        if time.monotonic() > until_s:
            raise Broken(f"the feed stands still: {status}")
        time.sleep(POLL_S)


def _fired(visp: Platform) -> list[str]:
    """The documents that were told."""
    found: list[str] = []
    while True:
        path = f"/api/v1/namespaces/_/activations?name=event&docs=true&limit={PAGE}&skip={len(found)}"
        page = msgspec.json.decode(visp.get(path))
        found += [record["response"]["result"]["id"] for record in page]
        if len(page) < PAGE:
            return found
