"""The driver of images: containers by a Docker engine, which OpenWhisk's images and any of the same contract run in.

A container has no network but its own loopback. It is reached there: where visp is root on the engine's machine,
sockets are made inside that network, one to speak to the image and those that lead out (`resident.py`). Else images are
put into an internal network of the engine, at whose addresses this machine reaches them, and they it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
from typing import TYPE_CHECKING, Any

import aiodocker
import aiohttp
import msgspec

from visp.container import seccomp, turns
from visp.container.base import Address, Exit, Way
from visp.container.cells import instance_of
from visp.container.engine import INSTANCE, NO_NETWORK, PORT, UNIX, creation, host_of, parse_extra
from visp.container.resident import Resident
from visp.entity.images import Pull
from visp.entity.relay import DOOR_PORT, PROXY_PORT, parse_relays
from visp.errors import ImageNotPulled, ImageNotStarted, StartFailed
from visp.settings import SettingsError
from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
    from pathlib import Path

    from aiodocker.containers import DockerContainer as Handle
    from aiodocker.stream import Stream

    from visp.container.base import ContainerSpec
    from visp.entity.images import Wanted
    from visp.settings import Settings

NETWORK = "visp"
"""Of containers that cannot be entered: no way out, and none from one to another."""
ANSWER_S = 10.0
GONE_S = 0.9
DRAINED_S = 0.1
"""How long what an ended container printed may be on its way."""
STATUS_S = 1.0
REASON_S = 0.2
"""So long after the end of a container the engine may learn that it was for its memory."""
AGAIN_S = 1.0
BURIALS = 4
BURIED_S = 15.0
KILLED = Exit(-9)
MISSING = 404


class DockerDriver:
    """Containers of images."""

    name = "docker"
    has_templates = False

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self._settings = settings
        self._host = host_of(settings)
        self._labels = {INSTANCE: instance_of(data_dir)}
        self._run = secrets.token_hex(4)
        self.has_doors = self._host.startswith(UNIX) and os.geteuid() == 0 and "runsc" not in settings.docker.runtime
        """Whether containers' networks are entered. What gVisor runs has one that the kernel does not know."""
        self._ports = (DOOR_PORT, PROXY_PORT, *parse_relays(settings.network.relays))
        self._profile: str | None = None
        self._sizes = False
        self._starts = asyncio.Semaphore(settings.docker.starts_at_once)
        self._burials = asyncio.Semaphore(BURIALS)
        self._pulls: dict[str, asyncio.Task[str | None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._containers: dict[str, DockerContainer] = {}
        self._docker: aiodocker.Docker | None = None
        self._connector: aiohttp.UnixConnector | None = None

    @property
    def docker(self) -> aiodocker.Docker:
        """The engine's client."""
        if self._docker is None:
            url = self._host
            if url.startswith(UNIX):  # each container holds connections for as long as it lives
                self._connector = aiohttp.UnixConnector(url.removeprefix(UNIX), limit=0)
                url = f"{UNIX}localhost"
            try:
                self._docker = aiodocker.Docker(url=url, connector=self._connector)
            except ValueError as error:
                raise StartFailed(f"[docker] host = {self._host}: {error}") from None
        return self._docker

    async def start(self) -> None:
        try:
            parse_extra(self._settings.docker.extra_args)
        except SettingsError as error:
            raise StartFailed(str(error)) from None
        with _translated(f"no container engine answers at {self._host}"):
            async with asyncio.timeout(ANSWER_S):
                info = await self.docker.system.info()
        self._look(info)
        if not self.has_doors:
            await self._prepare_network()

    def _look(self, info: Mapping[str, Any]) -> None:
        """What the engine can do, and what it cannot; raises `StartFailed`."""
        runtime = self._settings.docker.runtime
        if runtime and runtime not in info.get("Runtimes", {}):
            raise StartFailed(f"the container engine has no runtime {runtime} ([docker] runtime)")
        if any("name=seccomp" in option for option in info.get("SecurityOptions") or ()):
            with contextlib.suppress(LookupError):
                self._profile = seccomp.profile(platform.machine())
        backing = dict(info.get("DriverStatus") or ()).get("Backing Filesystem")
        self._sizes = info.get("Driver") in ("btrfs", "zfs") or (info.get("Driver"), backing) == ("overlay2", "xfs")
        lacks = [what for what in ("MemoryLimit", "SwapLimit", "PidsLimit", "CPUShares") if not info.get(what)]
        if self._profile is None:
            lacks.append("seccomp profile")
        if not self._sizes:
            lacks.append("bound of the writable layer")
        log.info(
            "docker.ready",
            version=info.get("ServerVersion"),
            storage=info.get("Driver"),
            runtime=runtime or info.get("DefaultRuntime"),
            network=NO_NETWORK if self.has_doors else NETWORK,
            lacks=", ".join(lacks) or "nothing",
        )

    async def _prepare_network(self) -> None:
        """The network of containers that cannot be entered."""
        log.warning(
            "docker.bridged",
            network=NETWORK,
            reason="their networks cannot be entered (that needs root, a unix:// engine and no gVisor): images have no "
            "way to the platform's API, and reach what listens on all of this machine's addresses",
        )
        with _translated("the engine's network of images cannot be made"):
            try:
                await self.docker.networks.get(NETWORK)
            except aiodocker.DockerError as error:
                if error.status != MISSING:
                    raise
                await self.docker.networks.create(
                    {
                        "Name": NETWORK,
                        "CheckDuplicate": True,
                        "Internal": True,
                        "Options": {"com.docker.network.bridge.enable_icc": "false"},
                    }
                )

    async def reap(self) -> int:
        """Containers live on when their server is killed: those of the same data folder are removed."""
        wanted = msgspec.json.encode({"label": [f"{name}={value}" for name, value in self._labels.items()]}).decode()
        with _translated("leftovers cannot be looked for"):
            left = await self.docker.containers.list(all="1", filters=wanted)
        await asyncio.gather(*(self._remove(handle) for handle in left))
        return len(left)

    # ── a container ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, spec: ContainerSpec) -> DockerContainer:
        image = spec.image
        if image is None:
            raise StartFailed("driver docker runs images alone")
        if image.pull is not Pull.IF_MISSING:
            failure = await self._pull(image.name)
            if failure is not None and image.pull is Pull.NEEDED:
                raise _not_pulled(image, failure)
        try:
            return await self._create(spec)
        except ImageMissing:
            failure = "no such image" if image.pull is Pull.TRIED else await self._pull(image.name)
            if failure is not None:
                raise _not_pulled(image, failure) from None
        try:
            return await self._create(spec)
        except ImageMissing as error:
            raise _not_pulled(image, str(error)) from None

    async def _create(self, spec: ContainerSpec) -> DockerContainer:
        async with self._starts:
            with _translated("the container engine has not started it"):
                async with asyncio.timeout(self._settings.docker.start_timeout_s):
                    return await self._start(spec)

    async def _start(self, spec: ContainerSpec) -> DockerContainer:
        name = f"visp-{self._run}-{spec.id}"
        handle = self.docker.containers.container(name)
        container = None
        try:
            handle = await self._make(spec, name)
            container = DockerContainer(self, spec.id, handle)
            await container.attach()
            try:
                await handle.start()
            except aiodocker.DockerError as error:
                if error.status < 500:  # whatever it is, it is in the image: its command is not there, or cannot run
                    raise ImageNotStarted(error.message) from None
                raise
            await container.settle(self._ports)
        except BaseException:
            if container is not None:
                await asyncio.shield(container.let_go())
            self.own(self._remove(handle))
            raise
        self._containers[spec.id] = container
        return container

    async def _make(self, spec: ContainerSpec, name: str) -> Handle:
        assert spec.image is not None
        network = NO_NETWORK if self.has_doors else NETWORK
        body = creation(spec, self._settings, dict(self._labels), network, self._profile, sizes=self._sizes)
        try:
            return await self.docker.containers.create(body, name=name)
        except aiodocker.DockerError as error:
            if error.status == MISSING:
                raise ImageMissing(error.message) from None
            if self._sizes and "storage" in error.message:
                log.warning("docker.layer_not_bounded", reason=error.message)
                self._sizes = False
                return await self._make(spec, name)
            raise

    async def cannot_enter(self) -> None:
        """The engine's processes are not where ours are: from now on its own network is used."""
        if self.has_doors:
            self.has_doors = False
            await self._prepare_network()

    async def _pull(self, name: str) -> str | None:
        """Why it could not be pulled. Whoever wants an image that is being pulled waits for that."""
        pull = self._pulls.get(name)
        if pull is None:
            pull = self._pulls[name] = self.own(self._pull_once(name))
            pull.add_done_callback(lambda _: self._pulls.pop(name, None))
        return await asyncio.shield(pull)

    async def _pull_once(self, name: str) -> str | None:
        try:
            async with asyncio.timeout(self._settings.docker.pull_timeout_s):
                async for progress in self.docker.images.pull(name, stream=True):
                    if "error" in progress:
                        return str(progress["error"])
        except TimeoutError:
            return f"not pulled within {self._settings.docker.pull_timeout_s} s"
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as error:
            return str(error)
        log.info("docker.pulled", image=name)
        return None

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that `close` waits for."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def bury(self, container: DockerContainer, handle: Handle) -> None:
        """It has ended: what the engine keeps of it is removed, which nobody waits for."""
        self._containers.pop(container.id, None)
        self.own(self._remove(handle))

    async def _remove(self, handle: Handle) -> None:
        """Whatever state it is in; frozen ones are let go on, for the engine does not know that they are."""
        async with self._burials:
            for is_last in (False, False, True):
                try:
                    if not _is_named(handle):
                        await _release(handle)
                    await handle.delete(force=True, v=True)
                    return
                except aiodocker.DockerError as error:
                    if error.status == MISSING and (is_last or not _is_named(handle)):
                        return  # one that was given up while it was made may come yet
                    reason = str(error)
                except (aiohttp.ClientError, OSError) as error:
                    reason = repr(error)
                await asyncio.sleep(AGAIN_S)
            log.error("docker.not_removed", container=handle.id, reason=reason)

    async def close(self) -> None:
        for pull in self._pulls.values():
            pull.cancel()
        await asyncio.gather(*(container.destroy() for container in list(self._containers.values())))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=BURIED_S)
        for task in self._tasks:
            task.cancel()
        if self._docker is not None:
            await self._docker.close()
        if self._connector is not None:
            await self._connector.close()


class DockerContainer:
    """One container. `attach` before its start, `settle` after it."""

    code_at = "/action"

    def __init__(self, driver: DockerDriver, id: str, handle: Handle) -> None:
        self.way = Way.STARTED
        self.id = id
        self.doors: Sequence[socket.socket] = ()
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.wire = Address("127.0.0.1", PORT)
        self._driver = driver
        self._handle = handle
        self._stream: Stream | None = None
        self._following: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._resident: Resident | None = None

    async def attach(self) -> None:
        """To all that it prints."""
        self._stream = self._handle.attach(stdout=True, stderr=True)
        await self._stream.__aenter__()

    async def settle(self, ports: Sequence[int]) -> None:
        """How it is reached, and its doors. One that has ended already is a container too."""
        state = await self._handle.show()
        host = "127.0.0.1"
        connect: Callable[[], Awaitable[socket.socket]] | None = _refuse
        if not self._driver.has_doors:
            host, connect = state["NetworkSettings"]["Networks"][NETWORK]["IPAddress"] or host, None
        elif state["State"]["Running"]:
            self._resident = Resident.find(state["State"]["Pid"], self._handle.id)
            if self._resident is None and (await self._handle.show())["State"]["Running"]:
                await self._driver.cannot_enter()
                raise StartFailed("the container's network cannot be entered")
            if self._resident is not None:
                resident = self._resident
                turns.shorten(resident.pid)
                connect = lambda: resident.connect(PORT)  # noqa: E731
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    self.doors = await resident.listen(ports)
        self.wire = Address(host, PORT, connect, self._follow, ended_late=self._resident is None)
        self._watching = asyncio.ensure_future(self._watch())

    # ── what it prints ──────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, take: Callable[[int, bytes], None]) -> None:
        self._following = asyncio.ensure_future(self._read(take))

    async def _read(self, take: Callable[[int, bytes], None]) -> None:
        """As fast as it is taken: what is not read yet waits in the engine, and then in the container's pipes."""
        assert self._stream is not None
        try:
            while (message := await self._stream.read_out()) is not None:
                take(message.stream - 1, message.data)
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as error:
            if not self.exited.done():
                log.warning("docker.output_lost", container=self.id, reason=repr(error))

    # ── its end ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        """Tells of the end after what was printed before it."""
        ended = await (self._ended_elsewhere() if self._resident is None else self._ended_here(self._resident))
        if self._following is not None:
            await asyncio.wait([self._following], timeout=DRAINED_S)
        self._end(ended)

    async def _ended_here(self, resident: Resident) -> Exit:
        """The kernel says it at once, and whether it was for memory; the engine, a while later, the status."""
        await resident.ended
        if resident.was_out_of_memory:
            return Exit(KILLED.status, is_out_of_memory=True)
        try:
            async with asyncio.timeout(STATUS_S):
                ended = _exit_of((await self._handle.wait())["StatusCode"])
                if ended.status != KILLED.status:
                    return ended
                # the group may have been gone before it was read
                return msgspec.structs.replace(ended, is_out_of_memory=await self._is_out_of_memory())
        except (TimeoutError, aiodocker.DockerError, aiohttp.ClientError, OSError):
            return KILLED

    async def _ended_elsewhere(self) -> Exit:
        while True:
            try:
                ended = _exit_of((await self._handle.wait())["StatusCode"])
                is_out_of_memory = await self._is_out_of_memory()
                if ended.status == KILLED.status and not is_out_of_memory:
                    await asyncio.sleep(REASON_S)
                    is_out_of_memory = await self._is_out_of_memory()
                return msgspec.structs.replace(ended, is_out_of_memory=is_out_of_memory)
            except aiodocker.DockerError as error:
                if error.status == MISSING:
                    return KILLED
            except (aiohttp.ClientError, OSError):  # the engine restarts
                pass
            await asyncio.sleep(AGAIN_S)

    async def _is_out_of_memory(self) -> bool:
        """As far as the engine knows by now."""
        return bool((await self._handle.show())["State"]["OOMKilled"])

    def _end(self, ended: Exit) -> None:
        if not self.exited.done():
            self.exited.set_result(ended)

    # ── what is done to it ──────────────────────────────────────────────────────────────────────────────────────

    async def add_code(self, folder: str) -> bool:
        """Images unpack by themselves."""
        return False

    async def pause(self) -> None:
        if self._resident is None or not await self._resident.freeze(True):
            await self._handle.pause()

    async def resume(self) -> None:
        if self._resident is None or not await self._resident.freeze(False):
            await self._handle.unpause()

    async def destroy(self) -> None:
        if self._resident is not None:
            self._resident.thaw()
            self._resident.kill()
            await asyncio.wait([self._resident.ended], timeout=GONE_S)
        else:
            with contextlib.suppress(aiodocker.DockerError, aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(GONE_S):
                    await self._handle.kill()
        await self.let_go()
        self._driver.bury(self, self._handle)

    async def let_go(self) -> None:
        """Nothing of it is held any more."""
        self._end(KILLED)
        tasks = [task for task in (self._following, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for door in self.doors:
            door.close()
        if self._resident is not None:
            self._resident.close()
        if self._stream is not None:
            with contextlib.suppress(aiodocker.DockerError, aiohttp.ClientError, OSError, AssertionError):
                await self._stream.close()


class ImageMissing(StartFailed):
    """The engine does not have it."""


def _not_pulled(image: Wanted, reason: str) -> ImageNotPulled:
    return ImageNotPulled(reason, image.wrote, is_developer_error=image.is_users)


def _is_named(handle: Handle) -> bool:
    """Whether it is known by the name that we gave it: it may not have been made."""
    return bool(handle.id.startswith("visp-"))


async def _refuse() -> socket.socket:
    raise ConnectionRefusedError("the container has ended")


async def _release(handle: Handle) -> None:
    """A container of whom nobody knows any more how it was frozen."""
    state = (await handle.show())["State"]
    resident = Resident.find(state.get("Pid", 0), handle.id) if state.get("Running") else None
    if resident is not None:
        resident.thaw()
        resident.kill()
        resident.close()


def _exit_of(status: int) -> Exit:
    """Of a status as engines give it: 128 and more stand for signals."""
    return Exit(128 - status if status > 128 else status)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """The engine's errors are `StartFailed`."""
    try:
        yield
    except (aiodocker.DockerError, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise StartFailed(f"{what}: {error}" if str(error) else f"{what}: {error!r}") from None
