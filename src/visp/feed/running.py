"""One source that runs: opened again when it is lost, its batches fired, its position and state kept.

Source of what disables a feed, and when a fire is tried again: OpenWhisk's providers. But nothing is given up: a fire
that fails for a reason that may pass is tried until it succeeds, and the source waits meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from visp import wording
from visp.clock import Clock
from visp.entity.feed import AUTO, ERROR_LENGTH, FeedEntry, Reason
from visp.errors import ServiceError, VispError
from visp.feed.again import Waits
from visp.feed.base import FeedRefused, Reach, SourceEnded, SourceLost
from visp.store.base import FeedStore
from visp.telemetry import log
from visp.telemetry.metrics import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visp.entity.feed import Opened, Progress
    from visp.feed.base import Batch, Event, Feed

STEADY_S = 60.0
"""A source that ran so long was not lost before."""
THROTTLED_MOST = 10
"""So many refusals for too many requests in a row disable a feed of a kind that says so."""
NEVER_AGAIN = frozenset(range(400, 500)) - {408, 409, 429}
"""Statuses that disable: the trigger is gone, or its owner may not fire it."""
OF_ONE_EVENT = frozenset({400, 413})
"""Statuses of a line that are its own fault: the others of its batch go on."""
STATE_S = 1.0
"""How a source stands is kept this often at the most, beside what batches keep."""


class Outcome(msgspec.Struct, frozen=True):
    """A status as HTTP has it, and the sentence of a refusal."""

    status: int
    error: str = ""

    @property
    def is_fired(self) -> bool:
        return 200 <= self.status < 300


class Fires(Protocol):
    """Fires triggers by the API."""

    async def look(self, namespace: str, trigger: str, auth: str) -> int:
        """The status of asking for a trigger; raises `SourceLost`."""
        ...

    async def delete(self, namespace: str, trigger: str, auth: str, *, with_rules: bool) -> None:
        """Deletes a trigger, with its rules where that is asked for. Raises `SourceLost`."""
        ...

    async def fire(
        self, namespace: str, trigger: str, auth: str, batch: str, events: Sequence[Event]
    ) -> Sequence[Outcome]:
        """What became of each event; where the whole request was refused, one outcome alone. Raises `SourceLost`."""
        ...


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all sources of a process share. `holder` names the process among the `shards` that use the store."""

    store: FeedStore
    fires: Fires
    reach: Callable[[str], Reach]
    """Of a namespace."""
    let_go: Callable[[FeedEntry], Awaitable[None]]
    """Takes away what a feed has made at its source, if none uses it; raises nothing."""
    clock: Clock
    holder: str
    shards: int = 1
    events: Tally = msgspec.field(default_factory=Tally)
    """What became of events: by feed, `fired` or `refused`."""


class _Disabled(VispError):
    pass


class _Taken(VispError):
    """Somebody else has the lease, or the feed is gone."""


