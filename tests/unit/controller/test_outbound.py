from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from visp.container.egress.surroundings import is_open
from visp.controller.outbound import NotReached, Outbound
from visp.settings import Hooks


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    made = Outbound(Hooks(timeout_s=0.3), is_open)
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
    outbound = Outbound(Hooks(timeout_s=0.2, reach="any"), is_open)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(NotReached, match=r"no answer within 0\.2 s"),
    ):
        await outbound.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {})
    await outbound.close()
