"""Servers that are stopped, hurried and replaced while clients call: no request fails, nothing is lost or run twice."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.system import places
from tests.system.callers import AUTH, Callers, Line, close_all
from tests.system.conftest import Api, has_sandbox
from tests.system.places import TRUSTING
from tests.system.traces import below, stored, traces_of, until

from visp.client import running
from visp.client.running import NotReady, Server

pytestmark = pytest.mark.slow  # every test starts a server, most of them several

PYTHON = "python:3.11"
TAKEOVER = (*TRUSTING, "--takeover")
SOON_S = 3.0
"""A hurried server gives its callers 2 s at most."""
INTERRUPTED = "The platform was stopped while the action was running"


class Place(places.Place):
    def serve(self, **settings: Any) -> Server:
        """A server with an action that shows outside that it ran, and sleeps for `s` seconds."""
        server = self.start(*TRUSTING, **settings)
        code = (
            f"import os, time\ndef main(p):\n"
            f"  with open({str(self.effects)!r}, 'a') as file: file.write(os.environ['__OW_ACTIVATION_ID'] + '\\n')\n"
            f"  time.sleep(p.get('s', 0.005))\n  return {{'n': p.get('n')}}"
        )
        Api(server.url).action("counted", code, PYTHON)
        assert Line(server.url).invoke("counted", {}).status == 200
        self.effects.unlink()
        return server

    @contextlib.contextmanager
    def asking(self, *flags: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A new server on its way, whatever becomes of it; it ends with the block."""
        named = {"container__cells_dir": self.folder / "cells"} | settings
        argv = [sys.executable, "-m", "visp", "start", "--port", "0", "--data-dir", str(self.data_dir), *flags]
        environ = {f"VISP_{name.upper()}": str(value) for name, value in named.items()}
        with subprocess.Popen(
            argv, env=os.environ | environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as new:
            try:
                yield new
            finally:
                new.kill()

    def check_each_once(self, url: str, given: list[str], interrupted: tuple[int, int] = (0, 0)) -> None:
        """Every id that a client was given has one record, and ran once; so many were cut off, at least and at most."""
        assert len(set(given)) == len(given)
        records = [stored(Api(url), id, 30.0) for id in given]
        said = Counter(str(record["response"]["result"].get("error", ""))[: len(INTERRUPTED)] for record in records)
        assert interrupted[0] <= said.pop(INTERRUPTED, 0) <= interrupted[1]
        assert set(said) <= {""}, said
        ran = self.counted()
        assert {ran[id] for id in given} <= ({0, 1} if interrupted[1] else {1})  # cut off, perhaps before it began


@pytest.fixture
def place() -> Iterator[Place]:
    with places.opened(Place) as place:
        yield place
        close_all()


def has_said(server: Server, event: str) -> bool:
    return event in server.read_log()


def refused(place: Place, *flags: str, **settings: Any) -> str:
    """What a new server says that must not come up."""
    with pytest.raises(NotReady) as caught:
        place.start(*flags, **settings)
    return str(caught.value)


# ── a stop ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_answers_what_is_in_flight_and_leaves_what_waits_to_the_next_start(workers: int, place: Place) -> None:
    server = place.serve(workers=workers, pool__memory_mb=512 * workers)
    lines = [Line(server.url) for _ in range(4)]
    for line in lines:
        line.send("actions/counted?blocking=true", {"s": 0.8})
    until(lambda: place.effects.exists())
    accepted = [Line(server.url).invoke("counted", {"n": n}, "").json["activationId"] for n in range(60)]
    server.process.send_signal(signal.SIGTERM)
    answers = [line.answer() for line in lines]
    assert [answer.status for answer in answers] == [200] * 4
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert server.process.wait(20) == 0
    assert has_said(server, "stop.waits")
    assert "at_most_s=" in server.read_log()
    assert not has_said(server, "stop.hurries")
    again = place.start(*TRUSTING, workers=workers)
    place.check_each_once(again.url, accepted + [answer.json["activationId"] for answer in answers])


def test_an_idle_connection_is_answered_once_more_before_it_is_closed(place: Place) -> None:
    server = place.serve()
    used, unused = Line(server.url), Line(server.url)
    assert used.invoke("counted", {}).status == 200
    unused.connection.connect()
    slow = Line(server.url)
    slow.send("actions/counted?blocking=true", {"s": 2})
    until(lambda: len(place.counted()) == 2)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: has_said(server, "stop.begun"))
    answers = [line.invoke("counted", {"n": 7}) for line in (used, unused)]
    assert [(answer.status, answer.headers["connection"]) for answer in answers] == [(200, "close")] * 2
    assert not used.is_open
    with pytest.raises(ConnectionRefusedError):
        Line(server.url).invoke("counted", {})
    assert slow.answer().status == 200
    assert server.process.wait(20) == 0


