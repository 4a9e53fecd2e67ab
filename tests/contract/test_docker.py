"""What the driver of images promises, over a real engine; what the sandbox's drivers promise is in test_drivers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_drivers import turn_ns
from tests.images import engine as engines
from tests.images.engine import GVISOR, PROXY, Engine

from visp.container import selftest, turns
from visp.container.base import Address, ContainerSpec
from visp.container.docker import DockerContainer, DockerDriver
from visp.container.engine import INSTANCE
from visp.container.guard import Guarded
from visp.container.resident import Resident
from visp.container.runsc import RunscDriver
from visp.entity.images import Pull, Wanted
from visp.errors import ContainerGone, ImageNotPulled, ImageNotStarted, StartFailed
from visp.runtime.base import Gone, Reply
from visp.runtime.client import HttpClient
from visp.settings import Docker, Settings

WITHIN_S = 20.0
OF_THE_HOST = pytest.mark.parametrize("runtime", [""])
"""gVisor's containers have processes that the host's kernel does not know, and a network that cannot be entered."""
PROBE = """
import json, os, sys
def main(args):
    source, out = args['source'], {}
    real = os.write
    sys.argv = ['probe', json.dumps(args['host'])]
    os.write = lambda number, data: out.update(json.loads(data)) if number == 3 else real(number, data)
    try:
        exec(compile(source, 'probe', 'exec'), {'__name__': 'probe'})
    finally:
        os.write = real
    return out
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with engines.needed() as engine:
        yield engine


@pytest.fixture(params=["", pytest.param(GVISOR, marks=pytest.mark.all)])
def runtime(request: pytest.FixtureRequest) -> str:
    """The engine's, empty for its default."""
    if request.param:
        try:
            engines.gvisor()
        except StartFailed as error:
            pytest.skip(str(error))
    return str(request.param)


@pytest.fixture
async def driver(runtime: str, engine: Engine, tmp_path: Path) -> AsyncIterator[DockerDriver]:
    driver = await started(engine, tmp_path, runtime=runtime)
    yield driver
    await driver.close()
    assert engine.containers(f"label={INSTANCE}") == [], "something is left"


async def started(engine: Engine, data_dir: Path, **docker: Any) -> DockerDriver:
    driver = DockerDriver(Settings(docker=Docker(host=engine.host, **docker)), data_dir)
    await driver.start()
    return driver


def spec(mode: str = "serve", id: str = "c1", *, memory_mb: int = 128, pull: Pull = Pull.IF_MISSING) -> ContainerSpec:
    name = mode if "/" in mode else f"{PROXY}:{mode}"
    image = Wanted(name=name, wrote=name, pull=pull, is_users=True)
    return ContainerSpec(id=id, argv=(), env={"GIVEN": "ü"}, memory_mb=memory_mb, image=image)


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


class Spoken:
    """A container that is spoken to; what it printed by stream."""

    def __init__(self, container: DockerContainer) -> None:
        self.container = container
        self.printed: dict[int, bytes] = {0: b"", 1: b""}
        wire = container.wire
        assert isinstance(wire, Address)
        assert wire.follow is not None
        loop = asyncio.get_running_loop()
        self._client = HttpClient(loop, wire.host, wire.port, self._take, 1 << 20, wire.connect)
        wire.follow(self._client.feed)

    def _take(self, stream: int, data: bytes) -> None:
        self.printed[stream] += data

    async def call(self, path: str, body: Any) -> Any:
        answered: asyncio.Future[Reply | Gone] = asyncio.get_running_loop().create_future()
        getattr(self._client, path)(json.dumps(body).encode(), answered.set_result)
        reply = await asyncio.wait_for(answered, WITHIN_S)
        return json.loads(reply.body) if isinstance(reply, Reply) else reply

    async def run(self, code: str, payload: Any = None) -> Any:
        assert await self.call("init", {"value": {"code": code, "env": {}}}) == {"ok": True}
        return await self.call("run", {"value": payload or {}})

    async def close(self) -> None:
        self._client.close()
        await self.container.destroy()


async def test_it_is_reached_from_nowhere_else_and_says_what_it_prints(driver: DockerDriver) -> None:
    spoken = Spoken(await driver.create(spec()))
    code = "import os, sys\ndef main(args):\n  print('out')\n  print('err', file=sys.stderr)\n  return dict(os.environ)"
    environment = await spoken.run(code)
    assert environment["GIVEN"] == "ü"
    await until(lambda: all(b"THE_END" in printed for printed in spoken.printed.values()))
    assert [spoken.printed[stream].split(b"\n")[0] for stream in (0, 1)] == [b"out", b"err"]
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", 8080)
    await spoken.close()


