"""Servers of several shards: one server to whoever asks, and no loss when a shard, or all of them, are killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.system import places
from tests.system.conftest import GUEST, Answer, Api
from tests.system.places import TRUSTING
from tests.system.traces import below, shards_of, stored, until

from visp.client import running
from visp.client.running import Server
from visp.entity.activation import shard_of

pytestmark = pytest.mark.slow  # servers of several processes are started, and killed

PYTHON = "python:3.11"
ECHO = "def main(p): return p"
FROM_MINUTE_S = 10.0


class Place(places.Place):
    def start_shards(self, workers: int, **settings: Any) -> Server:
        return self.start(*TRUSTING, workers=workers, **settings)

    def counting(self, seconds: float = 0.0) -> str:
        """Code that shows outside that it ran, under its activation's id."""
        return (
            f"import os, time\ndef main(p):\n"
            f"  with open({str(self.effects)!r}, 'a') as file: file.write(os.environ['__OW_ACTIVATION_ID'] + '\\n')\n"
            f"  time.sleep({seconds})\n  return {{'n': p.get('n')}}"
        )


@pytest.fixture
def place() -> Iterator[Place]:
    with places.opened(Place) as place:
        yield place


@pytest.fixture(scope="module", params=[2, 3])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that only asks and answers."""
    with running.running({"workers": request.param, "pool.stem_cells": 0}, flags=TRUSTING) as server:
        Api(server.url).action("echo", ECHO, PYTHON)
        yield server


OPENED: list[Line] = []


@pytest.fixture(autouse=True)
def closed_lines() -> Iterator[None]:
    """Whatever a test opened is closed behind it."""
    yield
    while OPENED:
        OPENED.pop().close()


class Line:
    """One connection, which ends at one shard."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        OPENED.append(self)
        found = re.search(rb'shard="(\d+)"', self.request("GET", "/metrics").body)
        assert found is not None
        self.shard = int(found[1])

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {"Authorization": "Basic " + b64encode(GUEST.encode()).decode(), "Content-Type": "application/json"}
        target = path if path.startswith("/") else f"/api/v1/namespaces/_/{path}"
        self._connection.request(method, target, None if body is None else json.dumps(body), headers)
        got = self._connection.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())

    def close(self) -> None:
        self._connection.close()


def lines(url: str, workers: int) -> dict[int, Line]:
    """A connection to each shard."""
    found: dict[int, Line] = {}

    def look() -> bool:
        try:
            line = Line(url)
        except (OSError, HTTPException):
            return False  # of a shard that is being killed, or all are
        found.setdefault(line.shard, line)
        return len(found) == workers

    until(look)
    return found


def count_of(server: Server) -> int:
    return len(shards_of(server))


# ── one server to whoever asks ──────────────────────────────────────────────────────────────────────────────────


def test_every_connection_reads_what_any_other_wrote(server: Server) -> None:
    every = lines(server.url, count_of(server))
    for n in range(60):
        writer = every[n % len(every)]
        parameters = {"parameters": [{"key": "n", "value": n}]}
        assert writer.request("PUT", "triggers/written?overwrite=true", parameters).status == 200
        for line in every.values():
            assert line.request("GET", "triggers/written").json["parameters"] == parameters["parameters"]
    for line in every.values():
        assert line.request("DELETE", "triggers/written").status in (200, 404)
        assert [other.request("GET", "triggers/written").status for other in every.values()] == [404] * len(every)


def test_every_connection_runs_the_newest_code(server: Server) -> None:
    every = lines(server.url, count_of(server))
    for n in range(8):
        body = {"exec": {"kind": PYTHON, "code": f"def main(p): return {{'n': {n}}}"}}
        assert every[n % len(every)].request("PUT", "actions/changing?overwrite=true", body).status == 200
        for line in every.values():
            assert line.request("POST", "actions/changing?blocking=true&result=true", {}).json == {"n": n}


