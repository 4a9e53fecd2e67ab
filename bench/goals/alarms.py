"""Many alarms of one server: how late each fires."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from bench.goals import Goal
from bench.load import Broken
from bench.measure import Finding, spread
from bench.server import HELLO_PYTHON, PYTHON_KIND, platform
from visp.client.connection import Connection
from visp.client.credentials import GUEST_AUTH, Credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.rig import Rig
    from bench.server import Platform

GOAL = Goal("alarms", "how late the alarms of one process fire, 10,000 of them in a minute")
LATE_MS = 200.0
THREADS = 8
A_SECOND = 10_000 / 60
"""Alarms that are due in a second."""
PAGE = 200
LATER_S = 20.0


def measure(rig: Rig) -> Iterator[Finding]:
    """Each is due at a time of its own, evenly over the minute, and fires one rule."""
    with platform() as visp:
        visp.put_action("heard", HELLO_PYTHON, PYTHON_KIND)
        names = [f"alarm-{number}" for number in range(rig.alarms)]
        _together(visp, [("PUT", f"triggers/{name}", {}) for name in names])
        rules = [("PUT", f"rules/{name}-r", {"trigger": f"/_/{name}", "action": "/_/heard"}) for name in names]
        _together(visp, rules)
        begin_ms = int(time.time() * 1000 + rig.alarms * 8 + 2_000)  # until the last one is made
        due = {name: begin_ms + int(number * 1000 / A_SECOND) for number, name in enumerate(names)}
        made = [("PUT", f"feeds/{name}", {"feed": "alarms/once", "parameters": {"date": due[name]}}) for name in names]
        _together(visp, made)
        if time.time() * 1000 > begin_ms:
            raise Broken("the alarms were not made before the first was due")
        time.sleep((max(due.values()) / 1000 - time.time()) + LATER_S)
        late = sorted(_fired(visp, due))
    if len(late) != len(names):
        raise Broken(f"{len(late)} of {len(names)} alarms fired")
    worst = float(late[int(len(late) * 0.99)])
    yield Finding(
        goal=GOAL.name,
        what=f"{len(names):,} alarms in {len(names) / A_SECOND:.0f} s: p99",
        unit="ms late",
        ours=spread([worst]),
        promise=f"≤ {LATE_MS:.0f} ms",
        is_met=worst <= LATE_MS,
        note=f"p50 {late[len(late) // 2]} ms, at most {late[-1]} ms",
    )


def _together(visp: Platform, asked: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """Some at a time: each waits for its own sync."""

    def ask(part: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        connection = Connection(Credentials(apihost=visp.url, auth=GUEST_AUTH))
        for method, path, body in part:
            answer = connection.request(method, f"/api/v1/namespaces/_/{path}", msgspec.json.encode(body))
            if not answer.is_success:
                raise Broken(f"{method} {path}: {answer.status} {answer.body[:200]!r}")
        connection.close()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(ask, [asked[first::THREADS] for first in range(THREADS)]))


def _fired(visp: Platform, due: dict[str, int]) -> Iterator[int]:
    """How late each was, by its trigger's record."""
    skip = 0
    while True:
        page = msgspec.json.decode(visp.get(f"/api/v1/namespaces/_/activations?limit={PAGE}&skip={skip}"))
        for record in page:
            if record["name"] in due:
                yield max(0, record["start"] - due[record["name"]])
        if len(page) < PAGE:
            return
        skip += PAGE
