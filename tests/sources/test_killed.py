"""The server is killed while events come, again and again: none is lost. `VISP_KILLS` says how often."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from tests.sources.servers import MOSQUITTO, POUCHDB, program, why_no_couch, why_no_mosquitto
from tests.system.conftest import Api
from tests.system.traces import until
from tests.unit.feed.watching import free_port

from visp.client import running

KILLS = int(os.environ.get("VISP_KILLS", "4"))
EVERY_S = 0.01
PATIENCE_S = 60.0
pytestmark = [pytest.mark.slow]
ECHO = "def main(args):\n    return {}"


class Killed:
    """A server that is started again in the same folder, and one trigger of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kills = 0
        self.start()
        self.api.action("heard", ECHO, "python:3.11")
        assert self.api.request("PUT", "triggers/told", {}).status == 200
        rule = {"trigger": "/_/told", "action": "/_/heard"}
        assert self.api.request("PUT", "rules/on-told", rule).status == 200

    def start(self) -> None:
        settings = {"driver": "process", "container.cells_dir": f"{self._folder}/cells", "catalog.packages": ""}
        self.server = running.start(self._folder / "data", settings, flags=("--i-trust-all-code",))
        self.api = Api(self.server.url)

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.process.wait()
        self.kills += 1
        self.start()

    def make(self, feed: str, **parameters: Any) -> None:
        answer = self.api.request("PUT", "feeds/told", {"feed": feed, "parameters": parameters})
        assert answer.status == 200, answer
        until(lambda: self.state() == "live", PATIENCE_S)

    def state(self) -> str:
        return str(self.api.get("feeds/told").json["status"]["state"])

    def fired(self, name: Callable[[Any], Any]) -> Counter[Any]:
        """How often each event was fired."""
        found: list[Any] = []
        while page := self.api.get(f"activations?name=told&docs=true&limit=200&skip={len(found)}").json:
            found += page
        return Counter(name(record["response"]["result"]) for record in found)


@pytest.fixture
def killed() -> Iterator[Killed]:
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        made = Killed(Path(name))
        try:
            yield made
        finally:
            made.server.stop()
            made.server.log.unlink(missing_ok=True)


def told_while_killed(killed: Killed, tell: Callable[[int], None]) -> list[int]:
    """Tells numbers without a pause, and kills meanwhile; the numbers that were told."""
    told: list[int] = []
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(EVERY_S):
            tell(len(told))
            told.append(len(told))

    telling = threading.Thread(target=go_on)
    telling.start()
    try:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.05, 0.8))
            killed.kill()
            until(lambda: killed.state() == "live", PATIENCE_S)
    finally:
        is_over.set()
        telling.join()
    return told


def test_changes_of_a_database(killed: Killed, tmp_path: Path) -> None:
    missing = why_no_couch()
    if missing is not None:
        pytest.skip(missing)
    port = free_port()
    with program([str(POUCHDB), "--in-memory", "--host", "127.0.0.1", "--port", str(port)], tmp_path, port):
        ask(port, "PUT", "/_config/admins/who", b'"what"', who="")
        ask(port, "PUT", "/told")
        killed.make(
            "cloudant/changes",
            dbname="told",
            host="127.0.0.1",
            protocol="http",
            port=port,
            username="who",
            password="what",
        )
        told = told_while_killed(killed, lambda number: ask(port, "PUT", f"/told/{number:06}", b"{}"))
        once = Counter(f"{number:06}" for number in told)
        until(lambda: len(killed.fired(lambda event: event["id"])) == len(once), PATIENCE_S)
        assert killed.fired(lambda event: event["id"]) == once


def ask(port: int, method: str, path: str, body: bytes | None = None, who: str = "who:what") -> None:
    headers = {"Content-Type": "application/json"}
    if who:
        headers["Authorization"] = f"Basic {base64.b64encode(who.encode()).decode()}"
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", body, headers, method=method)) as answer:
        assert answer.status < 300


def test_messages_of_a_broker(killed: Killed, tmp_path: Path) -> None:
    missing = why_no_mosquitto()
    if missing is not None:
        pytest.skip(missing)
    from paho.mqtt.client import CallbackAPIVersion, Client

    port = free_port()
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    with program([str(MOSQUITTO), "-c", str(settings)], tmp_path, port):
        killed.make("mqtt/feed", url=f"mqtt://127.0.0.1:{port}", topic="told", client_id="visp-killed")
        client = Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", port)
        client.loop_start()
        try:
            told = told_while_killed(
                killed, lambda number: client.publish("told", json.dumps({"n": number}), qos=1).wait_for_publish(10)
            )
        finally:
            client.loop_stop()
            client.disconnect()
        until(lambda: len(killed.fired(number_of)) == len(told), PATIENCE_S)
        assert sorted(killed.fired(number_of)) == told


def number_of(event: Any) -> int:
    return int(event["body"]["n"])


def test_alarms(killed: Killed) -> None:
    """Each second is fired once; those while no server ran are missed, as is asked for."""
    answer = killed.api.request(
        "PUT", "feeds/told", {"feed": "alarms/alarm", "parameters": {"cron": "* * * * * *", "missed": "all"}}
    )
    assert answer.status == 200, answer
    began_s = time.time()
    for _ in range(KILLS):
        time.sleep(random.uniform(0.05, 1.2))
        killed.kill()
    time.sleep(2.5)
    seconds = time.time() - began_s
    fires = sum(killed.fired(lambda _: None).values())
    assert seconds - 2.5 <= fires <= seconds + 1.5
