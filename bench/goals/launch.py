"""From the command to the first answers, with a data folder that is new and with one that was used before."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.goals import Goal
from bench.load import Broken
from bench.measure import Finding, interleaved, spread
from bench.server import GREETING, HELLO_NODE, NAME, Platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("launch", "from `visp start` to its first answers")
PING_S, INVOKE_S = 0.5, 1.0
WITHIN_S = 30.0
POLL_S = 0.001
IMPORTS = "import click, httptools, msgspec, starlette.routing, uvicorn, uvloop"


class Launch(msgspec.Struct, frozen=True):
    """Seconds since the command: `/ping` was answered; a new Node action had been created, invoked and answered."""

    ping_s: float
    invoke_s: float


def measure(rig: Rig) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="visp-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # containers of a root server reach their code below it under uids of their own
        kept = Path(folder) / "kept"
        launch(kept, Path(folder) / "cells")
        fresh, again, imports = interleaved(
            rig.rounds,
            lambda: launch(Path(tempfile.mkdtemp(dir=folder)) / "data", Path(folder) / "cells"),
            lambda: launch(kept, Path(folder) / "cells"),
            imports_only,
        )
    floor = spread(launch.ping_s for launch in imports)
    for what, launches in (("new data folder", fresh), ("kept data folder", again)):
        ping, invoke = spread(launch.ping_s for launch in launches), spread(launch.invoke_s for launch in launches)
        yield Finding(
            goal=GOAL.name,
            what=f"to /ping, {what}; floor: imports",
            unit="s",
            ours=ping,
            floor=floor,
            promise=f"≤ {PING_S} s",
            is_met=ping.median <= PING_S,
        )
        yield Finding(
            goal=GOAL.name,
            what=f"to the first invoke, {what}",
            unit="s",
            ours=invoke,
            promise=f"≤ {INVOKE_S} s",
            is_met=invoke.median <= INVOKE_S,
        )


def launch_once() -> Launch:
    """A launch with folders of its own."""
    with tempfile.TemporaryDirectory(prefix="visp-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        return launch(Path(folder) / "data", Path(folder) / "cells")


def launch(data_dir: Path, cells_dir: Path) -> Launch:
    """Starts a server, asks it until it answers, makes an action and invokes it, and stops it."""
    port = _free_port()
    argv = [sys.executable, "-m", "visp", "start", "--port", str(port), "--data-dir", str(data_dir)]
    environ = os.environ | {"VISP_CONTAINER__CELLS_DIR": str(cells_dir)}
    began_s = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ)
    try:
        _until_ping(port, process)
        ping_s = time.perf_counter() - began_s
        visp = Platform(f"http://127.0.0.1:{port}", process.pid)
        visp.put_action("hello", HELLO_NODE)
        result = visp.run("hello", NAME)
        invoke_s = time.perf_counter() - began_s
        visp.close()
    finally:
        process.terminate()
        process.wait()
    if result != GREETING:
        raise Broken(f"the action answered {result}")
    return Launch(ping_s, invoke_s)


def imports_only() -> Launch:
    """An interpreter that only imports what a server needs before it listens."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    took_s = time.perf_counter() - began_s
    return Launch(took_s, took_s)


def _until_ping(port: int, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + WITHIN_S
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            if connection.recv(4096).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(POLL_S)
    raise Broken(f"the server did not answer within {WITHIN_S} s: start it by hand and see what it says")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
