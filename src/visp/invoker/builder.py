"""Builds code when it is put, before anybody runs it: what the bus asks of this invoker beside activations."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from visp import wording
from visp.bus import base as topics
from visp.bus.messages import BuildMessage, BuildProgress, BuildResult
from visp.entity.execs import runtime_of
from visp.errors import ServiceError, StartFailed
from visp.runtime.base import CodeRefused
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from visp.bus.base import Bus
    from visp.bus.messages import Message
    from visp.entity.execs import BlackboxExec, CodeExec
    from visp.runtime.base import Kind, PreparedCode


class Prepare(Protocol):
    """As `CodeCache.prepare`."""

    def __call__(
        self, exec: CodeExec | BlackboxExec, kind: Kind, namespace: str = "", hear: Callable[[str], None] | None = None
    ) -> Awaitable[PreparedCode]:
        """What a container is given."""
        ...


class Builder:
    """Answers every `BuildMessage` by one `BuildResult`; how many come at once is bounded by who sends them."""

    def __init__(self, *, bus: Bus, kind_of: Callable[[str], Kind | None], prepare: Prepare) -> None:
        self._bus = bus
        self._kind_of = kind_of
        self._prepare = prepare
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribe = bus.subscribe(topics.BUILDS, self._heard)

    async def close(self) -> None:
        """Whoever waits is told that the server ends."""
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _heard(self, message: Message) -> None:
        assert isinstance(message, BuildMessage)
        task = asyncio.ensure_future(self._build(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _build(self, message: BuildMessage) -> None:
        result = BuildResult(message.id, failure=wording.BUILD_CUT_SHORT)
        try:
            kind = self._kind_of(runtime_of(message.exec))
            if kind is not None:
                hear = self._hear(message.id) if message.is_heard else None
                await self._prepare(message.exec, kind, message.namespace, hear)
            result = BuildResult(message.id)
        except CodeRefused as refused:
            result = BuildResult(message.id, refusal=refused.sentence)
        except (StartFailed, ServiceError) as error:
            log.error("code.not_built", reason=str(error))
            sentence = error.sentence if isinstance(error, StartFailed) else None
            result = BuildResult(message.id, failure=sentence or wording.BUILD_NOT_BEGUN)
        finally:
            self._bus.publish(topics.BUILT, result)

    def _hear(self, id: int) -> Callable[[str], None]:
        return lambda line: self._bus.publish(topics.BUILT, BuildProgress(id, line))
