"""What every container driver promises, and what the sandbox keeps from code; as root, and again as a normal user."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from visp.container import bwrap, selftest, watch
from visp.container.base import Container, ContainerSpec, Driver, Mount, Pipes
from visp.container.bwrap import BwrapDriver
from visp.container.cells import LINKED_FILES
from visp.container.fake import FakeDriver
from visp.container.guard import Guarded
from visp.container.local import LocalContainer, LocalDriver
from visp.container.process import ProcessDriver
from visp.errors import ContainerGone, StartFailed
from visp.settings import Container as ContainerSettings
from visp.settings import Settings

SYSTEM_PYTHON = "/usr/bin/python3"
NORMAL_UID = 65534
WITHIN_S = 10.0
ECHO = "import os, sys\nfor line in sys.stdin: os.write(3, b'{\"ok\":true}\\n')"
"""What a container of `FakeDriver` does by itself."""

LOCAL = {"bwrap": BwrapDriver, "process": ProcessDriver}
needs_python = pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="there is no system Python")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder through which containers under other uids can pass."""
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def settings_in(folder: Path) -> Settings:
    return Settings(container=ContainerSettings(cells_dir=str(folder / "cells")))


def make(name: str, folder: Path) -> Driver:
    if name == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
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


@pytest.fixture(params=["bwrap", "process", "fake"])
async def driver(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Driver]:
    async with started(make(request.param, folder)) as driver:
        yield driver