@pytest.mark.parametrize(("why", "workers"), [("a second signal", 1), ("the time is over", 2)])
def test_a_hurried_stop_tells_every_caller_where_to_ask(why: str, workers: int, place: Place) -> None:
    """What runs is cut off, which its record says; what waits runs at the next start."""
    bound_s = 0.7 if why == "the time is over" else 60
    memory_mb = 512 if workers == 1 else 2048  # of several shards any may be given all: then nothing need wait
    server = place.serve(workers=workers, pool__memory_mb=memory_mb, http__shutdown_s=bound_s)
    sequence = {"exec": {"kind": "sequence", "components": ["/_/counted"]}}
    assert Api(server.url).request("PUT", "actions/composed", sequence).status == 200
    composed = Line(server.url)
    composed.send("actions/composed?blocking=true", {"s": 60})
    until(lambda: place.counted().total() == 1)
    lines = [Line(server.url) for _ in range(5 * workers)]
    for n, line in enumerate(lines):
        line.send("actions/counted?blocking=true", {"s": 60} if n < workers else {"n": n})
        if n < workers:
            until(lambda n=n: place.counted().total() == n + 2)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    if why == "a second signal":
        until(lambda: has_said(server, "stop.begun"))
        server.process.send_signal(signal.SIGINT)
    answers = [line.answer() for line in lines]
    of_sequence = composed.answer()
    assert server.process.wait(20) == 0
    assert time.monotonic() - began < SOON_S + (bound_s if why == "the time is over" else 0)
    assert f'reason="{why}"' in server.read_log()
    assert not has_said(server, "stop.cut")
    assert not below(server.pid)
    assert {answer.status for answer in (*answers, of_sequence)} <= {200, 202}
    assert of_sequence.status == 202
    cut = (workers, workers if workers == 1 else len(answers))
    again = place.start(*TRUSTING, workers=workers)
    place.check_each_once(again.url, [answer.json["activationId"] for answer in answers], interrupted=cut)
    record = stored(Api(again.url), of_sequence.json["activationId"], 30.0)
    assert record["response"]["result"]["error"].startswith(INTERRUPTED)


def test_a_third_signal_ends_the_process_and_nothing_of_it_stays(place: Place) -> None:
    server = place.serve()
    line = Line(server.url)
    line.connection.connect()
    line.connection.sock.sendall(b"POST /api/v1/namespaces/_/actions/counted HTTP/1.1\r\n")  # never more of it
    until(lambda: below(server.pid))
    tree = below(server.pid)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: has_said(server, "stop.waits"))
    server.process.send_signal(signal.SIGTERM)
    until(lambda: has_said(server, "stop.hurries"))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 130
    until(lambda: not [seen for seen in tree if seen.lives])


# ── a takeover ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("workers", [(1, 1), (1, 2, 1)], ids=str)
def test_servers_replace_one_another_and_no_request_fails(workers: tuple[int, ...], place: Place) -> None:
    server = place.serve(workers=workers[0])
    idle = Line(server.url)
    assert idle.invoke("counted", {}).status == 200
    never_used = Line(server.url)
    never_used.connection.connect()
    with Callers(server.url, "counted") as callers:
        for count in workers[1:]:
            so_far = len(callers.given)
            until(lambda so_far=so_far: len(callers.given) > so_far + 50, 30.0)
            new = place.start(*TAKEOVER, workers=count)
            assert new.url == server.url
            assert server.process.wait(10) == 0
            assert has_said(server, "handover.done")
            server = new
        so_far = len(callers.given)
        until(lambda: len(callers.given) > so_far + 50, 30.0)
    assert callers.failed == []
    assert callers.closed == 0, "connections change hands: none is closed"
    assert idle.invoke("counted", {}).status == never_used.invoke("counted", {}).status == 200
    place.check_each_once(server.url, callers.given)