def test_two_writers_of_one_entity_do_not_overwrite_one_another(server: Server) -> None:
    """Every answered change is in the version that is left: who loses the race hears so."""
    every = list(lines(server.url, count_of(server)).values())
    assert every[0].request("PUT", "triggers/raced?overwrite=true", {}).status == 200

    def write(line: Line) -> int:
        statuses = [line.request("PUT", "triggers/raced?overwrite=true", {}).status for _ in range(40)]
        assert set(statuses) <= {200, 409}
        return statuses.count(200)

    with ThreadPoolExecutor(len(every)) as pool:
        written = sum(pool.map(write, every))
    versions = {line.request("GET", "triggers/raced").json["version"] for line in every}
    assert versions == {f"0.0.{1 + written}"}


def test_lists_are_those_of_all_shards_together(server: Server) -> None:
    every = list(lines(server.url, count_of(server)).values())
    assert every[0].request("PUT", "actions/listed", {"exec": {"kind": PYTHON, "code": ECHO}}).status in (200, 409)
    before = every[0].request("GET", "activations?name=listed&count=true").json["activations"]
    ids = []
    for n in range(30):
        answer = every[n % len(every)].request("POST", "actions/listed?blocking=true", {"n": n})
        ids.append(answer.json["activationId"])
    assert {shard_of(id) for id in ids} == set(range(len(every)))
    for line in every:
        listed = line.request("GET", "activations?name=listed&limit=200").json
        assert {entry["activationId"] for entry in listed} >= set(ids)
        starts = [(entry["start"], entry["activationId"]) for entry in listed]
        assert starts == sorted(starts, reverse=True)
        pages = [
            entry["activationId"]
            for skip in range(0, 30, 7)
            for entry in line.request("GET", f"activations?name=listed&limit=7&skip={skip}").json
        ]
        assert pages == [id for _, id in starts][: len(pages)]
        assert line.request("GET", "activations?name=listed&count=true").json == {"activations": before + 30}
        assert line.request("GET", "activations?name=listed&count=true&skip=10").json == {"activations": before + 20}
        full = line.request("GET", "activations?name=listed&limit=3&docs=true").json
        assert [entry["activationId"] for entry in full] == [id for _, id in starts][:3]
        for id in ids:
            assert line.request("GET", f"activations/{id}").json["response"]["status"] == "success"
        assert line.request("GET", f"activations/{ids[0][:12]}3f{ids[0][14:]}").status == 404


def test_triggers_and_sequences_work_on_every_connection(server: Server) -> None:
    every = lines(server.url, count_of(server))
    some = every[0]
    sequence = {"exec": {"kind": "sequence", "components": ["/_/echo", "/_/echo"]}}
    assert some.request("PUT", "actions/twice?overwrite=true", sequence).status == 200
    assert some.request("PUT", "triggers/event?overwrite=true", {}).status == 200
    rule = {"trigger": "/_/event", "action": "/_/twice"}
    assert some.request("PUT", "rules/on?overwrite=true", rule).status == 200
    api = Api(server.url)
    for line in every.values():
        composite = line.request("POST", "actions/twice?blocking=true", {"n": 1}).json
        assert composite["response"]["result"] == {"n": 1}
        for id in composite["logs"]:
            assert stored(api, id)["cause"] == composite["activationId"]
        fired = stored(api, line.request("POST", "triggers/event", {"n": 2}).json["activationId"])
        child = json.loads(fired["logs"][0])["activationId"]
        assert shard_of(child) == shard_of(fired["activationId"]) == line.shard
        assert stored(api, child)["response"]["result"]["n"] == 2
        id = line.request("POST", "actions/twice", {"n": 3}).json["activationId"]
        assert stored(api, id)["response"]["result"] == {"n": 3}


def test_a_call_falls_back_and_is_found_wherever_it_runs(server: Server) -> None:
    every = lines(server.url, count_of(server))
    code = "import time\ndef main(p):\n  time.sleep(0.6)\n  return p"
    assert (
        every[0].request("PUT", "actions/late?overwrite=true", {"exec": {"kind": PYTHON, "code": code}}).status == 200
    )
    for line in every.values():
        answer = line.request("POST", "actions/late?blocking=true&timeout=100", {"n": 1})
        assert answer.status == 202
        assert stored(Api(server.url), answer.json["activationId"])["response"]["result"] == {"n": 1}


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────


