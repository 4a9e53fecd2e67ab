"""Containers that go wrong in every way, and a witness of what ran in them.

They speak ActionLoop over pipes, as those of `visp.container.fake` do. Each call draws its fate: containers cannot be
made, or not in time; they die, before the code comes, while it is loaded, while it runs; they hang, answer half a line,
nonsense, or after the deadline; pausing, resuming and removing them fails.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

import msgspec

from visp.clock import Clock
from visp.container.base import ContainerSpec, Exit
from visp.container.fake import KILLED, OUT_OF_MEMORY, Act, FakeContainer, FakeDriver
from visp.errors import StartFailed

HANG_S = 1_000_000.0


class Fates:
    """How often something goes wrong, each a chance for one call."""

    def __init__(self, start: float = 0.0, init: float = 0.0, run: float = 0.0, other: float = 0.0) -> None:
        self.start = start
        self.init = init
        self.run = run
        self.other = other


class Run(msgspec.Struct):
    """One run line as a container got it."""

    namespace: str
    action: str
    version: str
    generation: int
    at_s: float


class SimDriver(FakeDriver):
    """`runs` are all run lines that ever arrived, by activation, `keys` which one ran for which idempotency key.

    `broken` hears of promises that were not kept.
    """

    def __init__(
        self,
        clock: Clock,
        chance: random.Random,
        fates: Fates,
        memory_mb: int,
        note: Callable[[str], None],
        broken: Callable[[str], None],
        runs: dict[str, list[Run]],
        keys: dict[str, str],
    ) -> None:
        super().__init__(clock=clock)
        self.chance = chance
        self.fates = fates
        self.note = note
        self.broken = broken
        self.runs = runs
        self.keys = keys
        self._memory_mb = memory_mb

    async def create(self, spec: ContainerSpec) -> FakeContainer:
        chance = self.chance
        self.note(f"create {spec.id} {spec.memory_mb}")
        await self.clock.sleep(chance.expovariate(1 / 0.03))
        is_doomed = False
        if chance.random() < self.fates.start:
            fate = chance.choice(("refused", "error", "hangs", "dies", "dies"))
            self.note(f"create {spec.id} {fate}")
            if fate == "refused":
                raise StartFailed("no container by fate")
            if fate == "error":
                raise OSError("no container by fate")
            if fate == "hangs":
                await self.clock.sleep(HANG_S)
            is_doomed = True
        if spec.id in self.containers:
            self.broken(f"two containers are called {spec.id}")
        container = SimContainer(self, spec)
        self.containers[spec.id] = container
        used_mb = sum(other.memory_mb for other in self.containers.values())
        if used_mb > self._memory_mb:
            self.broken(f"containers take {used_mb} MB of {self._memory_mb}")
        if is_doomed:
            asyncio.get_running_loop().call_later(chance.expovariate(1 / 0.02), container.end, KILLED)
        return container

    def kill(self) -> None:
        """The process is gone, and its containers with it."""
        for container in list(self.containers.values()):
            container.abandon()
        self.containers.clear()


class SimContainer(FakeContainer):
    """Serves one revision of one action for one namespace, or says that it was asked for another."""

    _driver: SimDriver

    def __init__(self, driver: SimDriver, spec: ContainerSpec) -> None:
        super().__init__(driver, spec)
        self._serves: tuple[str, str, str] | None = None
        self._generation = 0
        self._conducts: list[str] = []
        self._descriptors = {*msgspec.structs.astuple(self.wire)}

    # ── lines ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _next(self, line: bytes) -> Act:
        if self._serves is None:
            return self._init(msgspec.json.decode(line)["value"])
        return self._take(msgspec.json.decode(line))

    def _init(self, value: dict[str, Any]) -> Act:
        driver, env = self._driver, value["env"]
        self._serves = env["__OW_NAMESPACE"], env["__OW_ACTION_NAME"], env["__OW_ACTION_VERSION"]
        code = msgspec.json.decode(value["code"])
        self._generation, self._conducts = code["generation"], code["conducts"]
        fate = ""
        if driver.chance.random() < driver.fates.init:
            fate = driver.chance.choice(("error", "nonsense", "dies", "memory", "hangs", "half", "late"))
        driver.note(f"init {self.id} {self._serves} {self._generation} {fate}")
        return self._answer(fate, b'{"ok":true}', 0.02, error=b'!{"error":"no init by fate"}')

    def _take(self, line: dict[str, Any]) -> Act:
        driver, id = self._driver, line["activation_id"]
        asked = line["namespace"], line["action_name"], line["action_version"]
        if asked != self._serves:
            driver.broken(f"a container of {self._serves} is to serve {asked}")
        runs = driver.runs.setdefault(id, [])
        runs.append(Run(asked[0], asked[1], asked[2], self._generation, driver.clock.monotonic_s()))
        if len(runs) > 1:
            driver.broken(f"activation {id} runs {len(runs)} times")
        fate, value = "", line["value"]
        if (key := value.get("key")) and driver.keys.setdefault(key, id) != id:
            driver.broken(f"{driver.keys[key]} and {id} run for the same key")
        if driver.chance.random() < driver.fates.run:
            fate = driver.chance.choice(
                ("error", "failure", "nonsense", "dies", "memory", "hangs", "half", "late", "last", "prints")
            )
        driver.note(f"run {self.id} {id} {fate}")
        result: dict[str, Any] = {"id": id, "namespace": asked[0], "generation": self._generation}
        step = value.get("$step", 0)
        if step < len(self._conducts):
            result |= {"action": self._conducts[step], "state": {"$step": step + 1}}
        answer = msgspec.json.encode(result)
        seconds = value.get("seconds", 0.02)
        return self._answer(fate, answer, seconds, error=b'{"error":"by fate"}')

    def _answer(self, fate: str, answer: bytes, seconds: float, *, error: bytes) -> Act:
        after_s = self._driver.chance.expovariate(1 / seconds)
        if fate == "error":
            return Act(reply=error, after_s=after_s)
        if fate == "failure":
            return Act(reply=b'!{"error":"by fate"}', after_s=after_s)
        if fate == "nonsense":
            return Act(reply=b"<html>", after_s=after_s)
        if fate == "dies":
            return Act(reply=None, after_s=after_s, exit=KILLED)
        if fate == "memory":
            return Act(reply=None, after_s=after_s, exit=OUT_OF_MEMORY)
        if fate == "hangs":
            return Act(reply=None, after_s=after_s)
        if fate == "half":
            return _Half(reply=None, half=answer[: len(answer) // 2], after_s=after_s, exit=Exit(1))
        if fate == "late":
            return Act(reply=answer, after_s=after_s + self._driver.chance.uniform(0.05, 6.0))
        if fate == "last":
            return Act(reply=answer, after_s=after_s, exit=Exit(0))
        if fate == "prints":
            return Act(reply=answer, after_s=after_s, stdout=b"a line\nhalf", stderr=b"oh\n" * 50)
        return Act(reply=answer, after_s=after_s, stdout=b"ran\n")

    def _perform(self) -> None:
        if isinstance(self._act, _Half):
            os.write(self._replies, self._act.half)
        super()._perform()

    # ── as the invoker sees it ──────────────────────────────────────────────────────────────────────────────────

    async def pause(self) -> None:
        await self._may_fail("pause")
        await super().pause()

    async def resume(self) -> None:
        await self._may_fail("resume")
        await super().resume()

    async def destroy(self) -> None:
        is_first = not self._is_destroyed
        await super().destroy()
        self._descriptors.clear()
        if is_first:
            await self._may_fail("destroy")

    async def _may_fail(self, call: str) -> None:
        driver = self._driver
        if driver.chance.random() < driver.fates.other:
            fate = driver.chance.choice(("fails", "hangs"))
            driver.note(f"{call} {self.id} {fate}")
            if fate == "fails":
                raise OSError(f"{call} fails by fate")
            await driver.clock.sleep(HANG_S)

    def abandon(self) -> None:
        """The process that made it is gone: nobody is told."""
        if not self.exited.done():
            for descriptor in (self._stdin, self._replies, self._stdout, self._stderr):
                os.close(descriptor)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()


class _Half(Act, frozen=True, kw_only=True):
    """Writes half an answer first."""

    half: bytes = b""
