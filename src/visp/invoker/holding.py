"""Keeps unpacked code in place for as long as a container sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visp.container.base import Container, ContainerSpec, Driver
    from visp.invoker.code import CodeCache


class HoldingDriver:
    """A driver that tells the code cache which folders its containers are made over, and when those have ended."""

    def __init__(self, driver: Driver, code: CodeCache) -> None:
        self._driver = driver
        self._code = code
        self.name = driver.name

    async def create(self, spec: ContainerSpec) -> Container:
        folder = spec.code_folder
        if folder is None:
            return await self._driver.create(spec)
        self._code.use(folder)
        try:
            container = await self._driver.create(spec)
        except BaseException:
            self._code.release(folder)
            raise
        container.exited.add_done_callback(lambda _: self._code.release(folder))
        return container

    async def start(self) -> None:
        await self._driver.start()

    async def reap(self) -> int:
        return await self._driver.reap()

    async def close(self) -> None:
        await self._driver.close()
