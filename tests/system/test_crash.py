"""Servers that are killed, stopped, or cannot start: nothing is lost, nothing runs twice, nothing stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.system import places
from tests.system.conftest import Answer, Api, has_sandbox
from tests.system.places import TRUSTING
from tests.system.traces import Traces, below, standing, stored, texts, until

from visp.client.running import Server

pytestmark = pytest.mark.slow  # every test starts one server or two, and most of them end one by force

PYTHON = "python:3.11"
INTERRUPTED = (
    "The platform was stopped while the action was running; it was not run again. "
    "The action may have had its effect in part or in whole."
)
GONE_S = 1.0


class Place(places.Place):
    """A place where nothing of a container stays."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.traces = Traces(self.data_dir, folder / "cells")

    def kill(self, server: Server) -> None:
        """SIGKILL; then every trace of its containers must vanish by itself."""
        processes = below(server.pid)
        server.stop(signal.SIGKILL)
        until(
            lambda: not [seen for seen in processes if seen.lives],
            GONE_S,
            what=lambda: [seen.command for seen in processes if seen.lives],
        )
        until(lambda: not self.traces.left(), GONE_S, what=self.traces.left)

    def close(self) -> None:
        super().close()
        until(lambda: not self.traces.left(), what=self.traces.left)


@pytest.fixture
def place() -> Iterator[Place]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with places.opened(Place) as place:
        yield place


def sleeping(seconds: float) -> str:
    return (
        f"import subprocess\ndef main(p):\n  print('begun', flush=True)\n  subprocess.run(['sleep', '{seconds}'])\n"
        "  return {'n': p.get('n')}"
    )


HANGING = "import subprocess\nsubprocess.run(['sleep', '60'])\ndef main(p): pass"


def await_sleepers(server: Server, count: int) -> None:
    """Until so many runs are in the middle of their sleep."""
    until(
        lambda: sum(seen.command.startswith("sleep ") for seen in below(server.pid)) >= count,
        what=lambda: [seen.command for seen in below(server.pid)],
    )


def effective(place: Place, seconds: float = 0.0) -> str:
    """Code that shows outside that it ran, under its activation's id; for a driver that isolates nothing."""
    return (
        f"import os, time\ndef main(p):\n"
        f"  with open({str(place.effects)!r}, 'a') as file: file.write(os.environ['__OW_ACTIVATION_ID'] + '\\n')\n"
        f"  time.sleep({seconds})\n  return {{'n': p.get('n')}}"
    )


def accept(api: Api, name: str, n: int = 0) -> str:
    answer = api.invoke(name, {"n": n}, query="")
    assert answer.status == 202, answer
    id: str = answer.json["activationId"]
    return id


def in_background(call: Callable[[], Answer]) -> Future[Answer]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


# ── SIGKILL ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_accepted_work_runs_once_after_a_kill(place: Place) -> None:
    server = place.start(*TRUSTING, pool__memory_mb=256, pool__stem_cells=0)
    api = Api(server.url)
    api.action("slow", sleeping(60), PYTHON)
    api.action("counted", effective(place), PYTHON)
    slow = accept(api, "slow")
    await_sleepers(server, 1)
    ids = [accept(api, "counted", n) for n in range(20)]
    assert api.get("activations?name=counted&count=true").json == {"activations": 0}
    place.kill(server)
    assert place.counted() == {}

    api = Api(place.start(*TRUSTING).url)
    for n, id in enumerate(ids):
        assert stored(api, id)["response"]["result"] == {"n": n}
    assert place.counted() == Counter(ids)
    assert stored(api, slow)["response"]["status"] == "whisk internal error"
    listed = [entry["activationId"] for entry in api.get("activations?limit=200").json]
    assert sorted(listed) == sorted([slow, *ids])


