"""Composites run: sequences and conductors, each of whose runs is an activation of its own.

`progress` decides what comes next; here it is done, written to the ledger first where that was promised, and gone on
with after a restart. Source: OpenWhisk's sequences and conductors (records, causes, durations, limits).
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
from visp.controller.progress import (
    End,
    Part,
    Progress,
    Turn,
    add,
    after,
    argument,
    begun,
    counted,
    failed,
    head_of,
    is_step_of,
    missing,
    outcome_of,
    resumed,
    step_message,
    unanswered,
    unreadable,
)
from visp.controller.resolver import Resolved
from visp.entity.activation import ActivationRecord, Outcome, Status, failure
from visp.entity.composition import composes
from visp.entity.follow import Follow, backoff_ms
from visp.entity.keeping import is_kept, keep_of
from visp.errors import RequestError, ServiceError, VispError
from visp.store.base import Work
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from visp.clock import Clock
    from visp.controller.acks import Acks
    from visp.controller.primitive import Primitive
    from visp.controller.progress import Ran, Step
    from visp.controller.resolver import Resolver
    from visp.store.base import ActivationStore, Ledger


LOOK_S = 1.0
RESULT_GRACE_S = 60.0
"""How much longer than its own time limit a part may take to answer."""


class _Whole(msgspec.Struct):
    """A topmost composite and all that nest in it: `levels` are those that have begun, the topmost first.

    `is_accepted`: each step is in the ledger before it is made.
    """

    is_accepted: bool = False
    levels: list[Progress] = []

    @property
    def innermost(self) -> Progress | None:
        return self.levels[-1] if self.levels else None

    def works(self, levels: Sequence[Progress]) -> list[Work]:
        """What the ledger has to hold of these levels: each one's step, and what the innermost one runs."""
        works = [Work(level.order.id, encode_task(step_message(level))) for level in levels]
        run = None if self.innermost is None else self.innermost.run
        if run is not None:
            works.append(Work(run.id, encode_task(message_of(run, is_accepted=True))))
        return works


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


