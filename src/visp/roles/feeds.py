"""The feed role of a server's process: sources run while it serves, and fire by an entrance of their own to its API."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from visp.bus import base as topics
from visp.bus.messages import FeedChanged
from visp.feed.fires import ApiFires
from visp.feed.provider import Provider
from visp.feed.running import Surroundings
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from visp.api.inside import Doors
    from visp.bus.base import Bus
    from visp.bus.messages import Message
    from visp.clock import Clock
    from visp.controller.feeds import Feeds
    from visp.feed.base import Reach
    from visp.feed.kinds import Kinds
    from visp.store.base import FeedStore
    from visp.telemetry.metrics import Distribution


SOURCES = "visp_feed_sources"
EVENTS = "visp_feed_events_total"


class FeedRole:
    """Runs between `begin` and `hold_back`, and again after `go_on`."""

    def __init__(
        self,
        *,
        store: FeedStore,
        feeds: Feeds,
        kinds: Kinds,
        reach: Callable[[str], Reach],
        doors: Doors,
        bus: Bus,
        clock: Clock,
        number: int,
        shards: int,
    ) -> None:
        self._doors = doors
        self._listener: socket.socket | None = None
        self._fires = ApiFires(self._url)
        around = Surroundings(
            store=store,
            fires=self._fires,
            reach=reach,
            let_go=feeds.let_go,
            clock=clock,
            holder=f"{number}",
            shards=shards,
        )
        self._events = around.events
        self._provider = Provider(around, kinds, feeds.opened)
        self._task: asyncio.Task[None] | None = None
        bus.subscribe(topics.FEEDS, self._heard)

    def _heard(self, message: Message) -> None:
        assert isinstance(message, FeedChanged)
        self._provider.nudge(message.namespace, message.trigger)

    def _url(self) -> str:
        assert self._listener is not None
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def measured(self) -> Iterable[Family]:
        """For a scrape."""
        states: dict[tuple[str, ...], float | Distribution] = {
            (state,): count for state, count in self._provider.measured().items()
        }
        yield Family(SOURCES, "Sources of events that run here, by state.", "gauge", states, ("state",))
        told = "Events of sources, by feed: fired, or refused since they are no fire."
        yield Family(EVENTS, told, "counter", self._events.samples(), ("feed", "outcome"))

    def begin(self) -> None:
        """Work is taken from now on."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self._listener.setblocking(False)
            await self._doors.answer_own(self._listener)
        await self._provider.run()

    def hold_back(self) -> None:
        """What was handed over is fired, or will be handed over again: elsewhere, or after `begin`."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        task = self._task
        self.hold_back()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)
        await self._fires.close()
        with contextlib.suppress(OSError):
            if self._listener is not None:
                self._listener.close()