def early_in_a_minute() -> bool:
    return time.time() % 60 < 60 - FROM_MINUTE_S


def test_a_limit_of_a_minute_is_exact_over_all_shards(place: Place) -> None:
    server = place.start_shards(2, limits__invocations_per_minute=60, limits__fires_per_minute=20)
    Api(server.url).action("echo", ECHO, PYTHON)
    Api(server.url).request("PUT", "triggers/event", {})
    until(early_in_a_minute, FROM_MINUTE_S + 1)

    def attempt(_: int) -> tuple[Counter[int], Counter[int]]:
        line = Line(server.url)
        invoked = Counter(line.request("POST", "actions/echo?blocking=true", {}).status for _ in range(20))
        return invoked, Counter(line.request("POST", "triggers/event", {}).status for _ in range(6))

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(attempt, range(8)))
    assert sum((invoked for invoked, _ in seen), Counter()) == {200: 60, 429: 100}
    assert sum((fired for _, fired in seen), Counter()) == {204: 20, 429: 28}


def test_a_limit_of_what_runs_at_once_is_exact_over_all_shards(place: Place) -> None:
    server = place.start_shards(2, limits__concurrent_invocations=3, pool__memory_mb=4096)
    every = lines(server.url, 2)
    code = "import time\ndef main(p):\n  time.sleep(p['for'])\n  return p"
    Api(server.url).action("slow", code, PYTHON)
    for line in every.values():  # it is in memory on both: what is counted and begun is then one step
        assert line.request("POST", "actions/slow?blocking=true", {"for": 0}).status == 200

    def call(n: int) -> int:
        return Line(server.url).request("POST", "actions/slow?blocking=true", {"for": 1.5}).status

    with ThreadPoolExecutor(10) as pool:
        assert Counter(pool.map(call, range(10))) == {200: 3, 429: 7}
    for line in every.values():  # the places are free again, wherever they were lent to
        until(lambda line=line: line.request("POST", "actions/slow?blocking=true", {"for": 0}).status == 200)


# ── the end of a shard ──────────────────────────────────────────────────────────────────────────────────────────


class Load:
    """Accepts work on many connections, and remembers every id that was given."""

    def __init__(self, url: str, callers: int = 6) -> None:
        self._api = Api(url)
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]
        self.given: list[str] = []
        self.answered: dict[str, Any] = {}
        self.refused: list[BaseException] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        n = 0
        while not self._is_over.is_set():
            n += 1
            try:
                answer = self._api.invoke("counted", {"n": n}, "" if n % 2 else "blocking=true")
            except ConnectionRefusedError as error:
                self.refused.append(error)
            except (HTTPException, OSError):
                continue  # it was the connection of the shard that was killed
            else:
                if answer.status in (200, 202):
                    self.given.append(answer.json["activationId"])
                    if answer.status == 200:
                        self.answered[answer.json["activationId"]] = answer.json["response"]
                else:
                    assert answer.status in (500, 503), answer
                    assert "x-openwhisk-activation-id" not in answer.headers


