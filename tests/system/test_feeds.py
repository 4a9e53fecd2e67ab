"""Feeds over the wire, by a source in a file of its own: made, shown, paused, disabled; each event is fired once."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Api, has_sandbox
from tests.system.traces import until

from visp.client import running

ECHO = "def main(args):\n    return args"
SETTINGS = {"feeds.more": "tests/lines=lines:Lines", "driver": "process"}
FLAGS = ("--i-trust-all-code",)


class Place:
    """A server's folder that outlives it, and a file that is read."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self.folder = folder
        self.path = folder / "lines"
        self.path.write_text("")
        self.settings: dict[str, Any] = {**SETTINGS, "container.cells_dir": f"{folder}/cells", "workers": workers}
        self.server: running.Server
        self.start()

    def start(self) -> None:
        env = {"PYTHONPATH": str(Path(__file__).parent)}
        self.server = running.start(self.folder / "data", self.settings, flags=FLAGS, env=env)
        self.api = Api(self.server.url)

    def make(self, trigger: str = "lines", **parameters: Any) -> None:
        """An action that records what comes, and the feed."""
        self.api.action("heard", ECHO, "python:3.11")
        assert self.api.request("PUT", f"triggers/{trigger}", {}).status == 200
        rule = {"trigger": f"/_/{trigger}", "action": "/_/heard"}
        assert self.api.request("PUT", f"rules/{trigger}-rule", rule).status == 200
        answer = self.put(trigger, **parameters)
        assert (answer.status, answer.json) == (200, {"status": "success"})

    def put(self, trigger: str = "lines", **parameters: Any) -> Any:
        body = {"feed": "tests/lines", "parameters": {"path": str(self.path), **parameters}}
        return self.api.request("PUT", f"feeds/{trigger}", body)

    def say(self, *lines: str) -> None:
        with self.path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def status(self, trigger: str = "lines") -> dict[str, Any]:
        answer = self.api.get(f"feeds/{trigger}")
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json["status"]
        return found

    def heard(self, name: str = "lines") -> Counter[str]:
        """How often each line was fired, or with the action's name how often that heard of it."""
        found: list[dict[str, Any]] = []
        while page := self.api.get(f"activations?name={name}&docs=true&limit=200&skip={len(found)}").json:
            found += page
        return Counter(record["response"]["result"]["line"] for record in found)


@contextlib.contextmanager
def placed(workers: int = 1) -> Iterator[Place]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        place = Place(Path(name), workers)
        try:
            yield place
        finally:
            place.server.stop()
            place.server.log.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with placed() as made:
        yield made


def test_what_happens_outside_fires_the_trigger(place: Place) -> None:
    place.make(password="secret", at_once=10)
    place.say(*(f"a{number}" for number in range(25)))
    until(lambda: place.status()["fired"] == 25, 20.0)
    once = Counter({f"a{number}": 1 for number in range(25)})
    assert place.heard() == once
    until(lambda: place.heard("heard") == once, 20.0)
    told = place.api.get("feeds/lines").json
    assert told["feed"] == "tests/lines"
    assert told["config"]["password"] == "*****"
    assert (told["config"]["name"], told["config"]["namespace"]) == ("lines", "guest")
    status = told["status"]
    assert (status["active"], status["state"]) == (True, "live")
    assert status["lastEvent"] >= status["dateChanged"]
    assert [one["config"]["name"] for one in place.api.get("feeds").json] == ["lines"]


def test_pausing(place: Place) -> None:
    place.make("paused")
    place.say("b1")
    until(lambda: place.status("paused")["fired"] >= 1, 20.0)
    assert place.api.request("POST", "feeds/paused?state=paused").json["status"]["state"] == "paused"
    before = place.status("paused")["fired"]
    place.say("b2")
    time.sleep(0.3)
    assert place.status("paused")["fired"] == before
    assert place.api.request("POST", "feeds/paused?state=live").status == 200
    until(lambda: place.status("paused")["fired"] == before + 1, 20.0)
    assert place.api.request("POST", "feeds/paused?state=other").status == 400
    assert place.api.delete("feeds/paused").json == {"status": "success"}
    answer = place.api.delete("feeds/paused")
    assert (answer.status, answer.json["error"]) == (404, "could not find trigger /guest/paused in the database")


def test_a_trigger_that_is_gone_disables_its_feed(place: Place) -> None:
    place.make("gone")
    until(lambda: place.status("gone")["state"] == "live", 20.0)
    assert place.api.delete("triggers/gone").status == 200
    place.say("c")
    until(lambda: not place.status("gone")["active"], 20.0)
    status = place.status("gone")
    assert status["state"] == "disabled"
    assert status["reason"]["kind"] == "AUTO"
    assert status["reason"]["statusCode"] == 404
    assert "Received a 404 status code when firing the trigger" in status["reason"]["message"]
    update = place.api.request("POST", "feeds/gone", {"parameters": {}})
    assert (update.status, update.json["error"]) == (404, "Trigger authentication request failed.")
    place.api.delete("feeds/gone")


