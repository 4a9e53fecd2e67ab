"""The kinds that this machine offers without images: which program runs them, and how it is started.

A kind's name agrees with what runs: its program must report the version that the manifest asks for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp.entity.runtime_manifest import LocalRuntime
from visp.runtime import modules
from visp.runtime.base import Command

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.entity.runtime_manifest import Kind, Manifest

SEARCHED = "/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for."""
VISIBLE = "/usr"
"""Where they must lie in truth: inside a container there is nothing else of the host."""
VERSION_S = 5.0
HEAP_SHARE = 0.75
TEMPLATE = "template.py"
_INSIDE = "/visp"


class LocalKind(msgspec.Struct, frozen=True):
    """One kind with its program; `launcher`, `template` and `modules` are where these lie on the host."""

    name: str
    program: str
    runtime: LocalRuntime
    launcher: str
    template: str | None = None
    modules: str | None = None

    def command(self, memory_mb: int) -> Command:
        """What is started for it in a container with this much memory."""
        inside = f"{_INSIDE}/{Path(self.runtime.launcher).name}"
        heap_mb = str(int(memory_mb * HEAP_SHARE))
        arguments = (argument.replace("{heap_mb}", heap_mb) for argument in self.runtime.arguments)
        return Command(
            argv=(self.program, *arguments, inside),
            env={} if self.modules is None else {modules.VARIABLE: modules.INSIDE},
            mounts=((self.launcher, inside), *([] if self.modules is None else [(self.modules, modules.INSIDE)])),
            template=self.template,
        )


def find(manifest: Manifest, install: Callable[[str, bytes], Path], tree: Path | None = None) -> dict[str, LocalKind]:
    """The kinds whose program is here, by name; `install` puts a launcher where containers can see it.

    `tree` is the folder of modules that containers can see, if there is one.

    Blocks: every program is asked for its version, all at once.
    """
    kinds = [(kind, kind.local) for kind in manifest.kinds() if kind.local is not None and not kind.deprecated]
    with ThreadPoolExecutor(max(1, len(kinds))) as threads:
        programs = list(threads.map(lambda entry: find_program(entry[1]), kinds))
    return {
        kind.kind: LocalKind(
            kind.kind,
            program,
            local,
            str(install(local.launcher, read_program(local.launcher))),
            _install_template(local.launcher, install),
            str(tree) if tree is not None and kind.family == modules.FAMILY else None,
        )
        for (kind, local), program in zip(kinds, programs, strict=True)
        if program is not None
    }


def _install_template(launcher: str, install: Callable[[str, bytes], Path]) -> str | None:
    """A family whose launcher has a `template.py` beside it has templates."""
    name = str(Path(launcher).with_name(TEMPLATE))
    if not resources.files("visp.runtime").joinpath(name).is_file():
        return None
    return str(install(name, read_program(name)))


def find_program(local: LocalRuntime) -> str | None:
    """The first of the kind's programs that is here and has the right version."""
    for name in local.programs:
        path = shutil.which(name, path=SEARCHED)
        if (
            path is not None
            and os.path.realpath(path).startswith(VISIBLE + "/")
            and version_of(path).startswith(local.version)
        ):
            return path
    return None


def version_of(program: str) -> str:
    """What a program says to `--version`; empty where it says nothing."""
    try:
        asked = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_S, env={}, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (asked.stdout or asked.stderr).strip()


def read_program(name: str) -> bytes:
    """A program of ours that runs inside containers: a launcher, or the one that unpacks archives."""
    return resources.files("visp.runtime").joinpath(name).read_bytes()


def offer(manifest: Manifest, installed: frozenset[str]) -> Manifest:
    """The manifest with each family's default on a kind that can run here, if any can.

    A default that is installed stays; else the newest installed one takes its place.
    """
    runtimes: dict[str, tuple[Kind, ...]] = {}
    for family, entries in manifest.runtimes.items():
        runnable = [kind for kind in entries if kind.kind in installed]
        if not runnable or any(kind.default for kind in runnable):
            runtimes[family] = entries
            continue
        newest = max(runnable, key=lambda kind: _version_key(kind.kind))
        runtimes[family] = tuple(msgspec.structs.replace(kind, default=kind is newest) for kind in entries)
    return msgspec.structs.replace(manifest, runtimes=runtimes)


def _version_key(kind: str) -> tuple[int, ...]:
    return tuple(int(part) for part in kind.partition(":")[2].split(".") if part.isdigit())