def test_work_that_was_running_ends_with_a_record_that_says_so(place: Place) -> None:
    server = place.start()
    api = Api(server.url)
    api.action("slow", sleeping(60), PYTHON)
    accepted = [accept(api, "slow", n) for n in range(3)]
    fallen_back = api.invoke("slow", query="blocking=true&timeout=300").json["activationId"]
    blocking = in_background(lambda: api.invoke("slow"))
    await_sleepers(server, 5)
    place.kill(server)
    with pytest.raises((HTTPException, OSError)):
        blocking.result(10)

    api = Api(place.start().url)
    for id in (*accepted, fallen_back):
        record = stored(api, id)
        assert record["response"] == {
            "result": {"error": INTERRUPTED},
            "status": "whisk internal error",
            "success": False,
        }
        assert record["name"] == "slow"
    assert api.get("activations?count=true").json == {"activations": 4}


def test_what_was_answered_is_there_after_a_kill(place: Place) -> None:
    server = place.start()
    api = Api(server.url)
    api.action("echo", "def main(p):\n  print('said', p['n'])\n  return p", PYTHON)
    api.action("line", "", "sequence", exec={"components": ["/_/echo", "/_/echo"]})
    api.request("PUT", "triggers/event", {"parameters": [{"key": "a", "value": 1}]})
    api.request("PUT", "rules/on", {"trigger": "/_/event", "action": "/_/echo"})
    records = [api.invoke("echo", {"n": n}).json for n in range(10)]
    composite = api.invoke("line", {"n": 1}).json
    paths = ("actions/echo", "actions/line", "triggers/event", "rules/on")
    entities = [api.get(path).json for path in paths]
    place.kill(server)

    api = Api(place.start().url)
    assert [api.get(path).json for path in paths] == entities
    for n, record in enumerate(records):
        found = api.record(record["activationId"])
        assert found["response"] == record["response"]
        assert texts(found) == [f"stdout: said {n}"]
    found = api.record(composite["activationId"])
    assert (found["response"], found["logs"]) == (composite["response"], composite["logs"])
    assert api.run("line", {"n": 2}) == {"n": 2}


def test_traces_vanish_whatever_runs_when_the_server_is_killed(place: Place) -> None:
    server = place.start(pool__pause_grace_s=0.1)
    api = Api(server.url)
    api.action("idle", "def main(p): return {}", PYTHON)
    api.run("idle")
    daemon = """
import os, signal, time
def main(p):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: os.execv('/usr/bin/sleep', ['sleep', '60'])
            os._exit(0)
    time.sleep(60)
"""
    api.action("daemon", daemon, PYTHON)
    api.action("hangs", HANGING, PYTHON)
    accept(api, "daemon")
    accept(api, "hangs")
    await_sleepers(server, 4)
    place.kill(server)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="programs are copied on x86-64 alone")
def test_what_containers_are_copies_of_ends_with_the_server_that_is_killed(place: Place) -> None:
    server = place.start(pool__stem_cells=0, driver="fork")
    api = Api(server.url)
    api.action("script", "function main () { return {} }", "nodejs:20")
    api.run("script")
    until(lambda: "visp-zygote" in [seen.name for seen in standing(server.pid)], what="none stands")
    templates = standing(server.pid)
    place.kill(server)
    until(lambda: not [seen for seen in templates if seen.lives], GONE_S)


# ── SIGTERM ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stop_lets_running_work_finish(place: Place) -> None:
    server = place.start(pool__memory_mb=1024, pool__stem_cells=0)
    api = Api(server.url)
    api.action("slow", sleeping(0.7), PYTHON)
    blocking = [in_background(lambda n=n: api.invoke("slow", {"n": n})) for n in range(2)]
    accepted = accept(api, "slow", 7)
    await_sleepers(server, 3)
    processes = below(server.pid)
    assert server.stop(signal.SIGTERM) == 0
    answers = [future.result(10) for future in blocking]
    assert [(answer.status, answer.json["response"]["result"]) for answer in answers] == [
        (200, {"n": 0}),
        (200, {"n": 1}),
    ]
    assert not [seen.command for seen in processes if seen.lives]
    assert place.traces.left() == []
    with pytest.raises(ConnectionRefusedError):
        api.get("/ping")

    api = Api(place.start().url)
    assert api.record(accepted)["response"]["result"] == {"n": 7}
    for answer in answers:
        assert api.record(answer.json["activationId"])["response"] == answer.json["response"]


