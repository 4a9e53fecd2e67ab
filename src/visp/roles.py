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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp import premises, shard
from visp.api.auth import is_loopback
from visp.api.context import Services
from visp.api.door import Gate
from visp.api.inside import Doors
from visp.api.routes import Site
from visp.bus import base as topics
from visp.bus.messages import EntityChanged, Ping
from visp.clock import SystemClock
from visp.container import ladder
from visp.container.egress.proxy import Proxy
from visp.container.engine import may_answer
from visp.container.guard import Guarded
from visp.controller.acks import Acks
from visp.controller.blobs import BlobSweep
from visp.controller.builds import Builds
from visp.controller.composites import Composites
from visp.controller.crud import Crud
from visp.controller.delayed import Delayed
from visp.controller.fire import Fire
from visp.controller.hooks import Hooks
from visp.controller.idempotency import Idempotency
from visp.controller.identities import Identities, own_days
from visp.controller.invoke import Invoke
from visp.controller.later import Later
from visp.controller.outbound import Outbound
from visp.controller.packages import Packages
from visp.controller.primitive import Primitive
from visp.controller.provisions import Provisions
from visp.controller.recovery import Recovery
from visp.controller.relock import Relock
from visp.controller.resolver import Resolver
from visp.controller.streams import Streams
from visp.controller.waits import Waits
from visp.entity import images as names_of_images
from visp.entity.limits import RESULT_LIMIT_BYTES
from visp.entity.network import proxy_environment
from visp.entity.relay import DOOR_NAME, DOOR_PORT
from visp.entity.runtime_manifest import LocalRuntime
from visp.entity.subject import GUEST, SYSTEM
from visp.errors import StartFailed
from visp.invoker.prewarm import Cell, Wanted
from visp.premises import CannotStart
from visp.runtime import local
from visp.runtime.base import PreparedCode, Takes
from visp.runtime.images import ImageKinds
from visp.runtime.local import LocalKind
from visp.scheduler.fleet import Fleet
from visp.store.cache import EntityCache
from visp.store.promises import SqlitePromises
from visp.telemetry import log
from visp.telemetry.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from visp.bus.base import Bus
    from visp.bus.messages import Message
    from visp.container.base import Container, ContainerSpec, Driver, Maker, Template
    from visp.container.egress.packets import Packets
    from visp.container.fork import ForkDriver
    from visp.container.local import LocalDriver
    from visp.container.sandbox import SandboxDriver
    from visp.entity.execs import BlackboxExec, CodeExec, Exec
    from visp.entity.locking import Locks
    from visp.entity.network import Opening, Policy
    from visp.entity.runtime_manifest import Manifest
    from visp.invoker import building
    from visp.invoker.builder import Prepare
    from visp.invoker.code import CodeCache
    from visp.invoker.invoker import Invoker
    from visp.neighbours import Neighbours
    from visp.runtime.base import ActionClient, Kind, OnOutput
    from visp.settings import Settings
    from visp.store.base import Ledger

API_HOST = "__OW_API_HOST"

DRIVERS = {
    "fork": "visp.container.fork:ForkDriver",
    "bwrap": "visp.container.bwrap:BwrapDriver",
    "nsjail": "visp.container.nsjail:NsjailDriver",
    "landlock": "visp.container.landlock:LandlockDriver",
    "runsc": "visp.container.runsc:RunscDriver",
    "process": "visp.container.process:ProcessDriver",
    "docker": "visp.container.docker:DockerDriver",
}
"""`driver` → where its class is; a setting may name a `module:Class` of someone else's."""

STARTED = ("visp.invoker.invoker", "visp.invoker.code", "visp.store.filesystem", "visp.runtime.client")
"""What is imported when it is first needed, beside the driver: between two servers it is better there already."""


class Parts(msgspec.Struct, kw_only=True):
    """A server's parts while it runs. `unready` is what keeps it from serving, None once nothing does."""

    site: Site
    gate: Gate
    doors: Doors
    boot: Callable[[], Awaitable[None]]
    under_way: Callable[[], int]
    """How many activations run here, or are going to."""
    hold_back: Callable[[], None]
    """Accepted work that waits is left to the next start, and who waits for records comes again; `go_on` takes that
    back."""
    go_on: Callable[[], None]
    hurry: Callable[[], None]
    """Whoever waits for a result is told where to ask for it."""
    unready: str | None = "starting: the sandbox is being checked"


