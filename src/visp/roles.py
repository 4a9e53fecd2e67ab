"""The composition root: names → implementations, every part wired, started and stopped in order.

Only this module imports implementations. What containers need (the driver's check, its self-test, recovery) is
`Parts.boot`: it goes on beside the listener, and the first container waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp import premises
from visp.api.auth import is_loopback
from visp.api.context import Services
from visp.api.door import Gate
from visp.api.routes import Site
from visp.bus import base as topics
from visp.bus.memory import MemoryBus
from visp.bus.messages import EntityChanged, Ping
from visp.clock import SystemClock
from visp.container.guard import Guarded
from visp.controller.acks import Acks
from visp.controller.blobs import BlobSweep
from visp.controller.crud import Crud
from visp.controller.fire import Fire
from visp.controller.identities import Identities
from visp.controller.invoke import Invoke
from visp.controller.primitive import Primitive
from visp.controller.recovery import Recovery
from visp.controller.sequence import Sequences
from visp.entitlement.throttle import Throttle
from visp.entity.limits import RESULT_LIMIT_BYTES
from visp.entity.subject import GUEST, SYSTEM
from visp.invoker.prewarm import Cell, Wanted
from visp.premises import CannotStart
from visp.runtime import local
from visp.runtime.base import PreparedCode
from visp.scheduler.fleet import Fleet
from visp.store.cache import EntityCache
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from visp.bus.messages import Message
    from visp.container.base import Container, ContainerSpec, Driver, Maker
    from visp.container.local import LocalDriver
    from visp.entity.execs import Code
    from visp.entity.runtime_manifest import Manifest
    from visp.invoker.code import CodeCache
    from visp.invoker.invoker import Invoker
    from visp.runtime.base import ActionClient, OnOutput
    from visp.runtime.local import LocalKind
    from visp.settings import Settings
    from visp.store.ledger import EmbeddedLedger

DRIVERS = {
    "bwrap": "visp.container.bwrap:BwrapDriver",
    "process": "visp.container.process:ProcessDriver",
}
"""`driver` → where its class is; a setting may name a `module:Class` of someone else's."""

SHARD = 0
INVOKER = 0
API_HOST = "http://visp.internal:3233"
"""What actions are told: a name of the platform's own, until containers have a network that leads to it."""


class Parts(msgspec.Struct, kw_only=True):
    """A server's parts while it runs. `unready` is what keeps it from serving, None once nothing does."""

    site: Site
    gate: Gate
    acks: Acks
    boot: Callable[[], Awaitable[None]]
    unready: str | None = "starting: the sandbox is being checked"


