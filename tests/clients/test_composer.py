"""npm `openwhisk-composer`: its library and its two commands deploy compositions, and these run as composed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients.conftest import can_run, checks, node, outcomes, passed
from tests.ports import free_port
from tests.system.conftest import GUEST, Api
from tests.system.places import Place, opened

from visp.client import running

BIN = "node_modules/openwhisk-composer/bin"
FORKS = ("parallel_", "map_")
PASSWORD = """
const composer = require('openwhisk-composer')
module.exports = composer.if(
  composer.action('authenticate', { action: function ({ password }) { return { value: password === 'abc123' } } }),
  composer.action('success', { action: function () { return { message: 'success' } } }),
  composer.action('failure', { action: function () { return { message: 'failure' } } }))
"""
MODULES = """
const isMissing = (name) => { try { require.resolve(name) } catch { return true } }
const main = ({ names }) => ({ missing: names.filter(isMissing) })
"""

pytestmark = can_run


@pytest.fixture(scope="module")
def composing(equipped: running.Server) -> running.Server:
    """The server with the components that compositions are made of."""
    passed(outcomes(equipped, "composer.js", "components_"), "components_")
    return equipped


@pytest.fixture(scope="module")
def found(composing: running.Server) -> dict[str, str]:
    return outcomes(composing, "composer.js")


@pytest.mark.parametrize("check", checks("composer.js"))
def test_compositions(found: dict[str, str], check: str) -> None:
    passed(found, check)


def test_the_commands_compile_and_deploy(equipped: running.Server, tmp_path: Path) -> None:
    source, compiled, properties = tmp_path / "password.js", tmp_path / "password.json", tmp_path / ".wskprops"
    source.write_text(PASSWORD)
    properties.write_text(f"APIHOST={equipped.url}\nAUTH={GUEST}\nNAMESPACE=_\n")
    node(equipped, f"{BIN}/compose.js", str(source), "-o", str(compiled))
    assert {"composition", "ast", "version", "actions"} == set(json.loads(compiled.read_text()))
    deploy = (f"{BIN}/deploy.js", "co-password", str(compiled), "-w", "-t", "5000", "-a", "made-by=composer")
    said = node(equipped, *deploy, WSK_CONFIG_FILE=str(properties), __OW_API_HOST="", __OW_API_KEY="")
    assert said.startswith("ok: created actions /_/authenticate,/_/success,/_/failure,/_/co-password")
    api = Api(equipped.url)
    action = api.get("actions/co-password").json
    assert {"key": "made-by", "value": "composer"} in action["annotations"]
    assert action["limits"]["timeout"] == 5000
    assert api.run("co-password", {"password": "abc123"}) == {"message": "success"}
    assert api.run("co-password", {"password": "guess"}) == {"message": "failure"}
    with pytest.raises(AssertionError, match="resource already exists"):
        node(equipped, f"{BIN}/deploy.js", "co-password", str(compiled))


def test_what_the_library_deploys_finds_its_modules(equipped: running.Server) -> None:
    """A conductor asks for `openwhisk` as soon as it is loaded, for the others when it forks."""
    api = Api(equipped.url)
    api.action("co-modules", MODULES, "nodejs:default")
    names = ["openwhisk", "redis", "redis-commands", "serialize-error", "uuid"]
    assert api.run("co-modules", {"names": names}) == {"missing": []}


def test_an_asynchronous_part_is_invoked_from_inside(composing: running.Server) -> None:
    passed(outcomes(composing, "composer.js", "asynchronous_"), "asynchronous_")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a store for what is forked."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    port = free_port()
    argv = ["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        yield port
        process.terminate()


@pytest.fixture(scope="module")
def forking(modules: Path, redis: int) -> Iterator[running.Server]:
    """A server whose operator lets compositions of `guest` reach the store, and nothing else of this machine."""
    with opened(Place) as place:
        place.runtimes = modules
        server = place.start(network__relays=f"6379=127.0.0.1:{redis} guest")
        passed(outcomes(server, "composer.js", "components_"), "components_")
        system = Api(server.url, place.told("user", "get", "whisk.system"))
        system.request("PUT", "packages/utils", {"publish": True})
        system.action("utils/echo", "const main = (params) => params")
        yield server


@pytest.mark.parametrize("check", FORKS)
def test_forked_parts_are_joined(forking: running.Server, check: str) -> None:
    passed(outcomes(forking, "composer.js", check, REDIS="redis://127.0.0.1:6379"), check)
