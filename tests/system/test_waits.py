"""Results later, over HTTP and by the command: long polls, server-sent events, `visp wait`."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.system import places
from tests.system.conftest import GUEST, Answer, Api
from tests.system.places import TRUSTING
from tests.system.traces import until

from visp import premises
from visp.client.running import Server
from visp.controller.identities import Identities
from visp.settings import Limits, Settings
from visp.store.sqlite import SqliteEntities

PYTHON = "python:3.11"
SOON_S = 5.0
"""What is answered at once, or as soon as something has happened, is answered within this."""
EVENTS = {"Accept": "text/event-stream"}
UNKNOWN = "0" * 32
AUTHORIZATION = "Basic " + b64encode(GUEST.encode()).decode()


class Place(places.Place):
    """Runs of `held` end when they are let go."""

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    def start_held(self, *flags: str, **settings: Any) -> Server:
        server = self.start(*TRUSTING, *flags, pool__stem_cells=0, **settings)
        code = (
            "import os, time\n"
            "def main(p):\n"
            f"  while not os.path.exists({str(self.gate)!r}): time.sleep(0.01)\n"
            "  print('said')\n"
            "  return p\n"
        )
        api = Api(server.url)
        api.action("held", code, PYTHON, limits={"memory": 128})
        api.action("echo", "def main(p):\n  print('said')\n  return p", PYTHON, limits={"memory": 128})
        return server

    def let_go(self) -> None:
        self.gate.touch()


@pytest.fixture
def place() -> Iterator[Place]:
    with places.opened(Place) as place:
        yield place


def begin(api: Api, name: str = "held", payload: Any = None) -> str:
    answer = api.invoke(name, payload, "")
    assert answer.status == 202, answer
    id: str = answer.json["activationId"]
    return id


def waiting(url: str) -> int:
    found = re.search(rb"^visp_waits\{[^}]*\} (\S+)$", Api(url).get("/metrics").body, re.MULTILINE)
    assert found is not None
    return round(float(found[1]))


class Stream:
    """Server-sent events as they come: `(event, id, data)`; comments are counted."""

    def __init__(self, url: str, path: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(
            "GET", f"/api/v1/namespaces/_/{path}", headers=EVENTS | {"Authorization": AUTHORIZATION} | named
        )
        self.response = self._connection.getresponse()
        self.comments = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.response.close()
        self._connection.close()

    def next(self) -> tuple[str, str, Any] | None:
        """The next event; None at the end."""
        fields: dict[str, str] = {}
        while line := self.response.readline():
            text = line.decode().rstrip("\n")
            if not text and "event" in fields:
                return fields["event"], fields.get("id", ""), json.loads(fields["data"])
            if text.startswith(":"):
                self.comments += 1
            elif text:
                name, _, value = text.partition(": ")
                fields[name] = value
        return None


# ── one record ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wait_is_answered_when_the_record_is_there(place: Place) -> None:
    server = place.start_held()
    api = Api(server.url)
    id = begin(api, payload={"n": 1})
    paths = (f"activations/{id}", f"activations/{id}/", f"activations/{id}/result", f"activations/{id}/logs")
    early = api.get(f"activations/{id}?wait=0.2")
    assert early.status == 404
    assert early.headers["retry-after"] == "1"
    with ThreadPoolExecutor(len(paths)) as pool:
        asked = [pool.submit(api.get, f"{path}?wait=30") for path in paths]
        until(lambda: waiting(server.url) == len(paths))
        place.let_go()
        answers = [answer.result(SOON_S) for answer in asked]
    for path, answer in zip(paths, answers, strict=True):
        assert answer.status == 200
        assert answer.body == api.get(path).body  # and at once, without any wait
        assert answer.body == api.get(f"{path}?wait=30").body
    assert answers[2].json["result"] == {"n": 1}
    assert "said" in answers[3].json["logs"][0]
    assert waiting(server.url) == 0


def test_what_is_not_there_is_404_to_the_letter_and_says_whether_it_may_come(place: Place) -> None:
    server = place.start_held()
    api = Api(server.url)
    id = begin(api)

    def shape(answer: Answer) -> tuple[int, str, list[str]]:
        return answer.status, answer.json["error"], sorted(answer.json)

    plain = api.get(f"activations/{UNKNOWN}")
    for path in (f"activations/{id}?wait=0", f"activations/{id}", f"activations/{UNKNOWN}?wait=30"):
        assert (
            shape(api.get(path)) == shape(plain) == (404, "The requested resource does not exist.", ["code", "error"])
        )
    assert "retry-after" in api.get(f"activations/{id}?wait=0").headers
    for path in (f"activations/{id}", f"activations/{UNKNOWN}?wait=30"):
        assert "retry-after" not in api.get(path).headers
    assert api.get(f"activations/{id}?wait=soon").status == 400


def test_a_wait_is_no_longer_than_the_setting(place: Place) -> None:
    server = place.start_held(waits__longest_s=0.3)
    api = Api(server.url)
    began_s = time.monotonic()
    assert api.get(f"activations/{begin(api)}?wait=3000").status == 404
    assert time.monotonic() - began_s < SOON_S


def test_records_of_sequences_and_triggers_are_waited_for_too(place: Place) -> None:
    server = place.start_held()
    api = Api(server.url)
    components = ["/_/held", "/_/echo"]
    api.request("PUT", "actions/both", {"exec": {"kind": "sequence", "components": components}})
    api.request("PUT", "triggers/event", {})
    api.request("PUT", "rules/link", {"trigger": "/_/event", "action": "/_/held"})
    fired = api.request("POST", "triggers/event", {"n": 2}).json["activationId"]
    trigger = api.get(f"activations/{fired}?wait=30").json
    child = json.loads(trigger["logs"][0])["activationId"]
    sequence = begin(api, "both", {"n": 3})
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(api.get, f"activations/{id}/result?wait=30") for id in (child, sequence)]
        until(lambda: waiting(server.url) == 2)
        place.let_go()
        assert [answer.result(SOON_S).json["result"]["n"] for answer in asked] == [2, 3]


def test_no_more_wait_than_may(place: Place) -> None:
    server = place.start_held(waits__at_once=1)
    api = Api(server.url)
    id = begin(api)
    with Stream(server.url, "activations") as stream:
        assert stream.response.status == 200
        answer = api.get(f"activations/{id}?wait=30")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "[waits] at_once" in answer.json["error"]
        assert api.get(f"activations/{id}").status == 404
    until(lambda: waiting(server.url) == 0)


async def make_key(data_dir: Path, namespace: str) -> str:
    """Of a server that is yet to start: `uuid:key`."""
    store = await SqliteEntities.open(data_dir / "entities.db")
    identities = Identities(store, premises.read_secret(Settings(), data_dir), Limits(), is_loopback=True)
    key = await identities.ensure(namespace)
    await store.close()
    return str(key)


@pytest.mark.parametrize("workers", [1, 2])
def test_anothers_activation_is_404_at_once_like_one_that_is_nobodys(place: Place, workers: int) -> None:
    place.data_dir.mkdir(mode=0o700)
    other_key = asyncio.run(make_key(place.data_dir, "other"))
    server = place.start_held(workers=workers)
    id = begin(Api(server.url))
    began_s = time.monotonic()
    for _ in range(8):  # connections to every shard
        other = Api(server.url, other_key)
        polled = [other.get(f"activations/{id}{part}?wait=60") for part in ("", "/result")]
        for answer in (*polled, other.request("GET", f"activations/{id}", headers=EVENTS)):
            assert answer.status == 404
            assert answer.json["error"] == "The requested resource does not exist."
            assert "retry-after" not in answer.headers
        assert other.get(f"/api/v1/namespaces/guest/activations/{id}?wait=60").status == 403
    assert time.monotonic() - began_s < SOON_S


class Raw:
    """A request on a socket of its own, whose answer is read later."""

    def __init__(self, url: str, path: str) -> None:
        host = urlsplit(url).netloc
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), 30)
        head = f"GET /api/v1/namespaces/_/{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {AUTHORIZATION}\r\n\r\n"
        self.socket.sendall(head.encode())

    def status(self) -> int:
        with self.socket, self.socket.makefile("rb") as file:
            return int(file.readline().split()[1])


def test_a_thousand_wait_at_once_and_who_goes_away_leaves_nothing_behind(place: Place) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    server = place.start_held()
    api = Api(server.url)
    id = begin(api)
    try:
        gone = [Raw(server.url, f"activations/{id}?wait=60") for _ in range(200)]
        raws = [Raw(server.url, f"activations/{id}?wait=60") for _ in range(1000)]
        until(lambda: waiting(server.url) == 1200)
        for raw in gone:
            raw.socket.close()
        until(lambda: waiting(server.url) == 1000)
        assert api.run("echo", {"n": 1}) == {"n": 1}  # nobody else is kept from anything
        place.let_go()
        began_s = time.monotonic()
        assert {raw.status() for raw in raws} == {200}
        assert time.monotonic() - began_s < SOON_S
        assert waiting(server.url) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_server_that_stops_does_not_wait_for_those_who_wait(place: Place) -> None:
    server = place.start_held()
    api = Api(server.url)
    api.action("brief", "import time\ndef main(p): time.sleep(2)", PYTHON, limits={"memory": 128})
    id = begin(api, "brief")
    with ThreadPoolExecutor(1) as pool, Stream(server.url, "activations") as stream:
        answer = pool.submit(api.get, f"activations/{id}?wait=60")
        until(lambda: waiting(server.url) == 2)
        began_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began_s < 2 + SOON_S
        assert answer.result(SOON_S).status == 404
        assert answer.result().headers["retry-after"] == "1"
        assert stream.next() is None


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_comes_as_an_event_and_ends_the_stream(place: Place) -> None:
    server = place.start_held(waits__heartbeat_s=0.1)
    api = Api(server.url)
    id = begin(api, payload={"text": "line\nline \u2028"})
    with Stream(server.url, f"activations/{id}") as stream, Stream(server.url, f"activations/{id}/result") as result:
        assert stream.response.getheader("Content-Type") == "text/event-stream"
        assert stream.response.getheader("Access-Control-Allow-Origin") == "*"
        time.sleep(0.5)  # nothing happens: what is measured is that something is said all the same
        place.let_go()
        assert stream.next() == ("record", id, api.get(f"activations/{id}?wait=10").json)
        assert stream.next() is None
        assert stream.comments >= 2
        assert result.next() == ("record", id, api.get(f"activations/{id}/result").json)
    with Stream(server.url, f"activations/{id}") as again:
        assert [again.next() is None for _ in range(2)] == [False, True]


def test_what_can_never_come_is_no_stream(server: Server) -> None:
    answer = Api(server.url).request("GET", f"activations/{UNKNOWN}", headers=EVENTS)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")


@pytest.mark.parametrize("accept", ["*/*", "text/*", "application/json", "text/event-streams", ""])
def test_nothing_else_asks_for_events(server: Server, accept: str) -> None:
    answer = Api(server.url).request("GET", "activations?limit=1", headers={"Accept": accept})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


def test_a_namespace_is_followed_and_a_reader_resumes_where_it_was(place: Place) -> None:
    server = place.start_held()
    api = Api(server.url)
    begin(api, "echo", {"n": "before"})
    until(lambda: api.get("activations").json)
    with Stream(server.url, "activations") as every, Stream(server.url, "activations?name=echo") as some:
        until(lambda: waiting(server.url) == 2)
        place.let_go()
        ids = [begin(api, "held", {"n": 1})]
        event = every.next()
        assert event is not None
        assert event[:2] == ("record", ids[0])
        for n in range(3):
            ids.append(begin(api, "echo", {"n": n}))
            for stream in (every, some):
                event = stream.next()
                assert event is not None
                assert event == ("record", ids[-1], api.record(ids[-1]))
        last = ids[1]
    time.sleep(0.2)  # what ended within a tenth of a second before the last one seen may be told twice
    ids.append(begin(api, "echo", {"n": 3}))
    api.get(f"activations/{ids[-1]}?wait=10")
    until(lambda: len(api.get("activations").json) == 6)
    with Stream(server.url, "activations", Last_Event_ID=last) as stream:
        missed = set(ids[2:])
        told = []
        while missed - set(told):
            event = stream.next()
            assert event is not None
            told.append(event[1])
        assert last not in told
        assert len(set(told)) == len(told)
        assert told[-1] == ids[-1]
        ids.append(begin(api, "echo", {"n": 4}))
        event = stream.next()
        assert event is not None
        assert event[1] == ids[-1]
    until(lambda: waiting(server.url) == 0)


def test_since_begins_with_what_is_stored(place: Place) -> None:
    server = place.start_held()
    api = Api(server.url)
    first, second = (api.invoke("echo", {"n": n}).json for n in (1, 2))
    with Stream(server.url, f"activations?since={second['start']}") as stream:
        event = stream.next()
        assert event is not None
        assert event[1] == second["activationId"]
        third = begin(api, "echo", {"n": 3})
        event = stream.next()
        assert event is not None
        assert event[1] == third
    assert first["start"] < second["start"]
    assert Api(server.url).request("GET", "activations?since=x", headers=EVENTS).status == 400
    assert Api(server.url).request("GET", "activations", headers=EVENTS | {"Last-Event-ID": "x"}).status == 400


def test_a_reader_that_is_too_slow_hears_how_much_it_lost(place: Place) -> None:
    server = place.start_held(waits__stream_records=5)
    api = Api(server.url)
    api.action("big", "def main(p): return {'text': 'x' * 900000}", PYTHON, limits={"memory": 128})
    api.run("big")
    with Stream(server.url, "activations") as stream:
        until(lambda: waiting(server.url) == 1)
        for _ in range(40):  # more than the sockets between them hold
            api.run("big")
        told = lost = 0
        while told + lost < 40:
            event = stream.next()
            assert event is not None
            told, lost = (told, lost + event[2]["count"]) if event[0] == "lost" else (told + 1, lost)
        assert lost > 0
        assert told >= 5
        begin(api, "echo", {})
        event = stream.next()
        assert event is not None
        assert event[2]["name"] == "echo"


# ── several shards ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_it_does_not_matter_on_which_shard_one_waits(place: Place) -> None:
    server = place.start_held(workers=2)
    api = Api(server.url)
    id = begin(api, payload={"n": 1})
    raws = [Raw(server.url, f"activations/{id}?wait=60") for _ in range(40)]
    streams = [Stream(server.url, "activations") for _ in range(12)]
    with ThreadPoolExecutor(1) as pool:
        never = pool.submit(api.get, f"activations/{id[:12]}{1 - int(id[12:14], 16):02x}{id[14:]}?wait=60")
        assert never.result(SOON_S).status == 404
    place.let_go()
    began_s = time.monotonic()
    assert {raw.status() for raw in raws} == {200}
    for stream in streams:
        event = stream.next()
        assert event is not None
        assert event[:2] == ("record", id)
        stream.__exit__()
    assert time.monotonic() - began_s < SOON_S


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Command:
    """A run of `visp` beside the test."""

    def __init__(self, url: str, *arguments: str) -> None:
        env = os.environ | {"WHISK_APIHOST": url, "WHISK_AUTH": GUEST, "WSK_CONFIG_FILE": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "visp", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )

    def ended(self, within_s: float = 30.0) -> tuple[int, str, str]:
        try:
            out, err = self._process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        return self._process.returncode, out, err


def test_the_command_waits_and_its_status_says_how_it_went(place: Place) -> None:
    server = place.start_held()
    api = Api(server.url)
    api.action("broken", "def main(p): return {'error': 'oh'}", PYTHON, limits={"memory": 128})
    id, failed = begin(api, payload={"n": 1}), begin(api, "broken")
    status, out, err = Command(server.url, "wait", id, "--timeout", "0.3").ended()
    assert (status, out) == (124, "")
    assert id in err
    runs = [Command(server.url, "wait", id, *flags) for flags in ((), ("-r",), ("--logs",), ("--result", "--json"))]
    invoked = Command(server.url, "action", "invoke", "held", "--wait", "-r", "-p", "n", "2")
    until(lambda: waiting(server.url) == len(runs) + 1)
    place.let_go()
    record, result, logs, raw = (run.ended() for run in runs)
    assert [record[0], result[0], logs[0], raw[0]] == [0, 0, 0, 0]
    assert json.loads(record[1]) == api.record(id)
    assert json.loads(result[1]) == json.loads(raw[1]) == {"n": 1}
    assert logs[1].rstrip().endswith("stdout: said")
    status, out, err = invoked.ended()
    assert (status, json.loads(out)) == (0, {"n": 2})
    assert "ok: invoked /_/held with id " in err
    status, out, err = Command(server.url, "wait", failed).ended()
    assert status == 1
    assert json.loads(out) == api.record(failed)
    assert "application error" in err
    assert Command(server.url, "wait", UNKNOWN).ended()[0] == 148
    assert Command(server.url, "wait", id, "-r", "--logs").ended()[0] == 2


@pytest.mark.slow
def test_the_command_waits_over_a_kill_and_a_restart(place: Place) -> None:
    server = place.start_held(pool__memory_mb=128)
    api = Api(server.url)
    running, queued = begin(api, payload={"n": 1}), begin(api, payload={"n": 2})
    runs = [Command(server.url, "wait", id, "-r", "--timeout", "60") for id in (running, queued)]
    until(lambda: waiting(server.url) == 2)
    server.stop(signal.SIGKILL)
    place.let_go()
    port = str(urlsplit(server.url).port)
    threading.Event().wait(0.5)  # they find nobody, and go on
    place.start(*TRUSTING, "--port", port, pool__stem_cells=0, pool__memory_mb=128)
    status, out, err = runs[0].ended()
    assert status == 1
    assert "error" in json.loads(out)  # nobody knows how far it came: it is not run again
    assert "trying again" in err
    status, out, _ = runs[1].ended()
    assert (status, json.loads(out)) == (0, {"n": 2})


def test_a_server_that_is_not_there_is_looked_for_until_the_time_is_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, _, err = Command(f"http://127.0.0.1:{port}", "wait", UNKNOWN, "--timeout", "0.5").ended()
    assert status == 3
    assert err.count("trying again") == 1
