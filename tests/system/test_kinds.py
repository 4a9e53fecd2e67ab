"""Kinds by name: aliases, those that are no longer offered, those that must name a main."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from tests.system.answers import MALFORMED, refused
from tests.system.conftest import Api, has_sandbox
from tests.system.places import TRUSTING, Place, opened

from visp.premises import read_manifest
from visp.settings import Settings

OLD = "python:3.9"
GONE = f"The '{OLD}' runtime is no longer supported. You may read and delete but not update or invoke this action."
CODE = "def main(args): return {}"


@pytest.fixture(scope="module")
def offered(server: Any) -> Any:
    """Families, as the server shows them."""
    return Api(server.url, None).get("/").json["runtimes"]


@pytest.fixture
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


def put(api: Api, kind: str, **exec: Any) -> Any:
    return api.request("PUT", "actions/kinds?overwrite=true", {"exec": {"kind": kind, "code": CODE, **exec}})


def test_default_stands_for_one_kind_of_a_family(api: Api, offered: Any) -> None:
    for family, kinds in offered.items():
        [default] = [kind for kind in kinds if kind["default"]]
        answer = put(api, f"{family}:default", main="main")
        if default["deprecated"]:
            assert answer.status == 400, family
        else:
            assert answer.json["exec"]["kind"] == default["kind"]


def test_kinds_that_are_no_longer_offered(api: Api, offered: Any) -> None:
    deprecated = {kind["kind"] for kinds in offered.values() for kind in kinds if kind["deprecated"]}
    assert {"nodejs:6", "nodejs:16", "python:2", "python:3", "swift:4.2", "php:7.4", "go:1.19", OLD} <= deprecated
    refused(put(api, OLD), 400, GONE, routed=True)


def test_main_is_required_of_some(api: Api, offered: Any) -> None:
    required = {kind["kind"] for kinds in offered.values() for kind in kinds if kind["requireMain"]}
    assert {"java:8", "java:17", "dotnet:6.0"} <= required
    assert "python:3.11" not in required
    for kind in ("java:8", "java:17", "java:default", "dotnet:6.0"):
        said = f"{MALFORMED}'main' must be a string defined in 'exec' for '{kind}' actions"
        refused(put(api, kind), 400, said, routed=False)
        assert put(api, kind, main="Main").status == 200


def test_stored_action_of_such_a_kind_can_be_read_and_deleted(place: Place) -> None:
    manifest = read_manifest(Settings())
    pythons = tuple(msgspec.structs.replace(kind, deprecated=False) for kind in manifest.runtimes["python"])
    older = place.folder / "manifest.json"
    older.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, runtimes={"python": pythons})))
    server = place.start(*TRUSTING, manifest=older)
    stored = put(Api(server.url), OLD)
    assert stored.status == 200
    server.stop()
    api = Api(place.start(*TRUSTING).url)
    assert api.get("actions/kinds").json == stored.json
    refused(put(api, OLD, code="another"), 400, GONE, routed=True)
    unchanged = {"parameters": [{"key": "a", "value": 1}]}
    refused(api.request("PUT", "actions/kinds?overwrite=true", unchanged), 400, GONE, routed=True)
    refused(api.invoke("kinds"), 400, GONE, routed=True)
    assert json.loads(api.delete("actions/kinds").body)["exec"]["kind"] == OLD
    assert put(api, "python:3.11").status == 200


@pytest.mark.skipif(not has_sandbox(), reason="bubblewrap is not installed: apt-get install bubblewrap")
def test_a_compiled_program_waits_for_no_other_start_on_a_new_data_folder(place: Place) -> None:
    """It becomes what a cell of the Python template was: there the first process is not bubblewrap."""
    api = Api(place.start(driver="fork").url)
    program = """#!/bin/sh
    while read -r line; do printf '{"first": "%s"}\\n' "$(cat /proc/1/comm)" >&3; done
    """
    exec = {"kind": "native:1", "code": base64.b64encode(program.encode()).decode()}
    assert api.request("PUT", "actions/first", {"exec": exec}).status == 200
    assert api.run("first", {}) == {"first": "visp-cell"}
