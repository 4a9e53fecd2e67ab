"""Builds that a PUT asks for: begun when the code is stored, or awaited before it is.

Whoever does not wait is answered at once, as by OpenWhisk; the first container then waits for the build, or finds what
it made. Nothing is kept of a build: after a restart it is begun by the first activation.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus import base as topics
from visp.bus.messages import BuildMessage, BuildProgress, BuildResult
from visp.entity.execs import SequenceExec
from visp.errors import BuildRefused, Overloaded, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.base import Bus
    from visp.bus.messages import Message
    from visp.entity.execs import Exec

    Hear = Callable[[str], None]


class UnderWay(msgspec.Struct, frozen=True):
    """Whose build it is, and who waits for it."""

    namespace: str
    done: asyncio.Future[BuildResult] | None = None
    hear: Hear | None = None


class Builds:
    """`is_built` says whether there is something to build; `limit` is how many of a namespace may be under way."""

    def __init__(self, *, bus: Bus, is_built: Callable[[Exec], bool], limit: int) -> None:
        self._bus = bus
        self._is_built = is_built
        self._limit = limit
        self._ids = itertools.count(1)
        self._under_way: dict[int, UnderWay] = {}
        self._counts: Counter[str] = Counter()
        bus.subscribe(topics.BUILT, self._heard)

    def __repr__(self) -> str:
        return f"<Builds {dict(self._counts)}>"

    def begin(self, namespace: str, exec: Exec) -> None:
        """Nobody waits; where too many are under way, the first container's start begins it."""
        if self._is_built(exec) and self._counts[namespace] < self._limit:
            self._publish(UnderWay(namespace), exec)

    async def run(self, namespace: str, exec: Exec, hear: Hear | None = None) -> None:
        """Until the code can run; `hear` is told what the build prints. Who is cancelled leaves the build to go on.

        Raises `BuildRefused` with the compiler's words, `Throttled`, and `Overloaded` for what is the platform's fault.
        """
        if not self._is_built(exec):
            return
        if self._counts[namespace] >= self._limit:
            raise Throttled(wording.too_many_builds(self._limit), retry_after_s=1)
        done: asyncio.Future[BuildResult] = asyncio.get_running_loop().create_future()
        self._publish(UnderWay(namespace, done, hear), exec)
        result = await done
        if result.refusal is not None:
            raise BuildRefused(result.refusal)
        if result.failure is not None:
            raise Overloaded(result.failure)

    def _publish(self, begun: UnderWay, exec: Exec) -> None:
        assert not isinstance(exec, SequenceExec)
        id = next(self._ids)
        self._under_way[id] = begun
        self._counts[begun.namespace] += 1
        message = BuildMessage(id=id, namespace=begun.namespace, exec=exec, is_heard=begun.hear is not None)
        self._bus.publish(topics.BUILDS, message)

    def _heard(self, message: Message) -> None:
        assert isinstance(message, BuildProgress | BuildResult)
        build = self._under_way.get(message.id)
        if build is None:
            return
        if isinstance(message, BuildProgress):
            if build.hear is not None and build.done is not None and not build.done.done():
                build.hear(message.line)
            return
        del self._under_way[message.id]
        self._counts[build.namespace] -= 1
        if not self._counts[build.namespace]:
            del self._counts[build.namespace]
        if build.done is not None and not build.done.done():
            build.done.set_result(message)
