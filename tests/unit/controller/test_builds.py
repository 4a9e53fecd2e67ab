"""Builds that a PUT asks for, seen from the controller: an invoker that answers as it is told."""

from __future__ import annotations

import asyncio

import pytest

from visp.bus import base as topics
from visp.bus.memory import MemoryBus
from visp.bus.messages import BuildMessage, BuildProgress, BuildResult, Message, decode, encode
from visp.controller.builds import Builds
from visp.entity.execs import Code, CodeExec, SequenceExec
from visp.errors import BadRequest, Overloaded, Throttled

GO = CodeExec("go:1.26", Code(is_binary=False, inline="package main"))


class Invoker:
    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.asked: list[BuildMessage] = []
        self.bus.subscribe(topics.BUILDS, self._heard)
        self.builds = Builds(bus=self.bus, is_built=lambda exec: exec.kind.startswith("go:"), limit=2)

    def _heard(self, message: Message) -> None:
        assert isinstance(message, BuildMessage)
        self.asked.append(message)

    def says(self, message: Message) -> None:
        self.bus.publish(topics.BUILT, decode(encode(message)))


async def test_waiting_hears_progress_and_the_end() -> None:
    invoker, said = Invoker(), list[str]()
    waiting = asyncio.ensure_future(invoker.builds.run("guest", GO, said.append))
    await asyncio.sleep(0)
    [asked] = invoker.asked
    assert (asked.exec, asked.namespace, asked.is_heard) == (GO, "guest", True)
    assert decode(encode(asked)) == asked
    invoker.says(BuildProgress(asked.id, "compiling"))
    invoker.says(BuildProgress(asked.id + 1, "another's"))
    invoker.says(BuildResult(asked.id))
    await waiting
    invoker.says(BuildProgress(asked.id, "late"))
    assert said == ["compiling"]
    assert repr(invoker.builds) == "<Builds {}>"


@pytest.mark.parametrize(
    ("result", "error", "sentence"),
    [
        (BuildResult(1, refusal="syntax error"), BadRequest, "syntax error"),
        (BuildResult(1, failure="no container"), Overloaded, "no container"),
    ],
)
async def test_waiting_hears_why_not(result: BuildResult, error: type[Exception], sentence: str) -> None:
    invoker = Invoker()
    waiting = asyncio.ensure_future(invoker.builds.run("guest", GO))
    await asyncio.sleep(0)
    invoker.says(result)
    with pytest.raises(error, match=sentence):
        await waiting


async def test_nothing_to_build_asks_nobody() -> None:
    invoker = Invoker()
    await invoker.builds.run("guest", CodeExec("nodejs:20", Code(is_binary=False, inline="x")))
    invoker.builds.begin("guest", SequenceExec(()))
    assert invoker.asked == []


async def test_too_many_of_a_namespace() -> None:
    invoker = Invoker()
    for _ in range(3):
        invoker.builds.begin("guest", GO)  # the third one is left to the first activation
    assert len(invoker.asked) == 2
    with pytest.raises(Throttled, match="waiting"):
        await invoker.builds.run("guest", GO)
    invoker.builds.begin("other", GO)
    assert [message.namespace for message in invoker.asked] == ["guest", "guest", "other"]
    invoker.says(BuildResult(1))
    invoker.builds.begin("guest", GO)
    assert len(invoker.asked) == 4


async def test_who_left_is_not_told() -> None:
    invoker, said = Invoker(), list[str]()
    waiting = asyncio.ensure_future(invoker.builds.run("guest", GO, said.append))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    invoker.says(BuildProgress(1, "compiling"))
    assert repr(invoker.builds) == "<Builds {'guest': 1}>"  # it goes on
    invoker.says(BuildResult(1))
    assert (said, repr(invoker.builds)) == ([], "<Builds {}>")
