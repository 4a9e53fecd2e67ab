"""What a container asks and is told of names: a table, whatever may come, and a server's answers over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.container.egress import names
from visp.container.egress.names import Malformed, Names, addresses, asked_name, parse_servers, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from visp.entity.network import Address


def named(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question(name: str, kind: int = 1) -> bytes:
    return struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + named(name) + struct.pack(">2H", kind, 1)


def answer(asked: bytes, *found: str) -> bytes:
    records = b""
    for text in found:
        address = ipaddress.ip_address(text)
        kind = 1 if address.version == 4 else 28
        records += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(address.packed)) + address.packed
    return asked[:2] + struct.pack(">5H", 0x8180, 1, len(found), 0, 0) + asked[12:] + records


def test_a_question_and_its_answer() -> None:
    asked = question("WWW.good.test")
    assert asked_name(asked) == "www.good.test"
    assert [*map(str, addresses(answer(asked, "198.51.100.7", "fd00::1")))] == ["198.51.100.7", "fd00::1"]
    refused = refusal(asked, names.REFUSED)
    assert refused[:2] == asked[:2]
    assert refused[3] & 15 == names.REFUSED
    assert refused[12:] == asked[12:]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        question("a")[:11],
        question("a")[:13],
        answer(question("a"), "198.51.100.7"),
        struct.pack(">6H", 1, 0, 2, 0, 0, 0) + named("a") * 2,
        struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
    ],
)
def test_what_is_no_question(message: bytes) -> None:
    with pytest.raises(Malformed):
        asked_name(message)


@given(st.binary(max_size=80))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        asked_name(data)
    with contextlib.suppress(Malformed):
        assert len([*addresses(data)]) <= len(data)


def test_servers_of_the_host() -> None:
    assert parse_servers("# x\nnameserver 192.0.2.1\noptions a\nnameserver fe80::1%eth0\nnameserver\n") == [
        "192.0.2.1",
        "fe80::1",
    ]


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("good.test", 0, ["198.51.100.7"]),
        ("inner.test", names.REFUSED, []),
        ("both.test", names.REFUSED, []),
        ("unlisted.test", names.REFUSED, []),
        ("silent.test", names.FAILED, []),
    ],
)
@pytest.mark.parametrize("way", ["packet", "stream"])
async def test_what_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, name: str, code: int, told: list[str]
) -> None:
    known = {"good.test": ["198.51.100.7"], "inner.test": ["127.0.0.1"], "both.test": ["198.51.100.7", "10.0.0.1"]}

    async def ask(server: str, asked: bytes) -> bytes:
        assert server == "192.0.2.1"
        if asked_name(asked) not in known:
            raise OSError
        return answer(asked, *known[asked_name(asked)])

    monkeypatch.setattr(names, "ask_by_packet", ask)
    monkeypatch.setattr(names, "ask_by_stream", ask)
    monkeypatch.setattr(names, "RESOLVERS", tmp_path / "resolv.conf")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")

    def may_tell(_: str, address: Address) -> bool:
        return str(address) == "198.51.100.7"

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    here = Names(lambda _, name: name != "unlisted.test", may_tell)
    await here.listen("127.0.0.1", port)
    try:
        heard = await (by_packet if way == "packet" else by_stream)(port, question(name))
    finally:
        here.close()
    assert heard[:2] == b"\x12\x34"
    assert heard[3] & 15 == code
    assert [*map(str, addresses(heard))] == told


async def by_packet(port: int, asked: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(("127.0.0.1", port))
        sock.send(asked)
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1000), 10)


async def by_stream(port: int, asked: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(len(asked).to_bytes(2, "big") + asked)
    data = await reader.read()
    writer.close()
    assert int.from_bytes(data[:2], "big") == len(data) - 2
    return data[2:]
