"""A whole server that is not root: the same sandbox under its own uid, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Api, has_sandbox
from tests.system.traces import until

from visp.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

UID = 64_123


def can_be_another() -> str | None:
    """Why no server of another user can be started here, None where one can."""
    if os.geteuid() != 0:
        return "the other tests run as a normal user already"
    if not has_sandbox():
        return "bubblewrap is not installed: apt-get install bubblewrap"
    can = subprocess.run(
        [sys.executable, "-c", "import visp.serving"],
        user=UID,
        group=UID,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    return None if can.returncode == 0 else "a normal user cannot reach this Python, or the project"


pytestmark = pytest.mark.skipif(can_be_another() is not None, reason=can_be_another() or "")


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="visp-user-"))
    os.chown(folder, UID, UID)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def processes() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == UID and (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


@pytest.mark.slow  # starts a server: about two seconds
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_of_a_normal_user(home: Path, number: signal.Signals) -> None:
    server = running.start(home / "data", user=UID, env={"HOME": str(home)})
    try:
        api = Api(server.url)
        api.action("js", "function main (a) { return { hello: a.name } }")
        api.action(
            "py",
            "import os\ndef main(args):\n    return {'uid': os.getuid(), 'etc': os.listdir('/etc')}",
            "python:3.11",
        )
        assert api.run("js", {"name": "you"}) == {"hello": "you"}
        inside = api.run("py")
        assert inside["uid"] == 65534
        assert "shadow" not in inside["etc"]
        assert len(processes()) > 1
    finally:
        status = server.stop(number)
        server.log.unlink()
    assert status == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    until(lambda: not processes(), what=processes)
    until(lambda: not list((home / "data" / "cells" / "cells").glob("*")))
