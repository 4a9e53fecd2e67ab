"""Modules that were installed for the nodejs kinds: every action of such a kind finds them in its sandbox."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system import test_normal_user
from tests.system.conftest import Api, has_sandbox
from tests.system.places import Place, opened
from tests.system.test_normal_user import can_be_another

from visp.client import running

pytestmark = [
    pytest.mark.skipif(not has_sandbox(), reason="bubblewrap is not installed: apt-get install bubblewrap"),
    pytest.mark.slow,  # starts servers, a second each; npm installs once for all tests, two seconds
]

UID = test_normal_user.UID + 2
"""Of nobody else: there it is looked for what its servers left."""
REFUSED = {"EROFS", "EACCES", "EPERM"}
NAMES = ["openwhisk", "redis", "redis-commands", "serialize-error", "uuid"]
REQUIRES = """
const openwhisk = require('openwhisk')
const serialise = require('serialize-error')
const main = ({ names }) => ({
  found: names.map((name) => require.resolve(name)),
  client: Object.keys(openwhisk({ apihost: 'none', api_key: 'none' })).includes('actions'),
  said: serialise(new Error('told')).message
})
"""
IMPORTS = """
import openwhisk from 'openwhisk'
import { v4, validate } from 'uuid'
export async function main () {
  const { default: redis } = await import('redis')
  return { client: typeof openwhisk, client2: typeof redis.createClient, id: validate(v4()) }
}
"""
LOOKS = """
const fs = require('fs')
const attempt = (work) => { try { work(); return 'done' } catch (error) { return error.code } }
const main = () => ({
  root: fs.readdirSync('/').sort(),
  visp: fs.readdirSync('/visp').sort(),
  modules: fs.readdirSync('/opt/visp/nodejs-modules/node_modules').filter((name) => !name.startsWith('.')).sort(),
  attempts: [
    attempt(() => fs.writeFileSync('/opt/visp/nodejs-modules/node_modules/new.js', '')),
    attempt(() => fs.appendFileSync('/node_modules/uuid/package.json', ' ')),
    attempt(() => fs.chmodSync('/opt/visp/nodejs-modules/node_modules/uuid', 0o777)),
    attempt(() => fs.unlinkSync('/opt/visp/nodejs-modules/node_modules/uuid/package.json'))
  ]
})
"""
OWN = {
    "package.json": '{"main": "main.js"}',
    "main.js": """
const own = require('uuid')
exports.main = async () => ({ required: own.mine, imported: (await import('uuid')).default.mine,
  other: typeof require('openwhisk') })
""",
    "node_modules/uuid/package.json": '{"name": "uuid", "version": "0.0.1", "main": "index.js"}',
    "node_modules/uuid/index.js": "exports.mine = 'the own one'",
}
PYTHON = """
import os
def main(args):
    return {"visp": os.listdir("/visp"), "path": "NODE_PATH" in os.environ}
"""


def zipped(files: dict[str, str]) -> str:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return base64.b64encode(out.getvalue()).decode()


@pytest.fixture(scope="module", params=["fork", "bwrap"])
def equipped(request: pytest.FixtureRequest, modules: Path) -> Iterator[Api]:
    with opened(Place) as place:
        place.runtimes = modules
        yield Api(place.start("--driver", request.param).url)


@pytest.fixture(scope="module")
def bare() -> Iterator[Api]:
    with opened(Place) as place:
        yield Api(place.start().url)


def test_what_is_required(equipped: Api) -> None:
    equipped.action("required", REQUIRES, "nodejs:default")
    answer = equipped.run("required", {"names": NAMES})
    assert [path.split("/node_modules/")[1].split("/")[0] for path in answer["found"]] == NAMES
    assert (answer["client"], answer["said"]) == (True, "told")


def test_what_is_imported(equipped: Api) -> None:
    equipped.action("imported", IMPORTS, "nodejs:default")
    assert equipped.run("imported") == {"client": "function", "client2": "function", "id": True}


def test_an_actions_own_module_goes_before(equipped: Api) -> None:
    equipped.action("own", zipped(OWN), "nodejs:default", exec={"binary": True})
    answer = equipped.run("own")
    assert answer == {"required": "the own one", "imported": "the own one", "other": "function"}


def test_nothing_else_is_seen_and_nothing_can_be_changed(equipped: Api, modules: Path) -> None:
    equipped.action("looks", LOOKS, "nodejs:default")
    answer = equipped.run("looks")
    assert {"node_modules", "visp", "action"} < set(answer["root"])
    assert not {"root", "home", "var", "run"} & set(answer["root"])
    assert answer["visp"] == ["nodejs-extras.cjs", "nodejs-launcher.cjs"]
    installed = (modules / "nodejs-modules" / "node_modules").iterdir()
    assert answer["modules"] == sorted(path.name for path in installed if not path.name.startswith("."))
    assert set(answer["attempts"]) <= REFUSED


def test_other_kinds_are_not_told(equipped: Api) -> None:
    equipped.action("python", PYTHON, "python:default")
    answer = equipped.run("python")
    answer["visp"].sort()
    assert answer == {"visp": ["python-extras.py", "python-launcher.py"], "path": False}


def test_without_an_install_it_is_as_it_was(bare: Api) -> None:
    api = bare
    api.action("none", "const uuid = require('uuid'); const main = () => ({})", "nodejs:default")
    answer = api.invoke("none").json
    assert answer["response"]["status"] == "action developer error"
    assert "Cannot find module 'uuid'" in answer["response"]["result"]["error"]
    api.action("imports-none", "import { v4 } from 'uuid'; export const main = () => ({})", "nodejs:default")
    assert "Cannot find package 'uuid'" in api.invoke("imports-none").json["response"]["result"]["error"]


def test_driver_without_a_sandbox_finds_what_is_required(modules: Path) -> None:
    with opened(Place) as place:
        place.runtimes = modules
        api = Api(place.start("--driver", "process", "--i-trust-all-code").url)
        api.action("required", REQUIRES, "nodejs:default")
        assert api.run("required", {"names": NAMES})["client"]


@pytest.mark.skipif(can_be_another() is not None, reason=can_be_another() or "")
@pytest.mark.parametrize("driver", ["fork", "bwrap"])
def test_a_server_of_a_normal_user(modules: Path, driver: str) -> None:
    with opened(Place) as place:
        place.folder.chmod(0o755)
        place.runtimes = modules
        place.data_dir.mkdir(mode=0o700)
        os.chown(place.data_dir, UID, UID)
        home = {"HOME": str(place.data_dir), "VISP_RUNTIMES__FOLDER": str(modules)}
        server = running.start(place.data_dir, flags=("--driver", driver), user=UID, env=home)
        try:
            api = Api(server.url)
            api.action("imported", IMPORTS, "nodejs:default")
            assert api.run("imported")["id"]
            api.action("looks", LOOKS, "nodejs:default")
            assert set(api.run("looks")["attempts"]) <= REFUSED
        finally:
            server.stop()
            server.log.unlink()
