"""Kinds whose programs visp installs: each is installed for real, and says hello through real drivers."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Api, has_sandbox
from tests.system.places import Place, opened
from tests.system.test_modules import zipped

from visp.equipment.sources import SOURCES, Debian

pytestmark = [
    pytest.mark.all,  # hundreds of megabytes from registries
    pytest.mark.skipif(not has_sandbox(), reason="bubblewrap is not installed: apt-get install bubblewrap"),
]

JAVASCRIPT = """
function main(args) {
  console.log('to stdout'); console.error('to stderr')
  if (args.fail) throw new Error('boom')
  return { greeting: `hello ${args.name}`, action: process.env.__OW_ACTION_NAME, api: typeof require('uuid').v4 }
}
"""
TYPESCRIPT = """
interface Given { name: string }
export async function main(args: Given): Promise<object> {
  console.log('to stdout'); console.error('to stderr')
  await new Promise((done) => setTimeout(done, 1))
  return { greeting: `hello ${args.name}`, action: process.env.__OW_ACTION_NAME }
}
"""
DENO = TYPESCRIPT.replace("export async function main", "export default async function").replace(
    "process.env.__OW_ACTION_NAME", "Deno.env.get('__OW_ACTION_NAME')"
)
PYTHON = """
import ctypes, os, ssl, sys
def main(args):
    print("to stdout"); print("to stderr", file=sys.stderr)
    return {"greeting": f"hello {args['name']}", "action": os.environ["__OW_ACTION_NAME"], "at": sys.prefix}
