"""The kinds that this machine offers without images: which program runs them, and how it is started.

A kind's name agrees with what runs: its program must report the version that the manifest asks for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from visp.entity.execs import BLACKBOX
from visp.entity.runtime_manifest import LocalRuntime
from visp.runtime.base import Command, Recipe, Takes
from visp.runtime.versions import version_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.entity.runtime_manifest import Build, Kind, Manifest, Program

Install: TypeAlias = "Callable[[str, bytes, bytes], Path]"
"""Puts a program where containers see it; the last is what it looks for beside it, under nearly the same name."""

SEARCHED = "/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for."""
VISIBLE = "/usr"
"""Where they must lie in truth: inside a container there is nothing else of the host, but for what visp installs."""
HOME = "{runtimes}"
HOME_INSIDE = "/opt/visp"
"""Where containers see the folder of installed runtimes."""
HEAP_SHARE = 0.75
NATIVE, SKELETON = "native:1", "skeleton"
"""Any program, and the word by which its launcher obeys the contract of OpenWhisk's image for them."""
TEMPLATE = "template.py"
EXTRAS = "extras"
"""Beside a launcher, with its ending: what it reads when it first needs it."""
BUILDING = "building.py"
_INSIDE = "/visp"


class LocalKind(msgspec.Struct, frozen=True):
    """One kind with its program; `launcher`, `template` and `extras` are where these lie on the host."""

    name: str
    program: str
    runtime: LocalRuntime
    launcher: str
    template: str | None = None
    extras: str | None = None
    recipe: Recipe | None = None

    @property
    def takes(self) -> Takes:
        return Takes(self.runtime.takes)

    @property
    def is_concurrent(self) -> bool:
        return self.runtime.concurrent

    @property
    def rests(self) -> bool:
        return self.runtime.rests

    @property
    def keeps_compiled(self) -> bool:
        return self.runtime.keeps_compiled

    @property
    def is_sentinelled(self) -> bool:
        return True

    def command(self, memory_mb: int) -> Command:
        """What is started for it in a container with this much memory."""
        inside = f"{_INSIDE}/" + self.runtime.launcher.replace("/", "-")
        words = {"{heap_mb}": str(int(memory_mb * HEAP_SHARE)), "{launcher}": inside, HOME: HOME_INSIDE}
        arguments = [_filled(argument, words) for argument in self.runtime.arguments]
        if not any("{launcher}" in argument for argument in self.runtime.arguments):
            arguments.append(inside)
        return Command(
            argv=(self.program, *arguments),
            env={name: _filled(value, words) for name, value in self.runtime.environment.items()},
            mounts=(
                (self.launcher, inside),
                *([] if self.extras is None else [(self.extras, _beside(inside, "-"))]),
                *_shown(self.runtime),
            ),
            template=self.template,
            reserve_mb=self.runtime.reserve_mb,
            stands=self.runtime.stands,
        )


def find(manifest: Manifest, install: Install, home: Path) -> dict[str, LocalKind]:
    """The kinds whose program is here, by name; `install` puts a launcher where containers can see it.

    `home` is the folder of installed runtimes.

    Blocks: every program is asked for its version, all at once.
    """
    kinds = [(kind, kind.local) for kind in manifest.kinds() if kind.local is not None and not kind.deprecated]
    locals = [local for _, local in kinds]
    asked = {_question(program): program for program in (*locals, *(local.build for local in locals if local.build))}
    with ThreadPoolExecutor(max(1, len(asked))) as threads:
        found = dict(zip(asked, threads.map(lambda program: find_program(program, home), asked.values()), strict=True))
    pythons = [
        program for kind, local in kinds if kind.family == "python" and (program := found[_question(local)]) is not None
    ]
    python = min(pythons, key=lambda program: program.startswith(HOME_INSIDE), default=None)
    out = {}
    for kind, local in kinds:
        program, build = found[_question(local)], local.build
        toolchain = None if build is None else found[_question(build)]
        if program is None or (build is not None and (toolchain is None or python is None) and not build.needs):
            continue
        out[kind.kind] = LocalKind(
            kind.kind,
            program,
            local,
            *_install_launcher(local.launcher, install),
            None
            if build is None or toolchain is None or python is None
            else _recipe(build, toolchain, python, home, install),
        )
    native = out.get(NATIVE)
    if native is not None:
        arguments = (*native.runtime.arguments, "{launcher}", SKELETON)
        runtime = msgspec.structs.replace(native.runtime, arguments=arguments)
        out[BLACKBOX] = msgspec.structs.replace(native, name=BLACKBOX, runtime=runtime)
    return out


