"""One action: merge its parameters, choose an invoker, publish, and answer when there is something to say.

The warm path is plain calls: everything here ends in a callback. Three ways to run:

- blocking: the answer is the outcome; at the deadline the activation becomes accepted work and the answer is its id;
- accepted: the answer is the id, as soon as the ledger holds the message on disk;
- as a part of a composite: the outcome goes to the composite, nothing is accepted on its own.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import msgspec

from visp.bus.base import LATER, invoker_topic
from visp.bus.follow import follow_ups
from visp.bus.messages import ActivationMessage, Detached, ResultAck, encode_task
from visp.controller.deadlines import Deadlines
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, keeper_of, new_id
from visp.entity.follow import Follow
from visp.entity.keeping import Keep
from visp.entity.limits import PLATFORM, range_violation
from visp.entity.locking import Marks
from visp.entity.subject import Identity
from visp.errors import Overloaded, ServiceError, StoreFull, StoreUnavailable
from visp.scheduler.placement import place
from visp.store.base import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.base import Bus
    from visp.bus.messages import Deferred
    from visp.clock import Clock
    from visp.controller.acks import Acks
    from visp.entity.activation import ActivationRecord
    from visp.scheduler.fleet import Fleet
    from visp.store.base import Ledger


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The activation will run, or runs, whatever happens: 202."""

    id: str


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The activation is over and its record is in the ledger; `logs` only of composites, whose entries are ids."""

    head: ActivationHead
    result: bytes
    logs: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """Nothing was accepted; why."""

    error: Exception


Answer = Accepted | Finished | Refused

Then = "Callable[[Answer], None]"


class Order(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One activation to be made: who asks for what, with which argument (merged, one line of JSON)."""

    id: str
    identity: Identity
    action: Action
    content: bytes
    transid: str
    received_ms: int
    cause: str | None = None
    binding: str | None = None
    follow: Follow | None = None
    init: tuple[str, ...] = ()
    locked: Marks = ()
    keep: Keep = "all"


