"""Building at deploy: what a PUT that waits is told, what one that does not wait leaves, and what is built once."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from tests.system.compiled import is_here
from tests.system.conftest import Api, has_sandbox
from tests.system.places import Place, opened

from visp.client import running

pytestmark = [
    pytest.mark.skipif(not has_sandbox(), reason="bubblewrap is not installed: apt-get install bubblewrap"),
    pytest.mark.slow,  # starts servers, a second each; package managers take a second each
]

PORT = 3141
"""Of a container's loopback address, where it finds the registry."""
GO = Path("/usr/local/go/bin/go")
HAS_PIP = subprocess.run(["/usr/bin/python3.11", "-I", "-c", "import pip"], capture_output=True, check=False).returncode
needs_pip = pytest.mark.skipif(HAS_PIP != 0, reason="pip is not installed: apt-get install python3-pip")
needs_npm = pytest.mark.skipif(not shutil.which("npm", path="/usr/bin"), reason="npm is not installed")
needs_go = pytest.mark.skipif(not GO.exists(), reason="Go 1.26 is not in /usr/local/go")

MAIN = "import told\ndef main(args):\n    return {'said': told.WORD}\n"
HELLO = 'package main\n\nfunc Main(args map[string]any) map[string]any {\n\treturn map[string]any{"said": "%s"}\n}\n'


def zipped(**files: str) -> str:
    """`a__py` is the file `a.py`, `b___c__py` one in a folder."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("___", "/").replace("__", "."), text)
    return base64.b64encode(data.getvalue()).decode()


def python_zip(requirement: str, main: str = MAIN) -> str:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("__main__.py", main)
        archive.writestr("requirements.txt", requirement)
    return base64.b64encode(data.getvalue()).decode()


def wheel(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(f"{name}.py", f"WORD = '{name} was here'\n")
        folder = f"{name}-1.0.dist-info"
        archive.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", "")
    return data.getvalue()


@functools.cache
def tarball() -> bytes:
    """Made once: the time of that is in it, and so in its hash."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in {
            "package/package.json": '{"name": "told", "version": "1.0.0", "main": "told.js"}',
            "package/told.js": "exports.WORD = 'told was here'",
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


