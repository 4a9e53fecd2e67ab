"""The records of a namespace as a stream: first what the reader has missed, then each as it is finished.

Who comes again with `Last-Event-ID` is given what has ended since that record did. Records are told in the order in
which they were written, which is nearly that of their ends: so a little of what came before is told again, rather than
anything left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from visp.api.events import HEARTBEAT, event
from visp.entity.limits import TIMEOUT_MS
from visp.store.base import ActivationQuery

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from visp.api.context import Services
    from visp.controller.waits import Feed
    from visp.entity.activation import ActivationHead, ActivationRecord

BACK_MS = 100
"""Ends that close together may have been told in another order."""
LONGEST_MS = 2 * TIMEOUT_MS.high
"""How long before its end a record that was missed may have begun: the longest run, and waiting."""
PAGE = 200


class Following:
    """One reader's stream. `begin` comes first, `close` last."""

    def __init__(
        self,
        *,
        services: Services,
        namespace: str,
        name: str | None,
        since_ms: int | None,
        last: str | None,
        render: Callable[[ActivationRecord], bytes],
    ) -> None:
        self._services = services
        self._namespace = namespace
        self._name = name
        self._since_ms = since_ms
        self._last = last
        self._render = render
        self._stack = contextlib.AsyncExitStack()
        self._feed: Feed
        self._missed: list[str] = []
        self._lost = 0

    async def begin(self) -> None:
        """Follows from now on, and looks for what was missed. Raises what the store and `Waits.feed` raise."""
        waits = self._services.waits
        self._feed = await self._stack.enter_async_context(waits.feed(self._namespace, self._name, self._since_ms))
        try:
            if self._last is not None or self._since_ms is not None:
                await self._look_back()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._stack.aclose()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Ends after `[waits] stream_s`, or when the server does."""
        limits = self._services.settings.waits
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + limits.stream_s
        if self._lost:
            yield _lost(self._lost)
        told = frozenset(self._missed)
        for id in self._missed:
            async for chunk in self._record(id):
                yield chunk
        while (now_s := loop.time()) < ends_s:
            try:
                async with asyncio.timeout(min(limits.heartbeat_s, ends_s - now_s)):
                    entry = await self._feed.next()
            except TimeoutError:
                yield HEARTBEAT
                continue
            if entry is None:
                return
            if isinstance(entry, int):
                yield _lost(entry)
            elif entry not in told:
                async for chunk in self._record(entry):
                    yield chunk

    async def _record(self, id: str) -> AsyncGenerator[bytes, None]:
        """The record's event; nothing for one that is gone again."""
        record = await self._services.activations.get(self._namespace, id)
        if record is not None:
            yield event("record", self._render(record), id)

    async def _look_back(self) -> None:
        """The newest records that were missed, as many as a reader may be behind; how many more there are is said."""
        store, limit = self._services.activations, self._services.settings.waits.stream_records
        after_ms = await self._end_of_last()
        begun_ms = self._since_ms
        if after_ms is not None:
            begun_ms = max(begun_ms or 0, after_ms - LONGEST_MS)
        found: list[tuple[int, str]] = []
        looked = 0
        is_all = False
        while not is_all and looked < limit:
            query = ActivationQuery(
                namespace=self._namespace,
                name=self._name,
                since_ms=begun_ms,
                skip=looked,
                limit=min(PAGE, limit - looked),
            )
            records = await store.list(query)
            looked += len(records)
            is_all = len(records) < query.limit
            for record in records:
                head = record.head
                if after_ms is None or (_end_ms(head) >= after_ms - BACK_MS and head.id != self._last):
                    found.append((_end_ms(head), head.id))
        self._missed = [id for _, id in sorted(found)]
        if not is_all:
            certain_ms = begun_ms if after_ms is None else max(begun_ms or 0, after_ms)
            query = ActivationQuery(namespace=self._namespace, name=self._name, since_ms=certain_ms)
            self._lost = max(0, await store.count(query) - looked)

    async def _end_of_last(self) -> int | None:
        """When the record ended that the reader saw last; of one that is gone, when it was asked for."""
        if self._last is None:
            return None
        record = await self._services.activations.get(self._namespace, self._last)
        return int(self._last[:12], 16) if record is None else _end_ms(record.head)


def _end_ms(head: ActivationHead) -> int:
    """A trigger's record has no end: it is over when it starts."""
    return head.end_ms or head.start_ms


def _lost(count: int) -> bytes:
    return event("lost", msgspec.json.encode({"count": count}))
