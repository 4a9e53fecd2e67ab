"""Keeps unpacked code in place for as long as a container sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visp.container.base import Container, ContainerSpec, Maker
    from visp.invoker.code import CodeCache


class HoldingMaker:
    """Makes containers, and tells the code cache which folders they are made over, and when they have ended."""

    def __init__(self, maker: Maker, code: CodeCache) -> None:
        self._maker = maker
        self._code = code
        self.name = maker.name

    @property
    def has_templates(self) -> bool:
        return self._maker.has_templates

    async def create(self, spec: ContainerSpec) -> Container:
        folder = spec.code_folder
        if folder is None:
            return await self._maker.create(spec)
        self._code.use(folder)
        try:
            container = await self._maker.create(spec)
        except BaseException:
            self._code.release(folder)
            raise
        container.exited.add_done_callback(lambda _: self._code.release(folder))
        return container
