"""Many fires at once, over the wire; of numbered batches each key is fired once, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import pytest
from tests.system import places
from tests.system.conftest import GUEST, Answer, Api
from tests.system.places import Place
from tests.system.traces import until

pytestmark = pytest.mark.slow  # every test starts servers, and some end them by force

FAKE = ("--driver", "visp.container.fake:FakeDriver")
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def place() -> Iterator[Place]:
    with places.opened(Place) as place:
        yield place


def started(place: Place, *flags: str) -> Api:
    return Api(place.start(*FAKE, *flags).url)


def prepare(api: Api) -> None:
    api.action("seen", json.dumps({"result": {"ok": True}}))
    assert api.request("PUT", "triggers/t", {}).status == 200
    assert api.request("PUT", "rules/r", {"trigger": "/_/t", "action": "/_/seen"}).status == 200


def send(api: Api, lines: list[Any], query: str = "", **headers: str) -> Answer:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return api.request("POST", f"triggers/t{query}", body, LINES | headers)


def keyed(*keys: str) -> list[Any]:
    return [{"key": key, "value": {"k": key}} for key in keys]


def told(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


def ids(answer: Answer) -> list[str]:
    return [line["activationId"] for line in told(answer)]


def fires(api: Api) -> Counter[str]:
    """How often each key was fired, by the trigger's records."""
    records: list[Any] = []
    while page := api.get(f"activations?name=t&docs=true&limit=200&skip={len(records)}").json:
        records += page
    return Counter(record["response"]["result"]["k"] for record in records)


def count(api: Api, name: str) -> int:
    number: int = api.get(f"activations?name={name}&count=true").json["activations"]
    return number


def test_each_line_is_a_fire(place: Place) -> None:
    api = started(place)
    prepare(api)
    given = ids(send(api, [{"k": str(number)} for number in range(250)]))
    assert len(set(given)) == 250
    assert api.record(given[7])["response"]["result"] == {"k": "7"}
    until(lambda: count(api, "seen") == 250, what=lambda: count(api, "seen"))
    assert told(send(api, [])) == []


def test_a_line_that_is_wrong_is_told_where_it_stands(place: Place) -> None:
    api = started(place)
    prepare(api)
    first, wrong, large, last = told(send(api, [{"k": "a"}, [], {"k": "x" * 1_100_000}, {"k": "b"}]))
    assert {"activationId"} == first.keys() == last.keys()
    assert (wrong["status"], large["status"]) == (400, 413)
    assert {"status", "error", "code"} == wrong.keys()
    assert api.request("PUT", "rules/r?overwrite=true", {"trigger": "/_/t", "action": "/_/seen"}).status == 200
    assert api.request("POST", "rules/r", {"status": "inactive"}).status == 200
    assert told(send(api, [{}, {}])) == [{"status": 204}] * 2