@OF_THE_HOST
async def test_doors_lead_out(driver: DockerDriver) -> None:
    container = await driver.create(spec())
    door = container.doors[0]
    assert door.getsockname() == ("127.0.0.1", 3233)
    server = await asyncio.start_server(lambda _, writer: (writer.write(b"hello"), writer.close()), sock=door)
    spoken = Spoken(container)
    code = (
        "import socket\ndef main(args):\n"
        "  return {'said': socket.create_connection(('visp.internal', 3233)).recv(9).decode()}"
    )
    assert await spoken.run(code) == {"said": "hello"}
    server.close()
    await spoken.close()


@OF_THE_HOST
async def test_its_processes_take_short_turns(driver: DockerDriver, engine: Engine) -> None:
    container = await driver.create(spec())
    (id,) = engine.containers(f"label={INSTANCE}")
    pid = int(engine.call("inspect", "--format", "{{.State.Pid}}", id))
    assert turn_ns(pid) in (turns.TURN_NS, 0), "0: this kernel heeds no length of turns"
    await container.destroy()


async def test_the_way_it_ended(driver: DockerDriver, runtime: str) -> None:
    container = await driver.create(spec("exits"))
    ended = await asyncio.wait_for(asyncio.shield(container.exited), WITHIN_S)
    assert (ended.status, ended.is_out_of_memory) == (3, False)
    await container.destroy()
    spoken = Spoken(await driver.create(spec(id="c2", memory_mb=64)))
    code = "def main(args):\n  held = []\n  while True: held.append(bytes(b'x' * (1 << 20)))"
    running = asyncio.ensure_future(spoken.run(code))
    ended = await asyncio.wait_for(asyncio.shield(spoken.container.exited), WITHIN_S)
    assert ended.is_out_of_memory
    if not runtime:  # no packet says it where the network ends with its kernel
        assert await asyncio.wait_for(running, 0.25) == Gone()
    running.cancel()
    await spoken.close()


async def test_destroy_is_quick_and_whole_whatever_goes_on_inside(driver: DockerDriver, engine: Engine) -> None:
    spoken = Spoken(await driver.create(spec()))
    code = """
import os, signal, subprocess, sys
def main(args):
    for n in range(20):
        subprocess.Popen([sys.executable, '-c', 'import os, signal, time; os.setsid(); '
                          'signal.signal(15, signal.SIG_IGN); time.sleep(600)'])
    return {}
"""
    assert await spoken.run(code) == {}
    for is_paused in (False, True):
        container = spoken.container if not is_paused else await driver.create(spec(id="c2"))
        if is_paused:
            await container.pause()
        began_s = time.monotonic()
        await container.destroy()
        assert time.monotonic() - began_s < 1
        assert container.exited.done()
    await until(lambda: not engine.containers(f"label={INSTANCE}"))
    await spoken.close()


async def test_paused_it_stands_still(driver: DockerDriver) -> None:
    spoken = Spoken(await driver.create(spec()))
    code = "import time\ndef main(args): return {'cpu': time.process_time()}"
    assert await spoken.run(code)
    await spoken.container.pause()
    running = asyncio.ensure_future(spoken.call("run", {"value": {}}))
    done, _ = await asyncio.wait([running], timeout=0.3)
    assert not done
    await spoken.container.resume()
    assert await asyncio.wait_for(running, WITHIN_S)
    await spoken.close()


async def test_guarded_it_is_ended_once_and_then_deaf(driver: DockerDriver) -> None:
    container = Guarded(await driver.create(spec()))
    await asyncio.gather(*(container.destroy() for _ in range(3)))
    with pytest.raises(ContainerGone):
        await container.pause()
    assert container.exited.result().status != 0


async def test_creation_that_is_given_up_leaves_nothing(driver: DockerDriver, engine: Engine) -> None:
    for number in range(6):
        creating = asyncio.ensure_future(driver.create(spec(id=f"g{number}")))
        await asyncio.sleep(number * 0.1)  # at several moments of it
        creating.cancel()
        (made,) = await asyncio.gather(creating, return_exceptions=True)
        if not isinstance(made, BaseException):
            await made.destroy()
    await until(lambda: not engine.containers(f"label={INSTANCE}"))