class Running:
    """A `Watch` for its source."""

    def __init__(self, around: Surroundings, kind: Feed, opened: Opened, entry: FeedEntry, progress: Progress) -> None:
        self.entry = entry
        self.progress = msgspec.structs.replace(progress, state="starting")
        self.clock = around.clock
        self._around = around
        self._kind = kind
        self._opened = opened
        self._kept = progress
        self._keeping: asyncio.Task[None] | None = None
        self._task = asyncio.ensure_future(self._go_on())

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def stop(self) -> None:
        """What was handed over is fired and kept, or will be handed over again."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._keeping is not None:
            self._keeping.cancel()

    # ── opened, and opened again ────────────────────────────────────────────────────────────────────────────────

    async def _go_on(self) -> None:
        try:
            await self._look()
            waits: Waits | None = None
            while True:
                began_s = self.clock.monotonic_s()
                try:
                    source = self._kind.open(self._opened.parameters, self._around.reach(self.entry.namespace))
                    await source.run(self, msgspec.json.decode(self.progress.position))
                    raise SourceLost(wording.SOURCE_STOPPED)
                except (SourceEnded, _Disabled, _Taken):
                    raise
                except Exception as error:  # whatever a source does wrong, it is opened again
                    self._lost(error)
                now_s = self.clock.monotonic_s()
                if waits is None or now_s - began_s > STEADY_S:
                    waits = Waits(now_s)
                await self.clock.sleep(waits.next_s(now_s) * random.uniform(0.5, 1.0))
        except SourceEnded as ended:
            await self._disable(Reason(AUTO, str(ended)))
            if ended.delete is not None:
                await self._delete(with_rules=ended.delete == "rules")
        except (_Disabled, _Taken):
            pass

    async def _delete(self, *, with_rules: bool) -> None:
        """The trigger goes, as was asked for, and its feed with it."""
        entry, waits = self.entry, self._waits()
        while True:
            try:
                await self._around.fires.delete(
                    entry.namespace, entry.trigger, self._opened.auth, with_rules=with_rules
                )
                await self._around.store.drop_feed(entry.namespace, entry.trigger)
                await self._around.let_go(entry)
                return
            except (SourceLost, ServiceError) as error:
                log.warning("feed.trigger_not_deleted", trigger=self._name, reason=str(error))
            await self._wait(waits)

    async def _look(self) -> None:
        """The trigger may be gone since it was last fired."""
        entry, waits = self.entry, self._waits()
        while True:
            try:
                status = await self._around.fires.look(entry.namespace, entry.trigger, self._opened.auth)
            except SourceLost as error:
                self._lost(error)
                status = 503
            if status in NEVER_AGAIN:
                await self._disable(Reason(AUTO, wording.feed_disabled_at_start(status), status))
                raise _Disabled()
            if status < 400:
                return
            await self._wait(waits)

    def _lost(self, error: Exception) -> None:
        known = isinstance(error, (SourceLost, FeedRefused, OSError, TimeoutError))
        text = (str(error) or type(error).__name__)[:ERROR_LENGTH] if known else wording.INTERNAL
        log.warning("feed.lost", feed=self.entry.feed, trigger=self._name, reason=repr(error)[:ERROR_LENGTH])
        self._stand(state="retrying", last_error=text, last_error_ms=self.clock.now_ms())

    def _waits(self) -> Waits:
        return Waits(self.clock.monotonic_s())

    async def _wait(self, waits: Waits) -> None:
        await self.clock.sleep(waits.next_s(self.clock.monotonic_s()))

    @property
    def _name(self) -> str:
        return f"{self.entry.namespace}/{self.entry.trigger}"

    # ── what a source is given ──────────────────────────────────────────────────────────────────────────────────

    def live(self, *, lag: int | None = None, next_ms: int | None = None) -> None:
        self._stand(state="live", lag=lag, next_ms=next_ms)

    async def fire(self, batch: Batch) -> None:
        progress = self.progress
        fired = refused = 0
        if batch.events:
            number = progress.batch + 1
            fired, refused = await self._deliver(batch.events, f"{self.entry.id}/{number}")
            for outcome, count in (("fired", fired), ("refused", refused)):
                self._around.events.add(self.entry.feed, outcome, count=count)
            progress = msgspec.structs.replace(
                self.progress,
                batch=number,
                fired=progress.fired + fired,
                refused=progress.refused + refused,
                last_event_ms=self.clock.now_ms(),
                state="live",
            )
        position = msgspec.json.encode(batch.position)
        self.progress = msgspec.structs.replace(progress, position=position)
        await self._keep()

    async def _deliver(self, events: Sequence[Event], batch: str) -> tuple[int, int]:
        """How many were fired, and how many never will be. Raises `_Disabled`."""
        entry, waits, throttled = self.entry, self._waits(), 0
        left, fired, refused = list(events), 0, 0
        while left:
            try:
                outcomes = await self._around.fires.fire(entry.namespace, entry.trigger, self._opened.auth, batch, left)
            except SourceLost as error:
                outcomes = [Outcome(503, str(error))]
            if len(outcomes) != len(left):
                outcomes = [outcomes[0]] * len(left)
                is_whole = True
            else:
                is_whole = len(left) == 1
            again = []
            worst = Outcome(204)
            for event, outcome in zip(left, outcomes, strict=True):
                if outcome.is_fired:
                    fired += 1
                elif outcome.status in OF_ONE_EVENT and not (is_whole and outcome.status == 400):
                    refused += 1
                    log.warning("feed.event_refused", trigger=self._name, status=outcome.status)
                else:
                    worst = max(worst, outcome, key=lambda each: (each.status in NEVER_AGAIN, each.status))
                    again.append(event)
            left = again
            if not left:
                break
            if worst.status in NEVER_AGAIN:
                await self._disable(Reason(AUTO, wording.feed_disabled(worst.status, worst.error), worst.status))
                raise _Disabled()
            throttled = throttled + 1 if worst.status == 429 else 0
            if throttled >= THROTTLED_MOST and self._kind.disables_when_throttled:
                await self._disable(Reason(AUTO, wording.FEED_THROTTLED, 429))
                raise _Disabled()
            self._lost(SourceLost(wording.not_fired(worst.status, worst.error)))
            if throttled:
                await self.clock.sleep(max(1.0, throttled**2))
            else:
                await self._wait(waits)
        return fired, refused

    # ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        """Raises `_Taken`; goes on trying while the store cannot be written."""
        waits = self._waits()
        while True:
            progress = self._kept = self.progress
            try:
                if not await self._around.store.advance(self.entry, progress, self._around.holder):
                    raise _Taken()
                return
            except ServiceError as error:
                log.warning("feed.not_kept", trigger=self._name, reason=str(error))
                await self._wait(waits)

    async def _disable(self, reason: Reason) -> None:
        log.warning("feed.disabled", trigger=self._name, reason=reason.message)
        now_ms = self.clock.now_ms()
        disabled = msgspec.structs.replace(self.entry, reason=reason, changed_ms=now_ms)
        self.progress = msgspec.structs.replace(self.progress, state="disabled")
        store, holder = self._around.store, self._around.holder
        await store.advance(self.entry, self.progress, holder, disabled=disabled)

    def _stand(self, **fields: Any) -> None:
        self.progress = msgspec.structs.replace(self.progress, **fields)
        if self._keeping is None:
            self._keeping = asyncio.ensure_future(self._keep_soon())

    async def _keep_soon(self) -> None:
        await self.clock.sleep(STATE_S)
        self._keeping = None
        if self.progress is not self._kept and not self._task.done():
            progress = self._kept = self.progress
            try:
                await self._around.store.advance(self.entry, progress, self._around.holder)
            except ServiceError as error:
                log.warning("feed.not_kept", trigger=self._name, reason=str(error))
