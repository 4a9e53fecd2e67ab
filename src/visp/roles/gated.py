"""The maker of containers that an invoker is given: guarded ones, once a driver was found fit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp.container.guard import Guarded
from visp.entity.network import proxy_environment
from visp.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.container.base import Container, ContainerSpec, Driver

API_HOST = "__OW_API_HOST"


class GatedMaker:
    """Makes guarded containers, once a driver was found fit: `driver` is the one that is in use, or being tried.

    `images` is the driver of images, None while no engine was found. Where a driver has no doors, the platform is
    called at its own address, and there is no proxy; where it has, `network` says how containers find their way out,
    which is not known before.
    """

    def __init__(self, driver: Driver, url: str, network: Callable[[], dict[str, str]] = dict) -> None:
        self.driver = driver
        self.images = driver if driver.name == "docker" else None
        self._url = url
        self._network = network
        self._is_fit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.name = driver.name

    @property
    def has_templates(self) -> bool:
        return self.driver.has_templates

    def open(self) -> None:
        """From now on containers may be made."""
        self._is_fit.set_result(None)

    async def create(self, spec: ContainerSpec) -> Container:
        await asyncio.shield(self._is_fit)
        driver = self.driver if spec.image is None else self.images
        if driver is None:
            raise StartFailed("there is no container engine")
        if API_HOST in spec.env:
            env = spec.env | self._network()
            if not driver.has_doors:
                proxies = proxy_environment()
                env = {name: value for name, value in env.items() if name not in proxies} | {API_HOST: self._url}
            spec = msgspec.structs.replace(spec, env=env)
        return Guarded(await driver.create(spec))

    def admit(self, namespace: str) -> None:
        """As the driver: whether it has a container for code of this namespace."""
        from visp.container.local import LocalDriver

        if isinstance(self.driver, LocalDriver):
            self.driver.admit(namespace)

    async def end(self) -> None:
        """Of every container."""
        await self.driver.close()
        if self.images is not None and self.images is not self.driver:
            await self.images.close()

    def close(self) -> None:
        """Whoever still waits is told that nothing will be made."""
        self._is_fit.cancel()
