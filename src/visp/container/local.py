"""What local drivers share: pipes, folders, groups, and the end of a container.

A local container is one host process (the sandbox, or the program itself) with descriptors 0–3 and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from visp.container import spawn, turns, watch
from visp.container.base import Exit, Pipes, Way
from visp.container.cells import Cells, can_link, instance_of, link_tree
from visp.container.cgroup import Cgroups, Limits
from visp.container.janitor import Janitor
from visp.container.uids import Uids
from visp.errors import StartFailed
from visp.settings import runtimes_fault, runtimes_folder
from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from visp.container.base import ContainerSpec
    from visp.container.cgroup import Group
    from visp.container.spawn import Process
    from visp.settings import Settings

REPLIES = 3
MIB = 1024 * 1024
GONE_S = 1.0
WATCH_S = 0.5


class Launch(msgspec.Struct, frozen=True):
    """What to start on the host: argument list, environment, and descriptors beside 0–3; they are closed after it."""

    argv: list[str]
    env: dict[str, str]
    descriptors: dict[int, int]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver has prepared for one container.

    `name` is the container's among all on this host; `uid` is None for a server that is not root.
    """

    name: str
    code: Path
    uid: int | None
    group_files: tuple[str, ...]
    processes: int
    data_bytes: int


class Wrap(Protocol):
    """How one driver makes a host command of what should run inside."""

    def __call__(self, spec: ContainerSpec, place: Place) -> Launch: ...


class LocalContainer:
    """A container of this machine."""

    def __init__(
        self,
        driver: LocalDriver,
        spec: ContainerSpec,
        process: Process,
        wire: Pipes,
        group: Group | None,
        uid: int | None,
        code_at: str,
        doors: Sequence[socket.socket] = (),
        is_first: bool = False,
        way: Way = Way.STARTED,
    ) -> None:
        """`is_first`: the process is the first of its own namespace, so that its end is the end of all there."""
        self.id = spec.id
        self.doors = doors
        self.wire = wire
        self.way = way
        self.code_at = code_at
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.pid = process.pid
        self.memory_bytes = spec.memory_mb * MIB
        self.is_paused = False
        self._driver = driver
        self._process = process
        self._group = group
        self._uid = uid
        self._is_first = is_first
        self._is_out_of_memory = False
        process.exited.add_done_callback(self._ended)

    def _ended(self, process: asyncio.Future[Exit]) -> None:
        if self._group is not None and self._group.has_run_out_of_memory():
            self._is_out_of_memory = True
        if not self.exited.done():
            self.exited.set_result(Exit(process.result().status, self._is_out_of_memory))

    async def add_code(self, folder: str) -> bool:
        tree, own = Path(folder), self._driver.own_folder(self.id)
        if not await asyncio.to_thread(can_link, tree):
            return False
        await asyncio.to_thread(link_tree, tree, own)
        return True

    async def pause(self) -> None:
        self.is_paused = True
        if self._group is not None and self._group.can_freeze:
            self._group.freeze(True)
        else:
            watch.signal_tree(self.pid, signal.SIGSTOP)

    async def resume(self) -> None:
        if self._group is not None and self._group.can_freeze:
            self._group.freeze(False)
        else:
            watch.signal_tree(self.pid, signal.SIGCONT)
        self.is_paused = False

    def kill_for_memory(self) -> None:
        """It outgrew its memory where the kernel does not watch that."""
        self._is_out_of_memory = True
        self._kill()

    def _kill(self) -> None:
        if self._group is None:
            watch.end_tree(self.pid)
        elif self.is_paused or not self._is_first:
            with contextlib.suppress(OSError):
                self._group.kill()
        self._process.kill()

    async def destroy(self) -> None:
        ends: list[asyncio.Future[Any]] = [self._process.exited]
        if self._group is None:  # the sandbox's own first process ends after all others of its namespace
            ends += [spawn.end_of(pid) for pid in watch.tree(self.pid)[1:]]
        self._kill()
        _, left = await asyncio.wait(ends, timeout=GONE_S)
        if left:
            log.error("container.not_gone", id=self.id, pid=self.pid, processes=len(left))
        close_pipes(self.wire)
        await asyncio.to_thread(self._clean)
        self._driver.forget(self, self._uid)

    def _clean(self) -> None:
        if self._group is not None:
            self._group.remove()
        elif self._driver.kills_tree:
            watch.end_marked(self._driver.host_name(self.id))
            if self._uid is not None:  # also those that have thrown their mark away
                watch.end_of_uid(self._uid)
        self._driver.remove_folder(self.id)
        spawn.wait_for_orphans()


