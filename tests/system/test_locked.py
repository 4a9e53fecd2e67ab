"""Locked parameters on a real server: kept and shown encrypted, given in clear to the container alone, keys changed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Api
from tests.system.places import TRUSTING, Place, opened
from tests.system.test_retries import until

OLD, NEW = (base64.b64encode(bytes([n]) * 16).decode() for n in (1, 2))
SECRET = "s3cret-of-the-package"
CODE = "import os\ndef main(p):\n    return {**p, 'env': os.environ.get('i')}\n"
ECHO = {"exec": {"kind": "python:3.11", "code": CODE}}
QUIET = {"exec": {"kind": "python:3.11", "code": "def main(p):\n    return {'n': len(p)}\n"}}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


def on(place: Place, keys: str) -> dict[str, Any]:
    return {"parameter_storage__current": "aes-128", "parameter_storage__aes_128": keys}


def shown(entity: Any) -> dict[str, Any]:
    return {entry["key"]: entry for entry in entity["parameters"]}


def accepted(api: Api, name: str) -> Any:
    """The record of a run that nobody waited for."""
    id = api.request("POST", f"actions/{name}", {}).json["activationId"]
    return until(lambda: (answer := api.get(f"activations/{id}")).status == 200 and answer.json)


def kept(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_values_are_locked_wherever_they_are_kept_and_open_in_the_container(place: Place) -> None:
    server = place.start(*TRUSTING, **on(place, OLD))
    api = Api(server.url)
    api.request("PUT", "packages/vault", {"parameters": [{"key": "p", "value": SECRET}, {"key": "q", "value": 2}]})
    given = [{"key": "a", "value": {"b": SECRET}}, {"key": "i", "value": SECRET, "init": True}]
    stored = api.request("PUT", "actions/vault/echo", ECHO | {"parameters": given}).json
    assert {entry["encryption"] for entry in stored["parameters"]} == {"aes-128"}
    merged = shown(api.get("actions/vault/echo").json)
    assert set(merged) == {"p", "q", "a", "i"}
    assert merged["i"]["init"] is True
    assert SECRET not in str(merged)
    assert api.request("PUT", "actions/vault/echo?overwrite=true", stored).status == 200  # as it was shown

    answer = api.request("POST", "actions/vault/echo?blocking=true&result=true", {"q": 5})
    assert answer.json == {"p": SECRET, "q": 5, "a": {"b": SECRET}, "env": SECRET}
    api.request("PUT", "packages/bound", {"binding": {"namespace": "_", "name": "vault"}})
    assert api.request("POST", "actions/bound/echo?blocking=true&result=true", {}).json["p"] == SECRET
    sequence = {"exec": {"kind": "sequence", "components": ["/_/vault/echo"]}}
    api.request("PUT", "actions/line", sequence)
    assert api.request("POST", "actions/line?blocking=true&result=true", {}).json["p"] == SECRET

    api.request("PUT", "actions/vault/quiet", QUIET)
    assert accepted(api, "vault/quiet")["response"]["result"] == {"n": 2}
    server.stop()


def test_a_newer_key_locks_anew_what_the_older_one_did(place: Place) -> None:
    server = place.start(*TRUSTING, **on(place, f"{NEW},{OLD}"))
    api = Api(server.url)
    before = api.get("packages/vault").json
    until(lambda: "parameters.relocked" in server.log.read_text())
    after = api.get("packages/vault").json
    assert (after["version"], after["updated"]) == (before["version"], before["updated"])
    server.stop()
    server = place.start(*TRUSTING, **on(place, NEW))
    api = Api(server.url)
    answer = api.request("POST", "actions/vault/echo?blocking=true&result=true", {})
    assert answer.json == {"p": SECRET, "q": 2, "a": {"b": SECRET}, "env": SECRET}
    server.stop()


def test_without_its_key_an_action_is_not_run(place: Place) -> None:
    server = place.start(*TRUSTING)
    api = Api(server.url)
    answer = api.request("POST", "actions/vault/echo?blocking=true", {})
    assert (answer.status, answer.json["response"]["status"]) == (500, "whisk internal error")
    assert answer.json["response"]["result"] == {"error": "The action's parameters could not be decrypted."}
    server.stop()


def test_what_was_locked_is_in_no_file() -> None:
    """But in records, where an action answered with it."""
    with opened(Place) as other:
        server = other.start(*TRUSTING, **on(other, OLD))
        api = Api(server.url)
        api.request("PUT", "actions/quiet", QUIET | {"parameters": [{"key": "p", "value": SECRET}]})
        accepted(api, "quiet")
        server.stop()
        assert SECRET.encode() not in kept(other.data_dir)
        assert OLD.encode() not in kept(other.data_dir)


@pytest.mark.parametrize("keys", ["", "nonsense", base64.b64encode(bytes(5)).decode()])
def test_a_key_that_is_none_keeps_the_server_from_starting(keys: str) -> None:
    with opened(Place) as other, pytest.raises(Exception, match=r"parameter_storage\.aes_128"):
        other.start(*TRUSTING, **on(other, keys))
