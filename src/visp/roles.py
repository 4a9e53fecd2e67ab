"""The composition root: names become implementations, parts are wired, started and stopped.

The only module that imports implementations. The port listens as soon as the stores are open; what containers need (the
driver's check, its self-test, recovery) goes on beside it, and the first container waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
import signal
import socket
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from visp.api.auth import is_loopback
from visp.api.context import Services
from visp.api.door import Gate
from visp.api.routes import Site
from visp.bus import base as topics
from visp.bus.memory import MemoryBus
from visp.bus.messages import Ping
from visp.clock import SystemClock
from visp.controller.acks import Acks
from visp.controller.crud import Crud
from visp.controller.fire import Fire
from visp.controller.identities import Identities
from visp.controller.invoke import Invoke
from visp.controller.primitive import Primitive
from visp.controller.recovery import Recovery
from visp.controller.sequence import Sequences
from visp.entitlement.throttle import Throttle
from visp.entity.runtime_manifest import Manifest, parse_manifest
from visp.entity.subject import GUEST, SYSTEM
from visp.errors import StartFailed, VispError
from visp.scheduler.fleet import Fleet
from visp.settings import Loaded, Settings, default_data_dir
from visp.store.cache import EntityCache
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from visp.bus.messages import Message
    from visp.container.base import Container, ContainerSpec, Driver

DRIVERS = {
    "bwrap": "visp.container.bwrap:BwrapDriver",
    "process": "visp.container.process:ProcessDriver",
}
"""`driver` → where its class is; a setting may name a `module:Class` of someone else's."""

SHARD = 0
INVOKER = 0
SECRET_BYTES = 32


class CannotStart(VispError):
    """The server cannot serve; the sentence says why and what to do."""


