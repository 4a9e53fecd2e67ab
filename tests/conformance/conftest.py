"""A real server for each driver, and each kind over each driver that can run it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conformance import kinds
from tests.conformance.drivers import DRIVERS, Driver
from tests.conformance.kinds import KINDS, Kind
from tests.system.conftest import Api

from visp.client import running

TIMEOUT_MS = 60_000
"""Of every action that is to end by itself."""
BUILT_S, EVERY_S = 240.0, 0.5

PAIRS = [
    pytest.param(
        (driver, driver.row(kind)),
        id=f"{driver.name}-{kind.name}",
        marks=[] if driver.is_common and kind.is_common else [pytest.mark.all],
    )
    for driver in DRIVERS
    for kind in KINDS
    if driver.runs(kind.name)
]


@dataclass(frozen=True)
class Place:
    """A kind over a driver."""

    driver: Driver
    kind: Kind
    api: Api

    @property
    def name(self) -> str:
        """Of the kind's actions."""
        return self.kind.name.replace(":", "-")

    def action(self, code: str, main: str | None = None, **fields: Any) -> None:
        """Creates or replaces its action; what it is built of is built now."""
        body = {"exec": self.kind.exec(code, main), **fields}
        body["limits"] = {"memory": self.kind.memory_mb, "timeout": TIMEOUT_MS} | body.get("limits", {})
        answer = self.api.request("PUT", f"actions/{self.name}?overwrite=true", body)
        assert answer.status == 200, answer

    def invoke(self, argument: Any) -> Any:
        """The record of an invocation, however long the first one has to wait for what is built."""
        answer = self.api.invoke(self.name, argument)
        assert answer.status in (200, 202, 502), answer
        id = answer.json["activationId"]
        end_s = time.monotonic() + BUILT_S
        while answer.status == 202 and self.api.get(f"activations/{id}").status == 404:
            assert time.monotonic() < end_s, "it does not come to its end"
            time.sleep(EVERY_S)
        return self.api.record(id)

    def run(self, argument: Any) -> Any:
        """The result of an invocation that must succeed."""
        record = self.invoke(argument)
        assert record["response"]["success"], (record["response"], record["logs"])
        return record["response"]["result"]

    def ask(self, argument: Any, **fields: Any) -> Any:
        """The record of what the kind's program makes of an argument."""
        self.action(self.kind.code, **fields)
        return self.invoke(argument)


class Servers:
    """One for each driver, when it is first asked for. `home` is this machine's folder of runtimes."""

    def __init__(self, stack: contextlib.ExitStack, home: Path) -> None:
        self.home = home
        self._stack = stack
        self._urls: dict[str, str] = {}

    def of(self, driver: Driver) -> str:
        if driver.name not in self._urls:
            placed = self._stack.enter_context(driver.place())
            settings = {"driver": driver.chosen, "runtimes.folder": self.home, **driver.settings, **placed}
            self._urls[driver.name] = self._stack.enter_context(running.running(settings)).url
        return self._urls[driver.name]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        yield Servers(stack, kinds.runtimes_here())


@pytest.fixture(params=PAIRS)
def place(request: pytest.FixtureRequest, servers: Servers) -> Place:
    driver, kind = request.param
    reason = driver.missing() or kind.missing(servers.home)
    if reason is not None:
        pytest.skip(reason)
    place = Place(driver, kind, Api(servers.of(driver)))
    if driver.name == "fork":
        await_standing(place)
    return place


def await_standing(place: Place) -> None:
    """Until containers of the kind come from a template, or are copies of a program that waits."""
    end_s = time.monotonic() + BUILT_S
    while (before := made(place.api)) == made(place.api, after=lambda: place.ask({"do": "hello", "name": "you"})):
        assert time.monotonic() < end_s, f"all containers are started: {before}"


def made(api: Api, after: Callable[[], object] = lambda: None) -> float:
    """How many containers were not started."""
    after()
    text = api.request("GET", "/metrics").body.decode()
    return sum(
        float(value) for value in re.findall(r'visp_containers_made_total{.*way="(?:forked|copied)".*} (.*)', text)
    )