def test_the_sandbox_of_the_old_server_is_gone_before_the_new_one_makes_its_own(place: Place) -> None:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    server = place.start()
    Api(server.url).action("counted", "def main(p): return {'n': p.get('n')}", PYTHON)
    with Callers(server.url, "counted") as callers:
        until(lambda: len(callers.given) > 50, 30.0)
        tree = below(server.pid)
        new = place.start("--takeover")
        assert server.process.wait(10) == 0
        so_far = len(callers.given)
        until(lambda: len(callers.given) > so_far + 50, 30.0)
        until(lambda: not [seen for seen in tree if seen.lives])
    assert callers.failed == []
    records = [stored(Api(new.url), id, 30.0) for id in callers.given]
    assert {record["response"]["status"] for record in records} == {"success"}
    assert new.stop() == 0
    until(lambda: not traces_of(new).left(), what=traces_of(new).left)


def test_a_takeover_leaves_what_waits_to_the_new_server_and_lets_what_runs_end(place: Place) -> None:
    server = place.serve(pool__memory_mb=256)
    running = Line(server.url)
    running.send("actions/counted?blocking=true", {"s": 5.0})
    until(lambda: place.counted().total() == 1)
    accepted = [Line(server.url).invoke("counted", {"n": n}, "").json["activationId"] for n in range(100)]
    new = place.start(*TAKEOVER)
    answer = running.answer()
    assert answer.status == 200
    assert place.counted()[answer.json["activationId"]] == 1
    assert server.process.wait(10) == 0
    place.check_each_once(new.url, accepted)
    assert "resumed=100" in new.read_log()