@contextlib.asynccontextmanager
async def assembled(settings: Settings, data_dir: Path, url: str, number: int = 0) -> AsyncIterator[Parts]:
    """Every part of a server in one process, started; stopped in the opposite order when the block is left.

    Of a server of several shards, those of shard `number`.
    """
    from visp.store.filesystem import FileBlobs

    clock = SystemClock()
    secret = premises.read_secret(settings, data_dir)
    locks = premises.read_locks(settings)
    driver = make_driver(settings, shard.home_dir(data_dir, number))
    doors = Doors(premises.read_relays(settings))
    policy, openings = premises.read_network(settings)
    packets = _packets(settings, driver, openings, lambda namespace: identities.policy_of(namespace))
    gated = GatedMaker(driver, url, dict if packets is None else packets.environment)
    # while the stores are opened
    finding = asyncio.ensure_future(_kinds(premises.read_manifest(settings), driver))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(finding.cancel)
        stack.callback(doors.close)
        neighbours = _neighbours(settings, data_dir, number, clock)
        ground = await stack.enter_async_context(
            shard.standing(settings, data_dir, number, clock, neighbours, partial(own_days, platform=settings.limits))
        )
        bus, ledger, throttle = ground.bus, ground.ledger, ground.throttle
        if packets is not None:
            stack.push_async_callback(packets.close)
        stack.push_async_callback(gated.end)
        stack.callback(gated.close)
        kinds, manifest = await finding
        blobs = FileBlobs(data_dir / "blobs")
        entities = EntityCache(
            ground.store,
            blobs,
            changed=None  # neighbours are told by the store, and so are we
            if neighbours
            else lambda id, revision: bus.publish(topics.ENTITIES, EntityChanged(id, revision)),
        )
        identities = Identities(
            ground.store, secret, settings.limits, is_loopback=is_loopback(settings.host), network=policy
        )
        proxy = Proxy(settings.network, openings, identities.policy_of)
        stack.callback(proxy.close)
        doors.lead_out(proxy.answer)
        acks = Acks(throttle, settings.queue, bus, clock)
        waits = Waits(ground.activations, settings.waits)
        streams = Streams(bus, settings.workers)
        fleet = Fleet(clock)
        metrics = Registry({"shard": str(number)})
        bus.subscribe(topics.PINGS, lambda message: _hear_ping(fleet, message))
        tasks = await stack.enter_async_context(_ended_tasks())
        if number == shard.FIRST:
            tasks.create_task(BlobSweep(ground.store, blobs, clock).run())
            tasks.create_task(Relock(entities, locks, clock).run())
        primitive = Primitive(
            acks=acks, bus=bus, ledger=ledger, fleet=fleet, clock=clock, shard=number, shards=settings.workers
        )
        resolver = Resolver(entities)
        crud = Crud(entities=entities, resolver=resolver, blobs=blobs, manifest=manifest, locks=locks, clock=clock)
        composites = Composites(
            primitive=primitive,
            resolver=resolver,
            acks=acks,
            ledger=ledger,
            activations=ground.activations,
            clock=clock,
            tasks=tasks,
        )
        invoke = Invoke(throttle=throttle, primitive=primitive, composites=composites, manifest=manifest, clock=clock)
        fire = Fire(
            throttle=throttle,
            invoke=invoke,
            primitive=primitive,
            composites=composites,
            resolver=resolver,
            ledger=ledger,
            clock=clock,
        )
        promises = await SqlitePromises.open(data_dir / "promises.db")
        stack.push_async_callback(promises.close)
        outbound = Outbound(settings.hooks)
        stack.push_async_callback(outbound.close)
        hooks = Hooks(activations=ground.activations, outbound=outbound, clock=clock, limits=settings.hooks)
        later = Later(
            ledger=ledger,
            activations=ground.activations,
            letters=promises,
            entities=entities,
            resolver=resolver,
            identities=identities,
            primitive=primitive,
            composites=composites,
            fire=fire,
            hooks=hooks,
            bus=bus,
            clock=clock,
            settings=settings,
            tasks=tasks,
        )
        provisions = Provisions(
            entities=entities,
            identities=identities,
            resolver=resolver,
            invoke=invoke,
            bus=bus,
            clock=clock,
            shard=number,
            shards=settings.workers,
        )
        recovery = Recovery(ledger=ledger, later=later, composites=composites)
        idempotency = Idempotency(
            promises=promises,
            activations=ground.activations,
            clock=clock,
            limits=settings.queue,
        )
        if number == shard.FIRST:
            tasks.create_task(idempotency.sweep())
        services = Services(
            settings=settings,
            clock=clock,
            manifest=manifest,
            identities=identities,
            entities=entities,
            crud=crud,
            resolver=resolver,
            builds=Builds(bus=bus, is_built=partial(_is_built, kinds), limit=settings.build.waiting),
            packages=Packages(entities=entities, crud=crud, locks=locks, clock=clock),
            invoke=invoke,
            fire=fire,
            later=later,
            delayed=Delayed(later, None if neighbours is None else neighbours.links),
            promises=promises,
            idempotency=idempotency,
            acks=acks,
            fleet=fleet,
            activations=ground.activations,
            waits=waits,
            streams=streams,
            metrics=metrics,
            disable=lambda: setattr(parts, "unready", "disabled by its operator"),
            unready=lambda: parts.unready,
            build=_build_date(),
        )
        invoker = await stack.enter_async_context(
            _invoker(
                number,
                settings,
                clock,
                bus,
                ledger,
                entities,
                driver,
                gated,
                kinds,
                manifest,
                identities,
                locks,
                doors,
                metrics,
                packets,
            )
        )
        ground.ask(invoker.has)
        for owner_of in (acks.owner_of, invoker.owner_of, later.owner_of):
            waits.ask(owner_of)
        for source in (
            invoker.measured,
            acks.measured,
            waits.measured,
            later.measured,
            hooks.measured,
            ground.own.measured,
            proxy.measured,
        ):
            metrics.add(source)
        if packets is not None:
            metrics.add(packets.measured)
        if neighbours is not None:
            fleet.ask(invoker.ping)
            tasks.create_task(neighbours.tell(invoker.ping))
            from visp.controller.abroad import Abroad

            waits.join(Abroad(waits, neighbours.links, ground.activations))
            await neighbours.join(entities, identities, acks, fleet)

        async def boot() -> None:
            finding_engine = asyncio.ensure_future(_find_engine(settings, shard.home_dir(data_dir, number), gated))
            stack.callback(finding_engine.cancel)
            leading = None if packets is None else asyncio.ensure_future(packets.start())
            try:
                await _prepare_containers(settings, data_dir, gated, kinds, packets)
            finally:
                if leading is not None:
                    await leading
            metrics.add(partial(ladder.families, ladder.standing(gated.driver)))
            await finding_engine
            if number == shard.FIRST:
                await _make_keys(identities, url)
            tasks.create_task(identities.watch(clock))
            if neighbours is not None:
                await neighbours.arrive()
            gated.open()
            tasks.create_task(provisions.run())
            begun, ended = await recovery.run()
            if begun or ended:
                log.info("recovery.done", resumed=begun, ended=ended)

        def hold_back() -> None:
            waits.close()
            invoker.hold_back()

        def go_on() -> None:
            waits.open()
            invoker.go_on()

        def hurry() -> None:
            primitive.hurry()
            composites.hurry()
            streams.close()

        parts = Parts(
            site=Site(services),
            gate=Gate(services),
            doors=doors,
            boot=boot,
            under_way=lambda: invoker.under_way + composites.under_way,
            hold_back=hold_back,
            go_on=go_on,
            hurry=hurry,
        )
        yield parts


