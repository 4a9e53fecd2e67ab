"""The proxy over real sockets of the loopback address, with a resolver and an internet of the test's own."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import shutil
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.runtime.test_launchers import Launcher

from visp.container.egress import surroundings
from visp.container.egress.proxy import Proxy
from visp.container.egress.surroundings import is_open, parse_routes, parse_routes6
from visp.entity.network import INTERNET, Address, Policy, parse_openings, parse_policy
from visp.settings import Network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

HOME = ipaddress.ip_address("127.0.0.1")
ELSEWHERE = ipaddress.ip_address("127.0.0.2")


class Guest:
    def __init__(self, namespace: str | None = "guest", policy: Policy = INTERNET) -> None:
        self.namespace = lambda: namespace
        self.policy = lambda: policy


class World:
    """Names mean what `names` says, one answer after another; `open` is what counts as the internet."""

    def __init__(self, limits: Network, allowed: str = "internet") -> None:
        self.names: dict[str, list[list[Address]]] = {"home.test": [[HOME]]}
        self.open = {HOME}
        self.asked: list[str] = []
        self.allowed = allowed
        self.proxy = Proxy(
            limits,
            parse_openings("198.51.100.9 none"),
            self._policy_of,
            self._look_up,
            lambda address: address in self.open,
        )
        self.port = self.service = 0

    async def _policy_of(self, namespace: str) -> Policy:
        return parse_policy(self.allowed)

    def _look_up(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("no such name")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def ask(self, head: str, then: bytes = b"") -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head.format(port=self.service).encode() + b"\r\n\r\n" + then)
        if then:
            writer.write_eof()
        got = await reader.read()
        writer.close()
        first, _, rest = got.partition(b"\r\n\r\n")
        return int(first.split()[1]), rest

    def counted(self) -> dict[str, float]:
        return {labels[0]: float(value) for labels, value in self.proxy.measured()[0].samples.items()}  # type: ignore[arg-type]


@asynccontextmanager
async def world(guest: Guest | None = None, allowed: str = "internet", **limits: float) -> AsyncIterator[World]:
    made = World(Network(**limits), allowed)  # type: ignore[arg-type]

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(1000)
        writer.write(
            data.upper() if not data.startswith(b"GET") else b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nhi"
        )
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        service = await asyncio.start_server(shout, "127.0.0.1", 0)
        made.service = service.sockets[0].getsockname()[1]
        made.port = door.getsockname()[1]
        way = await made.proxy.answer(door, guest or Guest())
        yield made
        way.close()
        service.close()
        made.proxy.close()
        for _ in range(20):  # what was closed is gone some turns later
            await asyncio.sleep(0)


async def test_a_tunnel() -> None:
    async with world() as here:
        assert await here.ask("CONNECT home.test:{port} HTTP/1.1", b"hello") == (200, b"HELLO")
        assert here.counted() == {"allowed": 1}


async def test_a_request_is_passed_on_and_its_answer_ends_the_connection() -> None:
    async with world() as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(f"GET http://home.test:{here.service}/ HTTP/1.1\r\n\r\n".encode())
        assert await reader.read() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"
        writer.close()


async def test_what_is_closed_is_refused_with_a_sentence() -> None:
    async with world() as here:
        here.names["inner.test"] = [[ELSEWHERE]]
        for target in ("inner.test", str(ELSEWHERE)):
            status, body = await here.ask(f"CONNECT {target}:{{port}} HTTP/1.1")
            assert status == 403
            assert target in json.loads(body)["error"]
        assert here.counted() == {"closed": 2}


async def test_a_name_that_means_something_else_the_second_time_gains_nothing() -> None:
    async with world() as here:
        here.names["rebound.test"] = [[HOME], [ELSEWHERE]]
        assert await here.ask("CONNECT rebound.test:{port} HTTP/1.1", b"x") == (200, b"X")
        assert here.asked == ["rebound.test"]
        assert (await here.ask("CONNECT rebound.test:{port} HTTP/1.1"))[0] == 403


async def test_of_several_addresses_those_that_are_open_are_tried() -> None:
    async with world() as here:
        here.names["both.test"] = [[ELSEWHERE, HOME]]
        assert await here.ask("CONNECT both.test:{port} HTTP/1.1", b"x") == (200, b"X")


@pytest.mark.parametrize(
    ("own", "allowed", "status"),
    [
        ("internet", "internet", 200),
        ("none", "internet", 403),
        ("internet", "none", 403),
        ("home.test", "*.test", 200),
        ("home.test", "other.test", 403),
        ("home.test:1", "internet", 403),
        ("127.0.0.0/8", "internet", 403),
    ],
)
async def test_what_both_policies_permit(own: str, allowed: str, status: int) -> None:
    async with world(Guest(policy=parse_policy(own)), allowed) as here:
        assert (await here.ask("CONNECT home.test:{port} HTTP/1.1", b"x"))[0] == status
        assert here.asked == (["home.test"] if status == 200 else [])  # what is not permitted is not looked up


async def test_a_container_of_nobody_reaches_nothing() -> None:
    async with world(Guest(namespace=None)) as here:
        assert (await here.ask("CONNECT home.test:{port} HTTP/1.1"))[0] == 403


async def test_what_cannot_be() -> None:
    async with world() as here:
        assert (await here.ask("CONNECT nowhere.test:{port} HTTP/1.1"))[0] == 502
        assert (await here.ask("CONNECT home.test:1 HTTP/1.1"))[0] == 502
        assert (await here.ask("BREW coffee HTTP/1.1"))[0] == 400
        assert (await here.ask("GET http://home.test/ HTTP/1.1\r\nA: " + "x" * 20_000))[0] == 431
        assert here.counted() == {"unknown": 1, "unreachable": 1, "malformed": 2}


async def test_connections_are_limited_and_idle_ones_end() -> None:
    async with world(connections=1, idle_s=0.2) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(f"CONNECT home.test:{here.service} HTTP/1.1\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        status, body = await here.ask("CONNECT home.test:{port} HTTP/1.1")
        assert status == 503
        assert b"connections" in body
        assert await reader.read() == b""  # nothing was said for so long
        writer.close()


async def test_connections_end_with_their_container() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        async with world() as here:
            door.setblocking(False)
            way = await here.proxy.answer(door, Guest())
            reader, writer = await asyncio.open_connection(*door.getsockname())
            writer.write(f"CONNECT home.test:{here.service} HTTP/1.1\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            way.close()
            assert await reader.read() == b""
            writer.close()
            assert here.proxy.open == 0


NODE = """
const https = require('https')
const get = (url) => new Promise((resolve) => https.get(url, (answer) => {
  let body = ''
  answer.on('data', (piece) => { body += piece })
  answer.on('end', () => resolve([answer.statusCode, body]))
}).on('error', (error) => resolve([0, error.message])))
const ask = (url) => fetch(url).then(
  async (answer) => [answer.status, await answer.text()],
  (error) => [0, error.cause.message])
