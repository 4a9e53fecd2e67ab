"""Builds of code: whose turn it is, who hears what they print, and how many there were."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import hashlib
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.container.base import ContainerSpec, Mount
from visp.invoker.staging import Bounds
from visp.runtime.base import PRIMED, CodeRefused
from visp.telemetry import log
from visp.telemetry.metrics import Family, Histogram

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from visp.container.once import Ended
    from visp.runtime.base import Recipe
    from visp.settings import Build

    Hear = Callable[[str], None]

BUILDS = "visp_builds_total"
SECONDS = "visp_build_seconds"
UNDER_WAY = "visp_builds_under_way"

CODE = "/action"
LINE_LETTERS = 1000
PRIME, PRIME_S = "--prime", 900.0
"""The word that tells a recipe to prepare, and how long that may take."""
JSON_BYTES = 1 << 20
EMPTY = (b"", b"null", b"{}", b"[]")
PRINTED_BYTES = 256 * 1024
"""Of what a build prints, so much is passed on."""


class Work(msgspec.Struct, frozen=True):
    """What a sandbox does to fill a folder. A build has a namespace, for which it runs, and is heard."""

    spec: ContainerSpec
    bounds: Bounds
    timeout_s: float
    given: bytes | bytearray = b""
    hear: Callable[[bytes], None] | None = None
    namespace: str | None = None

    @property
    def is_build(self) -> bool:
        return self.namespace is not None


class Turns:
    """At most so many at once; among those that wait, namespaces take turns."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # whose turn is next comes first

    @contextlib.asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """A place is had within the block."""
        await self._take(namespace)
        try:
            yield
        finally:
            self._give()

    async def _take(self, namespace: str) -> None:
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given, and is not wanted any more
                self._give()
            raise

    def _give(self) -> None:
        """Whoever is next has the place; it is free if nobody waits."""
        while self._waiting:
            namespace, queue = next(iter(self._waiting.items()))
            del self._waiting[namespace]
            place = queue.popleft()
            if queue:
                self._waiting[namespace] = queue  # behind the others
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class Lines:
    """Makes lines, which may be shown, of bytes in whatever pieces they come; only of the first so many bytes."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._left_bytes = PRINTED_BYTES

    def feed(self, data: bytes) -> None:
        """A carriage return ends a line too: programs draw over what they printed."""
        data = data[: self._left_bytes]
        self._left_bytes -= len(data)
        *lines, self._rest = (self._rest + data.replace(b"\r", b"\n")).split(b"\n")
        if self._left_bytes == 0:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            text = line[: 4 * LINE_LETTERS].decode("utf-8", "replace").rstrip()[:LINE_LETTERS]
            if text:
                self._tell("".join(letter if letter.isprintable() else " " for letter in text))


class Builds:
    """The builds of one server. `name` is that of the folder that a build makes."""

    def __init__(self, limits: Build) -> None:
        self.limits = limits
        self._turns = Turns(limits.at_once)
        self._hearers: dict[str, list[Hear]] = {}
        self._ended = self._failed = self._under_way = 0
        self._took = Histogram()

    @contextlib.contextmanager
    def heard(self, name: str, hear: Hear | None) -> Iterator[None]:
        """Within the block `hear` is told what the build prints."""
        if hear is None:
            yield
            return
        self._hearers.setdefault(name, []).append(hear)
        try:
            yield
        finally:
            left = [one for one in self._hearers[name] if one is not hear]
            if left:
                self._hearers[name] = left
            else:
                del self._hearers[name]

    def speaker(self, name: str) -> Callable[[bytes], None]:
        """Takes what the build prints, in any thread."""
        loop = asyncio.get_running_loop()

        def tell(line: str) -> None:
            for hear in self._hearers.get(name, ()):
                hear(line)

        def told(line: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody hears any more
                loop.call_soon_threadsafe(tell, line)

        return Lines(told).feed

    @contextlib.asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """One build is run within the block; what it raises counts as its failure."""
        async with self._turns.turn(namespace):
            began_s = time.monotonic()
            self._under_way += 1
            try:
                yield
            except BaseException:
                self._failed += 1
                raise
            else:
                self._ended += 1
            finally:
                self._under_way -= 1
                self._took.add(max(1, int((time.monotonic() - began_s) * 1e6)))

    def refused(self) -> None:
        """The build that was just run came to a refusal."""
        self._failed += 1
        self._ended -= 1

    def overdue(self) -> CodeRefused:
        """A build was ended for its time. The same code would take as long again."""
        return CodeRefused(wording.build_overdue(self.limits.timeout_s))

    def unfinished(self, ended: Ended) -> CodeRefused:
        """A build's sandbox has ended without a word."""
        if ended.is_out_of_memory or "MemoryError" in ended.said:
            return CodeRefused(wording.build_needs_memory(self.limits.memory_mb))
        log.error("code.build_ended", status=ended.status, said=ended.said[-2000:])
        return CodeRefused(wording.build_broke(ended.said[-wording.SAID_LETTERS :].strip()))

    def measured(self) -> list[Family]:
        """What was counted, for a scrape."""
        return [
            Family(
                BUILDS,
                "Builds of actions' code that ended, by outcome.",
                "counter",
                {("made",): self._ended, ("failed",): self._failed},
                ("outcome",),
            ),
            Family(UNDER_WAY, "Builds under way.", "gauge", {(): self._under_way}),
            Family(SECONDS, "How long a build took.", "histogram", {(): self._took.shown()}),
        ]


def spec_of(recipe: Recipe, limits: Build, environment: dict[str, str], main: str, *words: str) -> ContainerSpec:
    """The sandbox of a build; `environment` is laid over the recipe's, `words` come last."""
    command = recipe.command
    return ContainerSpec(
        id=f"build-{secrets.token_hex(8)}",
        argv=(*command.argv, CODE, PRIMED, main, *words),
        env=command.env | environment,
        memory_mb=limits.memory_mb,
        mounts=tuple(Mount(host, inside) for host, inside in command.mounts),
        root=command.root,
        scratch_bytes=limits.scratch_bytes,
    )


def primed_name(recipe: Recipe) -> str:
    """The folder of what a recipe has prepared."""
    return hashlib.sha256(f"primed {recipe.stamp}".encode()).hexdigest()


def has_to_build(folder: Path, recipe: Recipe) -> bool:
    """Whether the recipe has something to do: by what stands at the root."""
    names = {entry.name: entry for entry in os.scandir(folder)}
    for name in recipe.skips & names.keys():
        entry = names[name]
        if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_mode & 0o111:
            return False
    return not recipe.needs or any(_is_there(names, need) for need in recipe.needs)


def _is_there(names: dict[str, os.DirEntry[str]], need: str) -> bool:
    """A file, by its name or a pattern; a folder; or one member of a JSON file that is not empty."""
    if need.endswith("/"):
        return need[:-1] in names and names[need[:-1]].is_dir(follow_symlinks=False)
    if "*" in need:
        return any(_is_there(names, name) for name in fnmatch.filter(names, need) if "*" not in name)
    name, _, member = need.partition("#")
    if name not in names or not names[name].is_file(follow_symlinks=False):
        return False
    if not member:
        return True
    entry = names[name]
    if entry.stat(follow_symlinks=False).st_size > JSON_BYTES:
        return True  # its own tool says what is wrong with it
    try:
        document = msgspec.json.decode(Path(entry.path).read_bytes(), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # as before there were builds: whoever reads it says what is wrong
    return bytes(document.get(member, msgspec.Raw(b""))).translate(None, b" \t\r\n") not in EMPTY
