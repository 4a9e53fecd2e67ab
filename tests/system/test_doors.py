"""What a container reaches: the platform by its own door, for whom it runs; what an operator lets it; nothing else."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.system import test_normal_user
from tests.system.conftest import Api
from tests.system.test_packages import make_key

from visp.client import running
from visp.entity.subject import GUEST_KEY, GUEST_UUID

GUEST = f"{GUEST_UUID}:{GUEST_KEY}"
UID = test_normal_user.UID + 1
"""Of nobody else: there it is looked for what its servers left."""
PYTHON = """
import base64, json, os, socket, urllib.error, urllib.request

def ask(path, key=None, method="GET", body=None):
    request = urllib.request.Request(os.environ["__OW_API_HOST"] + path, method=method, data=body)
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", "Basic " + base64.b64encode(key.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [answer.status, json.loads(answer.read())]
    except urllib.error.HTTPError as error:
        return [error.code, None]

def reach(port, host="127.0.0.1"):
    try:
        with socket.create_connection((host, port), timeout=2) as sock:
            sock.sendall(b"hello")
            return sock.recv(100).decode()
    except OSError as error:
        return type(error).__name__

def hold(count):
    held = [socket.create_connection(("127.0.0.1", 3233), timeout=5) for _ in range(count)]
    alive = 0
    for sock in held:
        try:
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            alive += bool(sock.recv(10))
        except OSError:
            pass
    for sock in held:
        sock.close()
    return alive

def main(p):
    if "ask" in p:
        return {"answer": ask(*p["ask"])}
    if "invoke" in p:
        path = f"/api/v1/namespaces/_/actions/{p['invoke']}?blocking=true&result=true"
        return {"answer": ask(path, os.environ["__OW_API_KEY"], "POST", json.dumps({"n": 1}).encode())}
    if "hold" in p:
        return {"answer": hold(p["hold"])}
    return {"answer": [reach(port, *p.get("host", [])) for port in p["reach"]]}
"""
NODE = """
const http = require('http')
const main = () => new Promise((resolve) => {
  const auth = 'Basic ' + Buffer.from(process.env.__OW_API_KEY).toString('base64')
  const url = process.env.__OW_API_HOST + '/api/v1/namespaces'
  http.get(url, { headers: { Authorization: auth } }, (answer) => {
    let body = ''
    answer.on('data', (piece) => { body += piece })
    answer.on('end', () => resolve({ answer: [answer.statusCode, JSON.parse(body)] }))
  }).on('error', (error) => resolve({ error: String(error) }))
})
"""


@contextmanager
def shouting() -> Iterator[int]:
    """A service of the host's; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(connection.recv(100).upper())

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


class World:
    def __init__(self, url: str, key: str, port: int) -> None:
        self.guest, self.other = Api(url), Api(url, key)
        self.key = key
        self.port = port
        """Of a service on the host, which the guest may use at 6379 inside."""

    def run(self, payload: Any, api: Api | None = None, name: str = "py") -> Any:
        return (api or self.guest).run(name, payload)["answer"]


def users() -> list[Any]:
    """Drivers, and users to run their servers as: this one, and a normal one beside root."""
    why_not = test_normal_user.can_be_another()
    other = pytest.mark.skipif(why_not is not None, reason=why_not or "")
    return [
        pytest.param((driver, user), id=f"{driver}-{name}", marks=marks)
        for driver in ("fork", "bwrap")
        for user, name, marks in ((None, "own", ()), (UID, "user", other))
    ]


@pytest.fixture(scope="module", params=users())
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    driver, user = request.param
    folder = Path(tempfile.mkdtemp(prefix="visp-"))
    folder.chmod(0o711)
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    key = asyncio.run(make_key(data_dir))
    if user is not None:
        for path in (folder, data_dir, *data_dir.rglob("*")):
            os.chown(path, user, user)
    with shouting() as port:
        settings = {
            "driver": driver,
            "network.relays": f"6379=127.0.0.1:{port} guest",
            "container.cells_dir": folder / "cells",
        }
        server = running.start(data_dir, settings, user=user, env={"HOME": str(folder)})
        try:
            world = World(server.url, key, port)
            for api in (world.guest, world.other):
                for name, kind, code in (("py", "python:3.11", PYTHON), ("js", "nodejs:20", NODE)):
                    body = {
                        "exec": {"kind": kind, "code": code},
                        "annotations": [{"key": "provide-api-key", "value": True}],
                    }
                    assert api.request("PUT", f"actions/{name}", body).status == 200
            yield world
        finally:
            server.stop()
            server.log.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def test_the_platform_is_reached_by_whom_the_container_runs_for(world: World) -> None:
    assert world.guest.run("js", {})["answer"] == [200, ["guest"]]
    assert world.other.run("js", {})["answer"] == [200, ["other"]]


def test_an_action_invokes_another(world: World) -> None:
    echo = {"exec": {"kind": "python:3.11", "code": "def main(p):\n    return p\n"}}
    world.guest.request("PUT", "actions/echo", echo)
    assert world.run({"invoke": "echo"}) == [200, {"n": 1}]


def test_the_well_known_key_is_good_in_its_own_containers_alone(world: World) -> None:
    path = "/api/v1/namespaces"
    assert world.run({"ask": [path, GUEST]}) == [200, ["guest"]]
    assert world.run({"ask": [path, GUEST]}, world.other) == [401, None]
    assert world.run({"ask": [path, world.key]}, world.guest) == [200, ["other"]]
    assert world.run({"ask": [path]}) == [401, None]


@pytest.mark.parametrize("path", ["/metrics", "/ready", "/invokers", "/activation/count"])
def test_what_is_an_operator_s_is_not_a_container_s(world: World, path: str) -> None:
    assert world.run({"ask": [path]}) == [405, None]


def test_nothing_else_of_the_host_is_reached(world: World) -> None:
    public = int(world.guest.url.rsplit(":", 1)[1])
    assert set(world.run({"reach": [public, world.port, 22, 53]})) == {"ConnectionRefusedError"}
    own = socket.gethostbyname(socket.gethostname())
    found = world.run({"reach": [public, 22], "host": [own]})
    assert set(found) <= {"OSError", "ConnectionRefusedError", "TimeoutError"}


def test_a_relay_is_for_the_namespaces_that_may_use_it(world: World) -> None:
    assert world.run({"reach": [6379]}) == ["HELLO"]
    assert world.run({"reach": [6379]}, world.other) in ([""], ["ConnectionResetError"])


def test_a_container_has_so_many_connections_at_once(world: World) -> None:
    assert world.run({"hold": 60}) == 32
    assert world.run({"hold": 10}) == 10
