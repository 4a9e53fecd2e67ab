"""Who may do what over HTTP: every verb, every kind of entity, own, foreign, no namespace, with good and bad keys."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.system.conftest import GUEST, Api, has_sandbox

from visp import premises
from visp.client import running
from visp.controller.identities import Identities
from visp.entity.subject import GUEST_KEY, GUEST_UUID, AuthKey
from visp.settings import Limits, Settings
from visp.store.sqlite import SqliteEntities

API = "/api/v1/namespaces"
ID = "0" * 32
CODE = {"exec": {"kind": "nodejs:20", "code": "function main() { return {} }"}}


async def prepare(data_dir: Path) -> dict[str, str]:
    """Makes keys for three namespaces in the data folder of a server that is yet to start; `uuid:key` by namespace."""
    store = await SqliteEntities.open(data_dir / "entities.db")
    identities = Identities(store, premises.read_secret(Settings(), data_dir), Limits(), is_loopback=True)
    keys: dict[str, AuthKey | None] = {}
    for namespace in ("other", "narrow", "blocked"):
        keys[namespace] = await identities.ensure(namespace)
    [blocked] = await store.keys_of("blocked")
    await store.put_key(msgspec.structs.replace(blocked, is_blocked=True))
    narrow = {
        "invocationsPerMinute": 1,
        "firesPerMinute": 2,
        "maxActionMemory": 256,
        "maxPayloadSize": "1 KB",
        "maxParameterSize": "100 B",
        "allowedKinds": ["nodejs:20"],
        "storeActivations": True,
    }
    await store.put_limits("narrow", json.dumps(narrow).encode())
    await store.close()
    return {namespace: str(key) for namespace, key in keys.items()}


@pytest.fixture(scope="module")
def apis() -> Iterator[dict[str, Api]]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "data"
        data_dir.mkdir(mode=0o700)
        keys = asyncio.run(prepare(data_dir))
        server = running.start(data_dir)
        try:
            apis = {namespace: Api(server.url, key) for namespace, key in keys.items()}
            apis |= {"guest": Api(server.url), "nobody": Api(server.url, None)}
            for api in (apis["guest"], apis["other"]):
                for path, body in (
                    ("actions/a", CODE),
                    ("triggers/t", {}),
                    ("rules/r", {"trigger": "/_/t", "action": "/_/a"}),
                ):
                    assert api.request("PUT", path, body).status == 200
            yield apis
            assert "ERROR" not in server.read_log()
        finally:
            server.stop()
            server.log.unlink(missing_ok=True)


OWN = {
    # path: GET, PUT (no overwrite), POST, DELETE of what is not there, or of what is
    "actions": (200, 404, 404, 404),
    "actions/": (200, 404, 404, 404),
    "actions/a": (200, 409, 202, None),
    "actions/absent": (404, None, 404, 404),
    "actions/t": (409, 409, 409, 409),
    "actions/pkg/": (404, 404, 404, 404),
    "actions/pkg/a": (404, 404, 404, 404),
    "triggers": (200, 404, 404, 404),
    "triggers/t": (200, 409, 202, None),
    "triggers/absent": (404, None, 404, 404),
    "triggers/a": (409, 409, 409, 409),
    "triggers/a/b": (404, 404, 404, 404),
    "rules": (200, 404, 404, 404),
    "rules/r": (200, 409, 200, None),
    "rules/absent": (404, None, 404, 404),
    "rules/a": (409, 409, 409, 409),
    "activations": (200, 404, 404, 404),
    f"activations/{ID}": (404, 404, 404, 404),
    f"activations/{ID}/logs": (404, 404, 404, 404),
    f"activations/{ID}/result": (404, 404, 404, 404),
    f"activations/{ID}/other": (404, 404, 404, 404),
    "limits": (200, 404, 404, 404),
    "limits/x": (400, 404, 404, 404),
    "packages": (200, 404, 404, 404),
    "packages/absent": (404, None, 404, 404),
    "nothing": (404, 404, 404, 404),
    "": (404, 404, 404, 404),
}
VERBS = ("GET", "PUT", "POST", "DELETE")
OWN_CELLS = [
    (verb, path, status)
    for path, row in OWN.items()
    for verb, status in zip(VERBS, row, strict=True)
    if status is not None
]


def body_for(verb: str, path: str) -> object:
    if verb in ("GET", "DELETE"):
        return None
    if path.startswith("rules"):
        return {"status": "active"} if verb == "POST" else {"trigger": "/_/t", "action": "/_/a"}
    return CODE if verb == "PUT" and path.startswith("actions") else {}


@pytest.mark.parametrize(("verb", "path", "status"), OWN_CELLS)
@pytest.mark.parametrize("namespace", ["guest", "_"])
def test_an_owner(apis: dict[str, Api], verb: str, path: str, status: int, namespace: str) -> None:
    answer = apis["guest"].request(verb, f"{API}/{namespace}/{path}", body_for(verb, path))
    assert answer.status == status, answer


FOREIGN_ENTITIES = [
    ("actions/a", "other/a"),
    ("actions/absent", "other/absent"),
    ("actions/t", "other/t"),
    ("actions/pkg/a", "other/pkg/a"),
    ("triggers/t", "other/t"),
    ("triggers/absent", "other/absent"),
    ("rules/r", "other/r"),
    ("rules/absent", "other/absent"),
]
FOREIGN_CELLS = [(verb, path, named) for path, named in FOREIGN_ENTITIES for verb in VERBS] + [
    ("GET", "actions", "other"),
    ("GET", "actions/pkg/", "other/pkg"),
    ("GET", "triggers", "other"),
    ("GET", "rules", "other"),
    ("GET", "activations", "other"),
    ("GET", f"activations/{ID}", f"other/{ID}"),
    ("GET", f"activations/{ID}/logs", f"other/{ID}"),
    ("GET", f"activations/{ID}/result", f"other/{ID}"),
    ("GET", "limits", "other"),
    ("GET", "packages/absent", "other/absent"),
    ("DELETE", "packages/absent", "other/absent"),
]


@pytest.mark.parametrize(("verb", "path", "named"), FOREIGN_CELLS)
def test_a_foreign_namespace_tells_nothing(apis: dict[str, Api], verb: str, path: str, named: str) -> None:
    answer = apis["guest"].request(verb, f"{API}/other/{path}", body_for(verb, path))
    assert answer.status == 403
    assert answer.json["error"] == f"The supplied authentication is not authorized to access '{named}'."
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("path", ["actions", "actions/a", "triggers/t", "rules/r", "activations", "limits"])
def test_a_namespace_that_does_not_exist_is_foreign(apis: dict[str, Api], verb: str, path: str) -> None:
    is_route = verb == "GET" or path in ("actions/a", "triggers/t", "rules/r")
    answer = apis["guest"].request(verb, f"{API}/nosuch/{path}", body_for(verb, path))
    assert answer.status == (403 if is_route else 404)


@pytest.mark.parametrize("namespace", ["other", "nosuch"])
def test_anyone_may_list_packages(apis: dict[str, Api], namespace: str) -> None:
    assert apis["guest"].get(f"{API}/{namespace}/packages").json == []
    assert apis["guest"].get(f"{API}/{namespace}/packages?count=true").json == {"packages": 0}


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (
            "actions/s",
            {"exec": {"kind": "sequence", "components": ["/other/b", "/_/a", "/other/a"]}},
            "other/a, other/b",
        ),
        ("actions/s", {"exec": {"kind": "sequence", "components": ["/other/pkg/a"]}}, "other/pkg/a"),
        ("rules/r2", {"trigger": "/other/t", "action": "/_/a"}, "other/t"),
        ("rules/r2", {"trigger": "/_/t", "action": "/other/a"}, "other/a"),
        ("rules/r2", {"trigger": "/other/t", "action": "/other/pkg/a"}, "other/pkg/a, other/t"),
        ("rules/r2", {"trigger": "/other/nosuch", "action": "/nosuch/a"}, "nosuch/a, other/nosuch"),
    ],
)
def test_references_to_what_is_foreign(apis: dict[str, Api], path: str, body: object, named: str) -> None:
    answer = apis["guest"].request("PUT", path, body)
    assert answer.status == 403
    assert answer.json["error"] == f"The supplied authentication is not authorized to access '{named}'."


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("actions/s", {"exec": {"kind": "sequence", "components": ["/_/pkg/a"]}}),
        ("actions/s", {"exec": {"kind": "sequence", "components": ["/_/default/a"]}}),
        ("rules/r2", {"trigger": "/_/t", "action": "/_/pkg/a"}),
    ],
)
def test_references_below_an_own_package_that_is_absent(apis: dict[str, Api], path: str, body: object) -> None:
    answer = apis["guest"].request("PUT", path, body)
    assert (answer.status, answer.json["error"]) == (404, "The requested resource does not exist.")


def test_the_key_decides_the_namespace(apis: dict[str, Api]) -> None:
    for namespace in ("guest", "other"):
        assert apis[namespace].get(API).json == [namespace]
        assert apis[namespace].get("actions/a").json["namespace"] == namespace
        assert apis[namespace].get(f"{API}/{namespace}/actions/a").status == 200


# ── credentials ─────────────────────────────────────────────────────────────────────────────────────────────────

MISSING = "The resource requires authentication, which was not supplied with the request"
INVALID = "The supplied authentication is invalid"


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


CREDENTIALS = {
    "none": (None, MISSING),
    "empty": ("", MISSING),
    "bearer": ("Bearer abc", MISSING),
    "the scheme alone": ("Basic", INVALID),
    "no base64": ("Basic !!!", INVALID),
    "no colon": (basic("a" * 64), INVALID),
    "a short key": (basic(f"{GUEST_UUID}:{GUEST_KEY[:-1]}"), INVALID),
    "a long key": (basic(f"{GUEST_UUID}:{GUEST_KEY}x"), INVALID),
    "a wrong key": (basic(f"{GUEST_UUID}:{GUEST_KEY[::-1]}"), INVALID),
    "an unknown uuid": (basic(f"00000000-0000-0000-0000-000000000000:{GUEST_KEY}"), INVALID),
    "an empty uuid": (basic(f":{GUEST_KEY}"), INVALID),
    "the pair the wrong way round": (basic(f"{GUEST_KEY}:{GUEST_UUID}"), INVALID),
    "not UTF-8": ("Basic " + base64.b64encode(b"\xff" * 40 + b":" + b"a" * 64).decode(), INVALID),
}


@pytest.mark.parametrize("name", CREDENTIALS)
@pytest.mark.parametrize(
    "path", [f"{API}/_/actions", f"{API}/_/actions/$bad", "/api/v1/nothing", API, f"{API}/_/limits/x"]
)
def test_without_a_valid_key(apis: dict[str, Api], name: str, path: str) -> None:
    given, sentence = CREDENTIALS[name]
    answer = apis["nobody"].request("GET", path, headers={} if given is None else {"Authorization": given})
    assert (answer.status, answer.json["error"]) == (401, sentence)
    assert answer.headers["www-authenticate"] == 'Basic realm="OpenWhisk secure realm",charset=UTF-8'
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-request-id"] == answer.json["code"]


@pytest.mark.parametrize(("verb", "path"), [("GET", "actions"), ("PUT", "triggers/t"), ("POST", "actions/absent")])
def test_a_blocked_key(apis: dict[str, Api], verb: str, path: str) -> None:
    answer = apis["blocked"].request(verb, path, body_for(verb, path))
    assert (answer.status, answer.json["error"]) == (401, INVALID)


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_the_scheme_in_any_case(apis: dict[str, Api], scheme: str) -> None:
    given = basic(GUEST).replace("Basic", scheme)
    assert apis["nobody"].request("GET", f"{API}/_/actions", headers={"Authorization": given}).status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Host": "example.com"}, {"Origin": "http://example.com"}, {"Origin": "null"}, {"Host": "127.0.0.1.nip.io"}],
)
def test_the_well_known_key_is_not_for_foreign_pages(apis: dict[str, Api], headers: dict[str, str]) -> None:
    assert apis["guest"].request("GET", "actions", headers=headers).status == 401
    assert apis["other"].request("GET", "actions", headers=headers).status == 200


@pytest.mark.parametrize("headers", [{"Host": "localhost:1"}, {"Host": "[::1]"}, {"Origin": "http://localhost:3000"}])
def test_the_well_known_key_is_for_local_pages(apis: dict[str, Api], headers: dict[str, str]) -> None:
    assert apis["guest"].request("GET", "actions", headers=headers).status == 200
    assert apis["guest"].request("POST", "actions/absent", {}, headers=headers).status == 404


# ── a namespace's own limits ────────────────────────────────────────────────────────────────────────────────────


def test_limits_that_an_operator_set(apis: dict[str, Api]) -> None:
    shown = apis["narrow"].get("limits").json
    assert shown["invocationsPerMinute"] == 1
    assert shown["firesPerMinute"] == 2
    assert shown["maxActionMemory"] == 256
    assert shown["maxPayloadSize"] == "1024 B"
    assert shown["maxParameterSize"] == "100 B"
    assert shown["allowedKinds"] == ["nodejs:20"]
    assert shown["storeActivations"] is True
    assert "truncationSize" not in shown


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        (
            {"limits": {"memory": 512}},
            400,
            "requirement failed: memory size 512 MB exceeds allowed threshold of 256 MB",
        ),
        ({"parameters": [{"key": "k", "value": "x" * 100}]}, 413, "parameters larger than allowed: 103 > 100 bytes."),
        (
            {"exec": {"kind": "python:3.11", "code": ""}},
            403,
            "The supplied authentication is not authorized to access actions of kind 'python:3.11'.",
        ),
        (
            {"exec": {"kind": "blackbox", "image": "a"}},
            403,
            "The supplied authentication is not authorized to access actions of kind 'blackbox'.",
        ),
    ],
)
def test_what_its_limits_forbid(apis: dict[str, Api], fields: dict[str, object], status: int, sentence: str) -> None:
    answer = apis["narrow"].request("PUT", "actions/x", CODE | fields)
    assert (answer.status, answer.json["error"]) == (status, sentence)


def test_throttles_come_before_rights(apis: dict[str, Api]) -> None:
    api = apis["narrow"]
    paths = ["actions/absent", f"{API}/other/actions/a", f"{API}/nosuch/actions/b", "actions/pkg/a"] * 2
    answers = [api.request("POST", path, {}) for path in paths]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) >= len(paths) - 2  # one passes in a minute, and the minute may change once
    last = refused[-1]
    assert last.json["error"].startswith("Too many requests in the last minute (count: ")
    assert last.json["error"].endswith(", allowed: 1).")
    assert set(last.json) == {"code", "error"}
    assert 1 <= int(last.headers["retry-after"]) <= 60
    assert last.headers["access-control-allow-origin"] == "*"
    assert api.get("actions").status == 200
    assert api.request("POST", "actions/$bad", {}).status == 400


def test_fires_have_a_count_of_their_own(apis: dict[str, Api]) -> None:
    statuses = [apis["narrow"].request("POST", "triggers/absent", {}).status for _ in range(6)]
    assert set(statuses) == {404, 429}
    assert statuses.count(404) <= 4