@pytest.mark.parametrize("victim", [0, 1])
def test_a_shard_that_is_killed_loses_nothing_and_comes_back(victim: int, place: Place) -> None:
    server = place.start_shards(2, pool__memory_mb=2048)
    api = Api(server.url)
    api.action("counted", place.counting(0.02), PYTHON)
    with Load(server.url) as load:
        for _ in range(3):
            count = len(load.given)
            until(lambda count=count: len(load.given) > count + 40)
            pid = shards_of(server)[victim]
            os.kill(pid, signal.SIGKILL)
            count = len(load.given)
            until(lambda count=count: len(load.given) > count + 20, what="the other shard does not answer")
            until(lambda pid=pid: shards_of(server).get(victim, pid) != pid, what="it is not started again")
            lines(server.url, 2)
    assert load.refused == []
    records = {id: stored(api, id, 30.0) for id in load.given}
    effects = place.counted()
    for id, record in records.items():
        status = record["response"]["status"]
        assert status in ("success", "whisk internal error"), record
        assert effects[id] <= 1, f"{id} ran {effects[id]} times"
        assert effects[id] == 1 or status != "success"
    for id, response in load.answered.items():
        assert records[id]["response"] == response
    assert {shard_of(id) for id in records} == {0, 1}
    listed: list[str] = []
    while page := api.get(f"activations?limit=200&skip={len(listed)}").json:
        listed += [entry["activationId"] for entry in page]
    assert len(listed) == len(set(listed))
    assert set(records) <= set(listed)
    assert "shard.ended" in server.read_log()


def test_who_waits_for_a_shard_that_is_killed_is_answered_at_once(place: Place) -> None:
    server = place.start_shards(2, pool__memory_mb=512, pool__stem_cells=0)
    api, here = Api(server.url), lines(server.url, 2)[1]
    api.action("slow", "import time\ndef main(p): time.sleep(50)", PYTHON)
    accepted = here.request("POST", "actions/slow", {}).json["activationId"]
    assert shard_of(accepted) == 1
    pids = shards_of(server)
    with ThreadPoolExecutor(1) as pool:  # its own shard has no memory left: it runs on the other
        answer = pool.submit(here.request, "POST", "actions/slow?blocking=true", {})
        until(lambda: below(pids[0]), what="it does not run on the other shard")
        os.kill(pids[0], signal.SIGKILL)
        got = answer.result(10)
    assert got.status == 500
    assert "x-openwhisk-activation-id" not in got.headers
    assert here.request("GET", "/activation/count").json == 1
    until(lambda: shards_of(server).get(0, pids[0]) != pids[0])
    assert api.get("activations?count=true").json == {"activations": 0}


def test_accepted_work_that_was_placed_elsewhere_is_that_shards(place: Place) -> None:
    server = place.start_shards(2, pool__memory_mb=512, pool__stem_cells=0)
    api, here = Api(server.url), lines(server.url, 2)[1]
    api.action("slow", "import time\ndef main(p): time.sleep(50)", PYTHON)
    ids = [here.request("POST", "actions/slow", {}).json["activationId"] for _ in range(2)]
    ids.append(here.request("POST", "actions/slow?blocking=true&timeout=100", {}).json["activationId"])
    assert [shard_of(id) for id in ids[:2]] == [1, 0]
    pids = shards_of(server)
    until(lambda: below(pids[0]) and below(pids[1]))
    for number in (0, 1):
        os.kill(pids[number], signal.SIGKILL)
    until(lambda: len(shards_of(server)) == 2 and not set(pids.values()) & set(shards_of(server).values()))
    lines(server.url, 2)
    for id in ids[:2]:
        assert stored(api, id, 30.0)["response"]["status"] == "whisk internal error"
    assert api.get(f"activations/{ids[2]}").status in (200, 404)  # it waits, or runs by now: nothing is lost of it


def test_writes_wait_for_the_writer_and_nothing_else_does(place: Place) -> None:
    server = place.start_shards(2)
    api = Api(server.url)
    api.action("echo", ECHO, PYTHON)
    reader = lines(server.url, 2)[1]
    assert reader.request("POST", "actions/echo?blocking=true&result=true", {"n": 1}).json == {"n": 1}
    os.kill(shards_of(server)[0], signal.SIGKILL)
    assert reader.request("GET", "actions/echo").status == 200
    written = reader.request("PUT", "triggers/late", {})
    assert written.status in (200, 503)
    until(lambda: reader.request("PUT", "triggers/late?overwrite=true", {}).status == 200)
    assert lines(server.url, 2)[0].request("GET", "triggers/late").status == 200


# ── the whole server ────────────────────────────────────────────────────────────────────────────────────────────


