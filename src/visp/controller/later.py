"""What is due at a time of its own: delayed activations and fires, further attempts, dead letters, calls of web hooks.

The ledger holds all of it; here it waits for its time. Whatever cannot be begun then, because the server is full or a
store is away, is tried again, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus import base as topics
from visp.bus.follow import ATTEMPT, HOOK, LETTER
from visp.bus.messages import (
    ActivationMessage,
    Deferred,
    FireMessage,
    HookMessage,
    LetterMessage,
    StepMessage,
    decode_task,
    encode_task,
)
from visp.controller.fire import Firing
from visp.controller.letters import letter_event, letter_of
from visp.controller.primitive import Accepted, Answer, Order, Refused, refusal
from visp.entity import keeping
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord, Outcome, Status, failure
from visp.entity.composition import composes
from visp.entity.follow import following_id
from visp.entity.names import from_id
from visp.entity.trigger import Trigger
from visp.errors import Corrupt, NotFound, RequestError, ServiceError, Throttled
from visp.store.base import Work
from visp.telemetry import log
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.base import Bus
    from visp.bus.messages import Message
    from visp.clock import Clock
    from visp.controller.composites import Composites
    from visp.controller.fire import Fire
    from visp.controller.hooks import Hooks
    from visp.controller.identities import Identities
    from visp.controller.primitive import Primitive
    from visp.controller.resolver import Resolver
    from visp.entity.subject import Identity
    from visp.settings import Settings
    from visp.store.base import ActivationStore, Ledger, LetterStore
    from visp.store.cache import EntityCache

LOOK_S = 30.0
"""At the latest: the wall clock may have been set meanwhile."""
AGAIN_S = 1.0
"""Until what could not be begun is tried again."""
AT_ONCE = 100
"""As many are begun in one turn of the loop."""
DEFERRED = "visp_deferred"


Asked = ActivationMessage | FireMessage
"""What users see, count and cancel."""
Deferrable = Asked | LetterMessage | HookMessage


class Waiting(msgspec.Struct, frozen=True):
    """A task and when it is due."""

    task: Deferrable
    due_ms: int

    @property
    def group(self) -> tuple[str, str]:
        """What is counted together: what a namespace asked for, its dead letters, its hooks."""
        task = self.task
        return ("asked" if isinstance(task, Asked) else type(task).__name__), task.namespace

    def render(self) -> dict[str, object]:
        """As it is shown; times in milliseconds since 1970."""
        task = self.task
        assert isinstance(task, Asked)
        out: dict[str, object] = {"activationId": task.id, "due": self.due_ms}
        if isinstance(task, FireMessage):
            return out | {"trigger": task.trigger}
        follow = task.follow
        if follow is not None and follow.first is not None:
            out |= {"retryOf": follow.first, "attempt": follow.attempt}
        return out | {"action": task.action}


class Later:
    """The only owner of what waits for its time; one for each shard's ledger."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        activations: ActivationStore,
        letters: LetterStore,
        entities: EntityCache,
        resolver: Resolver,
        identities: Identities,
        primitive: Primitive,
        composites: Composites,
        fire: Fire,
        hooks: Hooks,
        bus: Bus,
        clock: Clock,
        settings: Settings,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._ledger = ledger
        self._activations = activations
        self._letters = letters
        self._entities = entities
        self._resolver = resolver
        self._identities = identities
        self._primitive = primitive
        self._composites = composites
        self._fire = fire
        self._hooks = hooks
        self._bus = bus
        self._clock = clock
        self._limits = settings.queue
        self._hooks_limit = settings.hooks.waiting
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, Waiting] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        bus.subscribe(topics.LATER, self._heard)

    def owner_of(self, id: str) -> str | None:
        """The uuid of the namespace whose this is, of what waits here."""
        waiting = self._waiting.get(id)
        return None if waiting is None else waiting.task.namespace_uuid

    def measured(self) -> list[Family]:
        """How much waits, for a scrape."""
        return [Family(DEFERRED, "Accepted work that is not due yet.", "gauge", {(): len(self._waiting)})]

    # ── what waits ──────────────────────────────────────────────────────────────────────────────────────────────

    def check_room(self, identity: Identity) -> None:
        """Raises `Throttled` when a namespace may not ask for more that is due later."""
        limit = self._limits.delayed
        if self._counts.get(("asked", identity.namespace), 0) >= limit:
            raise Throttled(wording.too_much_delayed(limit))

    def delay(self, task: Asked, due_ms: int, then: Callable[[Answer], None]) -> None:
        """Accepts work that is begun at `due_ms`; `then` hears once the ledger holds it."""

        def accepted(error: Exception | None) -> None:
            if error is None:
                self.take(task.id, task, due_ms)
                then(Accepted(task.id))
            else:
                then(Refused(refusal(error)))

        self._ledger.accept([Work(task.id, encode_task(task), due_ms)], None, accepted)

    def of(self, namespace: str) -> list[Waiting]:
        """What waits in a namespace and was asked for; the next one first."""
        own = [waiting for waiting in self._waiting.values() if waiting.group == ("asked", namespace)]
        return sorted(own, key=lambda waiting: (waiting.due_ms, waiting.task.id))

    def cancel(self, namespace: str, id: str) -> Waiting | None:
        """Ends what waits with a record that says so; None when there is no such thing, or it has begun."""
        waiting = self._waiting.get(id)
        if waiting is None or waiting.task.namespace != namespace or not isinstance(waiting.task, Asked):
            return None
        self._drop(id)
        self._end(waiting.task, None, failure(Status.APPLICATION_ERROR, wording.CANCELLED), has_follow_ups=False)
        return waiting

    def take(self, id: str, task: Deferrable, due_ms: int) -> None:
        """The ledger holds it: from now on it waits here. What waits already does not wait twice."""
        if id in self._waiting:
            return
        waiting = Waiting(task, due_ms)
        count = self._counts.get(waiting.group, 0)
        if isinstance(task, HookMessage) and count >= self._hooks_limit:
            self._hooks.drop(task)
            self._ledger.end(id)
            return
        self._waiting[id] = waiting
        self._counts[waiting.group] = count + 1
        self._push(id, due_ms)

    def _heard(self, message: Message) -> None:
        if isinstance(message, Deferred):
            task = decode_task(message.task)
            assert not isinstance(task, StepMessage)
            self.take(message.id, task, message.due_ms)

    def _push(self, id: str, due_ms: int) -> None:
        heapq.heappush(self._heap, (due_ms, next(self._numbers), id))
        self._arm()

    def _drop(self, id: str) -> None:
        group = self._waiting.pop(id).group
        left = self._counts[group] - 1
        if left:
            self._counts[group] = left
        else:
            del self._counts[group]

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap:
            wait_s = min(LOOK_S, max(0.0, (self._heap[0][0] - self._clock.now_ms()) / 1000))
            self._timer = self._loop.call_later(wait_s, self._look)

    def _look(self) -> None:
        now_ms = self._clock.now_ms()
        for _ in range(AT_ONCE):
            if not self._heap or self._heap[0][0] > now_ms:
                break
            _, _, id = heapq.heappop(self._heap)
            if id in self._waiting:  # else it was cancelled
                self._tasks.create_task(self._begin(id))
        self._arm()

    async def _begin(self, id: str) -> None:
        waiting = self._waiting.get(id)
        if waiting is None:
            return
        self._drop(id)
        task = waiting.task
        try:
            if isinstance(task, ActivationMessage):
                self._primitive.check_room()
                await self.resume(task)
            elif isinstance(task, FireMessage):
                self._primitive.check_room()
                await self._fire_now(task)
            elif isinstance(task, LetterMessage):
                await self._keep(task)
            else:
                await self._call(task)
        except ServiceError as error:
            log.warning("later.not_begun", activation=id, reason=str(error))
            self._take_again(task, AGAIN_S)
        except Exception as error:  # the top of a task: it must not end the others; the next start begins it again
            log.exception("later.failed", activation=id, reason=repr(error))

    def _not_begun(self, task: Asked, answer: Answer) -> None:
        """Takes it again if the ledger could not be told that it begins."""
        if isinstance(answer, Refused):
            log.warning("later.not_begun", activation=task.id, reason=str(answer.error))
            self._take_again(task, AGAIN_S)

    def _take_again(self, task: Deferrable, wait_s: float) -> None:
        self.take(task.id, task, self._clock.now_ms() + round(wait_s * 1000))

    # ── an activation ───────────────────────────────────────────────────────────────────────────────────────────

    async def resume(self, message: ActivationMessage) -> bool:
        """Publishes an activation that the ledger holds; false when it was ended instead, for its action is gone.

        Raises `ServiceError` when it cannot be begun now.
        """
        order = await self.order_of(message)
        if order is None:
            await self.end_unrun(message)
            return False
        if composes(order.action):
            self._composites.resume(order, lambda answer: self._not_begun(message, answer))
        else:
            self._primitive.publish_accepted(order)
        return True

    async def order_of(self, message: ActivationMessage) -> Order | None:
        """What the message asks for, with the action as it is now; None when that, or its caller, is gone."""
        action = await self.action_of(message)
        identity = await self._identities.by_uuid(message.namespace_uuid)
        if action is None or identity is None:
            return None
        return Order(
            id=message.id,
            identity=identity,
            action=action,
            content=message.content,
            transid=message.transid,
            received_ms=message.received_ms,
            cause=message.cause,
            binding=message.binding,
            init=message.init,
            locked=message.locked,
            keep=message.keep,
            follow=message.follow,
        )

    async def end_unrun(self, message: ActivationMessage) -> None:
        """Ends an activation whose action is gone."""
        gone = failure(Status.APPLICATION_ERROR, wording.ACTION_GONE)
        self._end(message, await self.action_of(message), gone, has_follow_ups=False)

    async def interrupt(self, message: ActivationMessage) -> None:
        """Ends an activation that was running when its server died.

        What follows from that may be there: it was written with an outcome that was not. Then it does not follow again.
        """
        next_id = following_id(message.id, ATTEMPT)
        is_followed = (
            self._activations.has_open(next_id)  # in the ledger of this message
            or self._activations.has_open(following_id(message.id, LETTER))
            or self._activations.has_open(following_id(message.id, HOOK))
            or await self._activations.get(message.namespace, next_id) is not None
        )
        interrupted = failure(Status.INTERNAL_ERROR, wording.INTERRUPTED)
        self._end(message, await self.action_of(message), interrupted, has_follow_ups=not is_followed)

    async def action_of(self, message: ActivationMessage) -> Action | None:
        try:
            found = await self._entities.get(message.action)
        except Corrupt:
            return None
        return found if isinstance(found, Action) else None

    def _end(
        self,
        task: Asked,
        action: Action | None,
        outcome: Outcome,
        *,
        has_follow_ups: bool = True,
    ) -> None:
        record = unrun_record(task, action, outcome, self._clock.now_ms())
        if has_follow_ups and isinstance(task, ActivationMessage):
            self._primitive.follow(task, record)
        is_kept = isinstance(task, FireMessage) or keeping.is_kept(task.keep, record.head.status)
        self._ledger.finish(record, _report, is_kept=is_kept)

    # ── a fire ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _fire_now(self, message: FireMessage) -> None:
        trigger = await self._entities.get(message.trigger)
        identity = await self._identities.by_uuid(message.namespace_uuid)
        if not isinstance(trigger, Trigger) or identity is None:
            self._end(message, None, failure(Status.APPLICATION_ERROR, wording.TRIGGER_GONE))
            return
        await self._fire.load(identity, trigger)
        self._fire.start_delayed(
            message.id,
            Firing(
                identity=identity,
                trigger=trigger,
                body=message.content,
                headers=message.headers,
                transid=message.transid,
                received_ms=message.received_ms,
                is_forced=message.is_forced,
            ),
            lambda answer: self._not_begun(message, answer),
        )

    # ── a dead letter ───────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self, message: LetterMessage) -> None:
        """Stores the letter, tells whoever is to hear of it, and only then is it off the ledger."""
        run = message.run
        removed = await self._letters.put_letter(letter_of(message), self._limits.dead_letters)
        if removed:
            log.warning("letters.full", namespace=run.namespace, removed=removed, limit=self._limits.dead_letters)
        if message.target:
            try:
                await self._tell(message)
            except (RequestError, Corrupt) as error:  # the letter is kept: it says what was not told
                log.warning("letters.not_told", target=message.target, activation=run.id, reason=str(error))
        self._ledger.end(message.id)

    async def _tell(self, message: LetterMessage) -> None:
        identity = await self._identities.by_uuid(message.run.namespace_uuid)
        if identity is None:
            raise NotFound()
        name = from_id(message.target)
        target = await self._entities.get(name.id)
        if isinstance(target, Trigger):
            await self._fire.load(identity, target)
            self._fire.tell(identity, target, letter_event(message), message.run.transid)
        else:
            resolved = await self._resolver.resolve(identity, name)
            self._fire.tell(identity, resolved, letter_event(message), message.run.transid)

    # ── a web hook ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _call(self, message: HookMessage) -> None:
        wait_s = await self._hooks.call(message)
        if wait_s is None:
            self._ledger.end(message.id)
        else:
            self._take_again(message, wait_s)