def serve(loaded: Loaded) -> int:
    """Runs the server until SIGTERM or SIGINT; the exit status. What keeps it from serving goes to stderr."""
    import uvloop

    log.set_level(loaded.settings.log_level)
    try:
        uvloop.run(_serve(loaded.settings))
    except VispError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    import uvicorn

    stopping = _stop_on_signals()
    data_dir = prepare_data_dir(settings)
    with _listening(settings) as listener:
        async with assembled(settings, data_dir) as parts:
            config = uvicorn.Config(
                parts.site,
                http=parts.gate.protocol(),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=4096,
                timeout_graceful_shutdown=max(1, round(settings.http.shutdown_s)),
            )
            server = _Server(config)
            serving = asyncio.ensure_future(server.serve([listener]))
            boot = asyncio.ensure_future(parts.boot())
            sweeping = asyncio.ensure_future(parts.gate.sweep())
            stop = asyncio.ensure_future(stopping.wait())
            try:
                boot.add_done_callback(lambda task: _announce(task, settings, listener, data_dir))
                await asyncio.wait({serving, stop, _failed(boot)}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                parts.is_stopping = True
                server.should_exit = True
                for task in (sweeping, stop):
                    task.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                if not boot.done():
                    boot.cancel()
                await asyncio.gather(boot, sweeping, stop, return_exceptions=True)
            if boot.done() and not boot.cancelled() and (error := boot.exception()) is not None:
                raise error if isinstance(error, VispError) else CannotStart(f"start failed: {error!r}")


def _failed(task: asyncio.Future[None]) -> asyncio.Future[None]:
    """Done only when the task fails."""
    out: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def check(done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is not None and not out.done():
            out.set_result(None)

    task.add_done_callback(check)
    return out


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


def _announce(boot: asyncio.Future[None], settings: Settings, listener: socket.socket, data_dir: Path) -> None:
    """Says where the server is once it is ready: text on a terminal, else one JSON line."""
    if boot.cancelled() or boot.exception() is not None:
        return
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if sys.stdout.isatty():
        print(f"visp is ready at {url} (data in {data_dir}, Ctrl-C stops it)")
    else:
        line = {"url": url, "data_dir": str(data_dir), "pid": os.getpid()}
        print(msgspec.json.encode(line).decode(), flush=True)


class _Server:
    """Stands for the server library's own class, which is made on first use: its import is part of the start path."""

    def __new__(cls, config: Any) -> Any:
        import uvicorn

        class Quiet(uvicorn.Server):
            """Signals are ours."""

            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
                yield

        return Quiet(config)


# ── what the server stands on ───────────────────────────────────────────────────────────────────────────────────


def prepare_data_dir(settings: Settings) -> Path:
    """The data folder, made if need be, for its owner alone; raises `CannotStart`."""
    path = Path(settings.data_dir) if settings.data_dir else default_data_dir()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise CannotStart(
            f"the data folder {path} cannot be used: {error.strerror}; name another by --data-dir or VISP_DATA_DIR"
        ) from None
    return path.resolve()


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The bound socket; raises `CannotStart` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another port by --port (0 lets the system choose)"
        ) from None
    listener.setblocking(False)
    with listener:
        yield listener


def read_secret(settings: Settings, data_dir: Path) -> bytes:
    """The secret that seals keys, made at first start.

    Raises `CannotStart` when its file is unusable or open to others.
    """
    path = Path(settings.secret_file) if settings.secret_file else data_dir / "secret"
    try:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(SECRET_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
        if path.stat().st_mode & 0o077:
            raise CannotStart(f"the secret file {path} can be read by others: chmod 600 {path}")
        secret = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise CannotStart(f"the secret file {path} cannot be used: {error.strerror}") from None
    except ValueError:
        raise CannotStart(f"the secret file {path} does not hold hexadecimal digits") from None
    if len(secret) < SECRET_BYTES:
        raise CannotStart(f"the secret in {path} is shorter than {SECRET_BYTES} bytes")
    return secret


def read_manifest(settings: Settings) -> Manifest:
    """The runtimes manifest of the settings, or the one that is shipped."""
    if settings.manifest:
        try:
            return parse_manifest(Path(settings.manifest).read_bytes())
        except OSError as error:
            raise CannotStart(f"the manifest {settings.manifest} cannot be read: {error.strerror}") from None
    return parse_manifest(resources.files("visp.runtime").joinpath("manifest.json").read_bytes())


def memory_budget_mb(settings: Settings) -> int:
    """Memory for containers: the setting, or half of the machine's."""
    if settings.pool.memory_mb:
        return settings.pool.memory_mb
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (2 * 1024 * 1024)


def make_driver(settings: Settings, data_dir: Path) -> Driver:
    """The driver that the settings name; raises `CannotStart`."""
    name = "bwrap" if settings.driver == "auto" else settings.driver
    if name == "process" and not settings.trust_all_code:
        raise CannotStart(
            "driver 'process' isolates nothing: an action could read and do whatever this server can. "
            "Where every action's author is trusted, say so by --i-trust-all-code."
        )
    target = DRIVERS.get(name, name)
    module, _, attribute = target.partition(":")
    if not attribute:
        raise CannotStart(f"no driver is called '{name}': choose auto, {', '.join(DRIVERS)} or module:Class")
    try:
        driver: Driver = getattr(importlib.import_module(module), attribute)(settings=settings, data_dir=data_dir)
    except (ImportError, AttributeError) as error:
        raise CannotStart(f"driver '{name}' cannot be loaded: {error}") from None
    return driver


class GatedDriver:
    """A driver whose containers wait until it was found fit: its check, its leftovers, its self-test."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._is_fit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.name = driver.name

    def open(self) -> None:
        self._is_fit.set_result(None)

    async def create(self, spec: ContainerSpec) -> Container:
        await asyncio.shield(self._is_fit)
        return await self._driver.create(spec)

    async def start(self) -> None:
        await self._driver.start()

    async def reap(self) -> int:
        return await self._driver.reap()

    async def close(self) -> None:
        if not self._is_fit.done():
            self._is_fit.cancel()
        await self._driver.close()


# ── the parts, wired ────────────────────────────────────────────────────────────────────────────────────────────


class Parts(msgspec.Struct, kw_only=True):
    """A server's parts while it runs. `unready` is what keeps it from serving, None once nothing does."""

    site: Site
    gate: Gate
    acks: Acks
    boot: Callable[[], Awaitable[None]]
    unready: str | None = "starting: the sandbox is being checked"


@contextlib.asynccontextmanager
async def assembled(settings: Settings, data_dir: Path) -> AsyncIterator[Parts]:
    """Every part of a server in one process, started; stopped in the opposite order when the block is left."""
    from visp.store.filesystem import FileBlobs
    from visp.store.ledger import EmbeddedLedger
    from visp.store.sqlite import SqliteActivations, SqliteEntities

    clock = SystemClock()
    secret = read_secret(settings, data_dir)
    manifest = read_manifest(settings)
    driver = GatedDriver(make_driver(settings, data_dir))
    async with contextlib.AsyncExitStack() as stack:
        store = await SqliteEntities.open(data_dir / "entities.db")
        stack.push_async_callback(store.close)
        blobs = FileBlobs(data_dir / "blobs")
        index = await SqliteActivations.open(data_dir / f"activations-{SHARD}.db")
        ledger = EmbeddedLedger(data_dir / "ledger" / str(SHARD), index, settings, clock)
        await ledger.start()
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(driver.close)
        bus = MemoryBus()
        entities = EntityCache(store, blobs)
        identities = Identities(store, secret, settings.limits, is_loopback=is_loopback(settings.host))
        throttle = Throttle(clock)
        acks = Acks(throttle, settings.queue, bus)
        fleet = Fleet(clock)
        bus.subscribe(topics.PINGS, lambda message: _heard(fleet, message))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        primitive = Primitive(acks=acks, bus=bus, ledger=ledger, fleet=fleet, clock=clock)
        sequences = Sequences(
            primitive=primitive, entities=entities, acks=acks, ledger=ledger, clock=clock, tasks=tasks
        )
        invoke = Invoke(throttle=throttle, primitive=primitive, sequences=sequences, manifest=manifest, clock=clock)
        fire = Fire(
            throttle=throttle,
            invoke=invoke,
            primitive=primitive,
            sequences=sequences,
            entities=entities,
            ledger=ledger,
            clock=clock,
        )
        services = Services(
            settings=settings,
            clock=clock,
            manifest=manifest,
            identities=identities,
            entities=entities,
            crud=Crud(entities=entities, blobs=blobs, manifest=manifest, clock=clock),
            invoke=invoke,
            fire=fire,
            acks=acks,
            fleet=fleet,
            activations=ledger,
            unready=lambda: parts.unready,
            build=_build_date(),
        )
        recovery = Recovery(
            ledger=ledger,
            entities=entities,
            identities=identities,
            primitive=primitive,
            sequences=sequences,
            clock=clock,
        )
        runtimes = await Runtimes.prepare(settings, data_dir, manifest, driver, entities)
        invoker = await stack.enter_async_context(
            _invoker(settings, clock, bus, ledger, entities, driver, runtimes, identities)
        )
        parts = Parts(
            site=Site(services),
            gate=Gate(services),
            acks=acks,
            boot=lambda: _boot(settings, data_dir, driver, identities, recovery, parts),
        )
        yield parts
