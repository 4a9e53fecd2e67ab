"""Which program runs each kind on this machine, and what brings one where none does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp import premises
from visp.entity.runtime_manifest import Program
from visp.equipment.sources import Debian, GoToolchain, Npm, source_of
from visp.errors import Malformed, VispError
from visp.runtime import local, modules, versions
from visp.settings import runtimes_fault, runtimes_folder

if TYPE_CHECKING:
    from visp.entity.runtime_manifest import Kind, LocalRuntime
    from visp.settings import Settings


NOWHERE = Path("/nowhere")


class UnknownKind(VispError):
    """A name that is no kind's, nor a family's."""


class Equipped(msgspec.Struct, frozen=True, kw_only=True):
    """A kind, with the program that runs or builds it here, as a container sees it, the version that this one tells and
    where it is from (`visp`, `system`); None where there is none.

    `modules` is None for kinds that have none to install.
    """

    kind: str
    program: str | None
    version: str | None
    origin: str | None
    modules: str | None


def survey(settings: Settings) -> list[Equipped]:
    """Every kind of the manifest, in its order; raises `CannotStart` for a manifest that cannot be read."""
    home = home_of(settings)
    return [equipped(kind, home) for kind in premises.read_manifest(settings).kinds() if not kind.deprecated]


def home_of(settings: Settings) -> Path:
    """The folder of installed runtimes; one in which nothing is, where a server would not run what is in it."""
    home = runtimes_folder(settings)
    return home if runtimes_fault(home) is None else NOWHERE


def equipped(kind: Kind, home: Path) -> Equipped:
    """`home` is the folder of installed runtimes."""
    program, version, origin = program_of(kind, home), None, None
    if program is not None and kind.local is not None:
        said = versions.version_of(local.on_host(program, home), local.asked(program_asked(kind.local), home))
        version = version_in(said)
        origin = "visp" if program.startswith(local.HOME_INSIDE + "/") else "system"
    return Equipped(
        kind=kind.kind,
        program=program,
        version=version,
        origin=origin,
        modules=state_of(home) if has_modules(kind) else None,
    )


def version_in(said: str) -> str:
    """The number in what a program says of itself: its first word that begins like one."""
    words = (word.removeprefix("go").lstrip("v(") for word in said.split())
    return next((word.rstrip(",)") for word in words if word[:1].isdigit()), said[:20])


def program_asked(runtime: LocalRuntime) -> Program:
    """What a kind stands or falls with: its toolchain, where it has one that it cannot do without."""
    return runtime if runtime.build is None or runtime.build.needs else runtime.build


def program_of(kind: Kind, home: Path) -> str | None:
    """What runs it here; None too where what its launcher needs, or its toolchain, is not here."""
    if kind.local is None:
        return None
    launched, asked = local.find_program(kind.local, home), program_asked(kind.local)
    return launched if launched is None or asked is kind.local else local.find_program(asked, home)


def is_outdated(kind: Kind, home: Path) -> bool:
    """Whether visp has installed another version of it than it would install now."""
    source, here = source_of(kind), equipped(kind, home)
    if here.origin != "visp" or not isinstance(source, Npm | GoToolchain):
        return False
    return source.version.removeprefix("go") != here.version


class Resolver(msgspec.Struct, frozen=True):
    """What brings the packages that actions of a family name: in which file they do, and what brings the program."""

    file: str
    program: str
    mend: str


RESOLVERS = {
    "python": Resolver("requirements.txt", "pip", "apt-get install python3-pip, or visp runtime install uv"),
    "nodejs": Resolver("package.json", "npm", "apt-get install npm"),
    "php": Resolver("composer.json", "composer", "apt-get install composer"),
    "ruby": Resolver("Gemfile", "bundle", "apt-get install ruby-bundler"),
    "java": Resolver("pom.xml", "mvn", "apt-get install maven"),
}
"""By family. Others resolve by their own toolchain."""


def resolver_here(family: str, kinds: tuple[Kind, ...], home: Path) -> str | None:
    """The program that resolves for this family here, as builds find it; None where there is none."""
    if family != "python":
        return shutil.which(RESOLVERS[family].program, path=local.SEARCHED)
    if (home / "uv" / "bin" / "uv").is_file():
        return "uv"
    pythons = {local.on_host(program, home) for kind in kinds if (program := program_of(kind, home)) is not None}
    has_pip = any(versions.version_of(python, ("-m", "pip", "--version")).startswith("pip ") for python in pythons)
    return "pip" if has_pip else None


def has_modules(kind: Kind) -> bool:
    """Whether there are modules to install for it."""
    return kind.family == modules.FAMILY and kind.local is not None


def state_of(home: Path) -> str:
    """Of the modules: `installed`, `outdated` (by another visp) or `missing`."""
    if not modules.tree_of(home).is_dir():
        return "missing"
    return "installed" if modules.are_current(home) else "outdated"


def find_kinds(settings: Settings, names: tuple[str, ...]) -> list[Kind]:
    """Each once; a family's name alone stands for its default, or where no program runs that for the `chosen`.

    Raises `UnknownKind` and `CannotStart`.
    """
    manifest, home = premises.read_manifest(settings), home_of(settings)
    found = {}
    for name in names:
        try:
            kind = manifest.resolve(f"{name}:default" if name in manifest.runtimes else name)
            if name in manifest.runtimes and kind.local is None:
                kind = chosen(manifest.runtimes[name], home) or kind
        except Malformed:
            raise UnknownKind(f"no kind is called '{name}': see visp runtime list") from None
        found[kind.kind] = kind
    return list(found.values())


def chosen(kinds: tuple[Kind, ...], home: Path) -> Kind | None:
    """Of those that programs run: the newest that is here, else that something brings, else of all."""
    local_ones = [kind for kind in kinds if kind.local is not None and not kind.deprecated]
    here = [kind for kind in local_ones if program_of(kind, home) is not None]
    brought = [kind for kind in local_ones if source_of(kind) is not None]
    return max(here or brought or local_ones, key=lambda kind: local.version_key(kind.kind), default=None)


def mend_of(kind: Kind) -> str:
    """The one command that brings a kind its program."""
    source, family = source_of(kind), kind.family
    if kind.local is None:
        return "an image, by a server with --driver docker"
    if isinstance(source, Debian) and os.geteuid() != 0:
        return source.command
    if source is not None:
        return f"visp runtime install {kind.kind}"
    copied = f"visp runtime install {kind.kind} --from FOLDER"
    if family == "python":
        return f"apt-get install python{kind.kind.partition(':')[2]}, or {copied}"
    if place_of(kind) is not None:
        return copied
    return f"{' or '.join(program_asked(kind.local).programs)}, below /usr"


def lack_of(kind: Kind) -> str:
    """That a kind has no program here, and what brings it one."""
    if kind.local is None:
        return "actions of this kind can be stored, but not run: visp runs it by no program"
    return f"its program is not here: {mend_of(kind)}"


class Place(msgspec.Struct, frozen=True):
    """Where an installed kind lies: a folder among the runtimes, and the program below it."""

    folder: str
    program: str
    asked: Program


def place_of(kind: Kind) -> Place | None:
    """By the manifest; None for kinds that run by what the system has."""
    if kind.local is None:
        return None
    for asked in (kind.local.build, kind.local):
        for name in () if asked is None else asked.programs:
            parts = name.split("/")
            if parts[0] == local.HOME and len(parts) > 2 and not {"", ".", ".."} & set(parts):
                assert asked is not None
                return Place(parts[1], "/".join(parts[2:]), asked)
    return None