class Primitive:
    """Publishes activations and hears of their outcomes."""

    def __init__(
        self,
        *,
        acks: Acks,
        bus: Bus,
        ledger: Ledger,
        fleet: Fleet,
        clock: Clock,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        self._shard = shard
        self._shards = shards
        self._topic = invoker_topic(shard)
        self._topics = {f"{number:02x}": invoker_topic(number) for number in range(shards)}
        self._acks = acks
        self._bus = bus
        self._ledger = ledger
        self._fleet = fleet
        self._clock = clock
        self._deadlines = Deadlines(asyncio.get_running_loop(), clock)

    def new_id(self) -> str:
        """For what runs, or is recorded, by this shard itself."""
        return new_id(self._clock.now_ms(), self._shard)

    def keeps(self, id: str) -> bool:
        """Whether an activation lies in the ledger of this shard."""
        return keeper_of(id, self._shards) == self._shard

    def place(self, identity: Identity, action: Action) -> str:
        """Chooses where an activation will run, and gives it the id that says so.

        Raises `Overloaded` when no invoker is up.
        """
        name, memory_mb = action.name.id, action.limits.memory_mb
        shard = place(self._fleet.view(), self._shard, identity.namespace, name, memory_mb)
        if shard is None:
            raise Overloaded()
        if len(self._topics) > 1:
            self._fleet.placed(shard, name, memory_mb)
        return new_id(self._clock.now_ms(), shard)

    def check_room(self) -> None:
        """Raises `StoreFull` or `Overloaded` when no new work may be taken."""
        self._acks.check_room()
        self._ledger.check_room()

    def _topic_of(self, order: Order) -> str:
        """Where the activation goes: to the shard that its id names; to this one, if there is none of that number."""
        return self._topics.get(order.id[12:14], self._topic)

    def run_blocking(
        self, order: Order, wait_s: float, then: Callable[[Answer], None], *, is_streamed: bool = False
    ) -> None:
        """Answers `Finished`, or `Accepted` once `wait_s` has passed. `is_streamed`: somebody reads parts, and
        hears the outcome also after `Accepted`.
        """
        topic = self._topic_of(order)
        waiting = _Waiting(self, order, topic, wait_s, then, is_streamed=is_streamed)
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), waiting.on_result)
        self._deadlines.add(order.id, wait_s, waiting.on_deadline)
        self._bus.publish(topic, message_of(order, is_blocking=True, is_streamed=is_streamed))

    def run_accepted(
        self,
        order: Order,
        then: Callable[[Answer], None],
        on_result: Callable[[ResultAck | None], None] | None = None,
    ) -> None:
        """Answers `Accepted` when the ledger holds the work.

        `on_result`: parts of the result are sent here as they come, and after the last it hears of the outcome.
        """
        message = message_of(order, is_accepted=True, is_streamed=on_result is not None)

        def accepted(error: Exception | None) -> None:
            if error is not None:
                self.refused(order)
            then(Accepted(order.id) if error is None else Refused(refusal(error)))

        self._ledger.accept([Work(order.id, encode_task(message))], None, accepted)
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), on_result)
        # in the same loop turn: a free container's `started` shares the sync
        self._bus.publish(self._topic_of(order), message)

    def run_promised(self, order: Order, wait_s: float, then: Callable[[Answer], None]) -> None:
        """Answers `Finished`, or `Accepted` once `wait_s` has passed; the ledger holds the work before it runs."""
        message = message_of(order, is_accepted=True)
        waiting = _Promised(self, order, wait_s, then)
        self._ledger.accept([Work(order.id, encode_task(message))], None, waiting.on_accepted)
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), waiting.on_result)
        self._deadlines.add(order.id, wait_s, waiting.on_deadline)
        self._bus.publish(self._topic_of(order), message)

    def run_part(self, order: Order, then: Callable[[Answer], None], *, is_accepted: bool = False) -> None:
        """Runs a part of a composite: answers `Finished`. `is_accepted`: the ledger holds it."""
        self._acks.register(
            order.id, order.identity.namespace_uuid, len(order.content), lambda ack: then(answer_of(ack))
        )
        self._bus.publish(self._topic_of(order), message_of(order, is_accepted=is_accepted))

    def detach_part(self, order: Order) -> None:
        """A part that runs is accepted work from now on: its entry is in the ledger's buffer."""
        self._bus.publish(self._topic_of(order), Detached(order.id))

    def hold(self, order: Order) -> None:
        """It counts as in flight from now on; `refused` gives that up, `publish_accepted` goes on with it."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)

    def publish_accepted(self, order: Order, *, is_held: bool = False) -> None:
        """Publishes work that the ledger holds already: a fire's children, or what is found at start."""
        if not is_held:
            self.hold(order)
        self._bus.publish(self._topic_of(order), message_of(order, is_accepted=True))

    def refused(self, order: Order) -> None:
        """The ledger did not take it: nothing runs, whatever was published."""
        self._acks.complete(order.id)

    def hurry(self) -> None:
        """Nobody is waited with any longer: what blocking callers wait for becomes accepted work."""
        self._deadlines.expire()

    def follow(self, message: ActivationMessage, record: ActivationRecord) -> None:
        """Accepts what follows from an outcome, by the write that records it: called in the same turn of the loop."""
        now_ms = self._clock.now_ms()
        for next in follow_ups(message, record.head.status, record.result, now_ms, random.random()):

            def accepted(_: Exception | None, next: Deferred = next) -> None:
                self._bus.publish(LATER, next)

            self._ledger.accept([Work(next.id, next.task, next.due_ms)], None, accepted, is_owed=True)

    def settled(self, order: Order, wait_s: float) -> None:
        """The result came in time."""
        self._deadlines.drop(order.id, wait_s)

    def detach(self, order: Order, topic: str, then: Callable[[Exception | None], None]) -> None:
        """Turns a running blocking activation into accepted work."""
        message = message_of(order, is_accepted=True)
        self._ledger.keep([Work(order.id, encode_task(message))], then)
        self._bus.publish(topic, Detached(order.id))


