"""How an action's code becomes what a container is given: its text, or a folder where its archive lies unpacked.

An archive is unpacked once for its bytes, in a sandbox of its own, into a folder named by their hash; what a kind's
recipe builds of such a folder is one too, named by that hash and the recipe's stamp. Folders are kept
up to a size and a number; the least recently used go first, and none that is in use: a container may see the folder
itself, so removing it would take the files from under it. "In use" is a shared lock on the folder, held for those that
`use` named and for the last few that `prepare` gave out. A lock is the kernel's: it counts for every server that shares
the folder, and ends with a server that is killed.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from visp import wording
from visp.container import once
from visp.container.base import Mount
from visp.errors import ContainerGone, StartFailed
from visp.invoker import staging, unpacking
from visp.invoker.building import PRIME, PRIME_S, Work, has_to_build, primed_name, spec_of
from visp.invoker.staging import Distrusted, Staging, TooMuch
from visp.runtime.base import PRIMED, CodeRefused, Command, PreparedCode, Takes
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from visp.container.base import Container, Maker
    from visp.entity.execs import BlackboxExec, Code, CodeExec
    from visp.invoker.building import Builds, Hear
    from visp.invoker.staging import Bounds
    from visp.runtime.base import Kind, Recipe

T = TypeVar("T")

UNPACKINGS = 2
"""How many run at once: each holds an archive here, and as much again with its sandbox."""
KEPT_BYTES = 4 << 30
KEPT_FOLDERS = 2_000
REMEMBERED = 20_000
"""Codes whose hash is known without decoding them, and refused ones whose sentence is."""
RECENT = 16
"""Folders that stay for a while without `use`: more than starts that are under way at once."""
TRIES = 3

COMPILED = ".visp-compiled"
"""The launcher of Node.js knows it too."""

BOOT = ".boot"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Tree(msgspec.Struct):
    """One unpacked folder: what it takes, who uses it, and its lock (-1: none is held)."""

    disk_bytes: int
    users: int = 0
    lock: int = -1


class CodeCache:
    """Prepares code; `close` it at the end.

    `folder` is where containers can see it. `command` starts the unpacker; None where there is no Python for it.
    `builds` counts and bounds builds, `environment` gives what is laid over theirs, and `opened` is told of each one's
    container and whose code it builds.
    """

    def __init__(
        self,
        *,
        text_of: Callable[[Code], Awaitable[str]],
        driver: Maker,
        folder: Path,
        command: Command | None,
        builds: Builds,
        environment: Callable[[], dict[str, str]] = dict,
        opened: Callable[[Container, str], None] | None = None,
        kept_bytes: int = KEPT_BYTES,
        kept_folders: int = KEPT_FOLDERS,
        recent: int = RECENT,
    ) -> None:
        self._text_of = text_of
        self._driver = driver
        self._folder = folder
        self._command = command
        self._builds = builds
        self._environment = environment
        self._opened = opened
        self._kept_bytes = kept_bytes
        self._kept_folders = kept_folders
        self._recent_limit = recent
        self._trees: dict[str, Tree] = {}  # least recently used first
        self._recent: dict[str, None] = {}
        self._names: Bounded[str] = Bounded(REMEMBERED)
        self._refusals: Bounded[str] = Bounded(REMEMBERED)
        self._ready_made: Bounded[str] = Bounded(REMEMBERED)
        """What would be built → the folder in which nothing is to be built."""
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._unpackings = asyncio.Semaphore(UNPACKINGS)

    def __repr__(self) -> str:
        trees = ", ".join(f"{name[:8]}×{tree.users}" for name, tree in self._trees.items())
        return f"<CodeCache {sum(tree.disk_bytes for tree in self._trees.values())} bytes: {trees}>"

    async def prepare(
        self, exec: CodeExec | BlackboxExec, kind: Kind, namespace: str = "", hear: Hear | None = None
    ) -> PreparedCode:
        """What a container of the kind is given: text, the folder of an archive, or of what was built of either.

        `namespace` is whose turn it is if there is something to build, `hear` is told what that prints. Whoever keeps
        the folder beyond what it does at once names it by `use`. Raises `CodeRefused`, `StartFailed`, and what
        `text_of` raises.
        """
        code, recipe = exec.code, kind.recipe
        if code is None:
            return PreparedCode()
        if kind.takes is Takes.AS_SENT or (kind.takes is Takes.TREE and not code.is_binary):
            return PreparedCode(text=await self._text_of(code))
        alone = ""
        if kind.takes is Takes.PROGRAM:
            alone = "program" if recipe is None else "source"
        name = await self._unpacked(code, alone)
        if recipe is not None:
            name = await self._built(name, recipe, exec.main or "main", namespace, hear)
        return PreparedCode(folder=str(self._folder / name))

    async def _unpacked(self, code: Code, alone: str) -> str:
        """The name of the folder with what is in the code's archive; `alone` says what to do with what is none."""
        source = unpacking.source_of(code, alone)
        for _ in range(TRIES):  # another server may remove what we just found
            name = self._names.get(source)
            if name is not None:
                refusal = self._refusals.get(name)
                if refusal is not None:
                    raise CodeRefused(refusal)
                if self._touch(name):
                    return name
            await self._once(source, partial(self._bring, code, source, alone))
        raise StartFailed("the folder of unpacked code is removed as soon as it is made")

    async def _built(self, name: str, recipe: Recipe, main: str, namespace: str, hear: Hear | None) -> str:
        """The name of the folder with what the recipe makes of the folder `name`; `name` if there is nothing to do."""
        built = hashlib.sha256(f"{name} {recipe.stamp} {main}".encode()).hexdigest()
        for _ in range(TRIES):
            refusal = self._refusals.get(built)
            if refusal is not None:
                raise CodeRefused(refusal)
            if self._touch(built):
                return built
            if self._ready_made.get(built) == name:
                return name
            folder = str(self._folder / name)
            self.use(folder)
            try:
                if not await asyncio.to_thread(has_to_build, Path(folder), recipe):
                    self._ready_made.put(built, name)
                    return name
                with self._builds.heard(built, hear):
                    await self._once(built, partial(self._build, built, folder, recipe, main, namespace))
            finally:
                self.release(folder)
        raise StartFailed("the folder of built code is removed as soon as it is made")

    def compiled(self, folder: str, owner: str) -> str:
        """The same code with what was compiled of it for this owner; `folder` where nothing was."""
        name = _compiled_name(folder, owner)
        return str(self._folder / name) if self._touch(name) else folder

    def is_compiled(self, folder: str) -> bool:
        """Whether it holds what was compiled already."""
        return (Path(folder) / COMPILED).exists()

    async def keep_compiled(self, folder: str, owner: str, frames: bytes, bounds: Bounds) -> None:
        """From now on `compiled` gives the owner this code with the tree that the frames are, in its folder `COMPILED`.

        Raises `Distrusted`, `CodeRefused`, `StartFailed` and `OSError`.
        """
        name = _compiled_name(folder, owner)
        self.use(folder)
        try:
            size = await asyncio.to_thread(_join, self._folder, Path(folder), frames, bounds, self._folder / name)
        finally:
            self.release(folder)
        self._trees.setdefault(name, Tree(size))
        self._touch(name)
        self._shrink()

    def use(self, folder: str) -> None:
        """A container is given this folder, which stays until as many calls of `release`. Raises `StartFailed`."""
        name = Path(folder).name
        if not self._touch(name):
            raise StartFailed(f"the unpacked code {name} is gone")
        self._trees[name].users += 1

    def release(self, folder: str) -> None:
        name = Path(folder).name
        tree = self._trees[name]
        assert tree.users > 0
        tree.users -= 1
        if tree.users == 0 and name not in self._recent:
            _unlock(tree)

    async def sweep_leftovers(self) -> int:
        """Removes what a killed server was unpacking; how many. Once, before the first `prepare`.

        Folders are not synced to disk, so after a crash of the machine they may be hollow: then all of them go.
        """
        swept = await asyncio.to_thread(_sweep, self._folder)
        await self._survey()
        return swept

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tree in self._trees.values():
            _unlock(tree)

    # ── what is in use ──────────────────────────────────────────────────────────────────────────────────────────

    def _touch(self, name: str) -> bool:
        """Makes it the most recent one, locked. False when it is gone."""
        tree = self._trees.get(name)
        if tree is None:
            return False
        if tree.lock < 0:  # three calls to the kernel, about what is in its memory: no thread for that
            tree.lock = staging.lock_shared(self._folder / name)
        del self._trees[name]
        if tree.lock < 0:
            return False
        self._trees[name] = tree
        self._recent.pop(name, None)
        self._recent[name] = None
        if len(self._recent) > self._recent_limit:
            oldest = next(iter(self._recent))
            del self._recent[oldest]
            if self._trees[oldest].users == 0:
                _unlock(self._trees[oldest])
        return True

    def _shrink(self) -> None:
        """Removes the least recently used folders while there are too many, or too large ones; nobody waits for it."""
        total = sum(tree.disk_bytes for tree in self._trees.values())
        count = len(self._trees)
        leaving: list[str] = []
        for name, tree in self._trees.items():
            if total <= self._kept_bytes and count <= self._kept_folders:
                break
            if tree.lock < 0 and name not in self._under_way:
                leaving.append(name)
                total -= tree.disk_bytes
                count -= 1
        for name in leaving:
            self._start(name, partial(self._leave, name, self._trees.pop(name)))

    async def _leave(self, name: str, tree: Tree) -> None:
        if not await asyncio.to_thread(staging.remove_unlocked, self._folder / name):
            self._trees.setdefault(name, tree)  # another server uses it

    async def _survey(self) -> None:
        """Takes in what other servers, or an earlier one, have unpacked, as least recently used; drops what is gone."""
        known = set(self._trees)
        found, gone = await asyncio.to_thread(_look, self._folder, known)
        for name in gone:
            tree = self._trees.get(name)
            if tree is not None and tree.lock < 0:
                del self._trees[name]
        self._trees = {name: Tree(size) for name, size in found.items() if name not in self._trees} | self._trees

    # ── what is missing ─────────────────────────────────────────────────────────────────────────────────────────

    async def _once(self, key: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Waits for the work under this key. It goes on if who waits is cancelled: others may wait for it."""
        await asyncio.shield(self._start(key, work))

    def _start(self, key: str, work: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        """What is under way under this key, or else `work`."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.ensure_future(work())
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def _bring(self, code: Code, source: str, alone: str) -> None:
        """Sees to it that the code's folder is there, or that it is known to be refused."""
        async with self._unpackings:
            frame, digest = await asyncio.to_thread(unpacking.decode, await self._text_of(code), code.is_binary)
            name = f"{digest}-{alone}" if alone else digest
            while name in self._under_way:  # it is just being removed, or unpacked for the same code written otherwise
                await asyncio.shield(self._under_way[name])
            if name not in self._trees and self._refusals.get(name) is None:
                await self._once(name, partial(self._unpack, name, frame, alone))
        self._names.put(source, name)

    async def _unpack(self, name: str, frame: bytearray, alone: str) -> None:
        await self._take_in(name, unpacking.work_of(self._command, frame, alone))

    async def _build(self, name: str, folder: str, recipe: Recipe, main: str, namespace: str) -> None:
        limits, builds = self._builds.limits, self._builds
        hear, spec = builds.speaker(name), spec_of(recipe, limits, self._environment(), main)
        primed = await self._primed(recipe, hear)
        if primed is not None:
            spec = msgspec.structs.replace(spec, mounts=(*spec.mounts, Mount(primed, PRIMED)))
            self.use(primed)
        try:
            spec = msgspec.structs.replace(spec, code_folder=folder)
            bounds = staging.Bounds(limits.bytes, limits.files)
            async with builds.turn(namespace):
                await self._take_in(name, Work(spec, bounds, limits.timeout_s, hear=hear, namespace=namespace))
        finally:
            if primed is not None:
                self.release(primed)
        if name in self._refusals:
            builds.refused()

    async def _primed(self, recipe: Recipe, hear: Callable[[bytes], None]) -> str | None:
        """The folder of what no build need make again; None where there is none."""
        name = primed_name(recipe)
        if not recipe.primes or name in self._refusals:
            return None
        if not self._touch(name):
            hear(b"preparing the toolchain, once for all\n")
            await self._once(name, partial(self._prime, name, recipe))
        return str(self._folder / name) if self._touch(name) else None

    async def _prime(self, name: str, recipe: Recipe) -> None:
        """Before the first build, whosever it is; nobody's code is in it. Builds go on without what cannot be had."""
        limits = self._builds.limits
        spec = spec_of(recipe, limits, self._environment(), "", PRIME)
        try:
            await self._take_in(name, Work(spec, staging.Bounds(limits.bytes, limits.files), PRIME_S))
        except (CodeRefused, StartFailed) as error:
            self._refusals.put(name, str(error))
        if name in self._refusals:
            log.warning("code.not_primed", reason=self._refusals.get(name))

    async def _take_in(self, name: str, work: Work) -> None:
        """The folder `name`, unless another server has made it, or its refusal: what a sandbox says of it."""
        path = self._folder / name
        if await asyncio.to_thread(path.is_dir):
            size = await asyncio.to_thread(staging.measure, path)
        else:
            try:
                size = await self._stage(path, work)
            except CodeRefused as refused:
                if not refused.is_final:
                    raise
                self._refusals.put(name, refused.sentence)
                return
            await self._survey()
        self._trees.setdefault(name, Tree(size))
        self._touch(name)
        self._shrink()

    async def _stage(self, path: Path, work: Work) -> int:
        """Fills a folder in a sandbox, and moves it to `path`; what it takes on disk."""
        try:
            into = await asyncio.to_thread(Staging.below, self._folder, work.bounds)
            try:
                ended = await once.run(
                    self._driver,
                    work.spec,
                    work.given,
                    into.take,
                    work.timeout_s,
                    hear=work.hear,
                    opened=self._opener(work.namespace),
                )
                if not into.is_complete:
                    raise (
                        self._builds.unfinished(ended)
                        if work.is_build
                        else unpacking.unfinished(ended, work.spec.memory_mb)
                    )
                await asyncio.to_thread(into.move, path)
            finally:
                await asyncio.to_thread(into.discard)
        except Distrusted as distrusted:
            log.error("code.distrusted", code=path.name, reason=str(distrusted))
            is_too_much = work.is_build and isinstance(distrusted, TooMuch)
            sentence = wording.build_too_large(work.bounds.bytes, work.bounds.entries)
            raise CodeRefused(sentence if is_too_much else wording.CODE_UNREADABLE) from None
        except OSError as error:
            raise StartFailed(f"code cannot be unpacked to {self._folder}: {error.strerror}", _full(error)) from None
        except once.Overdue as overdue:
            if work.is_build:
                raise self._builds.overdue() from None
            raise StartFailed(f"preparing code: {overdue}") from None
        except ContainerGone as gone:
            raise StartFailed(f"preparing code: {gone}") from None
        return into.disk_bytes

    def _opener(self, namespace: str | None) -> Callable[[Container], None] | None:
        opened = self._opened
        return None if opened is None or namespace is None else lambda container: opened(container, namespace)


def _compiled_name(folder: str, owner: str) -> str:
    return hashlib.sha256(f"{Path(folder).name} compiled for {owner}".encode()).hexdigest()


def _join(below: Path, code: Path, frames: bytes, bounds: Bounds, to: Path) -> int:
    """A tree of the code's files and, in a folder of its own, what the frames say; what it takes on disk."""
    compiled, whole = Staging.below(below, bounds), Staging.below(below)
    try:
        compiled.take(frames)
        if not compiled.is_complete:
            raise Distrusted("it has no end")
        shutil.copytree(code, whole.path, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
        compiled.move(whole.path / COMPILED)
        size = staging.measure(whole.path)
        whole.move(to)
        return size
    finally:
        compiled.discard()
        whole.discard()


class Bounded(Generic[T]):
    """A dictionary that forgets what was used least recently."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[str, T] = {}

    def get(self, key: str) -> T | None:
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
        return value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def put(self, key: str, value: T) -> None:
        self._values.pop(key, None)
        if len(self._values) >= self._limit:
            del self._values[next(iter(self._values))]
        self._values[key] = value


def _full(error: OSError) -> str | None:
    """The sentence of a record, when the reason is a full disk."""
    return wording.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else None


def _unlock(tree: Tree) -> None:
    if tree.lock >= 0:
        os.close(tree.lock)
        tree.lock = -1


def _look(folder: Path, known: set[str]) -> tuple[dict[str, int], set[str]]:
    """Folders that are not known, oldest first, and what each takes; and which of the known ones are not there."""
    there = {}
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another server has just removed it
            if not entry.name.startswith("."):
                there[entry.name] = entry.stat(follow_symlinks=False).st_mtime
    new = sorted(there.keys() - known, key=lambda name: there[name])
    return {name: staging.measure(folder / name) for name in new}, known - there.keys()


def _sweep(folder: Path) -> int:
    swept = staging.remove_leftovers(folder)
    boot, now = folder / BOOT, BOOT_ID.read_text()
    if not boot.exists() or boot.read_text() != now:
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                staging.remove_unlocked(Path(entry.path))
        boot.write_text(now)
    return swept