const main = async ({ urls }) => ({ get: await Promise.all(urls.map(get)), ask: await Promise.all(urls.map(ask)) })
"""


@pytest.mark.slow  # starts Node, and makes a key
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed: apt-get install nodejs")
async def test_node_s_launcher_leads_tls_through_it(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        await writer.drain()
        writer.close()

    async with world() as here, await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certified(tmp_path)) as service:
        port = service.sockets[0].getsockname()[1]
        env = {"HTTPS_PROXY": f"http://127.0.0.1:{here.port}", "NODE_TLS_REJECT_UNAUTHORIZED": "0"}
        launcher = Launcher()
        init = {"value": {"name": "x", "main": "main", "binary": False, "code": NODE, "env": env}}
        assert json.loads(await asyncio.to_thread(launcher.ask, init))["ok"] is True
        urls = [f"https://home.test:{port}/", f"https://away.test:{port}/"]
        got = json.loads(await asyncio.to_thread(launcher.ask, {"value": {"urls": urls}}))
        await asyncio.to_thread(launcher.end)
        expected = [[200, "hi"], [0, f"'away.test:{port}' has no address."]]
        assert got == {"get": expected, "ask": expected}


def certified(folder: Path) -> ssl.SSLContext:
    """For `home.test`, by nobody."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "home.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(secret + made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


def test_networks_without_a_router_are_those_of_neighbours() -> None:
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    rows = "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\neth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    assert [*map(str, parse_routes(head + rows))] == ["192.0.2.0/24"]
    row = "fd000000000000000000000000000000 40 {0} 00 {0} 00000100 00000001 00000000 {1} eth0\n"
    text = row.format("0" * 32, "00000001") + row.format("fd" + "0" * 30, "00000003")
    assert [*map(str, parse_routes6(text))] == ["fd00::/64"]


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_the_internet_is_open_seen_from_here(text: str) -> None:
    assert is_open(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::", "::ffff:10.0.0.1", "64:ff9b::7f00:1"]
)
def test_what_is_closed_to_everybody_is_closed_here(text: str) -> None:
    assert not is_open(ipaddress.ip_address(text))


def test_what_the_host_has_is_closed_whatever_networks_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "is_closed", lambda *_: False)
    for form in ("127.0.0.1", "::ffff:127.0.0.1", "2002:7f00:1::"):
        assert not is_open(ipaddress.ip_address(form))