"""
GO = """package main
import ("fmt"; "os")
func Main(args map[string]interface{}) map[string]interface{} {
  fmt.Println("to stdout"); fmt.Fprintln(os.Stderr, "to stderr")
  said := fmt.Sprintf("hello %s", args["name"])
  return map[string]interface{}{"greeting": said, "action": os.Getenv("__OW_ACTION_NAME")}
}
"""
ECHO = Path(__file__).with_name("echo.wat").read_text()
"""Prints `{"given":`, what it was given, and `}`, after a line of logs."""

NODES = ["nodejs:18", "nodejs:20", "nodejs:22", "nodejs:24"]
GOES = ["go:1.22", "go:1.24"]
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
PYTHONS = {f"python:3.{minor}": next(iter(sorted(PYENV.glob(f"3.{minor}.*"))), None) for minor in (10, 12, 13)}
CODE = {"nodejs": JAVASCRIPT, "bun": TYPESCRIPT, "deno": DENO, "python": PYTHON, "go": GO}


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="this is no Debian or Ubuntu")
@pytest.mark.parametrize("source", [source for source in SOURCES.values() if isinstance(source, Debian)])
def test_packages_of_the_system_are_there(source: Debian) -> None:
    argv = ["apt-get", "install", "--simulate", *source.packages]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runtimes() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        install(Path(folder), *NODES, *GOES, "deno", "bun", "wasm")
        for kind, prefix in PYTHONS.items():
            if prefix is not None:
                install(Path(folder), kind, "--from", str(prefix))
        yield Path(folder)


def install(folder: Path, *words: str) -> None:
    argv = [sys.executable, "-m", "visp", "runtime", "install", *words, "--set", f"runtimes.folder={folder}"]
    subprocess.run(argv, check=True, timeout=900)


@pytest.fixture(scope="module", params=["fork", "bwrap"])
def api(request: pytest.FixtureRequest, runtimes: Path) -> Iterator[Api]:
    with opened(Place) as place:
        place.runtimes = runtimes
        yield Api(place.start("--driver", request.param).url)


@pytest.mark.parametrize("kind", [*NODES, *GOES, *PYTHONS, "bun:1", "deno:2"])
def test_hello(api: Api, kind: str) -> None:
    if kind in PYTHONS and PYTHONS[kind] is None:
        pytest.skip(f"pyenv has no such Python to copy: pyenv install {kind.partition(':')[2]}")
    name = kind.replace(":", "-")
    api.action(name, CODE[kind.partition(":")[0]], kind)
    for who in ("world", "❄ ☃ ❄"):
        record = ended(api, api.invoke(name, {"name": who}, "").json["activationId"])
        assert record["response"]["success"], record["response"]
        assert record["response"]["result"]["greeting"] == f"hello {who}"
        assert record["response"]["result"]["action"] == f"/guest/{name}"
        assert sorted(line.split(" ", 1)[1].strip() for line in record["logs"]) == [
            "stderr: to stderr",
            "stdout: to stdout",
        ]


def ended(api: Api, id: str, within_s: float = 300.0) -> Any:
    """The record: a first run is one behind a build, which takes longer than a caller waits."""
    until_s = time.monotonic() + within_s
    while True:
        answer = api.get(f"activations/{id}")
        if answer.status == 200 and "end" in answer.json:
            return answer.json
        assert time.monotonic() < until_s, answer
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["bun:1", "deno:2"])
def test_folder_with_two_files(api: Api, kind: str) -> None:
    main = "main.ts" if kind == "deno:2" else "index.ts"
    files = {
        main: "import { twice } from './other.ts'\n"
        "export function main(args: { n: number }) { return { n: twice(args.n) } }",
        "other.ts": "export const twice = (n: number): number => 2 * n",
    }
    api.action("folder", zipped(files), kind, exec={"binary": True})
    assert api.run("folder", {"n": 21}) == {"n": 42}


@pytest.mark.parametrize(
    ("kind", "error"),
    [("bun:1", "An error has occurred: Error: boom"), ("nodejs:22", "An error has occurred: Error: boom")],
)
def test_what_is_thrown(api: Api, kind: str, error: str) -> None:
    api.action("thrown", JAVASCRIPT, kind)
    answer = api.invoke("thrown", {"fail": True}).json
    assert answer["response"]["result"] == {"error": error}
    assert answer["response"]["status"] == "action developer error"


@pytest.mark.parametrize(
    ("code", "result", "status"),
    [
        ("export default () => { throw new Error('boom') }", {"error": "boom"}, "application error"),
        (
            "export default () => 7",
            {"error": "The action did not return a dictionary or array."},
            "action developer error",
        ),
        ("function main() { return [1, 'a'] }", [1, "a"], "success"),
        ("export const x: = 1", None, "action developer error"),
    ],
)
def test_deno_ends_in_each_way(api: Api, code: str, result: object, status: str) -> None:
    api.action("ends", code, "deno:default")
    response = ended(api, api.invoke("ends", {}, "").json["activationId"])["response"]
    assert response["status"] == status
    assert result is None or response["result"] == result


def test_module_of_webassembly(api: Api) -> None:
    api.action("echo", ECHO, "wasm:1")
    record = api.invoke("echo", {"name": "❄"}).json
    assert record["response"]["result"] == {"given": {"name": "❄"}}
    assert [line.split(" ", 1)[1] for line in api.record(record["activationId"])["logs"]] == [
        "stderr: to stderr",
        "stdout: a log line",
    ]
    binary = base64.b64encode(b"\0asm\1\0\0\0").decode()
    api.action("empty", binary, "wasm:1", exec={"binary": True})
    assert "failed to generate or locate a binary" in api.invoke("empty").json["response"]["result"]["error"]


@pytest.mark.parametrize(("main", "words"), [("trap", "unreachable"), ("grow", "unreachable")])
def test_module_that_does_what_it_must_not(api: Api, main: str, words: str) -> None:
    api.action("wrong", ECHO, "wasm:1", exec={"main": main})
    response = api.invoke("wrong").json["response"]
    assert response["status"] == "action developer error"
    assert words in response["result"]["error"]


def test_module_that_does_not_end(api: Api) -> None:
    api.action("endless", ECHO, "wasm:1", exec={"main": "loop"}, limits={"timeout": 500})
    assert "exceeded its time limits of 500" in api.invoke("endless").json["response"]["result"]["error"]
