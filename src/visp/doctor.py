"""Looks at this machine as a server would, and says what is missing and what mends it."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp import premises
from visp.care import data_dir_of
from visp.container import engine, ladder, selftest
from visp.container.egress.packets import Packets
from visp.container.fork import ForkDriver
from visp.container.local import LocalDriver
from visp.container.sandbox import SandboxDriver
from visp.entity.network import INTERNET, Policy
from visp.equipment import install, survey
from visp.errors import VispError
from visp.roles import drivers
from visp.roles.kinds import templates_of
from visp.runtime import local, modules

if TYPE_CHECKING:
    from visp.container.base import Driver
    from visp.settings import Settings

FREE_BYTES = 1 << 30
OPEN_FILES = 4096
NEEDED = ("nodejs", "python")
"""Families that a machine should have; others are there for who wants them."""
PYTHON_MEND = "apt-get install python3.11"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: what is the case, and what mends it. An optional one keeps nothing from working."""

    name: str
    is_ok: bool
    says: str
    mend: str | None = None
    is_optional: bool = False


async def examine(settings: Settings) -> list[Finding]:
    """Everything a server with these settings needs. Starts containers, changes nothing that lasts."""
    findings = [_system(), _data_dir(settings), _port(settings), _open_files()]
    with tempfile.TemporaryDirectory(prefix="visp-doctor-", ignore_cleanup_errors=True) as folder:
        await _walls(settings, Path(folder), findings)
    findings.append(await _network(settings))
    findings += _kinds(settings)
    findings += _modules(settings)
    findings += _resolvers(settings)
    findings.append(await _images(settings))
    return findings


def _system() -> Finding:
    says = f"{platform.system()} {platform.release()} on {platform.machine()}, Python {platform.python_version()}"
    if sys.platform == "linux":
        return Finding(name="system", is_ok=True, says=says)
    return Finding(
        name="system",
        is_ok=False,
        says=f"{says}: there is no sandbox for this system",
        mend="run visp on Linux; elsewhere only --driver process works, for code that is trusted",
    )


def _data_dir(settings: Settings) -> Finding:
    try:
        path = premises.prepare_data_dir(settings)
        with tempfile.NamedTemporaryFile(dir=path):
            free = shutil.disk_usage(path).free
    except premises.CannotStart as error:
        return Finding(name="data folder", is_ok=False, says=str(error), mend="name another by --data-dir")
    except OSError as error:
        return Finding(
            name="data folder", is_ok=False, says=f"cannot be written: {error}", mend="see the folder's owner"
        )
    says = f"{path}, {free / (1 << 30):.1f} GiB free"
    if free < FREE_BYTES:
        return Finding(name="data folder", is_ok=False, says=says, mend=f"free at least {FREE_BYTES >> 30} GiB there")
    return Finding(name="data folder", is_ok=True, says=says)


def _port(settings: Settings) -> Finding:
    """Free, or taken by a visp that runs already."""
    address = f"{settings.host}:{settings.port}"
    try:
        with premises.listening(settings):
            return Finding(name="port", is_ok=True, says=f"{address} is free")
    except premises.CannotStart:
        pass
    try:
        with closing(socket.create_connection((settings.host, settings.port), timeout=1)) as asked:
            asked.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            is_ours = b"pong" in asked.recv(65536)
    except OSError:
        is_ours = False
    if is_ours:
        return Finding(name="port", is_ok=True, says=f"a server answers on {address}")
    return Finding(
        name="port", is_ok=False, says=f"{address} is taken by another program", mend="choose another by --port"
    )


def _open_files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"{soft} now, {hard} at the most"
    if hard >= OPEN_FILES:
        return Finding(name="open files", is_ok=True, says=says)
    return Finding(
        name="open files", is_ok=False, says=says, mend=f"ulimit -n {OPEN_FILES} before the start", is_optional=True
    )


def _driver(settings: Settings, folder: Path, findings: list[Finding]) -> Driver | None:
    """The driver of the settings, with folders of its own: a server that runs is not disturbed."""
    folder.chmod(0o711)
    container = msgspec.structs.replace(settings.container, cells_dir=str(folder / "cells"))
    try:
        return drivers.make(msgspec.structs.replace(settings, container=container), folder)
    except VispError as error:
        findings.append(Finding(name="driver", is_ok=False, says=str(error), mend="see --driver"))
        return None