async def test_what_a_killed_server_left_is_removed_by_its_next_alone(engine: Engine, tmp_path: Path) -> None:
    first, other = await started(engine, tmp_path / "a"), await started(engine, tmp_path / "b")
    left = await first.create(spec())
    await left.pause()
    kept = await other.create(spec())
    again = await started(engine, tmp_path / "a")
    assert await again.reap() == 1
    assert await again.reap() == 0
    assert (await asyncio.wait_for(asyncio.shield(left.exited), WITHIN_S)).status != 0
    assert not kept.exited.done()
    for driver in (first, other, again):
        await driver.close()
    assert engine.containers(f"label={INSTANCE}") == []


async def test_what_cannot_be_had_is_told(engine: Engine, driver: DockerDriver, tmp_path: Path) -> None:
    for pull in Pull:
        with pytest.raises(ImageNotPulled) as caught:
            await driver.create(spec("127.0.0.1:1/no/image:1", f"n-{pull.name.lower()}".replace("_", "-"), pull=pull))
        assert caught.value.is_developer_error
    tar = tmp_path / "empty.tar"
    tar.write_bytes(bytes(10240))
    engine.bring("visp-test/empty:1", tar, "/not/there")
    with pytest.raises(ImageNotStarted) as refused:
        await driver.create(spec("visp-test/empty:1", "e1"))
    assert refused.value.is_developer_error
    with pytest.raises(StartFailed, match="images alone"):
        await driver.create(ContainerSpec(id="c9", argv=("/bin/true",), env={}, memory_mb=64))
    nobody = DockerDriver(Settings(docker=Docker(host=f"unix://{tmp_path}/none.sock")), tmp_path)
    with pytest.raises(StartFailed, match="no container engine answers"):
        await nobody.start()
    await nobody.close()


async def test_the_probe_finds_no_way_out(driver: DockerDriver, runtime: str, tmp_path: Path) -> None:
    """As in the sandbox of all else, but for what belongs to an image: its own root, files and /proc.

    gVisor's own kernel answers calls, and knows nothing of the host's.
    """
    spoken = Spoken(await driver.create(spec()))
    (tmp_path / "secret").write_text("of the host")
    host = {"secret": str(tmp_path / "secret"), "port": 1, "abstract": "none", "path": "/none", "pid": 0}
    answer = await spoken.run(PROBE, {"source": selftest.PROBE.read_text(), "host": host})
    allowed = (*RunscDriver.leaves_open, "sysctl ") if runtime else ()
    holes = {name for name, result in answer["attempts"].items() if result is not None and not name.startswith(allowed)}
    assert holes <= {"first_environ", "shadow", "passwd", "root_home"}, answer
    facts = answer["facts"]
    seccomp, interfaces = ("0", ["eth0", "lo"]) if runtime else ("2", ["lo"])
    assert (facts["no_new_privileges"], facts["seccomp"], sorted(facts["interfaces"])) == ("1", seccomp, interfaces)
    assert set(facts["capabilities"]) == {"cb", ""}, "more than those that root inside keeps"
    await spoken.close()


async def test_root_inside_can_do_what_official_images_do(driver: DockerDriver) -> None:
    """Own files by another's archive, write where the image gave a folder away, step down to another user."""
    code = """
import os
def main(args):
    with open('/theirs/file', 'w') as file:
        file.write('x')
    os.chown('/theirs/file', 1000, 1000)
    os.chmod('/theirs/file', 0o600)
    pid = os.fork()
    if pid == 0:
        os.setgid(1000)
        os.setuid(1000)
        os._exit(os.getuid() == 1000 and open('/theirs/file').read() == 'x')
    return {'stepped_down': os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1}
"""
    spoken = Spoken(await driver.create(spec()))
    assert await spoken.run(code) == {"stepped_down": True}
    await spoken.close()


@OF_THE_HOST
async def test_threads_and_descriptors_are_bounded(driver: DockerDriver) -> None:
    code = """
import os, threading, time
def main(args):
    opened = []
    try:
        while True: opened.append(os.open('/dev/null', os.O_RDONLY))
    except OSError:
        pass
    for number in opened: os.close(number)
    threading.stack_size(1 << 16)
    started = 0
    try:
        for _ in range(2000):
            threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    return {'descriptors': len(opened), 'threads': started}
"""
    spoken = Spoken(await driver.create(spec(memory_mb=512)))
    counts = await spoken.run(code)
    assert counts["descriptors"] < 1024
    assert counts["threads"] < 1024
    began_s = time.monotonic()
    await spoken.container.destroy()
    assert time.monotonic() - began_s < 1
    await spoken.close()


async def test_a_strangers_process_is_not_entered() -> None:
    """Its number may be another's: the engine counts in another namespace, or on another machine."""
    assert Resident.find(1, "0123456789abcdef") is None
    assert Resident.find(0, "") is None
