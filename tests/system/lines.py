"""A source of one's own in one file: lines that are appended to a file, as a server with `[feeds] more` runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visp.feed.base import Batch, Event, FeedRefused, Reach, SourceEnded, Watch


class Lines:
    name = "tests/lines"
    secrets = frozenset({"password"})
    disables_when_throttled = False

    def parse(self, given: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        if not given.get("path"):
            raise FeedRefused("You must supply a 'path' parameter.")
        return dict(given)

    def changed(self, kept: Mapping[str, Any], given: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        return {**kept, **given}

    async def check(self, parameters: Mapping[str, Any], reach: Reach) -> Any:
        if not Path(parameters["path"]).exists():  # noqa: ASYNC240 - a test's file
            raise FeedRefused("There is no such file.", 404)
        return 0

    def created(self, id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return dict(parameters)

    def open(self, parameters: Mapping[str, Any], reach: Reach) -> Reading:
        return Reading(Path(parameters["path"]), int(parameters.get("at_once", 100)))


class Reading:
    def __init__(self, path: Path, at_once: int) -> None:
        self._path = path
        self._at_once = at_once

    async def run(self, watch: Watch, position: Any) -> None:
        while True:
            with self._path.open() as file:
                file.seek(position)
                lines = [line for line in (file.readline() for _ in range(self._at_once)) if line.endswith("\n")]
            watch.live()
            if lines == ["end\n"]:
                raise SourceEnded("the file says that it has ended")
            events, at = [], position
            for line in lines:
                at += len(line)
                events.append(Event(str(at), json.dumps({"line": line.strip()}).encode()))
            if events:
                position = at
                await watch.fire(Batch(events, position))
            else:
                await watch.clock.sleep(0.05)
