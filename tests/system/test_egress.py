"""What actions reach in a network: the internet, and nothing of the host's, its neighbours' or anybody's private."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.system import islands, test_normal_user
from tests.system.conftest import Api, has_sandbox
from tests.system.islands import ECHO, HTTP, INTERNET, METADATA, NEIGHBOUR, OWN, PRIVATE, PRIVATE6
from tests.system.test_packages import make_key

from visp.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

UID = test_normal_user.UID + 9
"""Of nobody else."""
PYTHON = """
import os, socket, urllib.error, urllib.request

def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=8) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, str(error)]

def packets(host, port):
    try:
        with socket.create_connection((host, port), timeout=2) as sock:
            sock.sendall(b"hello")
            return sock.recv(100).decode()
    except OSError as error:
        return type(error).__name__

def main(p):
    if "fetch" in p:
        return {"answer": [fetch(url) for url in p["fetch"]]}
    if "packets" in p:
        return {"answer": [packets(*at) for at in p["packets"]]}
    return {"answer": {name: value for name, value in os.environ.items() if "proxy" in name.lower()}}
"""
NODE = """
const http = require('http')
const get = (url) => new Promise((resolve) => {
  http.get(url, (answer) => {
    let body = ''
    answer.on('data', (piece) => { body += piece })
    answer.on('end', () => resolve([answer.statusCode, body]))
  }).on('error', (error) => resolve([0, String(error.message)]))
})
const ask = (url, options) => fetch(url, options).then(
  async (answer) => [answer.status, await answer.text()],
  (error) => [0, String(error.cause && error.cause.message || error)])
const post = (url) => ask(url, { method: 'POST', body: 'sent' })
async function main ({ urls }) {
  return { get: await Promise.all(urls.map(get)), ask: await Promise.all(urls.map((url) => ask(url))),
           post: await post(urls[0]) }
}
"""
REACHED = f"http://{INTERNET}:{HTTP}/a?b=c"
CLOSED = [
    *(f"http://127.0.0.1:{HTTP}/", f"http://{OWN}:{HTTP}/", f"http://{NEIGHBOUR}:{HTTP}/", f"http://{PRIVATE}:{HTTP}/"),
    *(f"http://{METADATA}:{HTTP}/", f"http://[{PRIVATE6}]:{HTTP}/", f"http://[::ffff:{PRIVATE}]:{HTTP}/"),
    *(f"http://{name}.test:{HTTP}/" for name in ("inner", "private", "metadata", "mapped", "six")),
]


class World:
    def __init__(self, server: running.Server, key: str) -> None:
        self.server = server
        self.guest, self.other = Api(server.url), Api(server.url, key)

    def fetch(self, *urls: str, api: Api | None = None, name: str = "py") -> Any:
        return (api or self.guest).run(name, {"fetch": urls})["answer"]

    def packets(self, *at: tuple[str, int], api: Api | None = None, name: str = "py") -> Any:
        return (api or self.guest).run(name, {"packets": at})["answer"]

    def limited(self, policy: str, name: str, code: str = PYTHON, kind: str = "python:3.11") -> None:
        self.guest.action(name, code, kind, annotations=[{"key": "network", "value": policy}])

    def counted(self, name: str, **labels: str) -> float:
        text = self.guest.request("GET", "/metrics").body.decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(word in line for word in wanted))


@contextmanager
def world_of(user: int | None, **settings: Any) -> Iterator[World]:
    """A server whose namespaces may be told apart, with the actions of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="visp-"))
    folder.chmod(0o711)
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    key = asyncio.run(make_key(data_dir))
    if user is not None:
        for path in (folder, data_dir, *data_dir.rglob("*")):
            os.chown(path, user, user)
    given = {
        "container.cells_dir": folder / "cells",
        "network.openings": f"{PRIVATE}:{HTTP} other",
        **settings,
    }
    server = running.start(data_dir, given, user=user, env={"HOME": str(folder)})
    try:
        world = World(server, key)
        for api in (world.guest, world.other):
            api.action("py", PYTHON, "python:3.11")
        world.guest.action("js", NODE)
        yield world
    finally:
        server.stop()
        server.log.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def why_not() -> str | None:
    return islands.why_not() or (None if has_sandbox() else "bubblewrap is not installed: apt-get install bubblewrap")


pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def ways() -> list[Any]:
    """Drivers, and users to run their servers as: this one, and a normal one."""
    other = test_normal_user.can_be_another()
    mark = pytest.mark.skipif(other is not None, reason=other or "")
    return [
        pytest.param(("fork", None), id="fork-root"),
        pytest.param(("bwrap", None), id="bwrap-root"),
        pytest.param(("fork", UID), id="fork-user", marks=mark),
    ]


@pytest.fixture(scope="module")
def island() -> Iterator[None]:
    with islands.island():
        yield


@pytest.fixture(scope="module", params=ways())
def world(request: pytest.FixtureRequest, island: None) -> Iterator[World]:
    driver, user = request.param
    with world_of(user, driver=driver, **{}) as world:
        yield world


def test_the_internet_is_reached(world: World) -> None:
    assert world.fetch(REACHED, f"http://good.test:{HTTP}/x", f"http://both.test:{HTTP}/y") == [
        [200, f"/a?b=c {INTERNET}:{HTTP}"],
        [200, f"/x good.test:{HTTP}"],
        [200, f"/y both.test:{HTTP}"],
    ]


def test_node_reaches_it_by_each_of_its_ways(world: World) -> None:
    found = world.guest.run("js", {"urls": [REACHED, f"http://{PRIVATE}:{HTTP}/", f"http://inner.test:{HTTP}/"]})
    for name in ("get", "ask"):
        assert found[name][0] == [200, f"/a?b=c {INTERNET}:{HTTP}"]
        for status, said in found[name][1:]:
            assert status in (0, 403)
            assert "private, or belongs to the host" in said
    assert found["post"] == [200, "SENT"]


def test_nothing_of_the_host_s_or_private_is_reached(world: World) -> None:
    refused = world.counted("visp_egress_connections_total", result="closed")
    for url, (status, said) in zip(CLOSED, world.fetch(*CLOSED), strict=True):
        assert status in (0, 403), (url, said)
    assert world.counted("visp_egress_connections_total", result="closed") - refused >= len(CLOSED) - 2


def test_what_an_operator_opens_is_for_the_namespaces_that_may_use_it(world: World) -> None:
    private = f"http://{PRIVATE}:{HTTP}/"
    assert world.fetch(private, api=world.other)[0][0] == 200
    assert world.fetch(private)[0][0] == 403
    assert world.fetch(f"http://{PRIVATE}:{ECHO}/", api=world.other)[0][0] == 403


def test_an_action_that_asks_for_none_reaches_none(world: World) -> None:
    world.limited("none", "shut")
    ((status, said),) = world.fetch(REACHED, name="shut")
    assert status == 403
    assert "'none'" in said
    assert world.packets((INTERNET, ECHO), name="shut") == ["OSError"]


def test_an_action_that_lists_what_it_reaches_reaches_that(world: World) -> None:
    world.limited(f"good.test:{HTTP} *.good.test {INTERNET}:{HTTP}", "listed")
    good, www, address, both, other_port = world.fetch(
        f"http://good.test:{HTTP}/",
        f"http://www.good.test:{HTTP}/",
        REACHED,
        f"http://both.test:{HTTP}/",
        f"http://{INTERNET}:{ECHO}/",
        name="listed",
    )
    assert [good[0], www[0], address[0]] == [200, 200, 200]
    assert [both[0], other_port[0]] == [403, 403]
    assert "good.test" in both[1]


def test_an_annotation_that_cannot_be_meant_is_refused(world: World) -> None:
    body = {"exec": {"kind": "python:3.11", "code": PYTHON}, "annotations": [{"key": "network", "value": "a b/c"}]}
    answer = world.guest.request("PUT", "actions/wrong", body)
    assert answer.status == 400
    assert "The annotation 'network'" in answer.json["error"]


def test_bytes_and_connections_are_counted(world: World) -> None:
    before = world.counted("visp_egress_connections_total", result="allowed")
    carried = world.counted("visp_egress_bytes_total", direction="in")
    world.fetch(REACHED)
    assert world.counted("visp_egress_connections_total", result="allowed") == before + 1
    assert world.counted("visp_egress_bytes_total", direction="in") > carried
