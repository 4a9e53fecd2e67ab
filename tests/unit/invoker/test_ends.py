"""Why a container ended: whoever knows is waited for, an engine longer than the kernel."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from visp.container.base import Address, Container, Exit
from visp.invoker.containers import was_out_of_memory


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_engine_has_longer(monkeypatch: pytest.MonkeyPatch, is_late: bool) -> None:
    monkeypatch.setattr("visp.invoker.containers.EXIT_GRACE_S", 0.001)
    loop = asyncio.get_running_loop()
    exited: asyncio.Future[Exit] = loop.create_future()
    container = cast("Container", SimpleNamespace(wire=Address("", 1, ended_late=is_late), exited=exited))
    loop.call_later(0.05, exited.set_result, Exit(-9, is_out_of_memory=True))
    assert await was_out_of_memory(container) is is_late
    await exited
