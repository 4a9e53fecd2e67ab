"""Kinds: which of them run here, by what, and what is kept ready for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from visp.entity import images as names_of_images
from visp.entity.runtime_manifest import LocalRuntime
from visp.invoker.prewarm import Cell, Wanted
from visp.runtime import local
from visp.runtime.base import Takes
from visp.runtime.images import ImageKinds
from visp.runtime.local import LocalKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from visp.container.base import Driver, Template
    from visp.entity.execs import Exec
    from visp.entity.runtime_manifest import Manifest
    from visp.roles.gated import GatedMaker
    from visp.runtime.base import Kind
    from visp.settings import Settings


async def find_kinds(manifest: Manifest, driver: Driver) -> tuple[dict[str, LocalKind], Manifest]:
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


def lookup(
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


def is_built(kinds: Mapping[str, LocalKind], exec: Exec) -> bool:
    """Whether there may be something to build of this code, before it can run."""
    kind = None if exec.code is None else kinds.get(exec.kind)
    if kind is None or kind.recipe is None or exec.code is None:
        return False
    return exec.code.is_binary or kind.takes is Takes.PROGRAM


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
