"""Sequences: actions one after the other, each fed with the result of the one before.

Source: OpenWhisk's sequence semantics (records, causes, durations, short circuit on `error`, limit of atomic actions).
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from visp import wording
from visp.bus.messages import ActivationMessage, StepMessage, encode_task
from visp.controller.invoke import follow_of
from visp.controller.primitive import Accepted, Answer, Finished, Order, Refused, message_of, refusal
from visp.entity import payload as payloads
from visp.entity.activation import ActivationHead, ActivationRecord, Outcome, Status, failure
from visp.entity.execs import SequenceExec
from visp.entity.follow import Follow, backoff_ms
from visp.entity.limits import SEQUENCE_LIMIT
from visp.entity.parameters import values
from visp.errors import RequestError, ServiceError, VispError
from visp.store.base import Work
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from visp.clock import Clock
    from visp.controller.acks import Acks
    from visp.controller.primitive import Primitive
    from visp.controller.resolver import Resolved, Resolver
    from visp.entity.action import Action
    from visp.entity.names import FullyQualifiedName
    from visp.store.base import ActivationStore, Ledger


LOOK_S = 1.0
RESULT_GRACE_S = 60.0
"""How much longer than its own time limit a part may take to answer."""


class _Progress(msgspec.Struct):
    """How far one sequence has come: see `StepMessage`. `part` is the order of the component that runs."""

    order: Order
    start_ms: int
    input: bytes
    index: int = 0
    part: Order | None = None
    ids: list[str] = []
    duration_ms: int = 0
    memory_mb: int | None = None


class _Whole(msgspec.Struct):
    """A topmost sequence and all that nest in it: `levels` are those that have begun, the topmost first.

    `atomic` counts their runs of actions. `is_accepted`: each step is in the ledger before it is made.
    """

    atomic: int = 0
    is_accepted: bool = False
    levels: list[_Progress] = []

    @property
    def part(self) -> Order | None:
        """The innermost part that runs."""
        return self.levels[-1].part if self.levels else None

    def works(self, levels: Sequence[_Progress]) -> list[Work]:
        """What the ledger has to hold of these levels: each one's step, and the innermost part."""
        works = [Work(level.order.id, encode_task(self._step(level))) for level in levels]
        if self.part is not None:
            works.append(Work(self.part.id, encode_task(message_of(self.part, is_accepted=True))))
        return works

    def _step(self, level: _Progress) -> StepMessage:
        return StepMessage(
            run=message_of(level.order, is_accepted=True),
            index=level.index,
            part="" if level.part is None else level.part.id,
            input=level.input,
            ids=tuple(level.ids),
            duration_ms=level.duration_ms,
            memory_mb=level.memory_mb,
            atomic=self.atomic,
            start_ms=level.start_ms,
        )


class Orders(Protocol):
    """How messages that a start found become orders again."""

    async def order_of(self, message: ActivationMessage) -> Order | None:
        """None when its action or caller is gone."""
        ...

    async def end_unrun(self, message: ActivationMessage) -> None:
        """Records that."""
        ...


class Found(msgspec.Struct, frozen=True):
    """Open work of a part, as a start found it."""

    task: ActivationMessage | StepMessage
    is_started: bool


