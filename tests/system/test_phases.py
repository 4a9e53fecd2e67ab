"""A record says where its time went and why it began cold; `/metrics` counts the same."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tests.system.conftest import Api
from tests.system.traces import annotation, stored

from visp.client.running import Server
from visp.entity.activation import PHASES

KIND = "nodejs:20"
FIRST = "function main () { console.log('hi'); return { n: 1 } }"
SECOND = "function main () { return { n: 2 } }"


def told(api: Api, name: str) -> Any:
    """What the stored record of a blocking run says of its phases."""
    answer = api.invoke(name)
    assert answer.status == 200, answer
    assert annotation(answer.json, "visp") is None, "answers are OpenWhisk's to the letter"
    path = f"activations/{answer.json['activationId']}"
    assert annotation(stored(api, answer.json["activationId"]), "visp") is None
    found = annotation(api.get(f"{path}?phases=true").json, "visp")
    reached = [found["phases_us"][name] for name in PHASES if name in found["phases_us"]]
    assert reached == sorted(reached)
    assert reached[0] >= 0
    return found


def counted(api: Api) -> dict[str, float]:
    """Every sample by its name, summed over labels."""
    answer = api.request("GET", "/metrics")
    assert answer.status == 200
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            assert sample.labels["shard"] == "0"
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def test_a_record_says_why_it_was_cold_and_where_its_time_went(api: Api) -> None:
    before = counted(api)
    api.action("phases", FIRST, KIND)
    cold = told(api, "phases")
    assert cold["cold"] == "first use"
    assert {"queued", "placed", "initialised", "run", "answered", "logs", "stored"} <= set(cold["phases_us"])
    warm = told(api, "phases")
    assert "cold" not in warm
    assert set(warm["phases_us"]) == {"queued", "placed", "run", "answered", "logs", "stored"}
    api.action("phases", SECOND, KIND)
    assert told(api, "phases")["cold"] == "new revision"
    after = counted(api)
    assert after["visp_activations_total"] - before.get("visp_activations_total", 0) >= 3
    assert after["visp_cold_starts_total"] - before.get("visp_cold_starts_total", 0) >= 2
    assert after["visp_phase_seconds_count"] > before["visp_phase_seconds_count"]
    assert after["visp_pool_memory_limit_bytes"] >= after["visp_pool_memory_used_bytes"] > 0


def test_lists_say_it_too(api: Api) -> None:
    api.action("listed", FIRST, KIND)
    id = api.invoke("listed").json["activationId"]
    stored(api, id)
    for query in ("name=listed", "name=listed&docs=true"):
        assert annotation(api.get(f"activations?{query}").json[0], "visp") is None
        assert annotation(api.get(f"activations?{query}&phases=true").json[0], "visp")["cold"] == "first use"
    assert api.get(f"activations/{id}?phases=perhaps").status == 400


def test_a_trigger_and_a_sequence_have_none(api: Api) -> None:
    api.action("part", FIRST, KIND)
    put = api.request("PUT", "actions/both", {"exec": {"kind": "sequence", "components": ["/_/part", "/_/part"]}})
    assert put.status == 200, put
    id = api.invoke("both").json["activationId"]
    assert annotation(api.get(f"activations/{id}?phases=true").json, "visp") is None


def test_metrics_are_not_for_pages_that_resolve_to_this_machine(api: Api) -> None:
    guest = api.request("GET", "/metrics", headers={"Host": "rebound.example"})
    nobody = Api(api.url, None).request("GET", "/metrics", headers={"Host": "rebound.example"})
    assert (guest.status, nobody.status) == (401, 401)


def test_the_command_draws_it(api: Api, server: Server) -> None:
    api.action("drawn", FIRST, KIND)
    id = api.invoke("drawn").json["activationId"]
    stored(api, id)
    command = [sys.executable, "-m", "visp", "activation", "get", id, "--timeline", "--apihost", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"WSK_CONFIG_FILE": ""})
    assert done.returncode == 0, done.stderr
    assert "cold start, first use" in done.stdout
    assert "code initialised" in done.stdout