def open_pipes() -> tuple[dict[int, int], Pipes]:
    """The ends of a container by their numbers inside, which whoever starts it closes; and ours."""
    stdin_inside, stdin = os.pipe2(os.O_CLOEXEC)
    replies, replies_inside = os.pipe2(os.O_CLOEXEC)
    stdout, stdout_inside = os.pipe2(os.O_CLOEXEC)
    stderr, stderr_inside = os.pipe2(os.O_CLOEXEC)
    wire = Pipes(stdin, replies, stdout, stderr)
    for descriptor in msgspec.structs.astuple(wire):
        os.set_blocking(descriptor, False)
    return {0: stdin_inside, 1: stdout_inside, 2: stderr_inside, REPLIES: replies_inside}, wire


def close_pipes(wire: Pipes) -> None:
    for descriptor in msgspec.structs.astuple(wire):
        os.close(descriptor)


class LocalDriver:
    """A driver over a `Wrap`."""

    has_doors = False
    lacks: ClassVar[tuple[str, ...]] = ()
    """What an operator should know that its containers do not have."""
    kills_tree = False
    """Whether ending the first process leaves others behind: so where there is no process namespace."""

    def __init__(self, name: str, settings: Settings, data_dir: Path, wrap: Wrap) -> None:
        self.name = name
        self.settings = settings
        self.cells = Cells.of(settings, data_dir)
        self.runtimes = runtimes_folder(settings)
        fault = runtimes_fault(self.runtimes)
        if fault is not None:
            raise StartFailed(fault)
        self.cgroups = Cgroups({})
        self._group_name = f"visp-{instance_of(data_dir)}"
        self._run = secrets.token_hex(4)
        """Begins the host's names of this server's containers: those of an earlier one are told apart."""
        self._janitor: Janitor | None = None
        self._wrap = wrap
        self._containers: dict[str, LocalContainer] = {}
        self._uids = Uids()
        self._watching: asyncio.Task[None] | None = None

    @property
    def has_templates(self) -> bool:
        return False

    async def start(self) -> None:
        """Folders and groups; a driver's own check comes after it."""
        spawn.close_on_exec()
        await asyncio.to_thread(self.cells.prepare)
        self.cgroups = await asyncio.to_thread(Cgroups.find, self._group_name)
        mark = f"{watch.MARK}={self._run}-" if self.kills_tree else ""
        self._janitor = Janitor.hire(self._run, (self.cells.own, self.cells.scratch, *self.cgroups.parents), mark)
        if not self.cgroups.bounds_memory:
            self._watching = asyncio.ensure_future(self._watch())

    def admit(self, namespace: str) -> None:
        """A container is wanted for code of this namespace; raises `StartFailed` where it may not have one."""

    async def reap(self) -> int:
        if self.kills_tree:
            for folder in self.cells.own.iterdir():
                await asyncio.to_thread(watch.end_marked, folder.name)
        groups = await asyncio.to_thread(self.cgroups.reap)
        return max(groups, await asyncio.to_thread(self.cells.reap))

    async def create(self, spec: ContainerSpec) -> LocalContainer:
        group: Group | None = None
        making: asyncio.Future[Group | None] | None = None
        uid = self._uids.take()
        try:
            if self.cgroups.hierarchies:
                making = asyncio.ensure_future(asyncio.to_thread(self._make_group, spec))
                group = await asyncio.shield(making)
            place = self._place(spec, group, uid)
            process, wire, doors = await self._begin(self._wrap(spec, place))
        except BaseException as error:
            await asyncio.shield(self._undo(spec, making, uid))
            if isinstance(error, OSError):
                raise StartFailed(f"no container could be prepared: {error}") from None
            raise
        return self._keep(LocalContainer(self, spec, process, wire, group, uid, self.code_at(place.code), doors))

    def _make_group(self, spec: ContainerSpec) -> Group | None:
        return self.cgroups.make(self.host_name(spec.id), self._limits(spec))

    def _limits(self, spec: ContainerSpec) -> Limits:
        return Limits(memory_bytes=spec.memory_mb * MIB, processes=self.settings.container.processes)

    def _place(self, spec: ContainerSpec, group: Group | None, uid: int | None) -> Place:
        """With a code folder of the container's own, where none was given."""
        limits = self._limits(spec)
        bounded = group is not None and group.bounds_memory
        return Place(
            name=self.host_name(spec.id),
            code=Path(spec.code_folder) if spec.code_folder else self.cells.make(self.host_name(spec.id)),
            uid=uid,
            group_files=group.join if group is not None else (),
            processes=limits.processes if bounded else self.settings.container.processes_without_cgroup,
            data_bytes=limits.memory_bytes * (2 if bounded else 1) + spec.reserve_mb * MIB,
        )

    def _keep(self, container: LocalContainer) -> LocalContainer:
        self._containers[container.id] = container
        return container

    def host_name(self, id: str) -> str:
        """A container's name among those of all servers, earlier ones too."""
        return f"{self._run}-{id}"

    def own_folder(self, id: str) -> Path:
        """The container's own code folder."""
        return self.cells.own / self.host_name(id)

    def remove_folder(self, id: str) -> None:
        self.cells.remove(self.host_name(id))

    def code_at(self, code: Path) -> str:
        """Where the host folder `code` is seen inside."""
        return "/action"

    async def _begin(self, launch: Launch) -> tuple[Process, Pipes, Sequence[socket.socket]]:
        """The container's first process, how it is spoken to, and its doors; nothing of it is left if this raises."""
        return *self._start(launch), ()

    def _start(self, launch: Launch) -> tuple[Process, Pipes]:
        inside, wire = open_pipes()
        try:
            process = spawn.start(launch.argv, launch.env, inside | launch.descriptors)
            turns.shorten(process.pid)
        except BaseException:
            close_pipes(wire)
            raise
        finally:
            for descriptor in (*inside.values(), *launch.descriptors.values()):
                os.close(descriptor)
        return process, wire

    async def _undo(self, spec: ContainerSpec, making: asyncio.Future[Group | None] | None, uid: int | None) -> None:
        """After what was begun for a container has ended, whoever still waits for it."""
        if making is not None:
            with contextlib.suppress(OSError):
                group = await making
                if group is not None:
                    await asyncio.to_thread(group.remove)
        await asyncio.to_thread(self.remove_folder, spec.id)
        self._uids.give(uid)

    def forget(self, container: LocalContainer, uid: int | None) -> None:
        """The container is gone."""
        self._containers.pop(container.id, None)
        self._uids.give(uid)
        self._close_doors(container)

    def _close_doors(self, container: LocalContainer) -> None:
        for door in container.doors:
            door.close()

    async def _watch(self) -> None:
        """Without a memory cgroup: the sum over each container's processes is looked at twice a second."""
        while True:
            await asyncio.sleep(WATCH_S)
            for container in list(self._containers.values()):
                if container.is_paused or container.exited.done():
                    continue
                if await asyncio.to_thread(watch.used_bytes, container.pid) > container.memory_bytes:
                    container.kill_for_memory()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.gather(*(container.destroy() for container in list(self._containers.values())))
        self._uids.close()
        janitor, self._janitor = self._janitor, None
        if janitor is not None:
            await janitor.close()
