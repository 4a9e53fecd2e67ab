"""Links between shards of one process, for tests of what goes over them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from visp.bus.links import Links
from visp.clock import SystemClock


async def linked(stack: AsyncExitStack, folder: Path, count: int = 2) -> list[Links]:
    """Every shard's links, all of them up; they are closed with the stack."""
    every = [Links(number, count, folder / "shards", SystemClock()) for number in range(count)]
    for links in every:
        await links.open()
        stack.push_async_callback(links.close)
    async with asyncio.timeout(5):
        while any(len(links.up()) < count - 1 for links in every):  # noqa: ASYNC110 - nobody tells of all at once
            await asyncio.sleep(0.001)
    return every
