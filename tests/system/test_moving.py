"""Export beside a server under its own data, import elsewhere, and OpenWhisk's dumps: a server shows what came."""

from __future__ import annotations

import json
import stat
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.system import test_site as site
from tests.system.conftest import Api
from tests.system.places import TRUSTING, Place, opened
from tests.system.test_apis import Apis
from tests.system.test_retries import until
from tests.unit import dumps

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow  # two servers each

ECHO = "def main(p): return {'n': p.get('n'), 'pad': 'x' * p.get('size', 0)}"
PAGE = b"<p>shop</p>" * 200
LARGE = ECHO + "\n# " + "y" * 20_000


@pytest.fixture
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


@pytest.fixture
def other() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


def documents(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        found = {info.name: tar.extractfile(info) for info in tar}
        return {name: content.read() for name, content in found.items() if content and name != "manifest.json"}


def make(api: Api) -> None:
    """One of each, and activations of several shards."""
    for path, body in (
        ("packages/pkg", {"parameters": [{"key": "size", "value": 3}], "publish": True}),
        ("packages/bound", {"binding": {"namespace": "_", "name": "pkg"}}),
        ("actions/echo", {"exec": {"kind": "python:3.11", "code": ECHO}, "annotations": [{"key": "a", "value": 1.0}]}),
        ("actions/pkg/large", {"exec": {"kind": "python:3.11", "code": LARGE}, "limits": {"memory": 128}}),
        ("actions/seq", {"exec": {"kind": "sequence", "components": ["/_/echo", "/_/bound/large"]}}),
        ("triggers/t", {"parameters": [{"key": "n", "value": 5}]}),
        ("triggers/quiet", {}),
        ("rules/r", {"trigger": "/_/t", "action": "/_/echo", "annotations": [{"key": "retry", "value": {}}]}),
        ("rules/off", {"trigger": "/_/t", "action": "/_/seq"}),
    ):
        answer = api.request("PUT", path, body)
        assert answer.status == 200, (path, answer)
    assert api.request("POST", "rules/off", {"status": "inactive"}).status == 200
    assert Apis(api).add("/shop", "/items", "GET", "echo").status == 200
    subscription = {"artifact_id": "/shop", "client_id": "caller", "client_secret": "between us"}
    assert api.request("POST", "/v2/_/subscriptions", subscription).status == 200
    assert site.put(api, {"index.html": PAGE}, "pkg").status == 200
    for n in range(4):
        assert api.invoke("echo", {"n": n, "size": 70_000 if n == 1 else 1}).status == 200
    assert api.invoke("seq", {"n": 1}).status == 200
    assert api.request("POST", "triggers/t", {"x": 1}).status == 202
    until(lambda: len(listed(api)) == 9)


def listed(api: Api) -> list[Any]:
    found: list[Any] = api.get("activations?limit=200&docs=true").json
    return found


def shown(api: Api) -> dict[str, Any]:
    """Everything that the API tells of a namespace."""
    out: dict[str, Any] = {}
    for collection in ("packages", "actions", "triggers", "rules"):
        for summary in api.get(f"{collection}?limit=200").json:
            path = "/".join((*summary["namespace"].split("/")[1:], summary["name"]))
            out[f"{collection}/{path}"] = api.get(f"{collection}/{path}").json
    for entry in Apis(api).found():
        out["an api"] = entry["apidoc"]
    out["clients"] = api.get("/v2/_/subscriptions?artifact_id=/shop").json
    out["a page"] = api.get("/api/v1/web/alice/pkg/index.html").body.decode()
    for record in listed(api):
        out[record["activationId"]] = api.request("GET", f"activations/{record['activationId']}?phases=true").json
    return out


def test_everything_moves(place: Place, other: Place) -> None:
    server = place.start(*TRUSTING, workers=2)
    alice = place.admin("user", "create", "alice").stdout.strip()
    place.admin("limits", "set", "alice", "-l", "invocationsPerMinute", "900")
    until(lambda: Api(server.url, alice).get("actions").status == 200)
    make(Api(server.url, alice))
    before = shown(Api(server.url, alice))

    one, two = place.folder / "one.tar.gz", place.folder / "two.tar.gz"
    done = place.admin("export", one)
    assert done.returncode == 0, done
    assert done.stdout == (
        f"{one}: 2 packages, 3 actions, 2 triggers, 2 rules, 2 subjects, 1 limits, 1 APIs, 1 clients, 9 activations, "
        "1 large code, 2 files of sites\n"
    )
    assert "keys are in clear in it" in done.stderr
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    done = place.admin("import", one)
    assert (done.returncode, "another server uses" in done.stderr) == (1, True)

    for table, count in (("whisks", 9), ("subjects", 3), ("activations", 9)):
        done = place.admin("db", "get", table)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert (done.returncode, len(found)) == (0, count), done
        assert alice.partition(":")[2] not in done.stdout
    assert alice.partition(":")[2] in place.admin("db", "get", "subjects", "--keys").stdout

    done = other.admin("import", one)
    assert done.returncode == 0, done
    assert done.stdout.startswith(
        "imported 2 packages, 3 actions, 2 triggers, 2 rules, 2 subjects, 1 limits, 1 APIs, 1 clients, 9"
    )
    moved = Api(other.start(*TRUSTING).url, alice)
    assert shown(moved) == before
    assert moved.get("limits").json["invocationsPerMinute"] == 900
    assert moved.run("bound/large", {"n": 8}) == {"n": 8, "pad": "xxx"}
    assert moved.request("POST", "triggers/t", {}).status == 202
    assert moved.request("POST", "rules/off", {"status": "active"}).status == 200
    until(lambda: len(listed(moved)) == 12)

    with two.open("wb") as file:
        done = other.admin("export", "-", stdout=file, capture_output=False, stderr=subprocess.PIPE)
    assert done.returncode == 0, done
    old, new = documents(one), documents(two)
    assert {name: new[name] for name in old if not name.startswith(("activations", "triggers"))} == {
        name: old[name] for name in old if not name.startswith(("activations", "triggers"))
    }
    assert set(old["activations-000001.ndjson"].splitlines()) < set(new["activations-000001.ndjson"].splitlines())


def test_openwhisk(place: Place) -> None:
    start_ms = time.time_ns() // 1_000_000 - 60_000
    files = [
        dumps.all_docs(place.folder / "subjects.json", dumps.subjects()),
        dumps.all_docs(place.folder / "whisks.json", dumps.whisks()),
        dumps.all_docs(place.folder / "activations.json", dumps.activations(start_ms)),
    ]
    dry = place.admin("import-openwhisk", *files, "--dry-run")
    assert not place.data_dir.exists()
    done = place.admin("import-openwhisk", *files, "--ids", place.folder / "ids")
    assert dry.returncode == done.returncode == 1
    assert dry.stdout.replace("would import", "imported") == done.stdout
    assert "\nskipped alice/s3: its code is kept outside" in done.stdout
    assert (
        "imported 2 packages, 7 actions, 1 triggers, 2 rules, 3 subjects, 1 limits, 0 APIs, 0 clients, 4 activations"
        in done.stdout
    )
    assert done.stdout.endswith("\nskipped 6\n")
    assert "warning: alice/wide: it cannot run with its limits" in done.stderr

    ids = dict(line.split("\t") for line in (place.folder / "ids").read_text().splitlines())
    api = Api(place.start(*TRUSTING).url, dumps.ALICE)
    assert api.get("actions/tools/large").json["exec"]["code"] == dumps.LARGE
    assert api.run("mem", {"n": 1}) == {"n": 2}
    assert api.run("seq") == {"n": 2}
    assert (api.get("rules/r").json["status"], api.get("rules/old").json["status"]) == ("active", "inactive")
    whole = api.record(ids[dumps.SEQUENCE_ID])
    assert whole["logs"] == [ids[dumps.PART_ID]]
    assert api.record(ids[dumps.PART_ID])["cause"] == ids[dumps.SEQUENCE_ID]
    fired = api.record(ids[dumps.FIRE_ID])
    assert "end" not in fired
    assert json.loads(fired["logs"][0])["activationId"] == ids[dumps.RUN_ID]
    assert api.request("POST", "triggers/t", {"n": 6}).status == 202
    until(lambda: any(record["response"]["result"] == {"n": 7} for record in listed(api)))
    assert Api(api.url, "33333333-2222-4333-8444-555555555555:" + "b" * 64).get("actions").status == 401
    assert place.admin("check").returncode == 0
