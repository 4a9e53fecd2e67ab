from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.feed.watching import Crashed, Loopback, Watching, running, turns

from visp.clock import ManualClock
from visp.feed.base import FeedRefused, SourceLost
from visp.feed.files import Files, changes, look

FEED = Files()


def made(folder: Path, **more: Any) -> dict[str, Any]:
    return FEED.parse({"path": str(folder), **more}, 0)


def write(path: Path, text: str, second: int = 1_700_000_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (second, second))


def test_changes_of_two_looks() -> None:
    before = {"a": [1_000_000, 1], "b": [2_000_000, 2], "c": [3_000_000, 3]}
    now = {"b": [2_000_000, 2], "c": [4_000_000, 3], "d": [5_000_000, 5]}
    assert changes(before, now) == [
        {"op": "deleted", "path": "a", "size": 1, "mtime": 1},
        {"op": "changed", "path": "c", "size": 3, "mtime": 4},
        {"op": "created", "path": "d", "size": 5, "mtime": 5},
    ]


def test_what_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1")
    write(tmp_path / "b.log", "1")
    write(tmp_path / "below" / "c.txt", "1")
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    (tmp_path / "away").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe.txt")
    reach = Loopback(tmp_path)
    assert set(look(reach, made(tmp_path))) == {"", "a.txt", "b.log"}
    assert set(look(reach, made(tmp_path, glob="*.txt", recursive=True))) == {"", "a.txt", "below/c.txt"}
    assert set(look(reach, made(tmp_path, glob="below/*", recursive="true"))) == {"", "below/c.txt"}


async def test_only_where_the_operator_lets_it(tmp_path: Path) -> None:
    for path in ("/etc", str(tmp_path / ".."), str(tmp_path / "out")):
        (tmp_path / "out").unlink(missing_ok=True)
        (tmp_path / "out").symlink_to("/etc")
        with pytest.raises(FeedRefused) as refused:
            await FEED.check(made(Path(path)), Loopback(tmp_path))
        assert refused.value.status == 403
    with pytest.raises(FeedRefused):
        await FEED.check(made(tmp_path / "nowhere"), Loopback(tmp_path))
    with pytest.raises(SourceLost):
        look(Loopback(tmp_path), made(tmp_path / "nowhere"))


async def test_files_that_come_change_and_go(tmp_path: Path) -> None:
    write(tmp_path / "old", "1")
    parameters, watch = made(tmp_path), Watching()
    position = await FEED.check(parameters, Loopback(tmp_path))
    write(tmp_path / "new", "12", 1_700_000_001)
    async with running(FEED.open(parameters, Loopback(tmp_path)), watch, position):
        await watch.until(lambda: bool(watch.lived))
        write(tmp_path / "new", "123", 1_700_000_002)
        (tmp_path / "old").unlink()
        await _on(watch, 3)
    assert [(body["op"], body["path"], body["size"]) for body in watch.bodies] == [
        ("created", "new", 2),
        ("changed", "new", 3),
        ("deleted", "old", 1),
    ]
    assert watch.position == {"": ["*", False], "new": [1_700_000_002_000_000_000, 3]}


async def _on(watch: Watching, number: int) -> None:
    assert isinstance(watch.clock, ManualClock)
    await turns()
    watch.clock.advance(5)
    await watch.events(number)


async def test_a_crash_between_fire_and_position_loses_nothing(tmp_path: Path) -> None:
    parameters = made(tmp_path)
    position = await FEED.check(parameters, Loopback(tmp_path))
    for number in range(1500):
        write(tmp_path / f"{number:04}", "")
    first = Watching(position=position, crash_at=2)
    async with running(FEED.open(parameters, Loopback(tmp_path)), first) as task:
        with pytest.raises(Crashed):
            await asyncio.wait_for(task, 20)
    assert len(first.position) == 1001
    second = Watching(position=first.position)
    async with running(FEED.open(parameters, Loopback(tmp_path)), second):
        await second.events(500)
    assert first.keys[1000:] == second.keys


async def test_other_files_are_not_new_when_they_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "1")
    write(tmp_path / "b.log", "1")
    parameters = made(tmp_path, glob="*.txt")
    watch = Watching(position=await FEED.check(parameters, Loopback(tmp_path)))
    changed = FEED.changed(parameters, {"glob": "*.log"}, 0)
    async with running(FEED.open(changed, Loopback(tmp_path)), watch):
        await watch.until(lambda: bool(watch.lived))
    assert watch.keys == []
    assert watch.position.keys() == {"", "b.log"}