def rehearse(settings: Settings, data_dir: Path) -> None:
    """Finds what would keep this server from starting, as far as it shows while another one uses the data folder.

    Everything that a start imports is imported by then. Raises `VispError`.
    """
    from visp.store.database import check_version
    from visp.store.promises import MIGRATIONS
    from visp.store.sqlite import ACTIVATION_MIGRATIONS, ENTITY_MIGRATIONS

    premises.read_secret(settings, data_dir)
    premises.read_locks(settings)
    premises.read_manifest(settings)
    for number in range(settings.workers):
        make_driver(settings, shard.home_dir(data_dir, number))
    for pattern, migrations in (
        ("entities.db", ENTITY_MIGRATIONS),
        ("promises.db", MIGRATIONS),
        ("activations-*.db", ACTIVATION_MIGRATIONS),
    ):
        for path in data_dir.glob(pattern):
            check_version(path, migrations)
    for module in STARTED:
        importlib.import_module(module)


def _neighbours(settings: Settings, data_dir: Path, number: int, clock: SystemClock) -> Neighbours | None:
    """The other shards, if there are any; nothing of them is imported else."""
    if settings.workers == 1:
        return None
    from visp.neighbours import Neighbours

    return Neighbours(number, settings.workers, data_dir, clock)


# ── containers ──────────────────────────────────────────────────────────────────────────────────────────────────