async def _walls(settings: Settings, folder: Path, findings: list[Finding]) -> None:
    """The driver of the settings; where they leave the choice, the first of the ladder that holds."""
    refused: list[Finding] = []
    tried: str | None = settings.driver
    while tried is not None:
        driver = _driver(msgspec.structs.replace(settings, driver=tried), folder, findings)
        if driver is None:
            return
        try:
            found = await _sandbox(driver, settings)
        finally:
            await driver.close()
        tried = ladder.below(driver.name) if settings.driver == "auto" and not found[0].is_ok else None
        if tried is not None:
            refused.append(msgspec.structs.replace(found[0], name=f"sandbox {driver.name}", is_optional=True))
        elif refused and not found[0].is_ok:  # what mends the best of them
            found = [msgspec.structs.replace(found[0], mend=refused[0].mend)]
        findings += [*refused, *found] if tried is None else []


async def _sandbox(driver: Driver, settings: Settings) -> list[Finding]:
    """Of the sandbox itself first."""
    try:
        await driver.start()
    except VispError as error:
        _, command, packages = str(error).partition("apt-get install ")
        mend = command + packages if packages else "see docs/operations.md, Sandbox"
        return [Finding(name="sandbox", is_ok=False, says=str(error), mend=mend)]
    found = [await _probe(driver, settings)] if isinstance(driver, SandboxDriver) else []
    if isinstance(driver, LocalDriver):
        if driver.lacks:
            found.append(_missing(driver))
        found.append(_limits(driver))
    return found


def _missing(driver: LocalDriver) -> Finding:
    says = f"driver {driver.name} has not: {', '.join(driver.lacks)}"
    return Finding(name="wall", is_ok=False, says=says, mend="see docs/operations.md, Sandbox", is_optional=True)


async def _probe(driver: SandboxDriver, settings: Settings) -> Finding:
    python = shutil.which("python3", path=local.SEARCHED)
    if python is None:
        return Finding(name="sandbox", is_ok=False, says="cannot be tested without a system Python", mend=PYTHON_MEND)
    try:
        probe = selftest.PROBE.read_bytes()
        holes = await selftest.run(driver, python, probe)
        if isinstance(driver, ForkDriver):
            kinds = local.find(premises.read_manifest(settings), driver.cells.install, driver.runtimes)
            for template in templates_of(kinds):
                holes += await selftest.run(driver, python, probe, template)
    except VispError as error:
        return Finding(name="sandbox", is_ok=False, says=str(error), mend="see docs/operations.md, Sandbox")
    if holes:
        return Finding(
            name="sandbox", is_ok=False, says="holes: " + "; ".join(holes), mend="see docs/operations.md, Sandbox"
        )
    return Finding(name="sandbox", is_ok=True, says=f"driver {driver.name}: the escape probe was refused everything")


def _limits(driver: LocalDriver) -> Finding:
    groups = ", ".join(driver.cgroups.hierarchies) or "none"
    if driver.cgroups.bounds_memory:
        return Finding(name="limits", is_ok=True, says=f"control groups bound memory and processes ({groups})")
    return Finding(
        name="limits",
        is_ok=False,
        says=f"no memory control group (groups: {groups}): limits are for each process, and a watch on their sum",
        mend="run as root, or under `systemd-run --user --scope -p Delegate=yes visp start`",
        is_optional=True,
    )


async def _network(settings: Settings) -> Finding:
    """How actions reach the internet."""

    async def policy_of(_: str) -> Policy:
        return INTERNET

    packets = Packets(settings.network, (), policy_of)
    try:
        can_be = packets.claim()
        await packets.start()
    finally:
        await packets.close()
    if packets.reason is None:
        return Finding(
            name="network", is_ok=True, says="containers send packets of their own, which the kernel filters"
        )
    says = f"the proxy is the only way out of containers, there is no other TCP and no UDP: {packets.reason}"
    if not can_be:
        return Finding(name="network", is_ok=True, says=says)
    return Finding(name="network", is_ok=False, says=says, mend="see docs/network.md, Packets", is_optional=True)