def _recipe(build: Build, toolchain: str, python: str, home: Path, install: Install) -> Recipe:
    """What builds code for a kind whose toolchain is here."""
    builder, program = f"{_INSIDE}/{BUILDING}", f"{_INSIDE}/build.py"
    files = {builder: read_program(BUILDING), program: read_program(build.program)}
    root = None if build.root is None else str(home / build.root)
    words = {"{toolchain}": toolchain, HOME: HOME_INSIDE}
    env = {name: _filled(value, words) for name, value in build.environment.items()}
    digest = hashlib.sha256(repr((sorted(files.items()), env, root)).encode())
    digest.update(version_of(on_host(toolchain, home), build.ask).encode())
    return Recipe(
        command=Command(
            argv=(python if root is None else "/usr/bin/python3", "-I", "-S", "-B", builder, program),
            env=env,
            mounts=tuple(
                (str(install(f"{digest.hexdigest()[:8]}-{Path(inside).name}", content, b"")), inside)
                for inside, content in files.items()
            )
            + _shown(build),
            root=root,
        ),
        stamp=digest.hexdigest(),
        skips=frozenset(build.skips),
        needs=frozenset(build.needs),
        primes=build.primes,
    )


def _shown(program: Program) -> tuple[tuple[str, str], ...]:
    """Mounts of what the program reads outside of `/usr`."""
    return tuple((path, path) for path in program.shows if os.path.exists(path))


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _install_launcher(launcher: str, install: Install) -> tuple[str, str | None, str | None]:
    """Where a launcher, its template and its extras are."""
    content, name = read_program(launcher), _beside(launcher, "/")
    template = _install_template(launcher, install)
    if not resources.files("visp.runtime").joinpath(name).is_file():
        return str(install(launcher, content, b"")), template, None
    extras = read_program(name)
    return str(install(launcher, content, extras)), template, str(install(name, extras, content))


def _install_template(launcher: str, install: Install) -> str | None:
    """A family whose launcher has a `template.py` beside it has templates."""
    name = str(Path(launcher).with_name(TEMPLATE))
    if not resources.files("visp.runtime").joinpath(name).is_file():
        return None
    return str(install(name, read_program(name), b""))


def _beside(launcher: str, before: str) -> str:
    """Where the extras of a launcher lie."""
    return launcher.replace(f"{before}launcher.", f"{before}{EXTRAS}.")


def _question(program: Program) -> tuple[object, ...]:
    """What several kinds may ask of the same program: it is asked once."""
    return program.programs, program.version, program.ask


def find_program(program: Program, home: Path) -> str | None:
    """The first of the kind's programs that is here and has the right version, by its path inside a container."""
    for name in program.programs:
        path = shutil.which(name.replace(HOME, str(home)), path=SEARCHED)
        if path is None or program.version not in version_of(path, asked(program, home)):
            continue
        if name.startswith(HOME):
            return name.replace(HOME, HOME_INSIDE)
        if os.path.realpath(path).startswith(VISIBLE + "/"):
            return path
    return None


def asked(program: Program, home: Path) -> tuple[str, ...]:
    """The words that ask it for its version, where runtimes lie in `home`."""
    return tuple(word.replace(HOME, str(home)) for word in program.ask)


def on_host(program: str, home: Path) -> str:
    """Where what a container sees as `program` lies."""
    return program.replace(HOME_INSIDE, str(home)) if program.startswith(HOME_INSIDE + "/") else program


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
        newest = max(runnable, key=lambda kind: version_key(kind.kind))
        runtimes[family] = tuple(msgspec.structs.replace(kind, default=kind is newest) for kind in entries)
    return msgspec.structs.replace(manifest, runtimes=runtimes)


def version_key(kind: str) -> tuple[int, ...]:
    """By it names of a family's kinds are in the order of their versions."""
    return tuple(int(part) for part in kind.partition(":")[2].split(".") if part.isdigit())