@contextlib.asynccontextmanager
async def assembled(settings: Settings, data_dir: Path, url: str) -> AsyncIterator[Parts]:
    """Every part of a server in one process, started; stopped in the opposite order when the block is left."""
    from visp.store.filesystem import FileBlobs
    from visp.store.ledger import EmbeddedLedger
    from visp.store.sqlite import SqliteActivations, SqliteEntities

    clock = SystemClock()
    secret = premises.read_secret(settings, data_dir)
    driver = make_driver(settings, data_dir)
    gated = GatedMaker(driver)
    finding = asyncio.ensure_future(_kinds(premises.read_manifest(settings), driver))  # while the stores are opened
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(finding.cancel)
        store = await SqliteEntities.open(data_dir / "entities.db")
        stack.push_async_callback(store.close)
        index = await SqliteActivations.open(data_dir / f"activations-{SHARD}.db")
        ledger = EmbeddedLedger(data_dir / "ledger" / str(SHARD), index, settings, clock)
        await ledger.open()
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(driver.close)
        stack.callback(gated.close)
        kinds, manifest = await finding
        bus = MemoryBus()
        blobs = FileBlobs(data_dir / "blobs")
        entities = EntityCache(
            store, blobs, changed=lambda id, revision: bus.publish(topics.ENTITIES, EntityChanged(id, revision))
        )
        identities = Identities(store, secret, settings.limits, is_loopback=is_loopback(settings.host))
        throttle = Throttle(clock)
        acks = Acks(throttle, settings.queue, bus)
        fleet = Fleet(clock)
        bus.subscribe(topics.PINGS, lambda message: _hear_ping(fleet, message))
        tasks = await stack.enter_async_context(_ended_tasks())
        tasks.create_task(BlobSweep(store, blobs, clock).run())
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
        recovery = Recovery(
            ledger=ledger,
            entities=entities,
            identities=identities,
            primitive=primitive,
            sequences=sequences,
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
        await stack.enter_async_context(
            _invoker(settings, clock, bus, ledger, entities, driver, gated, kinds, manifest, identities)
        )

        async def boot() -> None:
            await _prepare_containers(settings, data_dir, driver, kinds)
            await _make_keys(identities, url)
            gated.open()
            begun, ended = await recovery.run()
            if begun or ended:
                log.info("recovery.done", resumed=begun, ended=ended)

        parts = Parts(site=Site(services), gate=Gate(services), acks=acks, boot=boot)
        yield parts


# ── containers ──────────────────────────────────────────────────────────────────────────────────────────────────


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


class GatedMaker:
    """Makes guarded containers, once the driver was found fit."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._is_fit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.name = driver.name

    def open(self) -> None:
        """From now on containers may be made."""
        self._is_fit.set_result(None)

    async def create(self, spec: ContainerSpec) -> Container:
        await asyncio.shield(self._is_fit)
        return Guarded(await self._driver.create(spec))

    def close(self) -> None:
        """Whoever still waits is told that nothing will be made."""
        self._is_fit.cancel()


async def _kinds(manifest: Manifest, driver: Driver) -> tuple[dict[str, LocalKind], Manifest]:
    """The kinds that run here, and the manifest as this machine offers it. An image driver runs none locally."""
    from visp.container.local import LocalDriver

    if not isinstance(driver, LocalDriver):
        return {}, manifest
    await asyncio.to_thread(driver.cells.prepare)
    kinds = await asyncio.to_thread(local.find, manifest, driver.cells.install)
    return kinds, local.offer(manifest, frozenset(kinds))


async def _prepare_containers(
    settings: Settings, data_dir: Path, driver: Driver, kinds: Mapping[str, LocalKind]
) -> None:
    """The driver's check, what an earlier server left, and the self-test; raises `StartFailed`."""
    from visp.container.bwrap import BwrapDriver

    began_s = time.monotonic()
    await driver.start()
    left = await driver.reap()
    if left:
        log.warning("driver.reaped", containers=left)
    if isinstance(driver, BwrapDriver):
        from visp.container import selftest

        python = system_python(kinds)
        if python is None:
            raise CannotStart(
                "the sandbox cannot be tested without a system Python, and python kinds cannot run: "
                "apt-get install python3.11"
            )
        await selftest.check(driver, data_dir, python)
    log.info("driver.ready", driver=driver.name, kinds=",".join(kinds), took_s=round(time.monotonic() - began_s, 3))


@contextlib.asynccontextmanager
async def _invoker(
    settings: Settings,
    clock: SystemClock,
    bus: MemoryBus,
    ledger: EmbeddedLedger,
    entities: EntityCache,
    driver: Driver,
    gated: GatedMaker,
    kinds: dict[str, LocalKind],
    manifest: Manifest,
    identities: Identities,
) -> AsyncIterator[Invoker]:
    from visp.container.local import LocalDriver
    from visp.invoker.holding import HoldingMaker
    from visp.invoker.invoker import Invoker

    async with contextlib.AsyncExitStack() as stack:
        prepare_code: Callable[[Code], Awaitable[PreparedCode]]
        maker: Maker
        if isinstance(driver, LocalDriver):
            code = await _code_cache(entities, driver, gated, kinds)
            stack.push_async_callback(code.close)
            prepare_code, maker = code.prepare, HoldingMaker(gated, code)
        else:  # images unpack by themselves
            prepare_code, maker = _as_it_is(entities), gated
        yield await stack.enter_async_context(
            Invoker(
                id=INVOKER,
                bus=bus,
                ledger=ledger,
                entities=entities,
                driver=maker,
                connect=_connect,
                kinds=kinds,
                prepare_code=prepare_code,
                key_of=identities.key_of,
                settings=settings,
                wanted=wanted_cells(manifest, kinds, settings),
                memory_mb=premises.memory_budget_mb(settings),
                starts_limit=premises.starts_at_once(settings),
                api_host=API_HOST,
                clock=clock,
            )
        )


async def _code_cache(
    entities: EntityCache, driver: LocalDriver, gated: GatedMaker, kinds: Mapping[str, LocalKind]
) -> CodeCache:
    """Where code is unpacked for the driver's containers."""
    from visp.invoker.code import CodeCache, unpack_command

    python = system_python(kinds)
    program = await asyncio.to_thread(driver.cells.install, "unpack.py", local.read_program("unpack.py"))
    command = None if python is None else unpack_command(python, program)
    code = CodeCache(text_of=entities.code, driver=gated, folder=driver.cells.code, command=command)
    await code.sweep_leftovers()
    return code


def _as_it_is(entities: EntityCache) -> Callable[[Code], Awaitable[PreparedCode]]:
    async def prepare(code: Code) -> PreparedCode:
        return PreparedCode(text=await entities.code(code))

    return prepare


def system_python(kinds: Mapping[str, LocalKind]) -> str | None:
    """A Python that containers can see; it unpacks archives and runs the escape probe."""
    return next((kind.program for name, kind in kinds.items() if name.startswith("python:")), None)


def wanted_cells(manifest: Manifest, kinds: Mapping[str, LocalKind], settings: Settings) -> tuple[Wanted, ...]:
    """The stem cells that the manifest asks for, of kinds that run here, no more of each than the setting."""
    return tuple(
        Wanted(Cell(kind.kind, cell.memory_mb), min(cell.wanted, settings.pool.stem_cells))
        for kind in manifest.kinds()
        if kind.kind in kinds
        for cell in kind.stem_cells
    )


def _connect(container: Container, kind: str, on_output: OnOutput) -> ActionClient:
    """The client for a container's wire."""
    from visp.container.base import Pipes
    from visp.runtime.client import HttpClient, PipeClient

    loop, wire, family = asyncio.get_running_loop(), container.wire, kind.partition(":")[0]
    if isinstance(wire, Pipes):
        descriptors = (wire.stdin, wire.replies, wire.stdout, wire.stderr)
        return PipeClient(loop, descriptors, on_output, family, RESULT_LIMIT_BYTES)
    return HttpClient(loop, wire.host, wire.port, on_output, RESULT_LIMIT_BYTES)


# ── the rest ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _make_keys(identities: Identities, url: str) -> None:
    """Keys of the built-in namespaces. The guest of a server that others can reach gets one of its own, shown once."""
    await identities.ensure(SYSTEM)
    if identities.has_public_guest:
        return
    auth = await identities.ensure(GUEST)
    if auth is not None:
        print(f"visp: the key of namespace '{GUEST}', shown only this once: {auth}  (server {url})", file=sys.stderr)


def _hear_ping(fleet: Fleet, message: Message) -> None:
    if isinstance(message, Ping):
        fleet.heard(message)


class _Over(Exception):
    """The block is left."""


async def _raise_over() -> None:
    raise _Over


@contextlib.asynccontextmanager
async def _ended_tasks() -> AsyncIterator[asyncio.TaskGroup]:
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


def _build_date() -> str:
    """When this copy was made: an ISO date."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(Path(__file__).stat().st_mtime))