def test_what_is_wrong_with_the_whole_fires_nothing(place: Place) -> None:
    api = started(place)
    prepare(api)
    assert send(api, [{}] * 10_001).status == 413
    for query in ("?batch=s/1", "?keyed=true&batch=s", "?delay=10s", "?keyed=perhaps"):
        assert send(api, [], query).status == 400, query
    assert send(api, [{}], **{"Idempotency-Key": "k"}).status == 400
    assert api.request("POST", "triggers/t?keyed=true", {}).status == 400
    assert api.request("POST", "triggers/none", b"{}\n", LINES).status == 404
    assert Api(api.url, None).request("POST", "/api/v1/namespaces/guest/triggers/t", b"{}\n", LINES).status == 401
    assert Api(api.url).request("POST", "/api/v1/namespaces/other/triggers/t", b"{}\n", LINES).status == 403
    assert count(api, "t") == 0


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "shards"])
def test_a_batch_that_comes_again_after_a_kill_fires_each_key_once(place: Place, flags: tuple[str, ...]) -> None:
    server = place.start(*FAKE, *flags)
    api = Api(server.url)
    prepare(api)
    first = ids(send(api, keyed("a", "b", "c"), "?keyed=true&batch=src/1"))
    assert ids(send(api, keyed("a", "b", "c"), "?keyed=true&batch=src/1")) == first
    server.stop(signal.SIGKILL)
    api = started(place, *flags)
    assert ids(send(api, keyed("c", "d", "a"), "?keyed=true&batch=src/1"))[::2] == [first[2], first[0]]
    assert len(ids(send(api, keyed("a"), "?keyed=true&batch=src/2"))) == 1
    older = send(api, keyed("a"), "?keyed=true&batch=src/1")
    assert (older.status, older.headers["x-visp-batch"]) == (409, "2")
    until(lambda: fires(api) == {"a": 2, "b": 1, "c": 1, "d": 1}, what=lambda: fires(api))
    until(lambda: count(api, "seen") == 5, what=lambda: count(api, "seen"))


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "shards"])
def test_a_kill_while_a_batch_is_fired_loses_no_key_and_doubles_none(place: Place, flags: tuple[str, ...]) -> None:
    """The request is under way when the server ends: whatever it had got to, sending it again completes it."""
    server = place.start(*FAKE, *flags)
    prepare(Api(server.url))
    keys = [f"{number:04}" for number in range(2000)]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in keyed(*keys))

    def push() -> None:
        with suppress(OSError, HTTPException):
            Api(server.url).request("POST", "triggers/t?keyed=true&batch=src/1", body, LINES)

    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(push)
        until(lambda: pushed.done() or _has_begun(place), what=lambda: "the batch was not begun")
        server.stop(signal.SIGKILL)
    api = started(place, *flags)
    lines: list[Any] = []

    def is_complete() -> bool:
        answer = send(api, keyed(*keys), "?keyed=true&batch=src/1")
        if answer.status == 503:
            return False
        lines[:] = told(answer)
        return all("activationId" in line for line in lines)

    until(is_complete, 30.0, what=lambda: [line for line in lines if "activationId" not in line][:3])
    until(lambda: len(fires(api)) == len(keys), 30.0, what=lambda: len(fires(api)))
    assert set(fires(api).values()) == {1}


def _has_begun(place: Place) -> bool:
    """Whether something was promised to a batch: the log of the database has grown by a good deal."""
    log = place.data_dir / "promises.db-wal"
    return log.exists() and log.stat().st_size > 60_000


def test_files_tails_and_replays_from_the_command_line(place: Place) -> None:
    api = started(place)
    prepare(api)

    def visp(*words: str, given: str | None = None) -> str:
        environ = os.environ | {
            "WHISK_APIHOST": api.url,
            "WHISK_AUTH": GUEST,
            "WSK_CONFIG_FILE": str(place.folder / "no"),
        }
        argv = [sys.executable, "-m", "visp", *words]
        done = subprocess.run(argv, env=environ, input=given, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    since = str(int(time.time() * 1000))
    lines = "".join(f'{{"k":"{number}"}}\n' for number in range(1500))
    assert visp("trigger", "fire", "t", "--file", "-", given=lines) == "ok: triggered /_/t 1500 times\n"
    visp("trigger", "fire", "t", "--file", "-", given=lines)
    until(lambda: count(api, "t") == 1500, what=lambda: count(api, "t"))
    upto = api.get("activations?name=t&limit=1").json[0]["start"]
    until(lambda: time.time() * 1000 > upto)
    tailed = visp("event", "tail", "t", "--since", since, "--json", "--exit", "2").splitlines()
    told = {json.loads(line)["response"]["result"]["k"] for line in tailed}
    assert told <= {str(number) for number in range(1500)}
    assert len(told) > 900  # as many as a reader may be behind
    for _ in range(2):
        visp("trigger", "replay", "t", "--since", since, "--upto", str(upto))
    until(lambda: len(fires(api)) == 1500)
    assert set(fires(api).values()) == {2}
