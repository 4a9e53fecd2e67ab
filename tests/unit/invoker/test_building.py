"""Builds: whose turn it is, what is passed on of what they print, and when there is something to build."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from visp.container.once import Ended
from visp.invoker.building import LINE_LETTERS, PRINTED_BYTES, Builds, Lines, Turns, has_to_build
from visp.runtime.base import Command, Recipe
from visp.settings import Build


def told(*pieces: bytes) -> list[str]:
    said: list[str] = []
    lines = Lines(said.append)
    for piece in pieces:
        lines.feed(piece)
    return said


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntw", b"o\nthree"], ["one", "two"]),
        ([b"10 %\r20 %\r\ndone\n"], ["10 %", "20 %", "done"]),
        ([b"\x1b[31mred\x00\n\n"], [" [31mred "]),
        ([b"\xff\xe2\x80", b"\xa6\n"], ["\ufffd…"]),
        ([b"x" * 5000 + b"\n"], ["x" * LINE_LETTERS]),
    ],
)
def test_lines(pieces: list[bytes], lines: list[str]) -> None:
    assert told(*pieces) == lines


def test_only_so_much_is_passed_on() -> None:
    said = told(*[b"x" * 99 + b"\n"] * (PRINTED_BYTES // 50))
    assert sum(len(line) + 1 for line in said) <= PRINTED_BYTES + 1


async def test_namespaces_take_turns() -> None:
    turns, order = Turns(1), list[str]()
    may_end = asyncio.Event()

    async def build(namespace: str) -> None:
        async with turns.turn(namespace):
            order.append(namespace)
            await may_end.wait()

    tasks = []
    for namespace in ("flood", "flood", "flood", "flood", "other", "third"):
        tasks.append(asyncio.ensure_future(build(namespace)))
        await asyncio.sleep(0)
    tasks[2].cancel()  # who does not wait any more holds nobody up
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order in (["flood", "flood", "other", "third", "flood"], ["flood", "other", "third", "flood", "flood"])
    async with asyncio.timeout(1), turns.turn("late"):
        pass


async def test_place_that_was_given_to_one_who_left_goes_on() -> None:
    turns = Turns(1)
    async with turns.turn("a"):
        waiting = asyncio.ensure_future(turns.turn("b").__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()  # it has been given the place, and has not taken it
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), turns.turn("c"):
        pass


async def test_everyone_who_waits_hears() -> None:
    builds, first, second = Builds(Build()), list[str](), list[str]()
    speak = builds.speaker("it")
    with builds.heard("it", first.append):
        speak(b"one\n")
        await asyncio.sleep(0)
        with builds.heard("it", second.append):
            speak(b"two\n")
            await asyncio.sleep(0)
        speak(b"three\n")
        await asyncio.sleep(0)
    speak(b"four\n")
    await asyncio.sleep(0)
    assert (first, second) == (["one", "two", "three"], ["two"])


async def test_builds_are_counted() -> None:
    builds = Builds(Build())
    async with builds.turn("a"):
        pass
    with pytest.raises(ZeroDivisionError):
        async with builds.turn("a"):
            raise ZeroDivisionError
    async with builds.turn("a"):
        pass
    builds.refused()
    families = {family.name: family for family in builds.measured()}
    assert families["visp_builds_total"].samples == {("made",): 1, ("failed",): 2}
    assert families["visp_builds_under_way"].samples == {(): 0}


def test_limits_are_named() -> None:
    builds = Builds(Build(memory_mb=77, timeout_s=5))
    assert "[build] timeout_s" in builds.overdue().sentence
    killed = builds.unfinished(Ended(-9, "", is_out_of_memory=True)).sentence
    assert ("77 MB" in killed, "[build] memory_mb" in killed) == (True, True)


def recipe(*needs: str, skips: tuple[str, ...] = ()) -> Recipe:
    return Recipe(command=Command(), stamp="", needs=frozenset(needs), skips=frozenset(skips))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"dependencies": {"a": "1"}}', True),
        ('{"dependencies": { } }', False),
        ('{"dependencies": null}', False),
        ("{}", False),
        ("[1]", False),
        ("no JSON", False),
        ("[" * 100_000, False),
    ],
)
def test_member_of_a_json_file(content: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text(content)
    assert has_to_build(tmp_path, recipe("package.json#dependencies")) is expected


def test_what_there_is_to_build(tmp_path: Path) -> None:
    assert has_to_build(tmp_path, recipe())
    sources = recipe("src/", "*.java")
    for name in ("src", "a.java"):
        assert not has_to_build(tmp_path, sources)
        (tmp_path / name).touch()  # a file `src` is none of sources
    assert has_to_build(tmp_path, sources)
    (tmp_path / "a.java").unlink()
    (tmp_path / "src").unlink()
    (tmp_path / "src").mkdir()
    assert has_to_build(tmp_path, sources)
    needs = recipe("requirements.txt", skips=("virtualenv",))
    assert not has_to_build(tmp_path, needs)
    (tmp_path / "requirements.txt").mkdir()
    assert not has_to_build(tmp_path, needs)
    (tmp_path / "requirements.txt").rmdir()
    (tmp_path / "requirements.txt").write_text("")
    assert has_to_build(tmp_path, needs)
    (tmp_path / "virtualenv").mkdir()
    assert not has_to_build(tmp_path, needs)


def test_folder_of_sources_is_built(tmp_path: Path) -> None:
    needs = recipe("exec", "src/")
    (tmp_path / "src").write_text("")
    assert not has_to_build(tmp_path, needs)
    (tmp_path / "src").unlink()
    (tmp_path / "src").mkdir()
    assert has_to_build(tmp_path, needs)


def test_link_to_a_file_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text('{"dependencies": {"a": "1"}}')
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "package.json").symlink_to("../outside")
    assert not has_to_build(tmp_path / "code", recipe("package.json#dependencies"))
