"""The kinds of action that this platform knows, from a manifest in OpenWhisk's `runtimes.json` format.

visp adds one field to an entry: `local`, which says how the kind runs without an image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from visp import wording
from visp.entity.limits import MIB, parse_byte_size
from visp.errors import Malformed, VispError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A container image's name; `tag` and `prefix` as in the manifest."""

    name: str
    prefix: str | None = None
    registry: str | None = None
    tag: str | None = None

    def __str__(self) -> str:
        path = "/".join(part for part in (self.registry, self.prefix, self.name) if part)
        return f"{path}:{self.tag}" if self.tag else path


class StemCell(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Started containers without code to keep for a kind."""

    memory: str
    initial_count: int | None = None
    count: int | None = None

    @property
    def wanted(self) -> int:
        return self.initial_count if self.initial_count is not None else (self.count or 0)

    @property
    def memory_mb(self) -> int:
        return parse_byte_size(self.memory) // MIB


class Program(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A program of this machine, and how the right one is known.

    `programs` are tried in this order: absolute paths or names on PATH; `{runtimes}` begins those that visp installs.
    The first that prints a line with `version`, asked with `ask`, is taken. `shows` are host paths outside of `/usr`
    that it reads, shown inside where they are here.
    """

    programs: tuple[str, ...]
    version: str
    ask: tuple[str, ...] = ("--version",)
    shows: tuple[str, ...] = ()


class Build(Program, frozen=True, kw_only=True, rename="camel"):
    """How code of a kind is built: a program below `visp.runtime`, and the toolchain that it uses.

    `root` is a folder of installed runtimes that is the root file system of the build. `skips`, `needs` and `primes` as
    in `visp.runtime.base.Recipe`; `environment` is the build's; `{root}`, `{toolchain}` in it are where these lie.
    """

    program: str
    root: str | None = None
    skips: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    primes: bool = False
    environment: dict[str, str] = {}


class LocalRuntime(Program, frozen=True, kw_only=True, rename="camel"):
    """How a kind runs on this machine.

    `launcher` is `family/file` below `visp.runtime`, run by the first of `programs`. `arguments` stand between program
    and launcher, or around it where one has `{launcher}`; `{heap_mb}` becomes three quarters of the container's memory.
    `environment` is laid over what every container has. `takes` is how it is given code (`visp.runtime.base.Takes`),
    `concurrent` whether a launcher runs several activations at once, `rests` whether it gives memory back when it is
    told that a pause is near, `keeps_compiled` whether it gives away what it compiled, `build` how code becomes what
    runs. `reserveMb` is memory that the program asks for and does not use: it counts where a limit is on what was asked
    for. `stands`: it waits for its first line in such a way that copies of it can go on, and ends with 0 where none
    comes; it takes `VISP_COPIED` out of its environment.
    """

    launcher: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    takes: Literal["tree", "program"] = "tree"
    concurrent: bool = False
    rests: bool = False
    keeps_compiled: bool = False
    reserve_mb: int = 0
    stands: bool = False
    build: Build | None = None


class Kind(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of the manifest."""

    kind: str
    image: Image
    default: bool = False
    deprecated: bool = False
    require_main: bool = False
    sentinelled_logs: bool = True
    attached: dict[str, str] | None = None
    stem_cells: tuple[StemCell, ...] = ()
    local: LocalRuntime | None = None

    @property
    def family(self) -> str:
        return self.kind.partition(":")[0]


class Manifest(msgspec.Struct, frozen=True):
    """Families of kinds, and the images that count as native."""

    runtimes: dict[str, tuple[Kind, ...]]
    blackboxes: tuple[Image, ...] = ()

    def kinds(self) -> Iterator[Kind]:
        for family in self.runtimes.values():
            yield from family

    def find(self, name: str) -> Kind | None:
        """The entry of a concrete kind."""
        return next((kind for kind in self.kinds() if kind.kind == name), None)

    def resolve(self, name: str) -> Kind:
        """The entry for a kind as given in a PUT, `<family>:default` included; raises `Malformed`."""
        family, _, version = name.partition(":")
        entries = self.runtimes.get(family, ())
        if version == "default" and entries:
            return next((kind for kind in entries if kind.default), entries[0])
        found = self.find(name)
        if found is None:
            known = [kind.kind for kind in self.kinds()]
            raise Malformed(wording.unknown_kind(name, [*known, "blackbox", "sequence"]))
        return found


class ManifestError(VispError):
    """A manifest that cannot be used; the text says where."""


_FAMILY = re.compile(r"[a-z0-9]+\Z")


def parse_manifest(data: bytes) -> Manifest:
    """Reads and checks a manifest; raises `ManifestError`, as when a family has no single default."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"the runtimes manifest cannot be read: {error}") from None
    for family, entries in manifest.runtimes.items():
        if not _FAMILY.match(family):
            raise ManifestError(f"runtimes manifest: '{family}' is no family name (lower-case letters and digits)")
        defaults = [kind.kind for kind in entries if kind.default]
        if len(defaults) > 1 or (len(entries) > 1 and not defaults):
            raise ManifestError(f"runtimes manifest: family '{family}' needs one default kind, has {len(defaults)}")
    for kind in manifest.kinds():
        for cell in kind.stem_cells:
            try:
                _ = cell.memory_mb
            except ValueError:
                raise ManifestError(f"runtimes manifest: '{cell.memory}' of '{kind.kind}' is no memory size") from None
    return manifest


def render_runtimes(manifest: Manifest) -> dict[str, list[dict[str, object]]]:
    """`runtimes` of the info document, as deployment tools read it."""
    return {
        family: [
            {
                "kind": kind.kind,
                "image": str(kind.image),
                "deprecated": kind.deprecated,
                "default": kind.default or len(entries) == 1,
                "attached": kind.attached is not None,
                "requireMain": kind.require_main,
            }
            for kind in entries
        ]
        for family, entries in manifest.runtimes.items()
    }
