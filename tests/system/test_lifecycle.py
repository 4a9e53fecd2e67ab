"""The life of containers as time and memory make it: paused, resumed, removed, evicted, kept in readiness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.system.conftest import Api, has_sandbox
from tests.system.traces import Seen, annotation, below, traces_of, until

from visp.client import running
from visp.client.running import Server

pytestmark = pytest.mark.slow  # every test starts a server with settings of its own

PYTHON = "python:3.11"
COUNTING = "n = 0\ndef main(p):\n  global n\n  n += 1\n  return {'n': n}"
TICKING = """
import threading
n = 0
def tick():
    global n
    while True: n += 1
threading.Thread(target=tick, daemon=True).start()
def main(p): return {'n': n}
"""


@contextmanager
def serving(**settings: object) -> Iterator[tuple[Server, Api]]:
    """A server of the test's own, without blank cells; `pool__idle_s=1` is the setting `pool.idle_s`."""
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    named = {name.replace("__", "."): value for name, value in settings.items()}
    with running.running({"container.blanks": 0} | named) as server:
        yield server, Api(server.url)


def is_cold(api: Api, name: str) -> bool:
    """Whether a run of this action began with an initialisation."""
    answer = api.invoke(name)
    assert answer.status == 200, answer
    return annotation(answer.json, "initTime") is not None


def programs(server: Server) -> list[Seen]:
    """The process of each container that the launcher runs in."""
    return [seen for seen in below(server.pid) if seen.name.startswith(("python", "node"))]


def used_ticks(processes: list[Seen]) -> int:
    fields = [Path(f"/proc/{seen.pid}/stat").read_text().rpartition(")")[2].split() for seen in processes]
    return sum(int(field[11]) + int(field[12]) for field in fields)


def is_frozen(server: Server) -> bool:
    groups = [group for group in traces_of(server).groups() if (group / "cgroup.freeze").exists()]
    if groups:
        return all("frozen 1" in (group / "cgroup.events").read_text() for group in groups)
    states = [Path(f"/proc/{seen.pid}/stat").read_text().rpartition(")")[2].split()[0] for seen in programs(server)]
    return bool(states) and all(state == "T" for state in states)


def test_idle_container_is_paused_and_resumed() -> None:
    with serving(pool__pause_grace_s=0.1, pool__stem_cells=0) as (server, api):
        api.action("ticking", TICKING, PYTHON)
        assert is_cold(api, "ticking")
        until(lambda: is_frozen(server), what="it is not paused")
        paused = programs(server)
        before = used_ticks(paused)
        time.sleep(0.2)  # what is looked for is that nothing happens meanwhile: twenty ticks of a thread that spins
        assert used_ticks(paused) == before
        first = api.invoke("ticking").json
        assert annotation(first, "initTime") is None
        assert programs(server) == paused
        until(lambda: used_ticks(paused) > before, what="it does not run again")
        until(lambda: is_frozen(server), what="it is not paused again")
        assert api.run("ticking")["n"] > first["response"]["result"]["n"]


def test_idle_container_is_removed() -> None:
    with serving(pool__idle_s=0.3, pool__stem_cells=0) as (server, api):
        api.action("counting", COUNTING, PYTHON)
        assert api.run("counting") == {"n": 1}
        assert traces_of(server).folders()
        until(lambda: not traces_of(server).left() and not below(server.pid), what=traces_of(server).left)
        assert api.run("counting") == {"n": 1}


@pytest.mark.parametrize("grace_s", [10.0, 0.1], ids=["ready", "paused"])
def test_the_container_worth_least_gives_way_when_memory_is_needed(grace_s: float) -> None:
    with serving(pool__memory_mb=512, pool__stem_cells=0, pool__pause_grace_s=grace_s) as (server, api):
        for name in ("favourite", "second", "third"):
            api.action(name, COUNTING, PYTHON)
        assert is_cold(api, "favourite")
        assert not any(is_cold(api, "favourite") for _ in range(50))
        assert is_cold(api, "second")
        if grace_s < 1:
            until(lambda: is_frozen(server), what="they are not paused")
        assert is_cold(api, "third")
        assert len(programs(server)) == 2
        assert not is_cold(api, "favourite"), "it was idle longest, and is used most"
        assert is_cold(api, "second")


def test_memory_is_never_exceeded_when_many_want_it() -> None:
    with serving(pool__memory_mb=512, pool__stem_cells=0) as (server, api):
        names = [f"wants{n}" for n in range(6)]
        for name in names:
            api.action(name, "import time\ndef main(p):\n  time.sleep(0.02)\n  return {}", PYTHON)
        with ThreadPoolExecutor(6) as clients:
            answers = clients.map(api.invoke, names * 3)
            most = 0
            while clients._work_queue.qsize():
                most = max(most, len(programs(server)))
            assert [answer.status for answer in answers] == [200] * 18
        assert 0 < most <= 2


def test_action_that_can_never_fit_is_told_so() -> None:
    with serving(pool__memory_mb=256, pool__stem_cells=0) as (_, api):
        api.action("large", COUNTING, PYTHON, limits={"memory": 512})
        answer = api.invoke("large")
        assert answer.status in (500, 503)
        api.action("small", COUNTING, PYTHON)
        assert is_cold(api, "small")


