"""A group of tasks that ends with its block."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class _Over(Exception):
    """The block is left."""


async def _raise_over() -> None:
    raise _Over


@contextlib.asynccontextmanager
async def ended_with() -> AsyncIterator[asyncio.TaskGroup]:
    """A group whose tasks are cancelled when the block is left; what the block raised is raised as it was."""
    raised: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            try:
                yield group
            except BaseException as error:  # the group would wrap it
                raised = error
            group.create_task(_raise_over())
    except* _Over:
        pass
    if raised is not None:
        raise raised