def test_what_cannot_be(place: Place) -> None:
    assert place.api.request("PUT", "triggers/wrong", {}).status == 200
    for parameters, status, sentence in (
        ({"path": ""}, 400, "You must supply a 'path' parameter."),
        ({"path": "/no/such"}, 404, "There is no such file."),
    ):
        answer = place.put("wrong", **parameters)
        assert (answer.status, answer.json["error"]) == (status, sentence)
    answer = place.put("absent")
    assert (answer.status, answer.json["error"]) == (404, "Trigger authentication request failed.")
    answer = place.api.request("PUT", "feeds/wrong", {"feed": "no/such", "parameters": {}})
    assert (answer.status, answer.json["error"]) == (404, "There is no feed 'no/such' here.")
    assert place.api.request("PUT", "feeds/wrong", {"parameters": {}}).status == 400
    assert place.api.request("PUT", "feeds/wrong", b"{").status == 400
    assert place.api.get("feeds/wrong").status == 404
    assert place.api.request("PUT", "/api/v1/namespaces/other/feeds/wrong", {"feed": "tests/lines"}).status == 403
    assert Api(place.server.url, None).get("/api/v1/namespaces/guest/feeds").status == 401


def test_a_source_that_has_ended_says_so(place: Place) -> None:
    place.make("ended")
    own = place.folder / "own"
    own.write_text("d\nend\n")
    assert place.put("ended", path=str(own), at_once=1).status == 200
    until(lambda: place.status("ended")["state"] == "disabled", 20.0)
    status = place.status("ended")
    assert (status["fired"], status["reason"]["message"]) == (1, "the file says that it has ended")


def test_nothing_is_lost_and_nothing_fired_twice_when_the_server_is_killed() -> None:
    with placed() as place:
        place.make(at_once=7)
        lines = [f"k{number}" for number in range(400)]
        for round in range(6):
            place.say(*lines[round * 60 : (round + 1) * 60])
            until(lambda round=round: place.status()["fired"] > round * 60 + 20, 20.0)  # type: ignore[misc]
            os.kill(place.server.pid, signal.SIGKILL)
            place.server.process.wait()
            place.start()
        place.say(*lines[360:])
        until(lambda: sum(place.heard().values()) >= 400, 40.0)
        assert place.heard() == Counter(dict.fromkeys(lines, 1))


def test_a_source_moves_when_its_holder_dies() -> None:
    with placed(workers=2) as place:
        place.make(at_once=5)
        place.say(*(f"m{number}" for number in range(20)))
        until(lambda: place.status()["fired"] == 20, 20.0)
        children = Path(f"/proc/{place.server.pid}/task/{place.server.pid}/children").read_text().split()
        for number, child in enumerate(children[:2]):
            os.kill(int(child), signal.SIGKILL)
            place.say(*(f"n{number}-{each}" for each in range(20)))
            until(lambda number=number: sum(place.heard().values()) == 40 + 20 * number, 40.0)  # type: ignore[misc]
        assert set(place.heard().values()) == {1}


def test_alarms(place: Place) -> None:
    place.api.action("heard", ECHO, "python:3.11")
    for trigger in ("often", "one"):
        assert place.api.request("PUT", f"triggers/{trigger}", {}).status == 200
        rule = {"trigger": f"/_/{trigger}", "action": "/_/heard"}
        assert place.api.request("PUT", f"rules/{trigger}-rule", rule).status == 200

    def put(trigger: str, feed: str, **parameters: Any) -> Any:
        return place.api.request("PUT", f"feeds/{trigger}", {"feed": feed, "parameters": parameters})

    answer = put("often", "alarms/alarm", cron="* * * * * *", trigger_payload={"line": "tick"})
    assert (answer.status, answer.json) == (200, {"status": "success"})
    until(lambda: place.heard("often")["tick"] >= 2, 20.0)
    told = place.api.get("feeds/often").json
    assert told["config"]["cron"] == "* * * * * *"
    assert told["status"]["nextFire"] > told["status"]["lastEvent"] - 1000
    assert place.api.delete("feeds/often").status == 200
    bad = put("often", "alarms/alarm", cron="never")
    assert (bad.status, bad.json["error"]) == (400, "cron pattern 'never' is not valid")
    at = int(time.time() * 1000) + 1500
    answer = put("one", "alarms/once", date=at, trigger_payload={"line": "once"}, deleteAfterFire="rules")
    assert answer.status == 200, answer
    until(lambda: place.api.get("feeds/one").status == 404, 20.0)
    assert place.heard("one") == {"once": 1}
    assert place.api.get("triggers/one").status == 404
    assert place.api.get("rules/one-rule").status == 404


def test_the_way_by_which_feeds_fire_lets_no_web_page_in(place: Place) -> None:
    """Whatever listens for this server on loopback refuses the well-known key to who names another origin."""
    own = {f"socket:[{node}]" for node in _nodes(place.server.pid)}
    ports = [
        int(line.split()[1].rpartition(":")[2], 16) for line in _listening() if f"socket:[{line.split()[9]}]" in own
    ]
    assert len(ports) >= 2, "the port, and the way of feeds"
    for port in ports:
        api = Api(f"http://127.0.0.1:{port}")
        assert api.get("triggers").status == 200
        assert api.request("GET", "triggers", headers={"Origin": "http://page.example"}).status == 401


def _nodes(pid: int) -> list[str]:
    """Inodes of the sockets of a process."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(entry)
            if target.startswith("socket:["):
                found.append(target[len("socket:[") : -1])
    return found


def _listening() -> list[str]:
    return [line for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