def make_driver(settings: Settings, data_dir: Path) -> Driver:
    """The driver that the settings name; raises `CannotStart`."""
    name = ladder.FIRST if settings.driver == "auto" else settings.driver
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


async def _kinds(manifest: Manifest, driver: Driver) -> tuple[dict[str, LocalKind], Manifest]:
    """The kinds that run here, and the manifest as this machine offers it.

    An image driver runs none locally; the one that runs nothing takes each of them.
    """
    from visp.container.local import LocalDriver

    if not isinstance(driver, LocalDriver):
        from visp.container.fake import FakeDriver

        nothing = LocalRuntime(launcher="", programs=(), version="")
        names = [kind.kind for kind in manifest.kinds()] if isinstance(driver, FakeDriver) else []
        return {name: LocalKind(name, "", nothing, "") for name in names}, manifest
    await asyncio.to_thread(driver.cells.prepare)
    kinds = await asyncio.to_thread(local.find, manifest, driver.cells.install, driver.runtimes)
    return kinds, local.offer(manifest, frozenset(kinds))


async def _prepare_containers(
    settings: Settings,
    data_dir: Path,
    gated: GatedMaker,
    kinds: Mapping[str, LocalKind],
    packets: Packets | None = None,
) -> None:
    """The driver's check, what an earlier server left, and the self-test; raises `StartFailed`.

    Where the operator has named none, a driver that does not pass gives way to the next one of the ladder.
    """
    refused: list[str] = []
    while True:
        try:
            return await _prepare_driver(settings, data_dir, gated.driver, kinds, packets)
        except StartFailed as error:
            refused.append(str(error))
            name = gated.driver.name
            following = ladder.below(name) if settings.driver == "auto" else None
            if following is None:
                said = "; ".join(refused)
                raise StartFailed(said if len(refused) == 1 else f"no sandbox works here: {said}") from None
            log.warning("driver.refused", driver=name, reason=str(error), following=following)
        await gated.driver.close()
        gated.driver = make_driver(msgspec.structs.replace(settings, driver=following), data_dir)


async def _prepare_driver(
    settings: Settings, data_dir: Path, driver: Driver, kinds: Mapping[str, LocalKind], packets: Packets | None
) -> None:
    from visp.container.fork import ForkDriver
    from visp.container.sandbox import SandboxDriver

    began_s = time.monotonic()
    if isinstance(driver, SandboxDriver) and driver.has_doors and packets is not None:
        driver.nameserver = packets.nameserver
    await driver.start()
    left = await driver.reap()
    if left:
        log.warning("driver.reaped", containers=left)
    if isinstance(driver, SandboxDriver):
        await _test_sandbox(settings, data_dir, driver, kinds)
    if isinstance(driver, ForkDriver) and packets is not None:
        driver.equip = packets.equip
    known = ladder.standing(driver)
    log.info(
        "driver.ready",
        driver=known.driver,
        limits=known.limits,
        missing="; ".join(known.missing) or "nothing",
        kinds=",".join(kinds),
        took_s=round(time.monotonic() - began_s, 3),
    )


async def _find_engine(settings: Settings, data_dir: Path, gated: GatedMaker) -> None:
    """Where a container engine answers, images run, beside what the driver runs.

    Raises `StartFailed` where one must.
    """
    docker = settings.docker
    if gated.images is not None or docker.mode == "off" or settings.driver not in {"auto", *DRIVERS}:
        return
    if docker.mode == "auto" and not may_answer(settings):
        return
    images: Driver | None = None
    try:
        images = await asyncio.to_thread(make_driver, msgspec.structs.replace(settings, driver="docker"), data_dir)
        await images.start()
        left = await images.reap()
    except (CannotStart, StartFailed) as error:
        if images is not None:
            await images.close()
        if docker.mode == "on":
            raise
        log.warning("docker.none", reason=str(error))
        return
    gated.images = images
    if left:
        log.warning("driver.reaped", containers=left, driver=images.name)


