"""The server is killed while events come, again and again: none is lost; `VISP_KILLS` says how often.

And sources go away and come back, after `VISP_AWAY` seconds: what happens meanwhile, or after, is fired too.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from tests.sources.tellers import EVERYWHERE, WITH_ALL, Beside, Teller
from tests.system.conftest import GUEST, Api
from tests.system.traces import until

from visp.client import running
from visp.feed.hooks import sign

KILLS = int(os.environ.get("VISP_KILLS", "3"))
EVERY_S = 0.02
PATIENCE_S = 60.0
AWAY_S = float(os.environ.get("VISP_AWAY", "2"))
BACK_S = 20.0
"""A source that was away for seconds is read again this soon; those that are asked every ten seconds are the latest."""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ECHO = "def main(args):\n    return {}"
pytestmark = [pytest.mark.slow]
TELLERS = pytest.mark.parametrize(
    "kind", [*EVERYWHERE, *(pytest.param(kind, marks=pytest.mark.all) for kind in WITH_ALL)]
)


class Killed:
    """A server that is started again in the same folder, and one trigger of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()
        self.api.action("heard", ECHO, "python:3.11")
        assert self.api.request("PUT", "triggers/told", {}).status == 200
        rule = {"trigger": "/_/told", "action": "/_/heard"}
        assert self.api.request("PUT", "rules/on-told", rule).status == 200

    def start(self) -> None:
        settings = {
            "driver": "process",
            "container.cells_dir": f"{self.folder}/cells",
            "catalog.packages": "",
            "feeds.roots": str(self.folder),
        }
        self.server = running.start(self.folder / "data", settings, flags=("--i-trust-all-code",))
        self.api = Api(self.server.url)

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.process.wait()
        self.server.log.unlink(missing_ok=True)
        self.start()

    def make(self, feed: str, **parameters: Any) -> Any:
        """CREATE's result, when the feed is live."""
        answer = self.api.request("PUT", "feeds/told", {"feed": feed, "parameters": parameters})
        assert answer.status == 200, answer
        until(lambda: self.state() == "live", PATIENCE_S)
        return answer.json

    @property
    def status(self) -> Any:
        return self.api.get("feeds/told").json["status"]

    def state(self) -> str:
        return str(self.status["state"])

    def fired(self, numbers: Callable[[Any], list[int]]) -> Counter[int]:
        """How often each number was fired."""
        found: list[Any] = []
        while page := self.api.get(f"activations?name=told&docs=true&limit=200&skip={len(found)}").json:
            found += page
        return Counter(number for record in found for number in numbers(record["response"]["result"]))

    def has_fired(self, told: list[int], numbers: Callable[[Any], list[int]]) -> Counter[int]:
        """Returns when each of the numbers was."""
        end = time.monotonic() + PATIENCE_S
        while missing := set(told) - set(fired := self.fired(numbers)):
            assert time.monotonic() < end, f"{len(missing)} of {len(told)} were lost: {sorted(missing)[:10]}"
            time.sleep(0.2)
        return fired


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


@contextmanager
def teller(kind: type[Teller], folder: Path) -> Iterator[tuple[Teller, Beside]]:
    beside, made = Beside(), kind(folder)
    try:
        beside.run(made.begin())
        yield made, beside
    finally:
        try:
            beside.run(made.end())
        finally:
            beside.close()


def told_while_killed(killed: Killed, tell: Callable[[int], None], every_s: float = EVERY_S) -> list[int]:
    """Tells numbers without a pause, and kills meanwhile; the numbers that were told."""
    told: list[int] = []
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(every_s):
            tell(len(told))
            told.append(len(told))

    with ThreadPoolExecutor(1) as thread:
        telling = thread.submit(go_on)
        try:
            for _ in range(KILLS):
                time.sleep(random.uniform(0.05, 0.8))
                killed.kill()
                until(lambda: killed.state() == "live", PATIENCE_S)
        finally:
            is_over.set()
        telling.result()
    return told


@TELLERS
def test_no_event_of_a_source_is_lost(killed: Killed, kind: type[Teller]) -> None:
    with teller(kind, killed.folder) as (source, beside):
        killed.make(source.feed, **source.parameters())
        told = told_while_killed(killed, lambda number: beside.run(source.tell(number)), source.every_s)
        fired = killed.has_fired(told, source.numbers)
        assert sorted(fired) == told
        twice = {number: count for number, count in fired.items() if count > 1}
        print(f"{kind.__name__}: {len(told)} told, {KILLS} kills, {len(twice)} fired more than once")
        assert not (twice and source.tells_once), twice


@TELLERS
def test_a_source_that_was_away_is_read_again(killed: Killed, kind: type[Teller]) -> None:
    """Until then the feed says that it is not there, and why."""
    with teller(kind, killed.folder) as (source, beside):
        killed.make(source.feed, **source.parameters())
        beside.run(source.tell(0))
        killed.has_fired([0], source.numbers)
        beside.run(source.leave())
        status = until(lambda: killed.status if killed.state() == "retrying" else None, PATIENCE_S)
        assert source.lost in status["lastError"]
        assert "retrying" in shown(killed)
        if source.is_told_while_away:
            beside.run(source.tell(1))
        time.sleep(AWAY_S)
        beside.run(source.come_back())
        back_s = time.monotonic()
        if not source.is_told_while_away:
            beside.run(source.tell(1))
        until(lambda: killed.state() == "live", BACK_S)
        print(f"{kind.__name__}: away for {AWAY_S:.0f} s, live {time.monotonic() - back_s:.1f} s after it came back")
        assert killed.has_fired([0, 1], source.numbers) == Counter([0, 1])


def shown(killed: Killed) -> str:
    """As `visp feed get` shows it."""
    command = [sys.executable, "-m", "visp", "--apihost", killed.server.url, "--auth", GUEST, "feed", "get", "told"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout


def test_no_request_that_was_answered_is_lost(killed: Killed) -> None:
    """Who asks asks again until it is answered, as those who send web hooks do; no message is fired twice."""
    path = "/hooks/" + killed.make("http/hook", scheme="standard-webhooks", secret=SECRET)["url"].rpartition("/")[2]

    def tell(number: int) -> None:
        body = json.dumps({"n": number}).encode()
        while True:
            signed = sign("standard-webhooks", SECRET, body, time.time_ns() // 1_000_000, f"msg_{number}")
            try:
                url = killed.server.url + path
                with urlopen(Request(url, body, {"Content-Type": "application/json", **signed}), timeout=20):
                    return
            except (URLError, OSError):
                time.sleep(EVERY_S)

    told = told_while_killed(killed, tell)
    assert killed.has_fired(told, lambda event: [event["body"]["n"]]) == Counter(told)


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
    fires = sum(killed.fired(lambda _: [0]).values())
    assert seconds - 2.5 <= fires <= seconds + 1.5