def test_shards_end_with_their_parent_and_another_number_of_them_finds_everything(place: Place) -> None:
    server = place.start_shards(3, pool__memory_mb=1536, pool__stem_cells=0)
    api, every = Api(server.url), lines(server.url, 3)
    api.action("slow", "import time\ndef main(p): time.sleep(60)", PYTHON, limits={"memory": 384})
    api.action("echo", ECHO, PYTHON, limits={"memory": 128})
    api.action("counted", place.counting(), PYTHON)  # on no shard there is room for it
    slow = [every[n].request("POST", "actions/slow", {}).json["activationId"] for n in (0, 1, 2)]
    done = [line.request("POST", "actions/echo?blocking=true", {"n": n}).json for n, line in every.items()]
    pids = shards_of(server)
    assert sorted(map(shard_of, slow)) == [0, 1, 2]
    until(lambda: all(below(pid) for pid in pids.values()))
    waiting = {every[n % 3].request("POST", "actions/counted", {"n": n}).json["activationId"]: n for n in range(12)}
    shards = below(server.pid)
    server.stop(signal.SIGKILL)
    until(lambda: not [seen for seen in shards if seen.lives], 5.0, "shards outlive their parent")

    for workers in (2, 1, 4):
        server = place.start_shards(workers)
        api = Api(server.url)
        for record in done:
            assert api.record(record["activationId"])["response"] == record["response"]
        for id, n in waiting.items():
            assert stored(api, id, 20.0)["response"]["result"] == {"n": n}
        for id in slow:
            assert stored(api, id, 20.0)["response"]["status"] == "whisk internal error"
        listed = [entry["activationId"] for entry in api.get("activations?limit=200").json]
        assert set(listed) == {record["activationId"] for record in done} | set(waiting) | set(slow)
        assert len(listed) == len(set(listed)) == api.get("activations?count=true").json["activations"]
        done.append(api.invoke("echo", {"n": workers}).json)
        assert server.stop() == 0
        assert place.counted() == Counter(list(waiting))


def test_stop_lets_running_work_finish_on_every_shard(place: Place) -> None:
    server = place.start_shards(2, pool__memory_mb=1024)
    api, every = Api(server.url), lines(server.url, 2)
    api.action("slow", "import time\ndef main(p):\n  time.sleep(0.7)\n  return p", PYTHON)
    pids = shards_of(server)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(line.request, "POST", "actions/slow?blocking=true", {}) for line in every.values()]
        until(lambda: sum(len(below(pid)) for pid in pids.values()) >= 2)
        assert server.stop() == 0
        assert [answer.result(10).status for answer in asked] == [200, 200]
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]


def test_a_shard_that_cannot_start_keeps_the_server_from_starting(place: Place) -> None:
    place.data_dir.mkdir(mode=0o700)
    (place.data_dir / "secret").write_text("short")
    with pytest.raises(running.NotReady, match="secret"):
        place.start_shards(2)


@pytest.mark.parametrize(("first", "second"), [(2, 2), (2, 1), (1, 2)])
def test_a_second_server_on_a_data_folder_is_refused(first: int, second: int, place: Place) -> None:
    server = place.start_shards(first)
    with pytest.raises(running.NotReady, match=r"another server uses .* --data-dir"):
        place.start_shards(second)
    assert Api(server.url).get("/ping").status == 200


def test_a_port_that_is_taken_is_refused_also_by_another_server_of_shards(place: Place, server: Server) -> None:
    port = urlsplit(server.url).port
    argv = [sys.executable, "-m", "visp", "start", "--workers", "2", "--port", str(port)]
    ended = subprocess.run(
        [*argv, "--data-dir", str(place.data_dir)], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert ended.stdout == ""


def test_links_take_no_stranger(place: Place) -> None:
    """Below a folder that only the server's user can enter; and what says no hello is sent away."""
    place.start_shards(2)
    folder = place.data_dir / "shards"
    assert place.data_dir.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(folder / "0.sock"))
        stranger.sendall(b"\x02\x00\x00\x00\x01\x01")
        assert stranger.recv(1) == b""