async def _test_sandbox(
    settings: Settings, data_dir: Path, driver: SandboxDriver, kinds: Mapping[str, LocalKind]
) -> None:
    """The self-test. What was not chosen by name goes on without templates where only these do not pass."""
    from visp.container import selftest
    from visp.container.fork import ForkDriver

    python = system_python(kinds)
    if python is None:
        raise CannotStart(
            "the sandbox cannot be tested without a system Python, and python kinds cannot run: "
            "apt-get install python3.11"
        )
    if isinstance(driver, ForkDriver):
        templates = templates_of(kinds)[:1]  # the others when they are first asked for: starts are to be quick
        driver.offer(commands_of(kinds))  # before the test starts the first template
        try:
            await selftest.check(driver, data_dir, python, templates)
            driver.warm(templates, partial(_prove, driver, python))
            return
        except StartFailed as error:
            if settings.driver != "auto":
                raise
            log.warning("driver.no_templates", reason=str(error))
            await driver.give_up_templates()
    await selftest.check(driver, data_dir, python)


async def _prove(driver: ForkDriver, python: str, template: Template) -> bool:
    """Whether the escape probe is refused everything in a child of this template, too."""
    from visp.container import selftest
    from visp.container.fork import OnTrial

    try:
        holes = await selftest.run(driver, python, selftest.PROBE.read_bytes(), template, OnTrial(driver))
    except StartFailed as error:
        holes = [str(error)]
    if holes:
        log.error("driver.template_refused", python=template.argv[0], reason="; ".join(holes))
    return not holes


def _packets(
    settings: Settings, driver: Driver, openings: Sequence[Opening], policy_of: Callable[[str], Awaitable[Policy]]
) -> Packets | None:
    """What leads containers out beside the proxy; None where they have no network of their own."""
    if not driver.has_doors:
        return None
    from visp.container.egress.packets import Packets

    packets = Packets(settings.network, openings, policy_of)
    packets.claim()
    return packets


async def _lead_nowhere(*_: object) -> dict[str, str]:
    return {}


@contextlib.asynccontextmanager
async def _invoker(
    number: int,
    settings: Settings,
    clock: SystemClock,
    bus: Bus,
    ledger: Ledger,
    entities: EntityCache,
    driver: Driver,
    gated: GatedMaker,
    kinds: dict[str, LocalKind],
    manifest: Manifest,
    identities: Identities,
    locks: Locks,
    doors: Doors,
    metrics: Registry,
    packets: Packets | None,
) -> AsyncIterator[Invoker]:
    from visp.container.local import LocalDriver
    from visp.invoker import building
    from visp.invoker.builder import Builder
    from visp.invoker.compiled import Compiled
    from visp.invoker.holding import HoldingMaker
    from visp.invoker.invoker import Invoker

    async with contextlib.AsyncExitStack() as stack:
        prepare_code: Prepare
        maker: Maker
        if isinstance(driver, LocalDriver):
            builds = building.Builds(settings.build)
            code = await _code_cache(entities, driver, gated, kinds, settings, builds, doors)
            stack.push_async_callback(code.close)
            metrics.add(builds.measured)
            prepare_code, maker, compiled = code.prepare, HoldingMaker(gated, code), Compiled(code)
        else:  # images unpack by themselves
            prepare_code, maker, compiled = _as_it_is(entities), gated, None
        stack.push_async_callback(Builder(bus=bus, kind_of=kinds.get, prepare=prepare_code).close)
        yield await stack.enter_async_context(
            Invoker(
                id=number,
                bus=bus,
                ledger=ledger,
                entities=entities,
                driver=maker,
                connect=_connect,
                kind_of=_kind_of(kinds, gated, manifest, settings),
                prepare_code=prepare_code,
                key_of=identities.key_of,
                locks=locks,
                settings=settings,
                wanted=wanted_cells(manifest, kinds, settings),
                memory_mb=premises.memory_budget_mb(settings),
                starts_limit=premises.starts_at_once(settings),
                compiled=compiled,
                api_host=f"http://{DOOR_NAME}:{DOOR_PORT}",
                open_doors=doors.open,
                lead_out=_lead_nowhere if packets is None else packets.lead_out,
                clock=clock,
                admit=gated.admit,
            )
        )


