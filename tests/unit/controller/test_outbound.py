from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator

import pytest

from visp.controller.outbound import NotReached, Outbound, is_public
from visp.settings import Hooks

CLOSED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "2002:a00:1::1",
    "2001:db8::1",
]


@pytest.mark.parametrize("text", CLOSED)
def test_what_is_not_in_the_internet_is_closed(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_the_internet_is_open(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    made = Outbound(Hooks(timeout_s=0.3))
    yield made
    await made.close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:7f00:1]"]
)
async def test_no_connection_is_made_to_this_machine_however_it_is_written(outbound: Outbound, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        with pytest.raises(NotReached):
            await outbound.post(f"http://{host}:{listener.getsockname()[1]}/", b"{}", {})
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_the_refusal_names_the_setting(outbound: Outbound) -> None:
    with pytest.raises(NotReached, match=r'\[hooks\] reach = "any"'):
        await outbound.post("http://127.0.0.1:1/", b"{}", {})


async def test_silence_has_a_bound() -> None:
    outbound = Outbound(Hooks(timeout_s=0.2, reach="any"))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(NotReached, match=r"no answer within 0\.2 s"),
    ):
        await outbound.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {})
    await outbound.close()
