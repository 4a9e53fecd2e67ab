"""OpenWhisk's own clients, unchanged, against a real server: how they are run, and on what.

They come from npm into `node_modules` beside this file (`make test` sees to that). Each script holds the checks of one
client and runs them in one process, since starting Node costs more than most of them do; a check is a test here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.conftest import GUEST, api, modules, server
from tests.system.places import Place, opened

from visp.client import running

__all__ = ["api", "modules", "server"]  # fixtures

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"


def why_not() -> str | None:
    """What keeps the clients from running here."""
    for program, package in (("bwrap", "bubblewrap"), ("node", "nodejs"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    if not MODULES.is_dir():
        return "tests/clients/node_modules is missing: npm ci --prefix tests/clients"
    return None


MISSING = why_not()
can_run = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


def checks(script: str) -> list[str]:
    """The names of a script's checks, without those that run only when they are asked for."""
    names = re.findall(r"^  async (\w+) \(\) {$", (HERE / script).read_text(), re.MULTILINE)
    return [name for name in names if not name.endswith("_")]


def outcomes(server: running.Server, script: str, *names: str, **variables: str) -> dict[str, str]:
    """Runs a script's checks; by name what went wrong with each, empty for nothing."""
    found = dict.fromkeys(names or checks(script), "did not come to an end")
    for line in node(server, script, *names, **variables).splitlines():
        told = json.loads(line)
        found[told["name"]] = told["error"] or ""
    return found


def passed(found: dict[str, str], check: str) -> None:
    """Fails with what the client said."""
    if found[check]:
        pytest.fail(found[check], pytrace=False)


def node(server: running.Server, *words: str, folder: Path = HERE, **variables: str) -> str:
    """What a program of Node prints when it is told where the server is; it must end well, within two minutes.

    `folder` is where it runs. Nothing of the caller's environment gets to it but where programs lie.
    """
    told = {
        "PATH": os.environ["PATH"],
        "__OW_API_HOST": server.url,
        "__OW_API_KEY": GUEST,
        "WSK_CONFIG_FILE": os.devnull,
    }
    done = subprocess.run(
        ["node", *words], cwd=folder, env=told | variables, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def equipped(modules: Path) -> Iterator[running.Server]:
    """A server whose Node.js actions find what OpenWhisk's images bring, and overlap where they ask for it."""
    with opened(Place) as place:
        place.runtimes = modules
        yield place.start(limits__concurrency=200)