async def _code_cache(
    entities: EntityCache,
    driver: LocalDriver,
    gated: GatedMaker,
    kinds: Mapping[str, LocalKind],
    settings: Settings,
    builds: building.Builds,
    doors: Doors,
) -> CodeCache:
    """Where code is unpacked for the driver's containers."""
    from visp.invoker.code import CodeCache, unpack_command

    python = system_python(kinds)
    program = await asyncio.to_thread(driver.cells.install, "unpack.py", local.read_program("unpack.py"))
    command = None if python is None else unpack_command(python, program)
    own = premises.read_build_environment(settings)
    code = CodeCache(
        text_of=entities.code,
        driver=gated,
        folder=driver.cells.code,
        command=command,
        builds=builds,
        environment=lambda: (proxy_environment() if gated.driver.has_doors else {}) | own,
        opened=lambda container, namespace: doors.open(container.doors, container.exited, lambda: namespace),
    )
    await code.sweep_leftovers()
    return code


def _kind_of(
    kinds: Mapping[str, LocalKind], gated: GatedMaker, manifest: Manifest, settings: Settings
) -> Callable[[str], Kind | None]:
    """The kinds of this machine, then, while there is an engine, those that run as images."""
    docker = settings.docker
    policy = names_of_images.Policy(
        runtimes_registry=docker.runtimes_registry,
        user_images_registry=docker.user_images_registry,
        local_prefix=docker.local_image_prefix if docker.bypass_pull_for_local_images else None,
    )
    others = ImageKinds(manifest, policy, lambda: gated.images is not None)
    return lambda name: kinds.get(name) or others.get(name)


def _is_built(kinds: Mapping[str, LocalKind], exec: Exec) -> bool:
    """Whether there may be something to build of this code, before it can run."""
    kind = None if exec.code is None else kinds.get(exec.kind)
    if kind is None or kind.recipe is None or exec.code is None:
        return False
    return exec.code.is_binary or kind.takes is Takes.PROGRAM


def _as_it_is(entities: EntityCache) -> Prepare:
    async def prepare(
        exec: CodeExec | BlackboxExec, kind: Kind, namespace: str = "", hear: object = None
    ) -> PreparedCode:
        return PreparedCode(text=None if exec.code is None else await entities.code(exec.code))

    return prepare


def system_python(kinds: Mapping[str, LocalKind]) -> str | None:
    """A Python that containers can see; it unpacks archives and runs the escape probe."""
    return next((kind.program for kind in _system_first(kinds) if kind.name.startswith("python:")), None)


def _system_first(kinds: Mapping[str, LocalKind]) -> list[LocalKind]:
    """What the system has before what visp installed: the first Python is what launchers of other kinds run by."""
    return sorted(kinds.values(), key=lambda kind: kind.program.startswith(local.HOME_INSIDE))


def templates_of(kinds: Mapping[str, LocalKind]) -> tuple[Template, ...]:
    """A template for each kind that can have one, as `container/` asks for it."""
    from visp.container.base import Mount, Template

    out = []
    for kind in _system_first(kinds):
        command = kind.command(0)
        if command.template is not None:
            mounts = tuple(Mount(host, inside) for host, inside in command.mounts)
            out.append(Template(program=command.template, argv=command.argv, mounts=mounts))
    return tuple(out)


def commands_of(kinds: Mapping[str, LocalKind]) -> tuple[Template, ...]:
    """The commands, each once, of the kinds that have no template of their own."""
    from visp.container.base import Mount, Template

    out = {}
    for kind in kinds.values():
        command = kind.command(0)
        if command.template is None:
            mounts = tuple(Mount(host, inside) for host, inside in command.mounts)
            out[command.argv] = Template(program=kind.launcher, argv=command.argv, mounts=mounts)
    return tuple(out.values())


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
    client = HttpClient(loop, wire.host, wire.port, on_output, RESULT_LIMIT_BYTES, wire.connect)
    if wire.follow is not None:
        wire.follow(client.feed)
    return client


# ── the rest ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _make_keys(identities: Identities, url: str) -> None:
    """Keys of the built-in namespaces. The guest of a server that others can reach gets one of its own, shown once."""
    await identities.check_secret(SYSTEM)
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
