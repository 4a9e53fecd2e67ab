"""`files/watch`: a trigger for each file that comes, changes or goes below a folder that the operator has opened.

The folder is looked through from time to time; times and sizes are compared. The position is what was found: by path,
its time in nanoseconds and its size; where other files are meant from now on, those there are not new. Links are not
followed, nor are they files.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import stat
from typing import TYPE_CHECKING, ClassVar

import msgspec

from visp import wording
from visp.feed import given as asked
from visp.feed.base import Event, FeedRefused, Json, SourceLost
from visp.feed.batching import Gathering, key_of
from visp.feed.conditions import filter_of, parse_filter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from visp.feed.base import Reach, Watch

INTERVAL_S = 5
INTERVAL_MOST_S = 3_600
FILES_MOST = 10_000
DEPTH_MOST = 32
LOOKED_MOST = 100_000
"""Entries of folders that are gone through in one look."""

Found = dict[str, Json]
"""Path below the folder → time and size; under the empty path, which files are meant: of others nothing was known."""


class Files:
    name: ClassVar[str] = "files/watch"
    secrets: ClassVar[frozenset[str]] = frozenset()
    disables_when_throttled: ClassVar[bool] = False

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        return {
            "path": asked.required(given, "path"),
            "glob": asked.text(given, "glob", "*") or "*",
            "recursive": asked.flag(given, "recursive"),
            "interval_s": asked.integer(given, "interval_s", INTERVAL_S, 1, INTERVAL_MOST_S),
        } | parse_filter(given)

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        asked_for = {name: given[name] for name in ("glob", "recursive", "interval_s", "filter") if name in given}
        if not asked_for:
            raise FeedRefused(wording.NOTHING_UPDATABLE)
        return self.parse({**kept, **asked_for}, now_ms)

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        try:
            return await asyncio.to_thread(look, reach, parameters)
        except SourceLost as error:
            raise FeedRefused(str(error)) from None

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return dict(parameters)

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> FilesSource:
        return FilesSource(parameters, reach)


class FilesSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach
        self._holds = filter_of(parameters)

    async def run(self, watch: Watch, position: Json) -> None:
        kept: Found | None = None if position is None else dict(position)
        while True:
            found = await asyncio.to_thread(look, self._reach, self._parameters)
            if kept is None or kept[""] != found[""]:
                await Gathering(watch, None).flush(found)
                kept = dict(found)
            gathering = Gathering(watch, kept)
            for event in changes(kept, found):
                if self._holds(event):
                    key = key_of(event["op"], event["path"], str(event["mtime"]), str(event["size"]))
                    await gathering.add(Event(key, msgspec.json.encode(event)), kept)
                if event["op"] == "deleted":
                    kept.pop(event["path"])
                else:
                    kept[event["path"]] = found[event["path"]]
            await gathering.flush(kept)
            wait_s = self._parameters["interval_s"]
            watch.live(lag=0, next_ms=watch.clock.now_ms() + wait_s * 1000)
            await watch.clock.sleep(wait_s)


def changes(before: Found, now: Found) -> list[dict[str, Json]]:
    """Events, by path: `op` is `created`, `changed` or `deleted`; `mtime` in milliseconds. Pure."""
    events = []
    for path in sorted(before.keys() | now.keys()):
        if before.get(path) != now.get(path):
            op = "deleted" if path not in now else "changed" if path in before else "created"
            mtime_ns, size = now.get(path) or before[path]
            events.append({"op": op, "path": path, "size": size, "mtime": mtime_ns // 1_000_000})
    return events


def look(reach: Reach, parameters: Mapping[str, Json]) -> Found:
    """What is there. Blocking. Raises `SourceLost`, `FeedRefused`."""
    folder = reach.check_path(parameters["path"])
    found: Found = {"": [parameters["glob"], parameters["recursive"]]}
    try:
        for path, seen in _walk(folder, DEPTH_MOST if parameters["recursive"] else 0):
            if _is_meant(path, parameters["glob"]):
                found[path] = [seen.st_mtime_ns, seen.st_size]
            if len(found) > FILES_MOST + 1:
                raise SourceLost(wording.too_many_files(FILES_MOST))
    except OSError as error:
        raise SourceLost(wording.folder_unreadable(error.strerror or type(error).__name__)) from None
    return found


def _walk(folder: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    left = LOOKED_MOST
    folders = [("", depth)]
    while folders:
        below, depth = folders.pop()
        try:
            entries = os.scandir(os.path.join(folder, below))
        except OSError:
            if not below:
                raise
            continue  # it went meanwhile, or is not ours to read
        with entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    raise SourceLost(wording.too_many_files(LOOKED_MOST))
                path = os.path.join(below, entry.name)
                try:
                    path.encode()
                    seen = entry.stat(follow_symlinks=False)
                except (OSError, UnicodeEncodeError):
                    continue
                if stat.S_ISREG(seen.st_mode):
                    yield path, seen
                elif stat.S_ISDIR(seen.st_mode) and depth > 0:
                    folders.append((path, depth - 1))


def _is_meant(path: str, glob: str) -> bool:
    """A pattern without a slash is of names, one with some of paths below the folder."""
    return fnmatch.fnmatchcase(path if "/" in glob else os.path.basename(path), glob)