@pytest.fixture(params=["bwrap", "process"])
async def local(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[LocalDriver]:
    async with started(make(request.param, folder)) as driver:
        assert isinstance(driver, LocalDriver)
        yield driver


@pytest.fixture
async def sandbox(folder: Path) -> AsyncIterator[BwrapDriver]:
    async with started(make("bwrap", folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        yield driver


def spec(code: str = ECHO, id: str = "c1", *, memory_mb: int = 128, **fields: Any) -> ContainerSpec:
    return ContainerSpec(
        id=id, argv=(SYSTEM_PYTHON, "-I", "-c", code), env=fields.pop("env", {}), memory_mb=memory_mb, **fields
    )


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
    """Those in a local driver's groups, or that carry its mark, or descend from this process since the test began."""
    assert isinstance(driver, LocalDriver)
    pids = set(watch.tree(os.getpid())) - _others
    pids |= set(watch.marked(driver.host_name("")))
    for parent in driver.cgroups.parents:
        for group in parent.iterdir():
            if group.is_dir():
                pids |= set(map(int, (group / "cgroup.procs").read_text().split()))
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
async def test_close_destroys_all_that_is_left(folder: Path, request: pytest.FixtureRequest) -> None:
    for name in ("bwrap", "process", "fake"):
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
    assert {"GIVEN": "ü", "LANG": "C", "HOME": "/tmp"}.items() <= env.items()
    assert "OF_THE_SERVER" not in env
    assert set(env) <= {"GIVEN", "LANG", "HOME", "PATH", "PWD", "LC_CTYPE", "container", watch.MARK}


@needs_python
@pytest.mark.parametrize("name", LOCAL)
async def test_descriptors_are_those_of_the_wire(name: str, folder: Path) -> None:
    inherited = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(inherited, True)  # as one that whoever started the server left open
    lists = "said = [n for n in map(int, os.listdir('/proc/self/fd')) if os.path.exists(f'/proc/self/fd/{n}')]"
    async with started(make(name, folder)) as driver:
        assert sorted(await told(driver, lists)) == [0, 1, 2, 3]
    os.close(inherited)


@needs_python
async def test_mounts_and_code_folder_are_seen(local: LocalDriver, folder: Path) -> None:
    code = folder / "code"
    (code / "deep").mkdir(parents=True)
    (code / "deep" / "file").write_text("of the code")
    program = local.cells.install(
        "program.py", b"import os, sys\nos.write(3, open(sys.argv[1] + '/deep/file', 'rb').read() + b'\\n')"
    )
    inside = "/visp/program.py"
    where = "/action" if local.name == "bwrap" else str(code)
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
    await until(lambda: sum(_command(pid).startswith(b"sleep") for pid in processes_of(local)) == 3, "they do not run")
    left = processes_of(local)
    if is_paused:
        await container.pause()
    began_s = time.monotonic()
    await container.destroy()
    assert [pid for pid in left if _command(pid)] == []
    assert time.monotonic() - began_s < 5
    assert traces_of(local) == []


_LEAVES_BEHIND = """
import asyncio, os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from visp.container.base import ContainerSpec
from visp.container.{name} import {kind} as Kind
from visp.settings import Container, Settings

async def main():
    folder = Path({folder!r})
    driver = Kind(Settings(container=Container(cells_dir=str(folder / 'cells'))), folder / 'data')
    await driver.start()
    for n in range(2):
        argv = ({python!r}, '-I', '-c', {code!r})
        container = await driver.create(ContainerSpec(id=f'c{{n}}', argv=argv, env={{}}, memory_mb=64))
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


def leave_behind(name: str, folder: Path, *, is_janitor_killed: bool) -> None:
    """A process with a driver and two containers is killed, at will with the janitor."""
    code = _LEAVES_BEHIND.format(
        path=sys.path,
        name=name,
        kind=LOCAL[name].__name__,
        folder=str(folder),
        python=SYSTEM_PYTHON,
        code=LEAVING,
        is_janitor_killed=is_janitor_killed,
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def sleepers() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and b"61.25" in _command(int(entry))]


@needs_python
@pytest.mark.parametrize("name", LOCAL)
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
@pytest.mark.parametrize("name", LOCAL)
async def test_janitor_ends_it_without_another_server(name: str, folder: Path) -> None:
    driver = make(name, folder)
    assert isinstance(driver, LocalDriver)
    before = set(sleepers())
    leave_behind(name, folder, is_janitor_killed=False)
    await until(lambda: not set(sleepers()) - before, "they live on", 2.0)
    await until(lambda: not driver.cells.own.exists(), "folders stay", 2.0)


# ── the sandbox ─────────────────────────────────────────────────────────────────────────────────────────────────

PROBE = selftest.PROBE.read_bytes()


@needs_python
async def test_escape_probe_finds_no_hole(sandbox: BwrapDriver) -> None:
    assert await selftest.run(sandbox, SYSTEM_PYTHON, PROBE) == []
    assert traces_of(sandbox) == []


ALLOW_ALL = bytes.fromhex("06000000" + "0000ff7f")
"""A filter of system calls that lets everything pass: one instruction."""


def _without(*words: str) -> tuple[str, ...]:
    return tuple(word for word in bwrap._NAMESPACES if word not in words)


@needs_python
@pytest.mark.parametrize(
    ("name", "value", "hole"),
    [
        ("_NAMESPACES", _without("--unshare-net"), "tcp_loopback"),
        ("_NAMESPACES", _without("--unshare-pid"), "processes are visible"),
        ("_SYSTEM", (*bwrap._SYSTEM, "--ro-bind", "/etc/passwd", "/etc/passwd"), "passwd"),
        ("_SYSTEM", (*bwrap._SYSTEM, "--tmpfs", "/home"), "writable"),
        ("_SYSTEM", (*bwrap._SYSTEM, "--bind", "/var/tmp", "/var/tmp"), "writable"),
        ("INSIDE_UID", "1000", "uid"),
    ],
    ids=["network", "processes", "host file", "folder", "host folder", "uid"],
)
async def test_probe_finds_a_hole_where_one_was_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, hole: str
) -> None:
    if name == "INSIDE_UID":
        name, value = "_NAMESPACES", tuple("1000" if word == "65534" else word for word in bwrap._NAMESPACES)
    monkeypatch.setattr(bwrap, name, value)
    async with started(make("bwrap", folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        holes = await selftest.run(driver, SYSTEM_PYTHON, PROBE)
    assert [found for found in holes if hole in found], holes


@needs_python
async def test_probe_finds_that_system_calls_are_not_filtered(sandbox: BwrapDriver) -> None:
    sandbox._filter = ALLOW_ALL
    holes = await selftest.run(sandbox, SYSTEM_PYTHON, PROBE)
    assert [found for found in holes if found.startswith("call io_uring_setup")], holes


@as_root
@needs_python
async def test_probe_finds_that_root_of_the_host_is_inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bubblewrap that root has started without dropping to a uid: whoever is nobody inside is root outside."""
    system = tuple(bwrap._SYSTEM)
    at = system.index("/proc/sys") - 1
    monkeypatch.setattr(bwrap, "_SYSTEM", system[:at] + system[at + 3 :])
    monkeypatch.setattr(LocalDriver, "_take_uid", lambda _: None)
    async with started(make("bwrap", folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        holes = await selftest.run(driver, SYSTEM_PYTHON, PROBE)
    assert [found for found in holes if found.startswith("sysctl ")], holes


@needs_python
async def test_server_does_not_serve_where_there_is_a_hole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap, "_NAMESPACES", _without("--unshare-net"))
    (folder / "data").mkdir(exist_ok=True)
    async with started(make("bwrap", folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        with pytest.raises(StartFailed, match="tcp_loopback"):
            await selftest.check(driver, folder / "data", SYSTEM_PYTHON)
        assert not (folder / "data" / selftest.VERDICT).exists()


@needs_python
async def test_verdict_is_kept_for_this_sandbox_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    async with started(make("bwrap", folder)) as driver:
        assert isinstance(driver, BwrapDriver)
        assert await selftest.check(driver, data, SYSTEM_PYTHON)
        assert not await selftest.check(driver, data, SYSTEM_PYTHON)
        driver._filter = ALLOW_ALL
        with pytest.raises(StartFailed, match="io_uring_setup"):
            await selftest.check(driver, data, SYSTEM_PYTHON)


@needs_python
async def test_two_containers_do_not_see_each_other(sandbox: BwrapDriver) -> None:
    leaves = "open('/tmp/left', 'w').close(); open('/dev/shm/left', 'w').close(); os.write(3, b'up\\n'); input()"
    first = await sandbox.create(spec(f"import os; {leaves}", id="first"))
    assert await read_line(first) == b"up\n"
    folders = "said = [os.listdir(name) for name in ('/tmp', '/dev/shm', '/action', '/proc')]"
    said = await told(sandbox, folders, id="second")
    assert said[:3] == [[], [], []]
    assert len([name for name in said[3] if name.isdigit()]) <= 3
    await first.destroy()


# ── all of this as a normal user ────────────────────────────────────────────────────────────────────────────────


@as_root
@needs_python
@pytest.mark.slow  # every test of this file once more
def test_all_of_this_as_a_normal_user(folder: Path) -> None:
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
    ini = Path(__file__).parents[2] / "pyproject.toml"
    ended = subprocess.run(
        [*user, SYSTEM_PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ini), str(Path(__file__))],
        env=env, cwd=home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert " passed" in ended.stdout
