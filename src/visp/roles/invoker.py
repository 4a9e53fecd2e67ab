"""The invoker, put together: its code cache, its builds, what speaks to containers and what leads out of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from visp import premises
from visp.entity.limits import RESULT_LIMIT_BYTES
from visp.entity.network import proxy_environment
from visp.entity.relay import DOOR_NAME, DOOR_PORT
from visp.roles.kinds import lookup, system_python, wanted_cells
from visp.runtime import local
from visp.runtime.base import PreparedCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from visp.api.inside import Doors
    from visp.bus.base import Bus
    from visp.clock import Clock
    from visp.container.base import Container, Driver, Maker
    from visp.container.egress.packets import Packets
    from visp.container.local import LocalDriver
    from visp.controller.identities import Identities
    from visp.entity.execs import BlackboxExec, CodeExec
    from visp.entity.locking import Locks
    from visp.entity.network import Opening, Policy
    from visp.entity.runtime_manifest import Manifest
    from visp.invoker import building
    from visp.invoker.builder import Prepare
    from visp.invoker.code import CodeCache
    from visp.invoker.invoker import Invoker
    from visp.roles.gated import GatedMaker
    from visp.runtime.base import ActionClient, Kind, OnOutput
    from visp.runtime.local import LocalKind
    from visp.settings import Settings
    from visp.store.base import Ledger
    from visp.store.cache import EntityCache
    from visp.telemetry.metrics import Registry


@contextlib.asynccontextmanager
async def running_invoker(
    *,
    number: int,
    settings: Settings,
    clock: Clock,
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
    """An invoker that runs until the block is left; with an engine, over images too."""
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
                kind_of=lookup(kinds, gated, manifest, settings),
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
    from visp.invoker.code import CodeCache
    from visp.invoker.unpacking import unpack_command

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


def _as_it_is(entities: EntityCache) -> Prepare:
    async def prepare(
        exec: CodeExec | BlackboxExec, kind: Kind, namespace: str = "", hear: object = None
    ) -> PreparedCode:
        return PreparedCode(text=None if exec.code is None else await entities.code(exec.code))

    return prepare


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


def packets_of(
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
