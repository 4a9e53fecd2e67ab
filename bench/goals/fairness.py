"""What a tenant feels while another one floods: warm calls by one client, beside the same on a quiet server."""

from __future__ import annotations

import contextlib
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import load, stock
from bench.goals import Goal
from bench.measure import Chart, Finding, cdf, interleaved, ratio, spread
from bench.server import NOOP, Platform, platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.load import Load
    from bench.rig import Rig

GOAL = Goal("fairness", "warm calls of a tenant while another floods with 64 clients")
TENANT = "tenant"
CLIENTS = 64
GROWTH = 1.10
SLOW_MS = 50
SLOW = f"function main() {{ return new Promise((done) => setTimeout(() => done({{}}), {SLOW_MS})) }}"
BEFORE_S, AFTER_S = 0.5, 1
"""The flood begins so much earlier and lasts so much longer than what is measured."""


class Flood(msgspec.Struct, frozen=True):
    """What the other tenant does; `service_ms` is what one of it takes, None where it is as quick as the tenant's."""

    what: str
    action: str
    query: str
    service_ms: float | None


FLOODS = (
    Flood(f"a flood of a {SLOW_MS} ms action", "slow", "blocking=true", SLOW_MS),
    Flood("a flood of no-ops", "noop", "blocking=true", None),
    Flood("a flood of accepted no-ops", "noop", "blocking=false", None),
)


def measure(rig: Rig) -> Iterator[Finding | Chart]:
    with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
        data_dir = Path(folder) / "data"
        key = stock.make_key(data_dir, TENANT)
        with (
            platform(data_dir=data_dir) as flooding,
            contextlib.closing(Platform(flooding.url, flooding.pid, key)) as tenant,
        ):
            flooding.put_action("slow", SLOW, memory_mb=128)
            flooding.put_action("noop", NOOP, memory_mb=128)
            tenant.put_action("noop", NOOP, memory_mb=128)
            curves = []
            for flood in FLOODS:
                flooded, quiet = interleaved(
                    rig.rounds,
                    partial(beside, flooding, tenant, flood, rig.seconds),
                    partial(calm, tenant, rig.seconds),
                )
                yield from _findings(flood, flooded, quiet)
                curves.append(cdf(f"beside {flood.what}", flooded))
    yield Chart(
        name="fairness",
        title="Warm calls of one client while another tenant floods",
        x_label="milliseconds at most",
        y_label="% of calls",
        series=(cdf("quiet", quiet), *curves),
        style="step",
        is_x_log=True,
    )


def calm(tenant: Platform, seconds: int) -> Load:
    return tenant.load("actions/noop", clients=1, seconds=seconds)


def beside(flooding: Platform, tenant: Platform, flood: Flood, seconds: int) -> Load:
    """The tenant's calls while the flood lasts."""
    going = flooding.begin_load(
        f"actions/{flood.action}", clients=CLIENTS, seconds=seconds + AFTER_S + 1, query=flood.query
    )
    time.sleep(BEFORE_S)
    felt = tenant.load("actions/noop", clients=1, seconds=seconds)
    load.finish(going, may_refuse=True)
    flooding.settle()
    return felt


def _findings(flood: Flood, flooded: list[Load], quiet: list[Load]) -> Iterator[Finding]:
    service_ms = flood.service_ms
    if service_ms is None:
        service_ms = spread(felt.p50_us / 1000 for felt in quiet).median
    for what, ours, floor in (
        ("p50", [felt.p50_us / 1000 for felt in flooded], [felt.p50_us / 1000 for felt in quiet]),
        ("p99", [felt.p99_us / 1000 for felt in flooded], [felt.p99_us / 1000 for felt in quiet]),
    ):
        over = spread(own - GROWTH * calm for own, calm in zip(ours, floor, strict=True))
        yield Finding(
            goal=GOAL.name,
            what=f"{what} beside {flood.what}; floor: quiet",
            unit="ms",
            ours=spread(ours),
            floor=spread(floor),
            ratio=ratio(ours, floor),
            promise=f"≤ {GROWTH:.2f} × quiet + {service_ms:.3g} ms",
            is_met=over.median <= service_ms,
            note="" if flood.service_ms is not None else "the milliseconds are one service time of the flood's action",
        )
