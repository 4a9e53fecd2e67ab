"""Sequences: actions one after the other, each fed with the result of the one before.

Source: OpenWhisk's sequence semantics (records, causes, durations, short circuit on `error`, limit of atomic actions).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus.messages import encode_activation
from visp.controller.primitive import Accepted, Answer, Finished, Order, Refused, message_of, refusal
from visp.entity import payload as payloads
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord, Outcome, Status, failure
from visp.entity.execs import SequenceExec
from visp.entity.limits import SEQUENCE_LIMIT
from visp.entity.parameters import values
from visp.errors import ServiceError, VispError
from visp.store.base import Work
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.clock import Clock
    from visp.controller.acks import Acks
    from visp.controller.primitive import Primitive
    from visp.entity.names import FullyQualifiedName
    from visp.store.base import Ledger
    from visp.store.cache import EntityCache

RESULT_GRACE_S = 60.0
"""How much longer than its own time limit a part may take to answer."""


class _Progress(msgspec.Struct):
    """What one sequence has done so far; `atomic` is shared by all that nest in one topmost sequence."""

    atomic: list[int]
    ids: list[str] = []
    duration_ms: int = 0
    memory_mb: int | None = None


class Sequences:
    """Runs composites; the only owner of their progress."""

    def __init__(
        self,
        *,
        primitive: Primitive,
        entities: EntityCache,
        acks: Acks,
        ledger: Ledger,
        clock: Clock,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._primitive = primitive
        self._entities = entities
        self._acks = acks
        self._ledger = ledger
        self._clock = clock
        self._tasks = tasks

    def start(self, order: Order, wait_s: float | None, then: Callable[[Answer], None]) -> None:
        """A topmost sequence, asked for by a client: blocking, or accepted."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        if wait_s is None:
            self._accept(order, lambda error: self._begin_accepted(order, error, then))
        else:
            self._tasks.create_task(self._run_blocking(order, wait_s, then))

    def resume(self, order: Order) -> None:
        """A sequence that the ledger holds and nobody began: a fire's child, or what is found at start."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        self._ledger.start([order.id], lambda error: self._begin_accepted(order, error, _ignore))

    def _accept(self, order: Order, then: Callable[[Exception | None], None]) -> None:
        """`accepted` and `started` in one sync: the sequence begins at once, and a restart must not begin it again."""
        self._ledger.accept([Work(order.id, encode_activation(message_of(order, is_accepted=True)))], None, _ignore)
        self._ledger.start([order.id], then)

    def _begin_accepted(self, order: Order, error: Exception | None, then: Callable[[Answer], None]) -> None:
        if error is not None:
            self._acks.complete(order.id)
            then(Refused(refusal(error)))
            return
        then(Accepted(order.id))
        self._tasks.create_task(self._run_topmost(order))

    async def _run_topmost(self, order: Order) -> Answer:
        try:
            return await self._run(order, [0], is_topmost=True)
        except ServiceError as error:
            return Refused(error)
        except Exception as error:  # the top of a sequence: what nobody foresaw must not end the others
            log.exception("sequence.failed", transid=order.transid, activation=order.id, reason=repr(error))
            return Refused(ServiceError())
        finally:
            self._acks.complete(order.id)

    async def _run_blocking(self, order: Order, wait_s: float, then: Callable[[Answer], None]) -> None:
        run = self._tasks.create_task(self._run_topmost(order))
        done, _ = await asyncio.wait([run], timeout=wait_s)
        if not done:
            accepted: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            self._accept(order, accepted.set_result)
            error = await accepted
            if not run.done():  # else it finished meanwhile, and its outcome is the answer
                then(Accepted(order.id) if error is None else Refused(refusal(error)))
                return
        then(run.result())

    async def _run(self, order: Order, atomic: list[int], *, is_topmost: bool) -> Finished:
        """Runs the parts, writes the sequence's record, and answers with it.

        Raises `ServiceError` if that cannot be written.
        """
        start_ms = self._clock.now_ms()
        progress = _Progress(atomic)
        exec = order.action.exec
        assert isinstance(exec, SequenceExec)
        outcome = Outcome(Status.SUCCESS, order.content)
        for component in exec.components:
            outcome, is_over = await self._run_part(order, component, outcome.result, progress)
            if is_over:
                break
        return await self._record(order, outcome, progress, start_ms, is_topmost)

    async def _run_part(
        self, parent: Order, component: FullyQualifiedName, input: bytes, progress: _Progress
    ) -> tuple[Outcome, bool]:
        """One component: its outcome, and whether it ends the sequence."""
        try:
            action = await self._entities.get(component.id)
        except ServiceError as error:
            log.error("sequence.part_unread", transid=parent.transid, part=component.id, reason=str(error))
            return failure(Status.INTERNAL_ERROR, wording.SEQUENCE_FAILED), True
        if not isinstance(action, Action):
            return failure(Status.APPLICATION_ERROR, wording.SEQUENCE_COMPONENT_MISSING), True
        is_sequence = isinstance(action.exec, SequenceExec)
        if not is_sequence:
            progress.atomic[0] += 1
            if progress.atomic[0] > SEQUENCE_LIMIT:
                return failure(Status.APPLICATION_ERROR, wording.SEQUENCE_TOO_LONG), True
        try:
            order = Order(
                id=self._primitive.new_id() if is_sequence else self._primitive.place(parent.identity, action),
                identity=parent.identity,
                action=action,
                content=part_argument(action, input),
                transid=parent.transid,
                received_ms=self._clock.now_ms(),
                cause=parent.id,
            )
            answer = await (self._run_nested(order, progress) if is_sequence else self._run_atomic(order))
        except TimeoutError:
            progress.ids.append(order.id)
            self._acks.forget(order.id)
            return failure(Status.INTERNAL_ERROR, wording.component_not_answered(order.id)), True
        except VispError as error:
            log.warning("sequence.part_failed", transid=parent.transid, part=component.id, reason=str(error))
            return failure(Status.INTERNAL_ERROR, wording.SEQUENCE_FAILED), True
        progress.ids.append(order.id)
        return _account(answer, progress)

    async def _run_atomic(self, order: Order) -> Finished:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def settle(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        self._primitive.run_part(order, settle)
        async with asyncio.timeout(order.action.limits.timeout_ms / 1000 + RESULT_GRACE_S):
            answer = await answered
        if isinstance(answer, Refused):
            raise answer.error
        assert isinstance(answer, Finished)
        return answer

    async def _run_nested(self, order: Order, progress: _Progress) -> Finished:
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        try:
            return await self._run(order, progress.atomic, is_topmost=False)
        finally:
            self._acks.complete(order.id)

    async def _record(
        self, order: Order, outcome: Outcome, progress: _Progress, start_ms: int, is_topmost: bool
    ) -> Finished:
        head = sequence_head(order, outcome, progress.duration_ms, progress.memory_mb, start_ms, self._clock.now_ms())
        head = msgspec.structs.replace(head, is_topmost=is_topmost)
        logs = tuple(progress.ids)
        written: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._ledger.finish(ActivationRecord(head=head, result=outcome.result, logs=logs), written.set_result)
        error = await written
        if error is not None:
            raise refusal(error)
        return Finished(head, outcome.result, logs)


def _ignore(_: object) -> None:
    """For entries whose successor in the same sync reports for both."""


def _account(answer: Finished, progress: _Progress) -> tuple[Outcome, bool]:
    """Adds a part to the progress; an object with an `error` ends the sequence."""
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
    )
