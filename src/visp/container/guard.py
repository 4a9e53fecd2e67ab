"""Makes any container safe to use: ended once, bounded in time, deaf when gone.

Drivers stay naive; whoever holds a container holds a `Guarded` one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from visp.errors import ContainerGone
from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from visp.container.base import Address, Container, Exit, Pipes, Way

T = TypeVar("T")

CALL_S = 5.0


class Guarded:
    """A container whose calls end. After `destroy` has begun, every other call raises `ContainerGone`."""

    def __init__(self, container: Container, call_s: float = CALL_S) -> None:
        self._container = container
        self._call_s = call_s
        self._ending: asyncio.Future[None] | None = None

    @property
    def id(self) -> str:
        return self._container.id

    @property
    def wire(self) -> Pipes | Address:
        return self._container.wire

    @property
    def way(self) -> Way:
        return self._container.way

    @property
    def doors(self) -> Sequence[socket.socket]:
        return self._container.doors

    @property
    def code_at(self) -> str:
        return self._container.code_at

    @property
    def exited(self) -> asyncio.Future[Exit]:
        return self._container.exited

    async def add_code(self, folder: str) -> bool:
        return await self._bounded("add_code", lambda: self._container.add_code(folder))

    async def pause(self) -> None:
        await self._bounded("pause", self._container.pause)

    async def resume(self) -> None:
        await self._bounded("resume", self._container.resume)

    async def destroy(self) -> None:
        """Once, whoever asks; the caller's cancellation does not stop it half-way."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._destroy())
        await asyncio.shield(self._ending)

    async def _destroy(self) -> None:
        try:
            async with asyncio.timeout(self._call_s):
                await self._container.destroy()
        except Exception as error:  # whatever a driver raises: nobody can do more about it than know it
            log.error("container.destroy_failed", id=self.id, reason=repr(error))

    async def _bounded(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """The call's value; raises `ContainerGone` for whatever a driver raises, or takes too long for."""
        if self._ending is not None:
            raise ContainerGone(f"{name}: the container is gone")
        try:
            async with asyncio.timeout(self._call_s):
                return await call()
        except ContainerGone:
            raise
        except Exception as error:  # a driver's own errors mean nothing to whoever holds the container
            raise ContainerGone(f"{name}: {error!r}") from error