class Registry(BaseHTTPRequestHandler):
    """One package, `told`, for pip and npm. The index of `slow` is not given before it may be."""

    asked: ClassVar[Counter[str]] = Counter()
    is_slow_asked = threading.Event()
    may_go_on = threading.Event()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        if self.path == "/simple/slow/":
            self.is_slow_asked.set()
            self.may_go_on.wait(60)
        found = self.answer()
        self.send_response(404 if found is None else 200)
        body, kind = found or (b"no", "text/plain")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def answer(self) -> tuple[bytes, str] | None:
        if match := re.fullmatch(r"/simple/(told|slow)/", self.path):
            name = f"{match[1]}-1.0-py3-none-any.whl"
            return f'<a href="/files/{name}">{name}</a>'.encode(), "text/html"
        if match := re.fullmatch(r"/files/(\w+)-1.0-py3-none-any.whl", self.path):
            return wheel(match[1]), "application/zip"
        if self.path == "/told":
            dist = {
                "tarball": f"http://127.0.0.1:{PORT}/told.tgz",
                "shasum": hashlib.sha1(tarball()).hexdigest(),
            }
            version = {"name": "told", "version": "1.0.0", "main": "told.js", "dist": dist}
            body = {"name": "told", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            return json.dumps(body).encode(), "application/json"
        if self.path == "/told.tgz":
            return tarball(), "application/octet-stream"
        return None

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, Any]]:
    """A server's, whose builds find the registry."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{PORT}"
        yield {
            "network.relays": f"{PORT}=127.0.0.1:{registry.server_port} guest",
            "build.environment": f"PIP_INDEX_URL={at}/simple/ NPM_CONFIG_REGISTRY={at}/ NPM_CONFIG_FETCH_RETRIES=0",
            "build.waiting": 2,
        }
        Registry.may_go_on.set()
        registry.shutdown()


@pytest.fixture(scope="module")
def api(settings: dict[str, Any]) -> Iterator[Api]:
    with running.running(settings) as server:
        yield Api(server.url)


def put(api: Api, name: str, kind: str, code: str, **more: Any) -> tuple[int, Any, list[str]]:
    """A PUT that waits: status and body, and the progress before it."""
    body = {"exec": {"kind": kind, "code": code, **more}}
    headers = {"Accept": "application/x-ndjson"}
    got = api.request("PUT", f"actions/{name}?overwrite=true&build=wait", body, headers, timeout_s=600)
    assert got.status == 200, got
    assert got.headers["content-type"] == "application/x-ndjson"
    *lines, last = [json.loads(line) for line in got.body.splitlines()]
    return last["status"], last["body"], [line["progress"] for line in lines if line["progress"]]


def builds(api: Api, outcome: str = "made") -> int:
    text = api.request("GET", "/metrics").body.decode()
    return int(sum(float(n) for n in re.findall(rf'^visp_builds_total{{outcome="{outcome}".*}} (\S+)$', text, re.M)))


@needs_pip
def test_requirements_are_there_and_how_it_went_was_told(api: Api) -> None:
    status, body, progress = put(api, "python", "python:3.11", python_zip("told"))
    assert (status, body["name"]) == (200, "python")
    assert progress[0] == "resolving requirements.txt"
    assert any("told" in line and "1.0" in line for line in progress)  # pip and uv say it differently
    assert api.run("python") == {"said": "told was here"}


@needs_pip
def test_same_code_is_built_once(api: Api) -> None:
    code = python_zip("told", MAIN + "# once")
    assert put(api, "first", "python:3.11", code)[0] == 200
    made = builds(api)
    assert put(api, "second", "python:3.11", code) == (200, {**api.get("actions/second").json}, [])
    assert api.run("second") == {"said": "told was here"}
    assert builds(api) == made


@needs_pip
def test_failure_stores_nothing(api: Api) -> None:
    status, body, _ = put(api, "failing", "python:3.11", python_zip("nowhere==7"))
    assert status == 400
    assert "nowhere==7" in body["error"]
    assert api.get("actions/failing").status == 404
    plain = {"exec": {"kind": "python:3.11", "code": python_zip("nowhere==8")}}
    answer = api.request("PUT", "actions/failing?build=wait", plain)
    assert (answer.status, "nowhere==8" in answer.json["error"]) == (400, True)
    assert api.get("actions/failing").status == 404


@needs_pip
def test_who_does_not_wait_is_answered_at_once_and_invokes_wait(api: Api) -> None:
    Registry.may_go_on.clear()
    Registry.is_slow_asked.clear()
    api.action("slow", python_zip("slow", MAIN.replace("told", "slow")), "python:3.11")
    assert Registry.is_slow_asked.wait(60)  # nobody has invoked it
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(api.run("slow")))
    waiting.start()
    Registry.may_go_on.set()
    waiting.join(60)
    assert answers == [{"said": "slow was here"}]
    assert Registry.asked["/simple/slow/"] == 1  # resolved once, whoever waited


@needs_pip
def test_who_does_not_wait_hears_of_a_failure_from_the_activation(api: Api) -> None:
    api.action("failing2", python_zip("nowhere==9"), "python:3.11")
    answer = api.invoke("failing2")
    assert answer.status == 502
    assert "nowhere==9" in answer.json["response"]["result"]["error"]
    assert answer.json["response"]["status"] == "action developer error"


@needs_pip
def test_only_so_many_at_once(api: Api) -> None:
    Registry.may_go_on.clear()
    Registry.is_slow_asked.clear()
    for number in range(2):
        api.action(f"many{number}", python_zip("slow", f"# many {number}"), "python:3.11")
    assert Registry.is_slow_asked.wait(60)
    status, body, _ = put(api, "many2", "python:3.11", python_zip("slow", "# many 2"))
    Registry.may_go_on.set()
    assert (status, "[build] waiting" in body["error"]) == (429, True)
    assert api.get("actions/many2").status == 404
    for number in range(2):
        api.invoke(f"many{number}")  # it waits until the build is over


@needs_npm
def test_package_json_is_resolved(api: Api) -> None:
    main = "const told = require('told'); exports.main = () => ({ said: told.WORD })"
    package = json.dumps({"name": "it", "main": "index.js", "dependencies": {"told": "^1.0.0"}})
    status, body, progress = put(api, "node", "nodejs:20", zipped(index__js=main, package__json=package))
    assert (status, progress[0]) == (200, "resolving package.json"), body
    assert api.run("node") == {"said": "told was here"}


def test_without_dependencies_there_is_nothing_to_build(api: Api) -> None:
    made = builds(api), builds(api, "failed")
    main = "exports.main = () => ({ said: 'nothing' })"
    package = json.dumps({"name": "it", "main": "index.js", "dependencies": {}})
    assert put(api, "none", "nodejs:20", zipped(index__js=main, package__json=package))[2] == []
    assert put(api, "text", "python:3.11", "def main(args):\n    return args\n")[0] == 200
    assert api.run("none") == {"said": "nothing"}
    assert made == (builds(api), builds(api, "failed"))


def test_other_words_than_wait_are_refused(api: Api) -> None:
    answer = api.request("PUT", "actions/x?build=soon", {"exec": {"kind": "nodejs:20", "code": "x"}})
    assert (answer.status, "'wait'" in answer.json["error"]) == (400, True)


@needs_pip
def test_reader_that_goes_away_stores_nothing(api: Api) -> None:
    Registry.may_go_on.clear()
    Registry.is_slow_asked.clear()
    code = python_zip("slow", "# gone")
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=60)
    body = {"exec": {"kind": "python:3.11", "code": code}}
    key = base64.b64encode(str(api.auth).encode()).decode()
    headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json", "Accept": "application/x-ndjson"}
    connection.request("PUT", "/api/v1/namespaces/_/actions/gone?build=wait", json.dumps(body), headers)
    connection.getresponse().readline()
    assert Registry.is_slow_asked.wait(60)
    connection.close()
    made = builds(api)
    Registry.may_go_on.set()
    again = put(api, "again", "python:3.11", code)  # the same build goes on
    assert (again[0], builds(api)) == (200, made + 1)
    assert api.get("actions/gone").status == 404


@needs_pip
def test_server_killed_in_the_middle_of_a_build(settings: dict[str, Any]) -> None:
    Registry.may_go_on.clear()
    Registry.is_slow_asked.clear()
    named = {name.replace(".", "__"): value for name, value in settings.items()}
    with opened(Place) as place:
        server = place.start(**named)
        Api(server.url).action("slow", python_zip("slow", MAIN.replace("told", "slow")), "python:3.11")
        assert Registry.is_slow_asked.wait(60)
        server.stop(signal.SIGKILL)
        Registry.may_go_on.set()
        assert Api(place.start(**named).url).run("slow") == {"said": "slow was here"}


@needs_pip
def test_shards_build_what_they_took(settings: dict[str, Any]) -> None:
    with running.running({**settings, "workers": 2}) as server:
        api = Api(server.url)
        for number in range(3):
            code = python_zip("told", f"{MAIN}# shard {number}")
            assert put(api, f"on{number}", "python:3.11", code)[0] == 200
            assert api.run(f"on{number}") == {"said": "told was here"}


@needs_pip
def test_limits_of_a_build_are_named(settings: dict[str, Any]) -> None:
    Registry.may_go_on.clear()
    with running.running({**settings, "build.timeout_s": 1, "build.files": 3}) as server:
        api = Api(server.url)
        status, body, _ = put(api, "long", "python:3.11", python_zip("slow", "# too long"))
        Registry.may_go_on.set()
        assert (status, "more than 1 s" in body["error"], "[build] timeout_s" in body["error"]) == (400, True, True)


@needs_pip
def test_registry_that_cannot_be_reached_may_be_reached_later(settings: dict[str, Any]) -> None:
    nobody = {**settings, "build.environment": "PIP_INDEX_URL=http://127.0.0.1:9/simple/ PIP_RETRIES=1"}
    with running.running(nobody) as server:
        status, body, _ = put(Api(server.url), "far", "python:3.11", python_zip("told"))
    assert (status, "[build] environment" in body["error"]) == (400, True), body


@pytest.mark.all
@needs_go
def test_go(api: Api) -> None:
    """One after the other: the first build leaves the standard library compiled."""
    status, body, progress = put(api, "go", "go:1.26", HELLO % "first")
    assert (status, progress[-1]) == (200, "compiling"), body
    assert api.run("go") == {"said": "first"}

    status, body, _ = put(api, "go", "go:1.26", 'package main\n\nfunc Main() {\n\treturn "x"\n}\n')
    assert status == 400
    assert "./exec.go:4:9: too many return values" in body["error"]
    assert api.run("go") == {"said": "first"}  # as it was stored before

    module = "module it\n\ngo 1.21\n"
    inner = 'package inner\n\nconst Word = "inner"\n'
    outer = 'package main\n\nimport "it/inner"\n\nfunc Hello(args map[string]any) map[string]any {\n'
    outer += '\treturn map[string]any{"said": inner.Word}\n}\n'
    code = zipped(go__mod=module, inner___inner__go=inner, outer__go=outer)
    assert put(api, "packages", "go:1.26", code, main="hello")[0] == 200
    assert api.run("packages") == {"said": "inner"}

    vendored = zipped(
        go__mod=module + "\nrequire far/away v1.0.0\n",
        vendor___modules__txt="# far/away v1.0.0\n## explicit; go 1.21\nfar/away\n",
        vendor___far___away___away__go=inner.replace("package inner", "package away"),
        exec__go=outer.replace("it/inner", "far/away").replace("inner.", "away.").replace("Hello", "Main"),
    )
    assert put(api, "vendored", "go:1.26", vendored)[0] == 200
    assert api.run("vendored") == {"said": "inner"}

    assert put(api, "sub", "go:1.26", zipped(main___hello__go=HELLO % "sub"))[0] == 200
    assert api.run("sub") == {"said": "sub"}


IDNA = "import idna\ndef main(args):\n    return {'said': idna.__version__}\n"
IMPORT = 'main\n\nimport "github.com/google/uuid"\n'
UUID = (HELLO % "x").replace('"x"', "uuid.Nil.String()[:4]").replace("main\n", IMPORT, 1)


POM = """<project><modelVersion>4.0.0</modelVersion><groupId>it</groupId><artifactId>it</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.apache.commons</groupId><artifactId>commons-text</artifactId><version>1.12.0</version>
</dependency></dependencies></project>
"""
JAVA = """import com.google.gson.JsonObject;
import org.apache.commons.text.WordUtils;
public class Main {
  public static JsonObject main(JsonObject args) {
    JsonObject out = new JsonObject();
    out.addProperty("said", WordUtils.capitalize("word"));
    return out;
  }
}
"""
CARGO = (
    '[package]\nname = "actions"\nversion = "0.1.0"\nedition = "2018"\n[dependencies]\nserde_json = "1"\nhex = "0.4"\n'
)
RUST = """use serde_json::{json, Error, Value};
pub fn main(_args: Value) -> Result<Value, Error> {
    Ok(json!({ "said": hex::encode("a") }))
}
"""
IS_NUMBER = zipped(
    index__js="const is = require('is-number'); exports.main = () => ({ said: String(is(5)) })",
    package__json='{"name": "it", "main": "index.js", "dependencies": {"is-number": "7.0.0"}}',
)


@pytest.mark.all
def test_python_s_packages_by_what_visp_installs() -> None:
    with opened(Place) as place:
        installed = subprocess.run(
            [sys.executable, "-m", "visp", "runtime", "install", "uv", "--set", f"runtimes.folder={place.runtimes}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert installed.returncode == 0, installed.stderr
        api = Api(place.start().url)
        code = python_zip("idna==3.10", "import idna\ndef main(args):\n    return {'said': idna.__version__}\n")
        status, body, progress = put(api, "by-uv", "python:3.11", code)
        assert status == 200, body
        assert any(line.startswith("Resolved 1 package") for line in progress), progress
        assert api.run("by-uv") == {"said": "3.10"}


PACKAGERS = {"java:17": ("mvn", "maven"), "ruby:3.1": ("bundle", "ruby-bundler")}
REGISTRIES = {"ruby:3.1": "rubygems.org"}
"""Those that are not everywhere."""


def answers(host: str) -> bool:
    try:
        with closing(http.client.HTTPSConnection(host, timeout=10)) as connection:
            connection.request("HEAD", "/")
            return connection.getresponse().status < 500
    except OSError:
        return False


@pytest.mark.all
@needs_go
@pytest.mark.parametrize("driver", ["process", "landlock"])
def test_drivers_that_mount_nothing_build(driver: str) -> None:
    with running.running({"driver": driver, "trust_all_code": "true"}) as server:
        api = Api(server.url)
        status, body, _ = put(api, "go", "go:1.26", HELLO % driver)
        assert status == 200, body
        assert api.run("go") == {"said": driver}


@pytest.mark.all
@pytest.mark.parametrize(
    ("kind", "code", "result"),
    [
        (
            "python:3.11",
            python_zip("idna==3.10", "import idna\ndef main(args):\n    return {'said': idna.__version__}\n"),
            "3.10",
        ),
        (
            "nodejs:20",
            IS_NUMBER,
            "true",
        ),
        ("bun:1", IS_NUMBER, "true"),
        (
            "deno:2",
            zipped(
                main__ts="import is from 'is-number'\nexport default () => ({ said: String(is(5)) })\n",
                deno__json='{"imports": {"is-number": "npm:is-number@7.0.0"}}',
            ),
            "true",
        ),
        ("java:17", zipped(pom__xml=POM, src___main___java___Main__java=JAVA), "Word"),
        ("rust:1.95", zipped(Cargo__toml=CARGO, src___lib__rs=RUST), "61"),
        (
            "ruby:3.1",
            zipped(
                main__rb='require "rainbow"\n\ndef main(args)\n  { said: Rainbow("x").to_s }\nend\n',
                Gemfile='source "https://rubygems.org"\ngem "rainbow", "3.1.1"\n',
            ),
            "x",
        ),
        (
            "go:1.26",
            zipped(
                go__mod="module it\n\ngo 1.21\n\nrequire github.com/google/uuid v1.6.0\n",
                exec__go=UUID,
            ),
            "0000",
        ),
    ],
    ids=lambda value: value if ":" in value else "",
)
def test_real_registries(kind: str, code: str, result: str) -> None:
    """Those of the world, or what the machine's own settings make of them."""
    if not is_here(kind):
        pytest.skip(f"{kind} is not here: visp runtime install {kind}")
    program, package = PACKAGERS.get(kind, ("sh", ""))
    if not shutil.which(program):
        pytest.skip(f"{program} is not here: apt-get install {package}")
    host = REGISTRIES.get(kind)
    if host is not None and not answers(host):
        pytest.skip(f"{host} does not answer here: open the network to it")
    variables = {"build.environment": "NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt"}
    with running.running(variables) as server:
        api = Api(server.url)
        status, body, _ = put(api, "real", kind, code, **({"main": "Main"} if kind == "java:17" else {}))
        assert status == 200, body
        assert api.run("real") == {"said": result}
