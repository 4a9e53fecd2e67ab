"""The composition root: every part of a server wired, started and stopped in order.

Only this room imports implementations. What containers need (the driver's check, its self-test, recovery) is
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
from visp.api.context import Services
from visp.api.gate import Gate
from visp.api.hooked import url_of as hooked_url
from visp.api.inside import Doors
from visp.api.kept import KeptAnswers
from visp.api.routes import Site
from visp.bus import base as topics
from visp.bus.messages import EntityChanged, Ping
from visp.clock import SystemClock
from visp.container import ladder
from visp.container.egress.proxy import Proxy
from visp.container.egress.surroundings import is_open
from visp.controller.acks import Acks
from visp.controller.apis import Apis
from visp.controller.backends import Backends
from visp.controller.batches import Batches
from visp.controller.blobs import BlobSweep
from visp.controller.builds import Builds
from visp.controller.composites import Composites
from visp.controller.counts import Counts
from visp.controller.crud import Crud
from visp.controller.delayed import Delayed
from visp.controller.feeds import Feeds
from visp.controller.fire import Fire
from visp.controller.gateway import Gateway
from visp.controller.hooked import Hooked
from visp.controller.hooks import Hooks
from visp.controller.idempotency import Idempotency
from visp.controller.identities import Identities, own_days, seal, unseal
from visp.controller.invoke import Invoke
from visp.controller.later import Later
from visp.controller.outbound import Outbound
from visp.controller.packages import Packages
from visp.controller.primitive import Primitive
from visp.controller.provisions import Provisions
from visp.controller.recovery import Recovery
from visp.controller.relock import Relock
from visp.controller.resolver import Resolver
from visp.controller.sites import Sites
from visp.controller.sockets import Sockets
from visp.controller.streams import Streams
from visp.controller.subscriptions import Subscriptions
from visp.controller.tokens import Tokens
from visp.controller.waits import Waits
from visp.entity.network import is_loopback
from visp.entity.subject import GUEST, SYSTEM
from visp.feed.kinds import Kinds
from visp.feed.leaving import take_away
from visp.feed.reach import Reaches
from visp.roles import drivers
from visp.roles.feeds import FeedRole
from visp.roles.gated import GatedMaker
from visp.roles.invoker import packets_of, running_invoker
from visp.roles.kinds import find_kinds, is_built
from visp.roles.tasks import ended_with
from visp.scheduler.fleet import Fleet
from visp.store.apis import DocumentApis
from visp.store.cache import EntityCache
from visp.store.promises import SqlitePromises
from visp.telemetry import log
from visp.telemetry.metrics import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from visp.bus.messages import Message
    from visp.neighbours import Neighbours
    from visp.settings import Settings

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
    driver = drivers.make(settings, shard.home_dir(data_dir, number))
    premises.check_http(settings)
    domains = premises.read_domains(settings)
    shipped = premises.read_packages(settings)
    doors = Doors(premises.read_relays(settings))
    policy, openings = premises.read_network(settings)
    packets = packets_of(settings, driver, openings, lambda namespace: identities.policy_of(namespace))
    gated = GatedMaker(driver, url, dict if packets is None else packets.environment)
    # while the stores are opened
    finding = asyncio.ensure_future(find_kinds(premises.read_manifest(settings), driver))
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
        apis = Apis(DocumentApis(ground.store), clock)
        identities = Identities(
            ground.store, secret, settings.limits, is_loopback=is_loopback(settings.host), network=policy
        )
        proxy = Proxy(settings.network, openings, identities.policy_of)
        stack.callback(proxy.close)
        doors.lead_out(proxy.answer)
        acks = Acks(throttle, settings.queue, bus, clock)
        waits = Waits(ground.activations, settings.waits)
        sockets = Sockets()
        streams = Streams(bus, settings.workers)
        fleet = Fleet(clock)
        metrics = Registry({"shard": str(number)})
        bus.subscribe(topics.PINGS, lambda message: _hear_ping(fleet, message))
        tasks = await stack.enter_async_context(ended_with())
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
        outbound = Outbound(settings.hooks, is_open)
        stack.push_async_callback(outbound.close)
        backends = Backends(settings.hooks, is_open, identities.policy_of, openings)
        stack.push_async_callback(backends.close)
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
        batches = Batches(
            fire=fire,
            promises=promises,
            activations=ground.activations,
            clock=clock,
            limits=settings.queue,
        )
        if number == shard.FIRST:
            tasks.create_task(idempotency.sweep())
            tasks.create_task(batches.sweep())
        feed_store = promises.feeds
        if number == shard.FIRST:
            await feed_store.free_all()
        feed_kinds = Kinds(
            premises.read_feeds(settings),
            {
                "alarms/alarm": {
                    "delay_limit_s": settings.feeds.delay_limit_s,
                    "whole_minutes": settings.feeds.whole_minutes,
                }
            },
        )
        reaches = Reaches(
            is_any=settings.feeds.reach == "any" or (settings.feeds.reach == "auto" and is_loopback(settings.host)),
            is_open=is_open,
            policy_of=identities.policy_of,
            openings=openings,
            roots=[root for root in settings.feeds.roots.split(":") if root],
        )
        feeds = Feeds(
            store=feed_store,
            kinds=feed_kinds,
            reach=reaches.of,
            crud=crud,
            bus=bus,
            clock=clock,
            seal=lambda text: seal(text, secret),
            unseal=lambda sealed: unseal(sealed, secret),
            url_of=partial(hooked_url, url),
            take_away=take_away,
        )
        hooked = Hooked(
            store=feed_store,
            feeds=feeds,
            identities=identities,
            crud=crud,
            fire=fire,
            idempotency=idempotency,
            new_id=invoke.new_id,
            clock=clock,
        )
        feed_role = FeedRole(
            store=feed_store,
            feeds=feeds,
            kinds=feed_kinds,
            reach=reaches.of,
            doors=doors,
            bus=bus,
            clock=clock,
            number=number,
            shards=settings.workers,
        )
        stack.push_async_callback(feed_role.close)
        subscriptions = Subscriptions(promises, secret, None if neighbours is None else neighbours.links)
        apis.when_renewed(subscriptions.drop_all)
        gateway = Gateway(
            documents=apis,
            subscriptions=subscriptions,
            tokens=Tokens(outbound, clock, settings.gateway),
            counts=Counts(clock, None if neighbours is None else neighbours.links),
        )
        services = Services(
            settings=settings,
            clock=clock,
            manifest=manifest,
            identities=identities,
            entities=entities,
            apis=apis,
            crud=crud,
            resolver=resolver,
            builds=Builds(bus=bus, is_built=partial(is_built, kinds), limit=settings.build.waiting),
            packages=Packages(entities=entities, crud=crud, locks=locks, clock=clock),
            sites=Sites(entities, blobs, clock),
            invoke=invoke,
            fire=fire,
            batches=batches,
            later=later,
            delayed=Delayed(later, None if neighbours is None else neighbours.links),
            promises=promises,
            idempotency=idempotency,
            acks=acks,
            fleet=fleet,
            activations=ground.activations,
            waits=waits,
            streams=streams,
            sockets=sockets,
            feeds=feeds,
            hooked=hooked,
            gateway=gateway,
            backends=backends,
            domains=domains,
            kept=KeptAnswers(clock),
            metrics=metrics,
            disable=lambda: setattr(parts, "unready", "disabled by its operator"),
            unready=lambda: parts.unready,
            build=_build_date(),
        )
        invoker = await stack.enter_async_context(
            running_invoker(
                number=number,
                settings=settings,
                clock=clock,
                bus=bus,
                ledger=ledger,
                entities=entities,
                driver=driver,
                gated=gated,
                kinds=kinds,
                manifest=manifest,
                identities=identities,
                locks=locks,
                doors=doors,
                metrics=metrics,
                packets=packets,
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
            gateway.calls.measured,
            backends.measured,
            services.kept.measured,
            ground.own.measured,
            proxy.measured,
            feed_role.measured,
        ):
            metrics.add(source)
        if packets is not None:
            metrics.add(packets.measured)
        if neighbours is not None:
            fleet.ask(invoker.ping)
            tasks.create_task(neighbours.tell(invoker.ping))
            from visp.controller.abroad import Abroad

            waits.join(Abroad(waits, neighbours.links, ground.activations))
            sockets.join(neighbours.links)
            await neighbours.join(entities, apis, identities, acks, fleet)

        async def boot() -> None:
            home_dir = shard.home_dir(data_dir, number)
            finding_engine = asyncio.ensure_future(drivers.find_engine(settings, home_dir, gated))
            stack.callback(finding_engine.cancel)
            leading = None if packets is None else asyncio.ensure_future(packets.start())
            try:
                await drivers.prepare(settings, home_dir, gated, kinds, packets)
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
            feed_role.begin()
            if shipped and number == shard.FIRST:
                from visp.roles.catalog import Installer

                installer = Installer(entities=entities, manifest=manifest, locks=locks, clock=clock)
                tasks.create_task(installer.run(shipped))
            begun, ended = await recovery.run()
            if begun or ended:
                log.info("recovery.done", resumed=begun, ended=ended)

        def hold_back() -> None:
            waits.close()
            feed_role.hold_back()
            invoker.hold_back()

        def go_on() -> None:
            waits.open()
            feed_role.begin()
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
    from visp.store.index import ACTIVATION_MIGRATIONS
    from visp.store.promises import MIGRATIONS
    from visp.store.sqlite import ENTITY_MIGRATIONS

    premises.read_secret(settings, data_dir)
    premises.read_locks(settings)
    premises.read_manifest(settings)
    premises.check_http(settings)
    premises.read_domains(settings)
    premises.read_packages(settings)
    for number in range(settings.workers):
        drivers.make(settings, shard.home_dir(data_dir, number))
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


def _build_date() -> str:
    """When this copy was made: an ISO date."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(Path(__file__).stat().st_mtime))
