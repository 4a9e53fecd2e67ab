"""Actions of compiled kinds on a real server."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from pathlib import Path
from typing import Any

from tests.system.conftest import Api

from visp.premises import read_manifest
from visp.runtime import local
from visp.settings import Settings, runtimes_folder

PROGRAMS = Path(__file__).parent.parent / "conformance" / "programs"
WAITS = 5
"""For a minute each: a first build may take longer than a caller waits."""
LIMITS = {"memory": 256, "timeout": 60_000}
PRECOMPILED = """#!/usr/bin/python3
import json, os, sys
replies = os.fdopen(3, "w")
print('{"ok":true}', file=replies, flush=True)
for line in sys.stdin:
    print(json.dumps({"by": json.loads(line)["value"]["name"]}), file=replies, flush=True)
"""
"""By ActionLoop's contract, as what a compiler made elsewhere."""


def is_here(name: str) -> bool:
    """Whether this machine can build and run the kind."""
    kind = read_manifest(Settings()).find(name)
    home = Path(os.environ.get("VISP_RUNTIMES__FOLDER") or runtimes_folder(Settings()))
    assert kind is not None
    assert kind.local is not None
    assert kind.local.build is not None
    return local.find_program(kind.local.build, home) is not None


def zipped(files: dict[str, bytes], mode: int = 0o644) -> str:
    """An archive, as code."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return base64.b64encode(out.getvalue()).decode()


def zipped_folder(folder: Path) -> str:
    return zipped({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})


def put(api: Api, kind: str, code: str, main: str | None = None) -> str:
    """The name of an action with this code, which may call the platform."""
    name, may_call = kind.replace(":", "-"), [{"key": "provide-api-key", "value": True}]
    api.action(name, code, kind, exec={} if main is None else {"main": main}, limits=LIMITS, annotations=may_call)
    return name


def response(api: Api, name: str, argument: Any) -> dict[str, Any]:
    """The record of an invocation: its response, with its logs beside."""
    answer = api.invoke(name, argument)
    assert answer.status in (200, 202, 502), answer
    path = f"activations/{answer.json['activationId']}"
    waited = next(got for got in (api.get(f"{path}?wait=60") for _ in range(WAITS)) if got.status == 200)
    record = waited.json
    return {**record["response"], "logs": [line.split(" ", 1)[1].lstrip() for line in record["logs"]]}


def result(api: Api, name: str, argument: Any) -> Any:
    """The result of an invocation that must succeed."""
    got = response(api, name, argument)
    assert got["success"], got
    return got["result"]


def in_sequence(api: Api, name: str, argument: list[Any]) -> Any:
    """The result for an array, which only another action can hand over."""
    api.action("list", "const main = ({ list }) => list")
    parts = {"kind": "sequence", "components": ["/_/list", f"/_/{name}"]}
    assert api.request("PUT", "actions/both?overwrite=true", {"exec": parts}).status == 200
    return api.run("both", {"list": argument})


def behaves(api: Api, name: str) -> None:
    """What the program `everything` of each compiled kind does."""
    assert result(api, name, {"do": "hello", "name": "Zoë"}) == {"greeting": "Hello, Zoë!"}
    counted = result(api, name, {"do": "count"})["count"]
    assert result(api, name, {"do": "count"})["count"] == counted + 1
    unicode = response(api, name, {"do": "unicode", "text": "❄"})
    assert (unicode["result"], unicode["logs"]) == ({"winter": "❄ ☃ ❄"}, ["stdout: ❄"])
    for value in (None, True, 0, -7, 1.5, "a/b\n\u2028", [], {}, {"a": [1, {"b": None}]}):
        assert result(api, name, {"do": "same", "value": value}) == {"value": value}
    assert in_sequence(api, name, [1, "two", None]) == [None, "two", 1]
    found = result(api, name, {"do": "env", "names": ["__OW_NAMESPACE", "__OW_ACTION_NAME", "__OW_DEADLINE", "NONE"]})
    assert found["keys"] == ["do", "names"]
    assert found["env"]["__OW_NAMESPACE"] == "guest"
    assert found["env"]["__OW_ACTION_NAME"] == f"/guest/{name}"
    assert found["env"]["__OW_DEADLINE"].isdigit()
    assert found["env"]["NONE"] is None
    logged = response(api, name, {"do": "logs"})["logs"]
    assert sorted(logged) == ["stderr: err 1", "stderr: err 2", "stdout: out 1", "stdout: out 2"]
    returned = response(api, name, {"do": "error"})
    assert (returned["status"], returned["result"]["error"]) == ("application error", {"code": 7})
    thrown = response(api, name, {"do": "throw"})
    assert (thrown["status"], thrown["result"]) == ("application error", {"error": "boom"})
    assert result(api, name, {"do": "length", "text": "y" * 1_000_000}) == {"length": 1_000_000}
    assert result(api, name, {"do": "long", "bytes": 1_000_000}) == {"text": "x" * 1_000_000}
    died = response(api, name, {"do": "die"})
    assert (died["status"], died["result"]) == ("action developer error", {"error": "command exited"})
    assert result(api, name, {"do": "hello", "name": "again"}) == {"greeting": "Hello, again!"}