def _kinds(settings: Settings) -> list[Finding]:
    try:
        manifest = premises.read_manifest(settings)
    except VispError as error:
        return [Finding(name="manifest", is_ok=False, says=str(error), mend="mend the file named by [manifest]")]
    home = survey.home_of(settings)
    out = []
    for family, kinds in manifest.runtimes.items():
        entries = [kind for kind in kinds if kind.local is not None and not kind.deprecated]
        if not entries:
            continue
        found = {kind.kind: survey.equipped(kind, home) for kind in entries}
        here = [f"{name} ({one.program}, {one.version})" for name, one in found.items() if one.program is not None]
        lacking = [kind for kind in entries if found[kind.kind].program is None]
        mends = [f"{kind.kind} by {survey.mend_of(kind)}" for kind in lacking]
        out.append(
            Finding(
                name=f"kinds {family}",
                is_ok=bool(here),
                says="; ".join([", ".join(here)] + [f"more: {', '.join(mends)}"] * bool(mends))
                if here
                else f"no program for {', '.join(found)} (looked in {local.SEARCHED} and what visp installs)",
                mend=None if here else survey.mend_of(next((one for one in lacking if one.default), lacking[-1])),
                is_optional=family not in NEEDED,
            )
        )
    imaged = [family for family, kinds in manifest.runtimes.items() if all(kind.local is None for kind in kinds)]
    if imaged:
        out.append(Finding(name="kinds by image", is_ok=True, says=f"{', '.join(imaged)}: run by images alone"))
    return out


async def _images(settings: Settings) -> Finding:
    """Whether actions that are images run."""
    host = engine.host_of(settings)
    if settings.docker.mode == "off":
        return Finding(name="images", is_ok=True, says="do not run: [docker] mode = off")
    images: Driver | None = None
    try:
        images = drivers.make(msgspec.structs.replace(settings, driver="docker"), data_dir_of(settings))
        await images.start()
        return Finding(name="images", is_ok=True, says=f"run: a container engine answers at {host}")
    except VispError as error:
        mend = "apt-get install docker.io, or name an engine by [docker] host; pip install 'visp[docker]'"
        is_optional = settings.docker.mode == "auto" and settings.driver != "docker"
        return Finding(name="images", is_ok=False, says=str(error), mend=mend, is_optional=is_optional)
    finally:
        if images is not None:
            await images.close()


def _modules(settings: Settings) -> list[Finding]:
    """What OpenWhisk's images bring: actions that have their own, or need none, do without."""
    try:
        kinds = [one for one in survey.survey(settings) if one.modules is not None and one.program is not None]
    except VispError:  # of the manifest, which is told already
        return []
    if not kinds:
        return []
    state, home = kinds[0].modules, survey.home_of(settings)
    return [
        Finding(
            name=f"modules {modules.FAMILY}",
            is_ok=state == "installed",
            says=f"{install.modules_in_words()}: {state} in {modules.folder_of(home)}",
            mend=f"visp runtime install {modules.FAMILY}",
            is_optional=True,
        )
    ]


def _resolvers(settings: Settings) -> list[Finding]:
    """What brings the packages that actions name: archives that have theirs, or need none, do without."""
    try:
        manifest = premises.read_manifest(settings)
    except VispError:  # it is told already
        return []
    home, out = survey.home_of(settings), []
    for family, resolver in survey.RESOLVERS.items():
        entries = manifest.runtimes.get(family, ())
        kinds = tuple(kind for kind in entries if survey.program_of(kind, home) and not kind.deprecated)
        if not kinds:
            continue
        program = survey.resolver_here(family, kinds, home)
        says = f"resolved by {program}" if program else f"not resolved: {resolver.program} is not here"
        out.append(
            Finding(
                name=f"packages {family}",
                is_ok=program is not None,
                says=f"{resolver.file} of an archive is {says}",
                mend=resolver.mend,
                is_optional=True,
            )
        )
    return out
