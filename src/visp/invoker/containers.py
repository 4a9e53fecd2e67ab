"""The containers of slots: made, replaced, and watched for their end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from visp import wording
from visp.container.base import Address, ContainerSpec, Mount, Template
from visp.entity.execs import IMAGE
from visp.errors import StartFailed
from visp.invoker.logs import LogCollector
from visp.invoker.slot import State

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from visp.clock import Clock
    from visp.container.base import Container, Maker
    from visp.entity.network import Policy
    from visp.invoker.imports import Imports
    from visp.invoker.pool import Pool
    from visp.invoker.slot import Slot
    from visp.runtime.base import ActionClient, Command, Kind, OnOutput

    Connect = Callable[[Container, str, OnOutput], ActionClient]
    OpenDoors = Callable[
        [Sequence[socket.socket], asyncio.Future[Any], Callable[[], str | None], Callable[[], Policy]], None
    ]

EXIT_GRACE_S, LATE_S = 0.25, 2.0
"""How long to wait for the kernel's word on why a container ended, and for an engine's."""


class Containers:
    """Gives slots their containers. `pool` is told of them; it is there before the first one."""

    pool: Pool

    def __init__(
        self,
        *,
        driver: Maker,
        connect: Connect,
        kind_of: Callable[[str], Kind | None],
        imports: Imports,
        api_host: str,
        open_doors: OpenDoors,
        start_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._connect = connect
        self._kind_of = kind_of
        self._imports = imports
        self._api_host = api_host
        self._open_doors = open_doors
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    async def open_cell(self, slot: Slot) -> None:
        """Starts a container without code. Raises `StartFailed`."""
        await self.create(slot, None)

    async def create(self, slot: Slot, code_folder: str | None, *, text: str | None = None, suffix: str = "") -> None:
        """Over a folder with code, or without any; `text` is code that comes later. Raises `StartFailed`."""
        command = self.kind(slot.kind).command(slot.memory_mb)
        mounts = tuple(Mount(host, inside) for host, inside in command.mounts)
        spec = ContainerSpec(
            id=f"{slot.id}{suffix}",
            argv=command.argv,
            env=command.env | {"__OW_API_HOST": self._api_host},
            memory_mb=slot.memory_mb,
            mounts=mounts,
            code_folder=code_folder,
            template=self._template(slot, command, mounts, text),
            root=command.root,
            image=command.image,
            reserve_mb=command.reserve_mb,
            is_led_out=True,
            stands=command.stands,
            is_spare=slot.key is None,
        )
        limit_s: float | None = self._start_timeout_s
        if command.image is not None:  # it may have to be pulled: its driver bounds that, and how many at once
            limit_s = None
            self.pool.launched(slot)
        try:
            async with asyncio.timeout(limit_s):
                container = await self._driver.create(spec)
        except TimeoutError:
            raise StartFailed(f"no container within {limit_s} s") from None
        slot.container = container
        self.pool.shelf.made[container.way] += 1
        if slot.state in (State.REMOVING, State.GONE):
            await container.destroy()
            raise StartFailed("the invoker is closing")
        self._open_doors(
            container.doors,
            container.exited,
            lambda: None if slot.key is None else slot.key.namespace,
            lambda: slot.policy,
        )
        slot.logs = LogCollector(self._clock.now_ns, is_sentinelled=isinstance(container.wire, Address))
        slot.client = self._connect(container, slot.kind, slot.logs.feed)
        container.exited.add_done_callback(lambda _: self._exited(slot, container))
        self.pool.launched(slot)

    async def replace(self, slot: Slot, code_folder: str) -> None:
        """A tree that cannot be brought into the stem cell: a container over it takes the cell's place."""
        assert slot.client is not None
        assert slot.container is not None
        client, container = slot.client, slot.container
        slot.client = slot.container = None
        client.close()
        await container.destroy()
        await self.create(slot, code_folder, suffix="-tree")

    def kind(self, runtime: str) -> Kind:
        """Raises `StartFailed` for what nothing runs here."""
        kind = self._kind_of(runtime)
        if kind is not None:
            return kind
        if runtime.startswith(IMAGE):
            sentence = wording.image_not_pulled(runtime.removeprefix(IMAGE))
            raise StartFailed("no container engine", sentence, is_developer_error=True)
        raise StartFailed(f"kind {runtime} has no runtime on this machine (`visp doctor` says what is missing)")

    def _template(self, slot: Slot, command: Command, mounts: tuple[Mount, ...], text: str | None) -> Template | None:
        """With what the slot's action imports, if that is known; None: the kind has none, and imports otherwise."""
        if command.template is None:
            return None
        imports: tuple[str, ...] = ()
        if slot.key is not None:
            if text is not None:
                self._imports.expect(slot.key.action, text)
            imports = self._imports.of(slot.key.action)
        return Template(program=command.template, argv=command.argv, mounts=mounts, imports=imports)

    def rest(self, slot: Slot) -> None:
        kind = self._kind_of(slot.kind)
        if kind is not None and kind.rests and slot.client is not None:
            slot.client.rest()

    def _exited(self, slot: Slot, container: Container) -> None:
        """A container that ends while nobody uses it leaves the pool.

        One in use is noticed by its client, save where a process that it left behind keeps the channel open.
        """
        if slot.container is not container:
            return  # the slot has another by now
        if not slot.jobs:
            self.pool.lost(slot)
        else:
            self._loop.call_later(EXIT_GRACE_S, self._give_up, slot, container)

    def _give_up(self, slot: Slot, container: Container) -> None:
        if slot.container is not container:
            return
        if not slot.jobs:
            self.pool.lost(slot)
        elif slot.client is not None:
            slot.client.give_up()


async def was_out_of_memory(container: Container) -> bool:
    """Whether a container that is ending ends for that, if whoever knows says so soon."""
    is_late = isinstance(container.wire, Address) and container.wire.ended_late
    done, _ = await asyncio.wait([container.exited], timeout=LATE_S if is_late else EXIT_GRACE_S)
    return bool(done) and container.exited.result().is_out_of_memory