def unrun_record(task: Asked, action: Action | None, outcome: Outcome, now_ms: int) -> ActivationRecord:
    """The record of accepted work that ends without a run, or with one that nobody saw the end of."""
    if isinstance(task, FireMessage):
        name = from_id(task.trigger).name
        head = ActivationHead(
            id=task.id,
            namespace=task.namespace,
            subject=task.subject,
            name=name,
            version="0.0.1",
            start_ms=now_ms,
            status=outcome.status,
        )
        return ActivationRecord(head=head, result=outcome.result)
    follow = task.follow
    head = ActivationHead(
        id=task.id,
        namespace=task.namespace,
        subject=task.subject,
        name=from_id(task.action).name,
        version="0.0.1" if action is None else action.version,
        start_ms=now_ms,
        end_ms=now_ms,
        duration_ms=0,
        status=outcome.status,
        path=task.action,
        kind="unknown" if action is None else action.exec.kind,
        limits=None if action is None else action.limits,
        cause=task.cause,
        binding=task.binding,
        retry_of=None if follow is None else follow.first,
        attempt=None if follow is None or follow.first is None else follow.attempt,
    )
    return ActivationRecord(head=head, result=outcome.result)


def _report(error: Exception | None) -> None:
    if error is not None:
        log.error("later.not_recorded", reason=str(error))
