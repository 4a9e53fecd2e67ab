"""Drivers: names → implementations, and how one is found fit before containers are made by it."""

from __future__ import annotations

import asyncio
import importlib
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from visp.container import ladder
from visp.container.engine import may_answer
from visp.errors import StartFailed
from visp.premises import CannotStart
from visp.remembered import Memory
from visp.roles.kinds import commands_of, system_python, templates_of
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from visp.container.base import Driver, Template
    from visp.container.egress.packets import Packets
    from visp.container.fork import ForkDriver
    from visp.container.sandbox import SandboxDriver
    from visp.roles.gated import GatedMaker
    from visp.runtime.local import LocalKind
    from visp.settings import Settings

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
VERDICTS = "selftest.json", 64
"""Where verdicts of self-tests are remembered, and how many."""


def make(settings: Settings, data_dir: Path) -> Driver:
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


async def prepare(
    settings: Settings,
    home_dir: Path,
    gated: GatedMaker,
    kinds: Mapping[str, LocalKind],
    packets: Packets | None = None,
) -> None:
    """The driver's check, what an earlier server left, and the self-test; raises `StartFailed`.

    Where the operator has named none, a driver that does not pass gives way to the next one of the ladder. `home_dir`
    is the shard's folder, by which its containers are known.
    """
    refused: list[str] = []
    while True:
        try:
            return await _prepare_driver(settings, gated.driver, kinds, packets)
        except StartFailed as error:
            refused.append(str(error))
            name = gated.driver.name
            following = ladder.below(name) if settings.driver == "auto" else None
            if following is None:
                said = "; ".join(refused)
                raise StartFailed(said if len(refused) == 1 else f"no sandbox works here: {said}") from None
            log.warning("driver.refused", driver=name, reason=str(error), following=following)
        await gated.driver.close()
        gated.driver = make(msgspec.structs.replace(settings, driver=following), home_dir)


async def _prepare_driver(
    settings: Settings, driver: Driver, kinds: Mapping[str, LocalKind], packets: Packets | None
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
        await _test_sandbox(settings, driver, kinds)
    if isinstance(driver, ForkDriver) and packets is not None:
        driver.networks.outfit = packets
    known = ladder.standing(driver)
    log.info(
        "driver.ready",
        driver=known.driver,
        limits=known.limits,
        missing="; ".join(known.missing) or "nothing",
        kinds=",".join(kinds),
        took_s=round(time.monotonic() - began_s, 3),
    )


async def find_engine(settings: Settings, data_dir: Path, gated: GatedMaker) -> None:
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
        images = await asyncio.to_thread(make, msgspec.structs.replace(settings, driver="docker"), data_dir)
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


async def _test_sandbox(settings: Settings, driver: SandboxDriver, kinds: Mapping[str, LocalKind]) -> None:
    """The self-test. What was not chosen by name goes on without templates where only these do not pass."""
    from visp.container import selftest
    from visp.container.fork import ForkDriver

    python = system_python(kinds)
    if python is None:
        raise CannotStart(
            "the sandbox cannot be tested without a system Python, and python kinds cannot run: "
            "apt-get install python3.11"
        )
    verdicts = Memory(*VERDICTS)
    if isinstance(driver, ForkDriver):
        templates = templates_of(kinds)[:1]  # the others when they are first asked for: starts are to be quick
        driver.offer(commands_of(kinds))  # before the test starts the first template
        try:
            await selftest.check(driver, verdicts, python, templates)
            driver.warm(templates, partial(_prove, driver, python))
            return
        except StartFailed as error:
            if settings.driver != "auto":
                raise
            log.warning("driver.no_templates", reason=str(error))
            await driver.give_up_templates()
    await selftest.check(driver, verdicts, python)


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