def test_stop_leaves_what_has_not_begun_to_the_next_start(place: Place) -> None:
    server = place.start(*TRUSTING, pool__memory_mb=256, pool__stem_cells=0, http__shutdown_s=0.2)
    api = Api(server.url)
    api.action("slow", sleeping(60), PYTHON)
    api.action("counted", effective(place), PYTHON)
    slow = accept(api, "slow")
    await_sleepers(server, 1)
    ids = [accept(api, "counted", n) for n in range(5)]
    assert server.stop(signal.SIGTERM) == 0
    assert place.traces.left() == []

    api = Api(place.start(*TRUSTING).url)
    for n, id in enumerate(ids):
        assert stored(api, id)["response"]["result"] == {"n": n}
    assert place.counted() == Counter(ids)
    assert stored(api, slow)["response"]["result"] == {"error": INTERRUPTED}


def test_stop_while_an_init_hangs(place: Place) -> None:
    server = place.start(http__shutdown_s=0.2)
    api = Api(server.url)
    api.action("hangs", HANGING, PYTHON)
    id = accept(api, "hangs")
    blocking = in_background(lambda: api.invoke("hangs"))
    await_sleepers(server, 2)
    assert server.stop(signal.SIGTERM) == 0
    detached = blocking.result(10)
    assert detached.status == 202  # it became accepted work, whose record says what became of it
    assert place.traces.left() == []
    api = Api(place.start().url)
    for ended in (id, detached.json["activationId"]):
        assert stored(api, ended)["response"]["result"] == {"error": INTERRUPTED}


# ── where it cannot start ───────────────────────────────────────────────────────────────────────────────────────