class _Waiting:
    """A blocking caller: settled once, by the result or by the deadline; one that reads parts by both."""

    __slots__ = ("_is_streamed", "_order", "_primitive", "_then", "_topic", "_wait_s")

    def __init__(
        self,
        primitive: Primitive,
        order: Order,
        topic: str,
        wait_s: float,
        then: Callable[[Answer], None],
        *,
        is_streamed: bool,
    ) -> None:
        self._is_streamed = is_streamed
        self._primitive = primitive
        self._order = order
        self._topic = topic
        self._wait_s = wait_s
        self._then: Callable[[Answer], None] | None = then

    def on_result(self, ack: ResultAck | None) -> None:
        self._primitive.settled(self._order, self._wait_s)
        self._settle(answer_of(ack))

    def on_deadline(self) -> None:
        self._primitive.detach(self._order, self._topic, self._on_accepted)

    def _on_accepted(self, error: Exception | None) -> None:
        if error is None:
            self._settle(Accepted(self._order.id))
        else:
            self._settle(Refused(refusal(error)))

    def _settle(self, answer: Answer) -> None:
        then = self._then
        if not (self._is_streamed and isinstance(answer, Accepted)):
            self._then = None
        if then is not None:
            then(answer)


class _Promised:
    """A blocking caller whose work was accepted first."""

    __slots__ = ("_is_accepted", "_is_late", "_order", "_primitive", "_then", "_wait_s")

    def __init__(self, primitive: Primitive, order: Order, wait_s: float, then: Callable[[Answer], None]) -> None:
        self._primitive = primitive
        self._order = order
        self._wait_s = wait_s
        self._then: Callable[[Answer], None] | None = then
        self._is_accepted = self._is_late = False

    def on_accepted(self, error: Exception | None) -> None:
        self._is_accepted = error is None
        if error is not None:
            self._primitive.refused(self._order)
            self._settle(Refused(refusal(error)))
        elif self._is_late:
            self._settle(Accepted(self._order.id))

    def on_result(self, ack: ResultAck | None) -> None:
        if ack is None:
            self.on_deadline()
        else:
            self._settle(answer_of(ack))

    def on_deadline(self) -> None:
        """The id is given once it is on disk."""
        self._is_late = True
        if self._is_accepted:
            self._settle(Accepted(self._order.id))

    def _settle(self, answer: Answer) -> None:
        then, self._then = self._then, None
        if then is not None:
            self._primitive.settled(self._order, self._wait_s)
            then(answer)


def answer_of(ack: ResultAck | None) -> Answer:
    """What an ack means for whoever waits; None that the shard that ran it is gone."""
    if ack is None:
        return Refused(ServiceError())
    if ack.error is not None:
        return Refused(StoreFull())
    return Finished(ack.head, ack.result)


def refusal(error: Exception) -> Exception:
    """Why work was not accepted, as the caller may know it."""
    return error if isinstance(error, ServiceError) else StoreUnavailable()


def message_of(
    order: Order, *, is_accepted: bool = False, is_blocking: bool = False, is_streamed: bool = False
) -> ActivationMessage:
    """The message that runs an order."""
    identity, action = order.identity, order.action
    return ActivationMessage(
        id=order.id,
        transid=order.transid,
        namespace=identity.namespace,
        namespace_uuid=identity.namespace_uuid,
        subject=identity.subject,
        action=action.name.id,
        revision=action.revision,
        content=order.content,
        received_ms=order.received_ms,
        is_accepted=is_accepted,
        is_blocking=is_blocking,
        cause=order.cause,
        binding=order.binding,
        follow=order.follow,
        init=order.init,
        locked=order.locked,
        keep=order.keep,
        answers=None if identity.limits.answers == PLATFORM else identity.limits.answers,
        unfit=range_violation(action.limits, identity.limits.ranges) if identity.limits.are_narrowed else None,
        is_streamed=is_streamed,
    )