class Composites:
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
        """Topmost composites that have begun."""

    def hurry(self) -> None:
        """Nobody is waited with any longer: composites that blocking callers wait for become accepted work."""
        hurry, self._hurry = self._hurry, asyncio.get_running_loop().create_future()
        hurry.set_result(None)

    def start(
        self, order: Order, wait_s: float | None, then: Callable[[Answer], None], *, is_promised: bool = False
    ) -> None:
        """A topmost composite, asked for by a client: blocking, or accepted, or both."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        if wait_s is None:
            self._accept(order, lambda error: self._begin_accepted(order, error, then))
        else:
            self._tasks.create_task(self._run_blocking(order, wait_s, then, is_accepted=is_promised))

    def resume(self, order: Order, then: Callable[[Answer], None], *, is_held: bool = False) -> None:
        """A composite that the ledger holds and nobody began: a fire's child, or what is found at start.

        `is_held`: it counts as in flight already.
        """
        if not is_held:
            self._primitive.hold(order)
        self._ledger.start([order.id], lambda error: self._begin_accepted(order, error, then))

    def _accept(self, order: Order, then: Callable[[Exception | None], None]) -> None:
        """`accepted` and `started` in one sync: it begins at once, and a restart must not begin it again."""
        self._ledger.accept([Work(order.id, encode_task(message_of(order, is_accepted=True)))], None, _ignore)
        self._ledger.start([order.id], then)

    async def _accepted(self, order: Order, whole: _Whole) -> Exception | None:
        """Makes what a blocking caller waits for accepted work, with the steps that it is at."""
        accepted: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        whole.is_accepted = True
        if whole.levels:
            # one by one, for a part may lie in another shard's ledger; from the inside, so that none waits for what is
            # not there, wherever a crash comes between
            for work in reversed(whole.works(whole.levels)):
                self._ledger.keep([work], _ignore)
            self._ledger.start([order.id], accepted.set_result)
        else:
            self._accept(order, accepted.set_result)
        innermost = whole.innermost
        if innermost is not None and innermost.run is not None and not innermost.runs_composite:
            self._primitive.detach_part(innermost.run)
        return await accepted

    def _begin_accepted(self, order: Order, error: Exception | None, then: Callable[[Answer], None]) -> None:
        if error is not None:
            self._acks.complete(order.id)
            then(Refused(refusal(error)))
            return
        then(Accepted(order.id))
        self._tasks.create_task(self._run_topmost(order, _Whole(is_accepted=True)))

    async def _run_topmost(self, order: Order, whole: _Whole) -> Answer:
        return await self._guarded(order, self._run(order, whole))

    async def _guarded(self, order: Order, run: Coroutine[Any, Any, Finished]) -> Answer:
        self.under_way += 1
        try:
            return await run
        except ServiceError as error:
            return Refused(error)
        except Exception as error:  # the top of a composite: what nobody foresaw must not end the others
            log.exception("composite.failed", transid=order.transid, activation=order.id, reason=repr(error))
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

    async def _run(self, order: Order, whole: _Whole) -> Finished:
        """Runs the parts, writes the composite's record, and answers with it.

        Raises `ServiceError` if that cannot be written.
        """
        progress = begun(order, self._clock.now_ms(), whole.innermost)
        whole.levels.append(progress)
        return await self._go_on(progress, progress.step, whole)

    async def _go_on(self, progress: Progress, step: Step, whole: _Whole) -> Finished:
        """Takes one step after the other, until there is none."""
        while not isinstance(step, End):
            progress.step = step
            step = await self._take(step, progress, whole)
        whole.levels.pop()
        return await self._record(progress, step.outcome)

    async def _take(self, step: Turn | Part, progress: Progress, whole: _Whole) -> Step:
        """One run with its further attempts, of which the last one counts; what follows from it."""
        order = progress.order
        if isinstance(step, Turn):  # its annotations ask for attempts of the whole, not of its own runs
            answer = await self._attempt(Resolved(order.action, order.binding, order.init), Follow(), progress, whole)
            return after(progress, answer)
        resolved = await self._find(step, progress)
        if not isinstance(resolved, Resolved):
            return resolved
        end = counted(progress, resolved.action)
        if end is not None:
            return end
        asked = follow_of(order.identity, resolved.action, None)
        policy = None if asked is None else asked.retry
        follow, first = Follow(), len(progress.ids)
        while True:
            answer = await self._attempt(resolved, follow, progress, whole)
            status = outcome_of(answer).status
            if policy is None or not msgspec.structs.replace(follow, retry=policy).has_another(status):
                return after(progress, answer)
            await self._clock.sleep(backoff_ms(policy, follow.attempt, random.random()) / 1000)
            follow = Follow(attempt=follow.attempt + 1, first=next(iter(progress.ids[first:]), None))

    async def _find(self, step: Part, progress: Progress) -> Resolved | Step:
        """The component, or what follows if there is none that may be run."""
        identity = progress.order.identity
        try:
            if progress.is_conductor:
                try:
                    await self._resolver.check(identity, step.name)
                except RequestError:
                    return unreadable(progress, step.name)
            return await self._resolver.resolve(identity, step.name)
        except RequestError:
            return missing(progress, step.name)
        except ServiceError as error:
            log.error("composite.part_unread", transid=progress.order.transid, part=step.name.id, reason=str(error))
            return failed(progress)

    async def _attempt(self, resolved: Resolved, follow: Follow, progress: Progress, whole: _Whole) -> Ran:
        """One run of what the progress is at."""
        parent, action, step = progress.order, resolved.action, progress.step
        assert not isinstance(step, End)
        is_composite = isinstance(step, Part) and composes(action)
        # a step and its run are one entry of the ledger; of a conductor's own run a start has to know what it is
        is_here = whole.is_accepted or is_composite or isinstance(step, Turn)
        content, locked = (step.input, ()) if is_composite else argument(action, step.input)
        try:
            order = Order(
                id=self._primitive.new_id() if is_here else self._primitive.place(parent.identity, action),
                identity=parent.identity,
                action=action,
                content=content,
                transid=parent.transid,
                received_ms=self._clock.now_ms(),
                cause=parent.id,
                binding=resolved.binding,
                init=resolved.init,
                locked=locked,
                keep=keep_of(
                    action.annotations,
                    is_storing=parent.identity.limits.is_storing,
                    is_forced=parent.keep == "always",
                ),
                follow=None if follow.first is None else follow,
            )
            progress.run = order
            if whole.is_accepted:
                await self._written(whole.works([progress]))
        except VispError as error:
            log.warning("composite.part_failed", transid=parent.transid, part=action.name.id, reason=str(error))
            progress.run = None
            return failed(progress)
        return await self._answer(order, progress, self._run_composite(order, whole) if is_composite else None, whole)

    async def _answer(
        self, order: Order, progress: Progress, run: Coroutine[Any, Any, Finished] | None, whole: _Whole
    ) -> Ran:
        """What the run comes to, added to the progress; `run` is None for one of an action that is no composite."""
        answer: Ran
        try:
            answer = await (self._run_atomic(order, whole) if run is None else run)
        except TimeoutError:
            self._acks.forget(order.id)
            answer = unanswered(progress, order.id)
        except VispError as error:
            log.warning("composite.part_failed", transid=order.transid, part=order.action.name.id, reason=str(error))
            progress.run = None
            return failed(progress)
        add(progress, order.id, answer)
        return answer

    async def _run_composite(self, order: Order, whole: _Whole) -> Finished:
        return await self._registered(order, self._run(order, whole))

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

    async def _record(self, progress: Progress, outcome: Outcome) -> Finished:
        order = progress.order
        now_ms = max(progress.start_ms, self._clock.now_ms())  # the clock may have been set back meanwhile
        head = head_of(progress, outcome, now_ms)
        logs = tuple(progress.ids)
        written: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        record = ActivationRecord(head=head, result=outcome.result, logs=logs)
        if order.cause is None and order.follow is not None:
            self._primitive.follow(message_of(order), record)
        self._ledger.finish(record, written.set_result, is_kept=is_kept(order.keep, head.status))
        error = await written
        if error is not None:
            raise refusal(error)
        return Finished(head, outcome.result, logs)

    # ── after a restart ─────────────────────────────────────────────────────────────────────────────────────────────

    def go_on(self, order: Order, step: StepMessage, parts: Mapping[str, Found], orders: Orders) -> None:
        """Goes on with a topmost composite from the step that it was at; `parts` is open work by its id."""
        self._acks.register(order.id, order.identity.namespace_uuid, len(order.content), None)
        run = self._resumed(order, step, _Whole(is_accepted=True), parts, orders)
        self._tasks.create_task(self._guarded(order, run))

    async def _resumed(
        self, order: Order, step: StepMessage, whole: _Whole, parts: Mapping[str, Found], orders: Orders
    ) -> Finished:
        progress = resumed(order, step, whole.innermost)
        whole.levels.append(progress)
        if not step.part:
            return await self._go_on(progress, progress.step, whole)
        answer = await self._answer_of_found(step.part, progress, whole, parts, orders)
        return await self._go_on(progress, after(progress, answer), whole)

    async def _answer_of_found(
        self, id: str, progress: Progress, whole: _Whole, parts: Mapping[str, Found], orders: Orders
    ) -> Ran:
        """What the run came to, or comes to: it has ended, was interrupted, or had not begun."""
        found = parts.get(id)
        answer: Ran
        if found is None:
            answer = await self._ended(progress, id)
        else:
            task = found.task
            order = await orders.order_of(task.run if isinstance(task, StepMessage) else task)
            is_step = isinstance(task, StepMessage)
            if order is None or (isinstance(task, StepMessage) and not is_step_of(task, order.action)):
                await self._end_parts(found, parts, orders)
                answer = failure(Status.APPLICATION_ERROR, wording.ACTION_GONE)
            elif found.is_started and not is_step:
                answer = failure(Status.INTERNAL_ERROR, wording.INTERRUPTED)
            else:
                progress.run = order
                run: Coroutine[Any, Any, Finished] | None = None
                if isinstance(task, StepMessage):
                    run = self._registered(order, self._resumed(order, task, whole, parts, orders))
                elif progress.runs_composite:
                    run = self._run_composite(order, whole)
                return await self._answer(order, progress, run, whole)
        add(progress, id, answer)
        return answer

    async def _end_parts(self, found: Found, parts: Mapping[str, Found], orders: Orders) -> None:
        """Ends a part whose action is gone, and what it waits for: nobody will ask for them."""
        task = found.task
        if isinstance(task, StepMessage):
            if (part := parts.get(task.part)) is not None:
                await self._end_parts(part, parts, orders)
            await orders.end_unrun(task.run)
        elif not found.is_started:  # else it was ended as interrupted
            await orders.end_unrun(task)

    async def _ended(self, progress: Progress, id: str) -> Ran:
        """The record of a run that is not open here: it has ended, or ends on another shard.

        One of this shard without a record has ended, and none was kept: what it came to is not known any more.
        """
        until_s = self._clock.monotonic_s() + RESULT_GRACE_S
        while self._clock.monotonic_s() < until_s:
            record = await self._activations.get(progress.order.identity.namespace, id)
            if record is not None:
                return Finished(record.head, record.result)
            if self._primitive.keeps(id):
                return failure(Status.INTERNAL_ERROR, wording.INTERRUPTED)
            await self._clock.sleep(LOOK_S)
        return unanswered(progress, id)


def _ignore(_: object) -> None:
    """For entries whose successor in the same sync reports for both."""