def refused(*flags: str) -> tuple[int, str]:
    """Exit status and words of a server that must not come up."""
    ended = subprocess.run(
        [sys.executable, "-m", "visp", "start", *flags], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def test_second_server_on_a_data_folder_is_refused_and_harms_nothing(place: Place) -> None:
    server = place.start(pool__stem_cells=0)
    api = Api(server.url)
    api.action("slow", sleeping(0.5), PYTHON)
    running_on = in_background(lambda: api.invoke("slow", {"n": 1}))
    await_sleepers(server, 1)
    cells = ("--set", f"container.cells_dir={place.folder / 'cells'}")
    status, said = refused("--port", "0", "--data-dir", str(place.data_dir), *cells)
    assert status == 1
    assert "another server uses" in said
    assert "--data-dir" in said
    assert running_on.result(10).status == 200
    assert api.run("slow", {"n": 2}) == {"n": 2}


def test_port_in_use(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = refused("--port", str(port), "--data-dir", str(place.data_dir))
    assert status == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said


def test_settings_that_cannot_be_read(place: Place) -> None:
    broken = place.folder / "visp.toml"
    broken.write_text("[pool\n")
    for flags, word in (
        (("--config", str(broken)), "is no TOML"),
        (("--config", str(place.folder / "absent.toml")), "cannot be read"),
        (("--set", "pool.no_such=1"), "pool.no_such"),
        (("--set", "pool.idle_s=soon"), "pool.idle_s"),
    ):
        status, said = refused("--port", "0", "--data-dir", str(place.data_dir), *flags)
        assert status in (1, 2)
        assert word in said
    assert not place.data_dir.exists()


def test_data_folder_that_cannot_be_used(place: Place) -> None:
    in_the_way = place.folder / "file"
    in_the_way.write_text("")
    status, said = refused("--port", "0", "--data-dir", str(in_the_way / "data"))
    assert status == 1
    assert f"the data folder {in_the_way / 'data'} cannot be used: Not a directory" in said
    assert "--data-dir" in said


# ── a full disk ─────────────────────────────────────────────────────────────────────────────────────────────────

DISK_MB = 24
_MOUNT = 'mount -t tmpfs -o size="$1"m tmpfs "$2" && echo mounted && exec sleep 600'

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs uid 0")


class SmallDisk:
    """A mount namespace in which the data folder of a place is a small disk, and servers that live in it."""

    def __init__(self, place: Place, holder: int) -> None:
        self._place = place
        self._holder = holder
        self.folder = Path(f"/proc/{holder}/root{place.data_dir}")

    @contextmanager
    def serving(self, *flags: str) -> Iterator[Api]:
        """A server in the namespace; it must end well."""
        argv = ["nsenter", f"--mount=/proc/{self._holder}/ns/mnt", sys.executable, "-m", "visp", "start"]
        argv += ["--port", "0", "--data-dir", str(self._place.data_dir)]
        argv += ["--set", f"container.cells_dir={self._place.folder / 'cells'}", *flags]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout is not None
                yield Api(json.loads(process.stdout.readline())["url"])
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()

    def fill(self) -> None:
        with (self.folder / "filling").open("wb", buffering=0) as filling:
            for piece in (bytes(65536), b"x"):
                with suppress(OSError):
                    while True:
                        filling.write(piece)

    def free(self) -> None:
        (self.folder / "filling").unlink()


@pytest.fixture
def disk(place: Place) -> Iterator[SmallDisk]:
    place.data_dir.mkdir()
    argv = ["unshare", "-m", "sh", "-c", _MOUNT, "sh", str(DISK_MB), str(place.data_dir)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"mounted\n":
                pytest.skip("no mount namespace can be made here")
            yield SmallDisk(place, holder.pid)
        finally:
            holder.kill()


def accept_until_refused(api: Api, name: str, text: str) -> list[str]:
    """Ids of what was accepted before the disk was said to be full."""
    given: list[str] = []
    while (answer := api.invoke(name, {"text": text}, "")).status == 202:
        given.append(answer.json["activationId"])
        assert len(given) < 5000, "the disk is full and nothing says so"
    assert answer.status == 507, answer
    assert "disk" in answer.json["error"]
    return given


@needs_mounts
def test_full_disk_refuses_new_work_and_recovers(disk: SmallDisk) -> None:
    with disk.serving("--set", "ledger.segment_bytes=2097152") as api:
        api.action("echo", "def main(p): return p", PYTHON)
        api.action("slow", sleeping(1), PYTHON)
        kept = api.invoke("echo", {"n": 1}).json
        running_on = in_background(lambda: api.invoke("slow", {"n": 5}))
        disk.fill()
        # a quarter of a segment is kept for what runs: enough for many such results
        given = accept_until_refused(api, "echo", "x" * 2_000)
        assert api.invoke("echo").status == 507
        assert api.request("PUT", "triggers/new", {}).status in (200, 507)
        assert api.get("actions/echo").status == 200
        assert api.record(kept["activationId"])["response"] == kept["response"]
        ended = running_on.result(20)
        assert ended.status == 200
        assert ended.json["response"]["result"] == {"n": 5}

        disk.free()
        until(lambda: api.invoke("echo", {"n": 2}).status == 200, 10.0, "it does not recover")
        for id in given:
            assert stored(api, id)["response"]["status"] == "success"
    with disk.serving("--set", "ledger.segment_bytes=262144") as api:
        for answer in (kept, ended.json):
            assert api.record(answer["activationId"])["response"] == answer["response"]
        assert all(api.get(f"activations/{id}").status == 200 for id in given)
        assert api.run("echo", {"n": 3}) == {"n": 3}


@needs_mounts
def test_disk_that_has_no_room_for_outcomes_loses_no_activation(disk: SmallDisk) -> None:
    """More is under way than what was kept free can hold: what has no record yet gets one at the next start."""
    with disk.serving("--set", "ledger.segment_bytes=262144") as api:
        api.action("echo", "def main(p): return p", PYTHON)
        api.run("echo")
        disk.fill()
        given = accept_until_refused(api, "echo", "x" * 20_000)
        assert api.get("actions/echo").status == 200
        disk.free()
    with disk.serving("--set", "ledger.segment_bytes=262144") as api:
        for id in given:
            assert stored(api, id)["response"]["status"] in ("success", "whisk internal error")
        listed = [entry["activationId"] for entry in api.get("activations?limit=200").json]
        assert len(listed) == len(set(listed))
        assert set(given) <= set(listed)


def test_port_is_the_one_that_was_said(place: Place) -> None:
    server = place.start()
    assert urlsplit(server.url).hostname == "127.0.0.1"
    assert Api(server.url).get("/ping").status == 200
