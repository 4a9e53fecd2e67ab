"""What copies of a program that waits have of their own, and what becomes of it; as root, and as a normal user."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.contract.test_drivers import (
    SYSTEM_PYTHON,
    _started_from,
    as_root,
    folder,
    needs_python,
    read_line,
    run_as_a_normal_user,
    settings_in,
    spec,
    started,
    template_in,
    until,
)

from visp.container import machine, selftest, zygote, zygotes
from visp.container.base import ContainerSpec, Mount, Way
from visp.container.belongings import Unfit
from visp.container.fork import ForkDriver
from visp.container.local import LocalContainer
from visp.runtime.local import read_program

__all__ = ["folder"]
NODE = shutil.which("node", path="/usr/local/bin:/usr/bin")
LAUNCHER, EXTRAS = "/visp/nodejs-launcher.cjs", "/visp/nodejs-extras.cjs"
ECHO = "import os, sys\nfor line in sys.stdin: os.write(3, b'{\"pid\":%d}\\n' % os.getpid())"
OPEN = f"import socket\nheld = socket.socket()\n{ECHO}"
"""With what no copy can have of its own."""

pytestmark = [
    pytest.mark.skipif(os.uname().machine != machine.ARCHITECTURE, reason="programs are copied on x86-64 alone"),
    needs_python,
]
needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node.js")


@pytest.fixture
async def driver(folder: Path) -> AsyncIterator[ForkDriver]:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    driver = ForkDriver(settings_in(folder), folder / "data")
    async with started(driver):
        driver.warm([template_in(driver)])
        yield driver


@pytest.fixture
def ids() -> Iterator[str]:
    return (f"c{number}" for number in range(1000))


def echo(id: str, code: str = ECHO) -> ContainerSpec:
    return spec(id=id, argv=(SYSTEM_PYTHON, "-I", "-c", code), stands=True)


def node(driver: ForkDriver, id: str) -> ContainerSpec:
    launcher, extras = read_program("nodejs/launcher.cjs"), read_program("nodejs/extras.cjs")
    mounts = (
        Mount(str(driver.cells.install("nodejs/launcher.cjs", launcher, extras)), LAUNCHER),
        Mount(str(driver.cells.install("nodejs/extras.cjs", extras, launcher)), EXTRAS),
    )
    argv = (str(NODE), "--preserve-symlinks-main", "--max-old-space-size=192", LAUNCHER)
    return ContainerSpec(id=id, argv=argv, env={}, memory_mb=256, mounts=mounts, stands=True)


async def ask(driver: ForkDriver, spec: ContainerSpec, *lines: dict[str, Any]) -> tuple[Way, Any]:
    """How the container was made, and its reply to the last line."""
    container = await driver.create(spec)
    try:
        said = b""
        for line in lines or ({},):
            os.write(container.wire.stdin, json.dumps(line).encode() + b"\n")
            said = await read_line(container)
        return container.way, json.loads(said or b"null")
    finally:
        await container.destroy()


async def run(driver: ForkDriver, id: str, body: str) -> tuple[Way, Any]:
    """What a JavaScript action with this body returns."""
    code = f"async function main () {{ {body} }}"
    init = {"value": {"name": "x", "main": "main", "binary": False, "code": code, "env": {}}}
    return await ask(driver, node(driver, id), init, {"value": {}})


async def until_it_stands(driver: ForkDriver, spec: ContainerSpec) -> int:
    """Starts the program once, and waits until copies of it can be made; the process that stands."""
    known = driver.zygotes.pids()
    way, _ = await ask(driver, spec)
    assert way is Way.STARTED
    await until(lambda: len(driver.zygotes.pids()) > len(known), "it does not stand")
    (pid,) = {*driver.zygotes.pids()} - {*known}
    return pid


async def test_what_was_started_once_is_copied(driver: ForkDriver, ids: Iterator[str]) -> None:
    await until_it_stands(driver, echo(next(ids)))
    container = await driver.create(echo(next(ids)))
    assert container.way is Way.COPIED
    for _ in range(2):
        os.write(container.wire.stdin, b"{}\n")
        assert json.loads(await read_line(container))["pid"] < 10  # of its own namespace
    assert isinstance(container, LocalContainer)
    await container.destroy()
    assert container.exited.done()
    spare = await driver.create(msgspec.structs.replace(echo(next(ids)), is_spare=True))
    assert spare.way is Way.COPIED


async def test_spare_container_alone_begins_none(driver: ForkDriver, ids: Iterator[str]) -> None:
    await ask(driver, msgspec.structs.replace(echo(next(ids)), is_spare=True))
    await ask(driver, msgspec.structs.replace(echo(next(ids)), stands=False))
    assert (driver.zygotes._beginning, driver.zygotes.pids()) == ({}, [])


async def test_what_cannot_be_copied_is_started_ever_after(driver: ForkDriver, ids: Iterator[str]) -> None:
    await ask(driver, echo(next(ids), OPEN))
    await until(lambda: driver.zygotes._unfit, "it is not refused")
    assert await ask(driver, echo(next(ids), OPEN)) == (Way.STARTED, {"pid": 3})
    assert driver.zygotes._beginning == {}


async def test_a_program_whose_copies_cannot_enter_is_started_ever_after(
    driver: ForkDriver, ids: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cell_of(program: zygotes.Program) -> zygote.Cell:
        return msgspec.structs.replace(ForkDriver._cell_of(driver, program), binds=(("cells/nothing", "/visp"),))

    monkeypatch.setattr(driver.zygotes, "_cell_of", cell_of)
    for _ in range(2):
        assert (await ask(driver, echo(next(ids))))[0] is Way.STARTED
        await until(lambda: driver.zygotes._unfit, "it is not refused")
    assert (driver.zygotes.pids(), driver.zygotes._beginning) == ([], {})
    assert not any("proof" in path.name for path in driver.cells.own.iterdir())


async def test_what_kept_it_from_its_start_for_once_is_tried_again(
    driver: ForkDriver, ids: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygotes, "AGAIN_S", 0.1)
    with monkeypatch.context() as busy:
        busy.setattr(zygotes, "READY_S", 0.0)
        for waited_s in (0.1, 0.2):
            assert (await ask(driver, echo(next(ids))))[0] is Way.STARTED
            await until(lambda: [*driver.zygotes._unfit.values()][:1] and not driver.zygotes._beginning, "no refusal")
            assert [wait_s for _, wait_s in driver.zygotes._unfit.values()] == [waited_s]
            await asyncio.sleep(waited_s)
    assert await until_it_stands(driver, echo(next(ids)))


async def test_a_copy_that_cannot_enter_is_the_last(driver: ForkDriver, ids: Iterator[str]) -> None:
    """Where that was possible before."""
    pid = await until_it_stands(driver, echo(next(ids)))
    (standing,) = driver.zygotes._kept.values()
    standing._cell = msgspec.structs.replace(standing._cell, binds=(("cells/nothing", "/visp"),))
    standing._entries.clear()
    standing._known = None
    container = await driver.create(echo(next(ids)))
    assert (container.way, (await container.exited).status) == (Way.COPIED, zygote.CANNOT_ENTER)
    await container.destroy()
    assert (await ask(driver, echo(next(ids))))[0] is Way.STARTED
    assert (driver.zygotes.pids(), driver.zygotes._beginning) == ([], {})
    await until(lambda: not Path(f"/proc/{pid}").exists(), "it stays")


async def test_what_a_copy_exits_with_says_nothing_of_the_others(driver: ForkDriver, ids: Iterator[str]) -> None:
    code = f"import sys\nraise SystemExit(bool(sys.stdin.readline()) * {zygote.CANNOT_ENTER})"
    pid = await until_it_stands(driver, echo(next(ids), code))
    assert await ask(driver, echo(next(ids), code)) == (Way.COPIED, None)
    assert driver.zygotes.pids() == [pid]


async def test_many_at_once_are_all_served(driver: ForkDriver, ids: Iterator[str]) -> None:
    await until_it_stands(driver, echo(next(ids)))
    found = await asyncio.gather(*(ask(driver, echo(next(ids))) for _ in range(40)))
    assert {way for way, _ in found} <= {Way.COPIED, Way.STARTED}
    assert sum(way is Way.COPIED for way, _ in found) > 30
    assert all(reply["pid"] > 0 for _, reply in found)


async def test_one_that_was_killed_is_begun_anew(driver: ForkDriver, ids: Iterator[str]) -> None:
    pid = await until_it_stands(driver, echo(next(ids)))
    os.kill(pid, 9)
    await until(lambda: pid not in driver.zygotes.pids(), "it lives")
    assert await until_it_stands(driver, echo(next(ids))) != pid
    assert (await ask(driver, echo(next(ids))))[0] is Way.COPIED


async def test_it_is_renewed_after_many_copies(
    driver: ForkDriver, ids: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygotes, "RENEWED_AFTER", 2)
    pid = await until_it_stands(driver, echo(next(ids)))
    for _ in range(3):
        assert (await ask(driver, echo(next(ids))))[0] is Way.COPIED
    await until(lambda: pid not in driver.zygotes.pids(), "it is not renewed")
    assert (await ask(driver, echo(next(ids))))[0] is Way.COPIED


async def test_cell_of_an_earlier_template_says_nothing_of_it(driver: ForkDriver, ids: Iterator[str]) -> None:
    """No copy can enter it where the server is no root; what cannot enter a cell of its own template is unfit."""
    await until_it_stands(driver, echo(next(ids)))
    (standing,) = driver.zygotes._kept.values()
    standing._cell = msgspec.structs.replace(standing._cell, binds=(("cells/nothing", "/visp"),))
    standing._entries.clear()
    standing._known = None
    with pytest.raises(Unfit):
        await driver._prove_zygote(standing)
    standing.maker = cast("Any", object())
    await driver._prove_zygote(standing)


async def test_of_too_many_the_one_that_was_not_used_for_longest_goes(
    driver: ForkDriver, ids: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.zygotes._most = 1
    pid = await until_it_stands(driver, echo(next(ids)))
    other = f"{ECHO} # another"
    for _ in range(2):
        assert (await ask(driver, echo(next(ids), other)))[0] is Way.STARTED  # the first was used just now
    assert pid in driver.zygotes.pids()
    monkeypatch.setattr(zygotes, "REPLACED_AFTER_S", 0.0)
    await ask(driver, echo(next(ids), other))
    await until(lambda: driver.zygotes.pids() not in ([], [pid]), "it does not give way")
    assert (await ask(driver, echo(next(ids), other)))[0] is Way.COPIED


async def test_one_that_nobody_uses_ends(
    driver: ForkDriver, ids: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygotes, "KEPT_S", 0.2)
    pid = await until_it_stands(driver, echo(next(ids)))
    await until(lambda: not Path(f"/proc/{pid}").exists(), "it stays")


async def test_nothing_is_left_when_the_driver_closes(folder: Path, ids: Iterator[str]) -> None:
    driver = ForkDriver(settings_in(folder), folder / "data")
    async with started(driver):
        driver.warm([template_in(driver)])
        await until_it_stands(driver, echo(next(ids)))
        container = await driver.create(echo(next(ids)))
    assert container.exited.done()
    assert _started_from(driver.cells.folder) == []


class Copied:
    """Makes what is asked for of copies: they wait for the last word of the command, which each gets on its input."""

    has_templates = True

    def __init__(self, driver: ForkDriver) -> None:
        self.name = driver.name
        self.ways: list[Way] = []
        self._driver = driver

    async def create(self, spec: ContainerSpec) -> LocalContainer:
        (mount,) = spec.mounts
        waits = "import sys\nsys.argv[1:] = [sys.stdin.readline() or sys.exit()]\n"
        argv = (SYSTEM_PYTHON, "-I", "-c", f"{waits}exec(open({mount.inside!r}).read())")
        container = await self._driver.create(msgspec.structs.replace(spec, argv=argv, stands=True))
        os.write(container.wire.stdin, spec.argv[-1].encode() + b"\n")
        self.ways.append(container.way)
        return container


async def test_escape_probe_finds_no_hole_in_a_copy(driver: ForkDriver) -> None:
    copied, probe = Copied(driver), selftest.PROBE.read_bytes()
    assert await selftest.run(driver, SYSTEM_PYTHON, probe, maker=copied) == []
    await until(driver.zygotes.pids, "it does not stand")
    assert await selftest.run(driver, SYSTEM_PYTHON, probe, maker=copied) == []
    assert copied.ways == [Way.STARTED, Way.COPIED]


async def test_probe_finds_the_hole_that_a_copy_has(driver: ForkDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote.Entry, "_drop", lambda self, cell: None)
    copied, probe = Copied(driver), selftest.PROBE.read_bytes()
    await selftest.run(driver, SYSTEM_PYTHON, probe, maker=copied)
    await until(driver.zygotes.pids, "it does not stand")
    holes = await selftest.run(driver, SYSTEM_PYTHON, probe, maker=copied)
    assert any("capabilities" in hole for hole in holes), holes
    assert any("call bpf" in hole for hole in holes), holes


@needs_node
async def test_copies_differ_where_processes_differ(driver: ForkDriver, ids: Iterator[str]) -> None:
    body = """
      const [own, uuid] = [Number(require('fs').readlinkSync('/proc/self')), require('crypto').randomUUID()]
      return { chance: Math.random(), uuid, own, pid: process.pid, env: Object.keys(process.env).sort() }"""
    _, first = await run(driver, next(ids), body)
    await until_it_stands(driver, node(driver, next(ids)))
    found = [await run(driver, next(ids), body) for _ in range(8)]
    assert {way for way, _ in found} == {Way.COPIED}
    assert len({one["chance"] for _, one in found}) == len({one["uuid"] for _, one in found}) == len(found)
    for _, one in found:
        assert (one["pid"], one["env"]) == (one["own"], first["env"])


@needs_node
async def test_copy_stands_behind_the_wall_that_a_started_program_has(driver: ForkDriver, ids: Iterator[str]) -> None:
    """What the kernel says of the process, its limits, its mounts and its open files."""
    body = """
      const fs = require('fs')
      const read = (name) => fs.readFileSync('/proc/self/' + name, 'utf8').trim().split('\\n')
      const kept = /^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Threads|SigBlk|SigIgn|SigCgt|CoreDumping|Umask)/
      const open = fs.readdirSync('/proc/self/fd').map((number) => {
        try { return fs.readlinkSync('/proc/self/fd/' + number).replace(/[0-9]+/, 'N') } catch { return '/dev/null' }
      })
      return {
        status: read('status').filter((line) => kept.test(line)),
        limits: read('limits'),
        mounts: read('mountinfo').map((line) => line.split(' ').slice(3, 6).join(' ').replace(/-c[0-9]+ /, ' ')),
        kinds: [...new Set(open)].filter((name) => name !== '/dev/null').sort(),
        group: read('cgroup'),
        folder: process.cwd(),
        code: fs.readdirSync('/action'),
        programs: fs.readdirSync('/visp').sort(),
        spaces: fs.readdirSync('/proc/self/ns').map((name) => fs.readlinkSync('/proc/self/ns/' + name)),
        parent: await (async () => {
          while (process.ppid !== 1) await new Promise((resolve) => setTimeout(resolve, 1))
          return process.ppid
        })()
      }"""
    way, started = await run(driver, next(ids), body)
    await until_it_stands(driver, node(driver, next(ids)))
    copies = [await run(driver, next(ids), body) for _ in range(2)]
    assert (way, {way for way, _ in copies}) == (Way.STARTED, {Way.COPIED})
    spaces = [one.pop("spaces") for one in (started, *(copy for _, copy in copies))]
    for _, copy in copies:
        assert copy == started
    hosts = {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    assert {frozenset(hosts & {*own}) for own in spaces} == {frozenset({os.readlink("/proc/self/ns/time")})}


@needs_node
async def test_copy_has_all_threads_and_channels_of_its_own(driver: ForkDriver, ids: Iterator[str]) -> None:
    """What libuv and V8 do by threads, pipes and counters that were there before the copy was made."""
    body = """
      const { Worker } = require('worker_threads')
      const worker = new Worker("require('worker_threads').parentPort.postMessage(42)", { eval: true })
      const ended = new Promise((resolve) => worker.on('exit', resolve))
      const { execSync, exec } = require('child_process')
      const add = [0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100,
        0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]
      const signalled = new Promise((resolve) => process.once('SIGUSR2', () => resolve('taken')))
      process.kill(process.pid, 'SIGUSR2')
      let sum = 0
      for (let round = 0; round < 200; round++) for (let step = 0; step < 10000; step++) sum += step % 7
      for (let round = 0; round < 50; round++) Buffer.alloc(1 << 20).fill(round)
      return {
        worker: await new Promise((resolve) => worker.on('message', resolve)),
        ended: await ended,
        wasm: (await WebAssembly.instantiate(Uint8Array.from(add))).instance.exports.add(2, 3),
        pool: await Promise.all([1, 2, 3, 4, 5, 6].map((salt) => new Promise((resolve) =>
          require('crypto').pbkdf2('a', 'b' + salt, 10, 8, 'sha1', (_, key) => resolve(key.length))))),
        file: (await require('fs/promises').readFile('/proc/self/comm', 'utf8')).length > 0,
        sync: execSync('echo sync').toString(),
        async: await new Promise((resolve) => exec('echo async', (_, out) => resolve(out))),
        signal: await signalled,
        timer: await new Promise((resolve) => setTimeout(resolve, 20, 'rung'))
      }"""
    expected = {
        "worker": 42, "ended": 0, "wasm": 5, "pool": [8] * 6, "file": True, "sync": "sync\n", "async": "async\n",
        "signal": "taken", "timer": "rung",
    }  # fmt: skip
    await until_it_stands(driver, node(driver, next(ids)))
    assert [await run(driver, next(ids), body) for _ in range(2)] == [(Way.COPIED, expected)] * 2


@needs_node
async def test_copy_that_exits_has_ended(driver: ForkDriver, ids: Iterator[str]) -> None:
    await until_it_stands(driver, node(driver, next(ids)))
    assert await run(driver, next(ids), "process.exit(3)") == (Way.COPIED, None)


@as_root
@pytest.mark.slow  # tests of this file once more
def test_all_of_this_as_a_normal_user(folder: Path) -> None:
    run_as_a_normal_user(__file__, "", folder)
