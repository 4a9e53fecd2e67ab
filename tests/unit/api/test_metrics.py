"""The text of a scrape, as Prometheus' own parser reads it, and who may have it."""

from __future__ import annotations

import base64
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from visp.api.metrics import CONTENT_TYPE, expose, metrics
from visp.controller.identities import Identities
from visp.entity.subject import SYSTEM
from visp.errors import Forbidden, Unauthorized
from visp.settings import Limits
from visp.store.memory import MemoryEntities
from visp.telemetry.metrics import Distribution, Family, Registry

FAMILIES = [
    Family("visp_a_total", "Counts.", "counter", {("x", 'y"\n'): 3, ("x", "z"): 4}, ("kind", "reason")),
    Family("visp_b", "Is.", "gauge", {(): 7}),
    Family(
        "visp_c_seconds",
        "Takes.",
        "histogram",
        {("run",): Distribution(((0.5, 1), (1.0, 3), (float("inf"), 4)), 6.5)},
        ("phase",),
    ),
]


FIRST_SCRAPES = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from visp.api.metrics import expose
from visp.telemetry.metrics import Family

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("prometheus_client"):
            importing.add(threading.get_ident())
            time.sleep(0.01)

importing = set()
sys.meta_path.insert(0, Slow())
with ThreadPoolExecutor(100) as pool:
    scrapes = []
    for _ in range(100):
        scrapes.append(pool.submit(expose, [Family("a", "", "gauge", {(): 1})], {}))
        time.sleep(0.004)
    for scrape in scrapes:
        scrape.result()
print(len(importing), file=sys.stderr)
"""


def test_first_scrapes_at_once_do_not_import_at_once() -> None:
    """The library's modules import each other: two threads in them at once can see one half made."""
    done = subprocess.run([sys.executable, "-c", FIRST_SCRAPES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "1\n")


def test_what_is_exposed_reads_back() -> None:
    read = {family.name: family for family in text_string_to_metric_families(expose(FAMILIES, {"shard": "0"}).decode())}
    assert {name: family.type for name, family in read.items()} == {
        "visp_a": "counter",
        "visp_b": "gauge",
        "visp_c_seconds": "histogram",
    }
    assert [(s.name, s.labels, s.value) for s in read["visp_a"].samples] == [
        ("visp_a_total", {"shard": "0", "kind": "x", "reason": 'y"\n'}, 3.0),
        ("visp_a_total", {"shard": "0", "kind": "x", "reason": "z"}, 4.0),
    ]
    assert [(s.name, s.labels, s.value) for s in read["visp_b"].samples] == [("visp_b", {"shard": "0"}, 7.0)]
    durations = {(s.name, s.labels.get("le")): s.value for s in read["visp_c_seconds"].samples}
    assert durations == {
        ("visp_c_seconds_bucket", "0.5"): 1.0,
        ("visp_c_seconds_bucket", "1.0"): 3.0,
        ("visp_c_seconds_bucket", "+Inf"): 4.0,
        ("visp_c_seconds_count", None): 4.0,
        ("visp_c_seconds_sum", None): 6.5,
    }


@pytest.fixture
def services() -> Any:
    registry = Registry({"shard": "0"})
    registry.add(lambda: FAMILIES)
    identities = Identities(MemoryEntities(), b"s" * 32, Limits(), is_loopback=False)
    return SimpleNamespace(metrics=registry, identities=identities)


def request(peer: str, **headers: str) -> Request:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/metrics", "headers": pairs, "client": (peer, 1)})


async def test_on_this_machine_anyone_reads(services: Any) -> None:
    answer = await metrics(request("127.0.0.1", host="localhost:3233"), services)
    assert (answer.status, answer.content_type) == (200, CONTENT_TYPE)
    assert b'visp_b{shard="0"} 7.0' in answer.body


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.0.0.9", {"host": "localhost:3233"}),
        ("127.0.0.1", {"host": "rebound.example:3233"}),
        ("127.0.0.1", {"host": "localhost:3233", "origin": "http://page.example"}),
    ],
)
async def test_others_need_the_systems_key(services: Any, peer: str, headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        await metrics(request(peer, **headers), services)
    for namespace, is_enough in (("guest", False), (SYSTEM, True)):
        key = await services.identities.ensure(namespace)
        auth = "Basic " + base64.b64encode(str(key).encode()).decode()
        if is_enough:
            assert (await metrics(request(peer, authorization=auth, **headers), services)).status == 200
        else:
            with pytest.raises(Forbidden):
                await metrics(request(peer, authorization=auth, **headers), services)