class Sequences:
    """Runs composites; the only owner of their progress."""

    def __init__(
        self,
        *,
        primitive: Primitive,
        resolver: Resolver,
        acks: Acks,
        ledger: Ledger,
        activations: ActivationStore,
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._activations = activations
        self._primitive = primitive
        self._resolver = resolver
        self._acks = acks
        self._ledger = ledger
        self._clock = clock
        self._tasks = tasks
        self._hurry: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.under_way = 0
        """Topmost sequences that have begun."""

    def hurry(self) -> None:
        """Nobody is waited with any longer: sequences that blocking callers wait for become accepted work."""
        hurry, self._hurry = self._hurry, asyncio.get_running_loop().create_future()
        hurry.set_result(None)

    def start(
        self, order: Order, wait_s: float | None, then: Callable[[Answer], None], *, is_promised: bool = False
    ) -> None:
        """A topmost sequence, asked for by a client: blocking, or accepted, or both."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        if wait_s is None:
            self._accept(order, lambda error: self._begin_accepted(order, error, then))
        else:
            self._tasks.create_task(self._run_blocking(order, wait_s, then, is_accepted=is_promised))

    def resume(self, order: Order, then: Callable[[Answer], None]) -> None:
        """A sequence that the ledger holds and nobody began: a fire's child, or what is found at start."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        self._ledger.start([order.id], lambda error: self._begin_accepted(order, error, then))

    def _accept(self, order: Order, then: Callable[[Exception | None], None]) -> None:
        """`accepted` and `started` in one sync: the sequence begins at once, and a restart must not begin it again."""
        self._ledger.accept([Work(order.id, encode_task(message_of(order, is_accepted=True)))], None, _ignore)
        self._ledger.start([order.id], then)

    async def _accepted(self, order: Order, whole: _Whole) -> Exception | None:
        """Makes what a blocking caller waits for accepted work, with the steps that it is at."""
        accepted: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        whole.is_accepted = True
        if whole.levels:
            for work in whole.works(whole.levels):  # a part may lie in another shard's ledger
                self._ledger.keep([work], _ignore)
            self._ledger.start([order.id], accepted.set_result)
        else:
            self._accept(order, accepted.set_result)
        if whole.part is not None and not is_sequence(whole.part):
            self._primitive.detach_part(whole.part)
        return await accepted

    def _begin_accepted(self, order: Order, error: Exception | None, then: Callable[[Answer], None]) -> None:
        if error is not None:
            self._acks.complete(order.id)
            then(Refused(refusal(error)))
            return
        then(Accepted(order.id))
        self._tasks.create_task(self._run_topmost(order, _Whole(is_accepted=True)))

    async def _run_topmost(self, order: Order, whole: _Whole) -> Answer:
        return await self._guarded(order, self._run(order, whole, is_topmost=True))

    async def _guarded(self, order: Order, run: Coroutine[Any, Any, Finished]) -> Answer:
        self.under_way += 1
        try:
            return await run
        except ServiceError as error:
            return Refused(error)
        except Exception as error:  # the top of a sequence: what nobody foresaw must not end the others
            log.exception("sequence.failed", transid=order.transid, activation=order.id, reason=repr(error))
            return Refused(ServiceError())
        finally:
            self.under_way -= 1
            self._acks.complete(order.id)

    async def _run_blocking(
        self, order: Order, wait_s: float, then: Callable[[Answer], None], *, is_accepted: bool
    ) -> None:
        whole = _Whole()
        error = await self._accepted(order, whole) if is_accepted else None
        if error is not None:
            self._acks.complete(order.id)
            then(Refused(refusal(error)))
            return
        run = self._tasks.create_task(self._run_topmost(order, whole))
        awaited: list[asyncio.Future[Any]] = [run, self._hurry]
        await asyncio.wait(awaited, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if not run.done():
            if not is_accepted:
                error = await self._accepted(order, whole)
            if not run.done():  # else it finished meanwhile, and its outcome is the answer
                then(Accepted(order.id) if error is None else Refused(refusal(error)))
                return
        then(run.result())

    async def _run(self, order: Order, whole: _Whole, *, is_topmost: bool) -> Finished:
        """Runs the parts, writes the sequence's record, and answers with it.

        Raises `ServiceError` if that cannot be written.
        """
        progress = _Progress(order, self._clock.now_ms(), order.content)
        whole.levels.append(progress)
        return await self._go_on(progress, whole, Outcome(Status.SUCCESS, order.content), is_topmost=is_topmost)

    async def _go_on(
        self, progress: _Progress, whole: _Whole, outcome: Outcome, *, is_topmost: bool, is_over: bool = False
    ) -> Finished:
        """Runs the components from `progress.index` on, each with the outcome of the one before."""
        exec = progress.order.action.exec
        assert isinstance(exec, SequenceExec)
        for number in range(progress.index, len(exec.components)):
            if is_over:
                break
            progress.index, progress.input = number, outcome.result
            outcome, is_over = await self._run_part(exec.components[number], progress, whole)
        whole.levels.remove(progress)
        return await self._record(progress, outcome, is_topmost)

    async def _run_part(
        self, component: FullyQualifiedName, progress: _Progress, whole: _Whole
    ) -> tuple[Outcome, bool]:
        """One component: its outcome, and whether it ends the sequence."""
        parent = progress.order
        try:
            resolved = await self._resolver.resolve(parent.identity, component)
        except ServiceError as error:
            log.error("sequence.part_unread", transid=parent.transid, part=component.id, reason=str(error))
            return failure(Status.INTERNAL_ERROR, wording.SEQUENCE_FAILED), True
        except RequestError:
            return failure(Status.APPLICATION_ERROR, wording.SEQUENCE_COMPONENT_MISSING), True
        action = resolved.action
        if not isinstance(action.exec, SequenceExec):
            whole.atomic += 1
            if whole.atomic > SEQUENCE_LIMIT:
                return failure(Status.APPLICATION_ERROR, wording.SEQUENCE_TOO_LONG), True
        asked = follow_of(parent.identity, action, None)
        policy = None if asked is None else asked.retry
        follow = Follow()
        while True:
            outcome, is_over, id = await self._attempt(resolved, follow, progress, whole)
            if policy is None or not msgspec.structs.replace(follow, retry=policy).has_another(outcome.status):
                return outcome, is_over
            await self._clock.sleep(backoff_ms(policy, follow.attempt, random.random()) / 1000)
            follow = Follow(attempt=follow.attempt + 1, first=follow.first or id)

    async def _attempt(
        self, resolved: Resolved, follow: Follow, progress: _Progress, whole: _Whole
    ) -> tuple[Outcome, bool, str | None]:
        """One run of a component, with its id: of its attempts the last one counts, and all are the sequence's own."""
        parent, action = progress.order, resolved.action
        is_here = whole.is_accepted or isinstance(action.exec, SequenceExec)  # a step and its part are one entry
        try:
            order = Order(
                id=self._primitive.new_id() if is_here else self._primitive.place(parent.identity, action),
                identity=parent.identity,
                action=action,
                content=part_argument(action, progress.input),
                transid=parent.transid,
                received_ms=self._clock.now_ms(),
                cause=parent.id,
                binding=resolved.binding,
                init=resolved.init,
                follow=None if follow.first is None else follow,
            )
            progress.part = order
            if whole.is_accepted:
                await self._written(whole.works([progress]))
        except VispError as error:
            log.warning("sequence.part_failed", transid=parent.transid, part=action.name.id, reason=str(error))
            return failure(Status.INTERNAL_ERROR, wording.SEQUENCE_FAILED), True, None
        run = self._run(order, whole, is_topmost=False) if is_sequence(order) else self._run_atomic(order, whole)
        outcome, is_over = await self._outcome(order, progress, run)
        return outcome, is_over, order.id

    async def _outcome(
        self, order: Order, progress: _Progress, run: Coroutine[Any, Any, Finished]
    ) -> tuple[Outcome, bool]:
        """Runs the part that the progress is at, and adds what it came to."""
        try:
            answer = await (self._registered(order, run) if is_sequence(order) else run)
        except TimeoutError:
            self._acks.forget(order.id)
            return _account(
                order.id, failure(Status.INTERNAL_ERROR, wording.component_not_answered(order.id)), progress
            )
        except VispError as error:
            log.warning("sequence.part_failed", transid=order.transid, part=order.action.name.id, reason=str(error))
            progress.part = None
            return failure(Status.INTERNAL_ERROR, wording.SEQUENCE_FAILED), True
        return _account(order.id, answer, progress)

    async def _written(self, works: Sequence[Work]) -> None:
        """Raises `ServiceError` unless the ledger holds these, all of them or none."""
        written: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._ledger.accept(works, None, written.set_result)
        error = await written
        if error is not None:
            raise refusal(error)

    async def _run_atomic(self, order: Order, whole: _Whole) -> Finished:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def settle(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        self._primitive.run_part(order, settle, is_accepted=whole.is_accepted)
        async with asyncio.timeout(order.action.limits.timeout_ms / 1000 + RESULT_GRACE_S):
            answer = await answered
        if isinstance(answer, Refused):
            raise answer.error
        assert isinstance(answer, Finished)
        return answer

    async def _registered(self, order: Order, run: Coroutine[Any, Any, Finished]) -> Finished:
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        try:
            return await run
        finally:
            self._acks.complete(order.id)

    async def _record(self, progress: _Progress, outcome: Outcome, is_topmost: bool) -> Finished:
        order = progress.order
        now_ms = max(progress.start_ms, self._clock.now_ms())  # the clock may have been set back meanwhile
        head = sequence_head(order, outcome, progress.duration_ms, progress.memory_mb, progress.start_ms, now_ms)
        head = msgspec.structs.replace(head, is_topmost=is_topmost)
        logs = tuple(progress.ids)
        written: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        record = ActivationRecord(head=head, result=outcome.result, logs=logs)
        if is_topmost and order.follow is not None:
            self._primitive.follow(message_of(order), record)
        self._ledger.finish(record, written.set_result)
        error = await written
        if error is not None:
            raise refusal(error)
        return Finished(head, outcome.result, logs)

    # ── after a restart ─────────────────────────────────────────────────────────────────────────────────────────────

    def go_on(self, order: Order, step: StepMessage, parts: Mapping[str, Found], orders: Orders) -> None:
        """Goes on with a topmost sequence from the step that it was at; `parts` is open work by its id."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        run = self._resumed(order, step, _Whole(is_accepted=True), parts, orders, is_topmost=order.cause is None)
        self._tasks.create_task(self._guarded(order, run))

    async def _resumed(
        self,
        order: Order,
        step: StepMessage,
        whole: _Whole,
        parts: Mapping[str, Found],
        orders: Orders,
        *,
        is_topmost: bool,
    ) -> Finished:
        whole.atomic = max(whole.atomic, step.atomic)
        progress = _Progress(
            order=order,
            start_ms=step.start_ms,
            input=step.input,
            index=step.index,
            ids=list(step.ids),
            duration_ms=step.duration_ms,
            memory_mb=step.memory_mb,
        )
        whole.levels.append(progress)
        outcome, is_over = Outcome(Status.SUCCESS, step.input), False
        if step.part:
            outcome, is_over = await self._outcome_of_found(step.part, progress, whole, parts, orders)
            progress.index += 1
        return await self._go_on(progress, whole, outcome, is_topmost=is_topmost, is_over=is_over)

    async def _outcome_of_found(
        self, id: str, progress: _Progress, whole: _Whole, parts: Mapping[str, Found], orders: Orders
    ) -> tuple[Outcome, bool]:
        """What the part came to, or comes to: it has ended, was interrupted, or had not begun."""
        found = parts.get(id)
        if found is None:
            return _account(id, await self._ended(progress.order.identity.namespace, id), progress)
        message = found.task.run if isinstance(found.task, StepMessage) else found.task
        order = await orders.order_of(message)
        is_other = isinstance(found.task, StepMessage) and order is not None and not is_sequence(order)
        if order is None or is_other:
            await self._end_parts(found, parts, orders)
            return _account(id, failure(Status.APPLICATION_ERROR, wording.ACTION_GONE), progress)
        progress.part = order
        if isinstance(found.task, StepMessage):
            run = self._resumed(order, found.task, whole, parts, orders, is_topmost=False)
            return await self._outcome(order, progress, run)
        if found.is_started:
            return _account(id, failure(Status.INTERNAL_ERROR, wording.INTERRUPTED), progress)
        return await self._outcome(order, progress, self._run_atomic(order, whole))

    async def _end_parts(self, found: Found, parts: Mapping[str, Found], orders: Orders) -> None:
        """Ends a part whose action is gone, and what it waits for: nobody will ask for them."""
        task = found.task
        if isinstance(task, StepMessage):
            if (part := parts.get(task.part)) is not None:
                await self._end_parts(part, parts, orders)
            await orders.end_unrun(task.run)
        elif not found.is_started:  # else it was ended as interrupted
            await orders.end_unrun(task)

    async def _ended(self, namespace: str, id: str) -> Finished | Outcome:
        """The record of a part that is not open here: it has ended, or ends on another shard."""
        until_s = self._clock.monotonic_s() + RESULT_GRACE_S
        while self._clock.monotonic_s() < until_s:
            record = await self._activations.get(namespace, id)
            if record is not None:
                return Finished(record.head, record.result)
            await self._clock.sleep(LOOK_S)
        return failure(Status.INTERNAL_ERROR, wording.component_not_answered(id))


def is_sequence(order: Order) -> bool:
    """Whether the action is one, still."""
    return isinstance(order.action.exec, SequenceExec)


def _ignore(_: object) -> None:
    """For entries whose successor in the same sync reports for both."""


def _account(id: str, answer: Finished | Outcome, progress: _Progress) -> tuple[Outcome, bool]:
    """Adds a part to the progress; an object with an `error` ends the sequence."""
    progress.part = None
    progress.ids.append(id)
    if isinstance(answer, Outcome):
        return answer, True
    head = answer.head
    progress.duration_ms += head.duration_ms or 0
    if head.limits is not None:
        progress.memory_mb = max(progress.memory_mb or 0, head.limits.memory_mb)
    answered = payloads.parse_answer(answer.result)
    is_over = answered is not None and answered.fields is not None and "error" in answered.fields
    return Outcome(Status(head.status), answer.result, head.size), is_over


def part_argument(action: Action, input: bytes) -> bytes:
    """A component's argument: its parameters under the result before it; an array replaces everything."""
    if isinstance(action.exec, SequenceExec) or not action.parameters:
        return input
    answered = payloads.parse_answer(input)
    if answered is None or answered.fields is None:
        return input
    return payloads.merge(values(action.parameters), answered.fields)


def sequence_head(
    order: Order, outcome: Outcome, duration_ms: int, memory_mb: int | None, start_ms: int, end_ms: int
) -> ActivationHead:
    """The head of a sequence's record: its own limits, with the memory of its largest component."""
    action = order.action
    limits = action.limits if memory_mb is None else msgspec.structs.replace(action.limits, memory_mb=memory_mb)
    return ActivationHead(
        id=order.id,
        namespace=order.identity.namespace,
        subject=order.identity.subject,
        name=action.name.name,
        version=action.version,
        start_ms=start_ms,
        end_ms=end_ms,
        duration_ms=duration_ms,
        status=outcome.status,
        size=outcome.size,
        path=action.name.id,
        kind="sequence",
        limits=limits,
        wait_ms=max(0, start_ms - order.received_ms),
        cause=order.cause,
        is_topmost=True,
        retry_of=None if order.follow is None else order.follow.first,
        attempt=None if order.follow is None or order.follow.first is None else order.follow.attempt,
    )
