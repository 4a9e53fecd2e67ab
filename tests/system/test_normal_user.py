"""A whole server that is not root: the same sandbox under its own uid, and nothing left behind."""

from __future__ import annotations

import functools
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


@functools.cache
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


NARROW = """#!/bin/sh
exec unshare -U --map-user={uid} --map-group={uid} --keep-caps sh -c '
  echo 0 > /proc/sys/user/max_user_namespaces
  exec setpriv --no-new-privs --ambient-caps=-all --inh-caps=-all --bounding-set=-all "$@"' sh {python} "$@"
"""
"""Python on a machine that refuses user namespaces."""


@pytest.mark.slow  # starts a server, which tries three drivers in vain
def test_where_namespaces_are_refused_the_last_wall_stands_in(home: Path) -> None:
    python = home / "python"
    python.write_text(NARROW.format(uid=UID, python=sys.executable))
    python.chmod(0o755)
    asked = [str(python), "-c", "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x10000000) == 0)"]
    if subprocess.run(asked, user=UID, group=UID, extra_groups=[], check=False).returncode != 0:
        pytest.skip("user namespaces cannot be refused here")
    server = running.start(home / "data", user=UID, env={"HOME": str(home)}, python=str(python))
    try:
        api = Api(server.url)
        api.action("js", "function main (a) { return { hello: a.name } }")
        api.action("py", "import os\ndef main(args):\n    return {'uid': os.getuid()}", "python:3.11")
        assert api.run("js", {"name": "you"}) == {"hello": "you"}
        assert api.run("py") == {"uid": UID}
        said = server.read_log()
        for name in ("fork", "bwrap", "nsjail"):
            assert f"driver.refused driver={name}" in said, said
        assert "driver.ready driver=landlock" in said, said
        assert "the sandbox is WEAK" in said
    finally:
        server.stop()
    until(lambda: not processes(), what=processes)
