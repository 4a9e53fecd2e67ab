"""Packages and bindings over HTTP: parameters, rights between namespaces, rules and sequences through them."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Api
from tests.system.test_retries import until

from visp import premises
from visp.client import running
from visp.controller.identities import Identities
from visp.settings import Limits, Settings
from visp.store.sqlite import SqliteEntities

ECHO = {"exec": {"kind": "python:3.11", "code": "def main(args):\n    return args\n"}}
INIT = {
    "exec": {
        "kind": "python:3.11",
        "code": "import os\ndef main(args):\n    return {'env': os.environ.get('K'), **args}\n",
    }
}


async def make_key(data_dir: Path) -> str:
    store = await SqliteEntities.open(data_dir / "entities.db")
    key = await Identities(store, premises.read_secret(Settings(), data_dir), Limits(), is_loopback=True).ensure(
        "other"
    )
    await store.close()
    return str(key)


@pytest.fixture(scope="module")
def apis() -> Iterator[dict[str, Api]]:
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "data"
        data_dir.mkdir(mode=0o700)
        key = asyncio.run(make_key(data_dir))
        server = running.start(data_dir)
        try:
            yield {"guest": Api(server.url), "other": Api(server.url, key)}
        finally:
            server.stop()
            server.log.unlink(missing_ok=True)


@pytest.fixture
def guest(apis: dict[str, Api]) -> Api:
    return apis["guest"]


@pytest.fixture
def other(apis: dict[str, Api]) -> Api:
    return apis["other"]


def put(api: Api, path: str, body: Any = None, query: str = "?overwrite=true") -> Any:
    answer = api.request("PUT", f"{path}{query}", {} if body is None else body)
    assert answer.status == 200, answer
    return answer.json


def pairs(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def run(api: Api, path: str, **payload: Any) -> Any:
    """The result of a blocking call; twice, for the second one is answered at the door."""
    results = []
    for _ in range(2):
        answer = api.request("POST", f"{path}?blocking=true&result=true", payload)
        assert answer.status == 200, answer
        results.append(answer.json)
    assert results[0] == results[1]
    return results[0]


def refused(answer: Any, status: int, sentence: str) -> None:
    assert (answer.status, sentence in answer.json["error"]) == (status, True), answer


def test_parameters_of_package_binding_action_and_call(guest: Api) -> None:
    put(guest, "packages/p", {"parameters": pairs(a="package", b="package", c="package", d="package")})
    put(guest, "actions/p/echo", ECHO | {"parameters": pairs(c="action", d="action")})
    put(
        guest,
        "packages/bound",
        {"binding": {"namespace": "_", "name": "p"}, "parameters": pairs(b="binding", c="binding")},
    )
    assert run(guest, "actions/p/echo", d="call") == {"a": "package", "b": "package", "c": "action", "d": "call"}
    assert run(guest, "actions/bound/echo", d="call") == {"a": "package", "b": "binding", "c": "action", "d": "call"}
    shown = guest.get("actions/bound/echo?code=false").json
    assert {entry["key"]: entry["value"] for entry in shown["parameters"]} == {
        "a": "package",
        "b": "binding",
        "c": "action",
        "d": "action",
    }
    assert (shown["namespace"], shown["binding"], "binding" in guest.get("actions/bound/echo").json) == (
        "guest/p",
        "guest/bound",
        False,
    )
    put(guest, "packages/p", {"parameters": pairs(a="changed")})
    assert run(guest, "actions/p/echo") == {"a": "changed", "c": "action", "d": "action"}
    assert run(guest, "actions/bound/echo")["a"] == "changed"


def test_records_say_what_ran_and_through_what(guest: Api) -> None:
    put(guest, "packages/rec")
    put(guest, "actions/rec/act", ECHO)
    put(guest, "packages/recbound", {"binding": {"namespace": "_", "name": "rec"}})
    plain = guest.request("POST", "actions/rec/act?blocking=true", {}).json
    bound = guest.request("POST", "actions/recbound/act?blocking=true", {}).json
    said = {entry["key"]: entry["value"] for entry in bound["annotations"]}
    assert (said["path"], said["binding"], bound["name"], bound["namespace"]) == (
        "guest/rec/act",
        "guest/recbound",
        "act",
        "guest",
    )
    for name, record in (("rec/act", plain), ("recbound/act", bound)):
        listed = until(lambda name=name: guest.get(f"activations?name={name}").json)
        assert [one["activationId"] for one in listed] == [record["activationId"]]


def test_what_others_may_do_with_a_package(guest: Api, other: Api) -> None:
    put(guest, "packages/shared", {"publish": True, "parameters": pairs(from_="guest")})
    put(guest, "packages/hidden")
    put(guest, "packages/sharedbound", {"binding": {"namespace": "guest", "name": "shared"}, "publish": True})
    for package in ("shared", "hidden"):
        put(guest, f"actions/{package}/echo", ECHO)
    at = "/api/v1/namespaces/guest"
    assert [one["name"] for one in other.get(f"{at}/packages").json] == ["shared"]
    assert other.get(f"{at}/packages?count=true").json == {"packages": 1}
    assert other.get(f"{at}/packages/shared").json["actions"][0]["name"] == "echo"
    assert other.get(f"{at}/actions/shared/echo").status == 200
    assert [one["name"] for one in other.get(f"{at}/actions/shared/").json] == ["echo"]
    ran = other.request("POST", f"{at}/actions/shared/echo?blocking=true", {}).json
    assert (ran["namespace"], ran["subject"], ran["response"]["result"]) == ("other", "other", {"from_": "guest"})
    for verb, path in (
        ("GET", "packages/hidden"),
        ("GET", "packages/nosuch"),
        ("GET", "packages/sharedbound"),
        ("GET", "actions/hidden/echo"),
        ("POST", "actions/hidden/echo"),
        ("POST", "actions/nosuch/echo"),
        ("POST", "actions/sharedbound/echo"),
        ("GET", "actions/hidden/"),
        ("PUT", "actions/shared/new"),
        ("DELETE", "actions/shared/echo"),
        ("DELETE", "packages/shared"),
        ("PUT", "packages/shared"),
    ):
        body = ECHO if verb == "PUT" and "actions" in path else {} if verb in ("PUT", "POST") else None
        refused(other.request(verb, f"{at}/{path}", body), 403, "is not authorized to access 'guest/")
    assert other.request("POST", f"{at}/actions/shared/nosuch", {}).status == 404


def test_a_binding_lives_as_long_as_its_provider_may_be_read(guest: Api, other: Api) -> None:
    put(guest, "packages/lent", {"publish": True})
    put(guest, "actions/lent/echo", ECHO)
    put(other, "packages/mine", {"binding": {"namespace": "guest", "name": "lent"}, "parameters": pairs(k="mine")})
    assert run(other, "actions/mine/echo") == {"k": "mine"}
    put(other, "actions/seq", {"exec": {"kind": "sequence", "components": ["/_/mine/echo", "/guest/lent/echo"]}})
    assert run(other, "actions/seq", n=1) == {"k": "mine", "n": 1}
    put(other, "triggers/t")
    put(other, "rules/r", {"trigger": "/_/t", "action": "/_/mine/echo"})
    fired = other.request("POST", "triggers/t", {"n": 2}).json["activationId"]
    entry = json.loads(until(lambda: other.get(f"activations/{fired}").json.get("logs"))[0])
    record = until(lambda: (a := other.get(f"activations/{entry['activationId']}")).status == 200 and a.json)
    assert record["response"]["result"]["k"] == "mine"

    put(guest, "packages/lent", {"publish": False})
    denied = "is not authorized to access 'other/mine"
    refused(other.get("packages/mine"), 403, denied)
    refused(other.get("actions/mine/echo"), 403, denied)
    refused(other.request("POST", "actions/mine/echo?blocking=true", {}), 403, denied)
    refused(other.request("POST", "actions/seq?blocking=true", {}), 403, "is not authorized to access")
    fired = other.request("POST", "triggers/t", {}).json["activationId"]
    entry = json.loads(until(lambda: other.get(f"activations/{fired}").json.get("logs"))[0])
    assert (entry["statusCode"], "not authorized" in entry["error"]) == (1, True)
    assert other.delete("packages/mine").status == 200


def test_what_can_be_bound_and_what_a_binding_cannot_do(guest: Api) -> None:
    put(guest, "packages/base")
    put(guest, "actions/base/echo", ECHO)
    put(guest, "packages/over", {"binding": {"namespace": "guest", "name": "base"}})
    put(guest, "triggers/notapackage")

    def bind(name: str, to: str, query: str = "") -> Any:
        return guest.request("PUT", f"packages/{name}{query}", {"binding": {"namespace": "_", "name": to}})

    refused(bind("x", "nosuch"), 400, "Binding references a package that does not exist.")
    refused(bind("x", "over"), 400, "Cannot bind to another package binding.")
    refused(bind("over", "over", "?overwrite=true"), 400, "Cannot bind to another package binding.")
    refused(bind("x", "notapackage"), 409, "Cannot bind to a resource that is not a package.")
    refused(bind("base", "over", "?overwrite=true"), 409, "cannot be converted into a binding.")
    refused(bind("over", "base"), 409, "resource already exists")
    refused(guest.request("PUT", "packages/notapackage", {}), 409, "is not in this collection")
    refused(guest.get("actions/base"), 409, "is not in this collection")
    refused(guest.request("PUT", "actions/over/new", ECHO), 400, "Operation not permitted on package binding.")
    refused(guest.delete("actions/over/echo"), 400, "Operation not permitted on package binding.")
    refused(guest.request("PUT", "actions/nosuch/new", ECHO), 404, "The requested resource does not exist.")


def test_deleting_and_what_is_left(guest: Api) -> None:
    put(guest, "packages/full")
    for name in ("one", "two"):
        put(guest, f"actions/full/{name}", ECHO)
    put(guest, "packages/leaning", {"binding": {"namespace": "_", "name": "full"}})
    assert run(guest, "actions/leaning/one") == {}
    refused(guest.delete("packages/full"), 409, "Package not empty (contains 2 entities). Set force param")
    assert guest.delete("actions/full/two").status == 200
    refused(guest.delete("packages/full"), 409, "Package not empty (contains 1 entity).")
    assert guest.delete("packages/full?force=true").json["name"] == "full"
    assert guest.get("actions?name=one&limit=200").status == 200
    assert "full" not in {one["namespace"].partition("/")[2] for one in guest.get("actions?limit=200").json}
    refused(guest.get("packages/leaning"), 404, "The requested resource 'guest/leaning' does not exist.")
    refused(guest.request("POST", "actions/leaning/one", {}), 404, "The requested resource does not exist.")
    assert guest.delete("packages/leaning").status == 200


def test_a_sequence_may_not_come_back_to_itself_through_a_binding(guest: Api) -> None:
    put(guest, "packages/loop")
    put(guest, "packages/loopbound", {"binding": {"namespace": "_", "name": "loop"}})
    put(guest, "actions/loop/echo", ECHO)
    put(guest, "actions/loop/seq", {"exec": {"kind": "sequence", "components": ["/_/loop/echo"]}})
    body = {"exec": {"kind": "sequence", "components": ["/_/loopbound/seq"]}}
    refused(guest.request("PUT", "actions/loop/seq?overwrite=true", body), 400, "Sequence may not refer to itself.")
    body = {"exec": {"kind": "sequence", "components": ["/_/loopbound/nosuch"]}}
    refused(guest.request("PUT", "actions/loop/new", body), 400, "Sequence component does not exist.")


def test_parameters_of_a_package_for_initialisation_alone(guest: Api) -> None:
    parameters = [{"key": "K", "value": "from the package", "init": True}]
    put(guest, "packages/env", {"parameters": parameters})
    put(guest, "actions/env/show", INIT)
    assert run(guest, "actions/env/show", n=1) == {"env": "from the package", "n": 1}


def test_a_hook_of_a_shared_action_is_its_owners_affair(guest: Api, other: Api) -> None:
    hook = {"url": "http://127.0.0.1:9/", "secret": "whsec_" + "A" * 32}
    put(guest, "packages/hooked", {"publish": True})
    put(guest, "actions/hooked/act", ECHO | {"annotations": pairs(**{"completion-hook": hook})})
    at = "/api/v1/namespaces/guest"
    shown = (f"{at}/actions/hooked/act", f"{at}/actions/hooked/", f"{at}/packages/hooked")
    for path in shown:
        assert hook["secret"] in guest.get(path).body.decode()
        assert "completion-hook" not in other.get(path).body.decode()
    assert other.request("POST", f"{at}/actions/hooked/act?blocking=true", {}).status == 200
    assert "visp_hook_calls_total{" not in guest.get("/metrics").body.decode()
    assert guest.request("POST", "actions/hooked/act?blocking=true", {}).status == 200
    until(lambda: "visp_hook_calls_total{" in guest.get("/metrics").body.decode())


def letters(api: Api, count: int) -> Any:
    found = api.get("deadletters").json
    return found if len(found) == count else None


def test_what_may_no_longer_be_read_is_not_replayed_either(guest: Api, other: Api) -> None:
    code = {"exec": {"kind": "python:3.11", "code": "def main(args):\n    return {'error': 'broken'}\n"}}
    put(guest, "packages/fails", {"publish": True})
    put(guest, "actions/fails/act", code | {"annotations": pairs(**{"dead-letter": True})})
    put(other, "packages/bindfails", {"binding": {"namespace": "guest", "name": "fails"}})
    for path in ("/api/v1/namespaces/guest/actions/fails/act", "actions/bindfails/act"):
        assert other.request("POST", path, {}).status == 202
    ids = [one["activationId"] for one in until(lambda: letters(other, 2))]
    replayed = other.request("POST", f"deadletters/{ids[0]}")
    assert replayed.status == 202
    until(lambda: len(other.get("deadletters").json) == 2)  # it failed again
    put(guest, "packages/fails", {"publish": False})
    for letter in other.get("deadletters").json:
        refused(other.request("POST", f"deadletters/{letter['activationId']}"), 403, "is not authorized to access")
    assert len(other.get("deadletters").json) == 2


def test_final_parameters_are_those_of_the_package_too(guest: Api) -> None:
    put(guest, "packages/fin", {"parameters": pairs(k="package")})
    put(guest, "actions/fin/act", ECHO | {"annotations": pairs(final=True)})
    for _ in range(2):
        refused(
            guest.request("POST", "actions/fin/act?blocking=true", {"k": 1}), 400, "parameters that are not allowed"
        )
    assert run(guest, "actions/fin/act", n=1) == {"k": "package", "n": 1}