def test_a_request_that_is_half_sent_is_answered_by_the_old_server(place: Place) -> None:
    server = place.serve()
    line = Line(server.url)
    line.connection.connect()
    body = b"{}"
    head = (
        "POST /api/v1/namespaces/_/actions/counted?blocking=true HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: {AUTH}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    line.connection.sock.sendall(head[:50])
    with place.asking(*TAKEOVER) as new:
        until(lambda: has_said(server, "stop.waits"))
        line.connection.sock.sendall(head[50:] + body)
        got = line.connection.sock.recv(65536)
        assert got.startswith(b"HTTP/1.1 200")
        assert server.process.wait(10) == 0
        line.connection.sock.sendall(head + body)  # on the same connection, which is the new server's by now
        assert line.connection.sock.recv(65536).startswith(b"HTTP/1.1 200")
        _end(new)


def test_a_takeover_where_no_server_runs_is_a_start(place: Place) -> None:
    server = place.start(*TAKEOVER)
    assert Api(server.url).get("/ping").status == 200
    server.stop(signal.SIGKILL)
    assert Api(place.start(*TAKEOVER).url).get("/ping").status == 200


def test_without_the_flag_a_second_server_is_refused_and_told_of_it(place: Place) -> None:
    server = place.serve()
    assert "--takeover" in refused(place, *TRUSTING)
    assert Line(server.url).invoke("counted", {}).status == 200


def test_only_the_server_s_own_user_may_take_it_over(place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user is needed, which only root can be")
    with tempfile.TemporaryDirectory(prefix="visp-user-") as folder:
        os.chown(folder, 64_123, 64_123)
        data = Path(folder) / "data"
        try:
            server = running.start(data, flags=TRUSTING, user=64_123)
        except NotReady:
            pytest.skip("a normal user cannot reach this Python, or the project")
        try:
            assert (data / "handover.sock").stat().st_mode & 0o777 == 0o600
            with pytest.raises(NotReady, match="belongs to the user with uid 64123"):
                running.start(data, flags=TAKEOVER)
            assert Api(server.url).get("/ping").status == 200
        finally:
            server.stop()
            server.log.unlink()


# ── a takeover that fails ───────────────────────────────────────────────────────────────────────────────────────


def test_what_can_be_known_before_costs_the_running_server_nothing(place: Place) -> None:
    server = place.serve()
    with Callers(server.url, "counted") as callers:
        assert "no driver is called" in refused(place, *TAKEOVER, "--driver", "nonsense")
        assert "cannot be read" in refused(place, *TAKEOVER, manifest="/nowhere.json")
        assert "--takeover keeps the address" in refused(place, *TAKEOVER, "--port", "1")
        with contextlib.closing(sqlite3.connect(place.data_dir / "entities.db")) as file:
            (version,) = file.execute("PRAGMA user_version").fetchone()
            file.execute("PRAGMA user_version = 999")
            assert "newer visp" in refused(place, *TAKEOVER)
            file.execute(f"PRAGMA user_version = {version}")
        assert not has_said(server, "handover.asked")
    assert callers.failed == []
    assert Line(server.url).invoke("counted", {}).status == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_server_that_dies_before_the_old_one_has_gone_changes_nothing(workers: int, place: Place) -> None:
    server = place.serve(workers=workers)
    idle, slow = Line(server.url), Line(server.url)
    assert idle.invoke("counted", {}).status == 200
    slow.send("actions/counted?blocking=true", {"s": 3})
    until(lambda: place.counted().total() == 2)
    waiting = Line(server.url)
    with place.asking(*TAKEOVER, workers=workers) as new:
        until(lambda: has_said(server, "stop.waits"))
        waiting.send("actions/counted?blocking=true", {"n": 1})  # nobody accepts it now
        idle.send("actions/counted?blocking=true", {"n": 2})  # nobody reads it now
        new.kill()
    until(lambda: has_said(server, "handover.failed"))
    assert [line.answer().status for line in (waiting, idle, slow)] == [200] * 3
    assert server.process.poll() is None
    with Callers(server.url, "counted") as callers:
        new_server = place.start(*TAKEOVER, workers=workers)
    assert callers.failed == []
    place.check_each_once(new_server.url, callers.given)


@pytest.mark.parametrize("workers", [1, 2])
def test_when_the_new_server_s_containers_are_not_possible_the_old_one_comes_back(workers: int, place: Place) -> None:
    """It had gone by then, and opens its stores again: what was accepted is there."""
    server = place.serve(workers=workers)
    idle = Line(server.url)
    assert idle.invoke("counted", {}).status == 200
    accepted = [Line(server.url).invoke("counted", {"n": n}, "").json["activationId"] for n in range(20)]
    with place.asking("--driver", "bwrap", "--takeover", workers=workers, container__cells_dir="/proc/no") as new:
        assert new.wait(30) == 1
    until(lambda: has_said(server, "handover.failed"))
    until(lambda: Line(server.url).invoke("counted", {}).status == 200, 20.0)
    assert server.process.poll() is None
    place.check_each_once(server.url, accepted)
    new_server = place.start(*TAKEOVER, workers=workers)
    assert server.process.wait(10) == 0
    assert Line(new_server.url).invoke("counted", {}).status == 200


# ── sockets of a service manager ────────────────────────────────────────────────────────────────────────────────

ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "visp", "start", *sys.argv[2:]])
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_given_socket_outlives_its_servers_and_who_waits_there_is_answered(workers: int, place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        flags = ["--data-dir", str(place.data_dir), "--workers", str(workers), *TRUSTING]
        argv = [sys.executable, "-c", ACTIVATED, str(listener.fileno()), *flags]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(2):
                # asked before anybody serves, all the same
                asked = [pool.submit(Api(url).get, "/ping") for _ in range(8)]
                with subprocess.Popen(
                    argv, pass_fds=(listener.fileno(),), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                ) as server:
                    assert server.stdout is not None
                    assert f'"{url}"'.encode() in server.stdout.readline()
                    assert [answer.result().status for answer in asked] == [200] * 8
                    _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