def test_stem_cells_are_kept_and_refilled() -> None:
    with serving(pool__stem_cells=1) as (server, api):
        kinds = ("/usr/bin/node", "/usr/bin/python")
        until(lambda: len(programs(server)) == 2, what="no stem cells")
        cells = programs(server)
        assert sorted(seen.command.startswith(kinds[1]) for seen in cells) == [False, True]
        api.action("counting", COUNTING, PYTHON)
        assert is_cold(api, "counting")
        until(lambda: len(programs(server)) == 3, what="the cell was not replaced")
        assert all(seen.lives for seen in cells), "the action did not run in the cell"
        assert not is_cold(api, "counting")


def test_stem_cell_that_dies_is_replaced() -> None:
    with serving(pool__stem_cells=1) as (server, api):
        until(lambda: len(programs(server)) == 2, what="no stem cells")
        cells = programs(server)
        for seen in cells:
            os.kill(seen.pid, signal.SIGKILL)
        until(
            lambda: len(programs(server)) == 2 and not set(programs(server)) & set(cells), what="they are not replaced"
        )
        api.action("counting", COUNTING, PYTHON)
        assert api.run("counting") == {"n": 1}


@pytest.mark.parametrize("grace_s", [10.0, 0.1], ids=["ready", "paused"])
def test_container_that_dies_while_nobody_uses_it_leaves_the_pool(grace_s: float) -> None:
    with serving(pool__stem_cells=0, pool__pause_grace_s=grace_s) as (server, api):
        api.action("counting", COUNTING, PYTHON)
        api.run("counting")
        if grace_s < 1:
            until(lambda: is_frozen(server), what="it is not paused")
        for seen in below(server.pid):
            with suppress(ProcessLookupError):  # it went with another
                os.kill(seen.pid, signal.SIGKILL)
        until(lambda: not traces_of(server).left(), what=traces_of(server).left)
        assert api.run("counting") == {"n": 1}


def test_containers_of_an_updated_or_deleted_action_are_removed() -> None:
    with serving(pool__stem_cells=0) as (server, api):
        api.action("counting", COUNTING, PYTHON)
        api.run("counting")
        old = programs(server)
        api.action("counting", COUNTING + "\n# another", PYTHON)
        until(lambda: not [seen for seen in old if seen.lives], what="the old code's container lives on")
        assert api.run("counting") == {"n": 1}
        assert api.delete("actions/counting").status == 200
        until(lambda: not below(server.pid), what="the deleted action's container lives on")


# ── as the first process ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(os.geteuid() != 0, reason="a process namespace needs uid 0")
def test_server_that_is_the_first_process_leaves_no_zombies() -> None:
    """As in a container image without an init: whoever is orphaned becomes its child."""
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with tempfile.TemporaryDirectory(prefix="visp-") as place:
        Path(place).chmod(0o711)
        argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "visp", "start"]
        argv += ["--port", "0", "--data-dir", f"{place}/data", "--set", f"container.cells_dir={place}/cells"]
        argv += ["--set", "pool.stem_cells=0"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as outside:
            try:
                assert outside.stdout is not None
                line = outside.stdout.readline()
                if not line:
                    pytest.skip("no process namespace can be made here")
                _end_containers(Api(json.loads(line)["url"]), outside.pid)
                assert outside.wait(20) == 0
            finally:
                outside.kill()


def _end_containers(api: Api, outside: int) -> None:
    (server,) = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
    api.action("exits", "import os\ndef main(p): os._exit(1)", PYTHON)

    def zombies() -> int:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children]
        return states.count("Z")

    for _ in range(8):
        assert api.invoke("exits").status == 502
    until(lambda: zombies() <= 2, 3.0, what=zombies)  # the newest may wait for the next container's end
    os.kill(int(server), signal.SIGTERM)


# ── while it starts ─────────────────────────────────────────────────────────────────────────────────────────────

HELD_DRIVER = """
import asyncio, os
from visp.container.process import ProcessDriver

class Held(ProcessDriver):
    async def start(self):
        while not os.path.exists(os.environ['HELD_UNTIL']):
            await asyncio.sleep(0.01)
        await super().start()
"""


def test_server_answers_while_its_driver_is_still_being_checked() -> None:
    with tempfile.TemporaryDirectory(prefix="visp-") as place:
        folder, port = Path(place), free_port()
        (folder / "held.py").write_text(HELD_DRIVER)
        argv = [sys.executable, "-m", "visp", "start", "--port", str(port), "--data-dir", str(folder / "data")]
        argv += ["--driver", "held:Held", "--set", f"container.cells_dir={folder / 'cells'}"]
        env = os.environ | {"PYTHONPATH": place, "HELD_UNTIL": str(folder / "go")}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) as process:
            try:
                _start_held(process, Api(f"http://127.0.0.1:{port}"), folder / "go")
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()


def _start_held(process: subprocess.Popen[bytes], api: Api, go: Path) -> None:
    assert process.stdout is not None

    def pings() -> bool:
        with suppress(ConnectionRefusedError):
            return api.get("/ping").status == 200
        return False

    until(pings, what="it does not listen")
    answer = api.get("/ready")
    assert answer.status == 503
    assert b"sandbox" in answer.body
    api.action("counting", COUNTING, PYTHON)
    with ThreadPoolExecutor(1) as clients:
        early = clients.submit(api.invoke, "counting")
        assert api.get("/ready").status == 503
        assert not early.done()
        go.touch()
        assert early.result(20).status == 200
    line = json.loads(process.stdout.readline())
    assert line["url"] == api.url
    assert line["pid"] == process.pid
    assert api.get("/ready").status == 200
