"""How far a composite has come, and what comes next: pure decisions about sequences and conductors.

A sequence runs its components one after the other, each with the result of the one before. A conductor runs, names a
component, and runs again with what that came to. Source: OpenWhisk's rules for both: what ends them, what they are
told of failures, and what their limits count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus.messages import StepMessage
from visp.controller.primitive import Finished, Order, message_of
from visp.entity import composition
from visp.entity import payload as payloads
from visp.entity.activation import ActivationHead, Outcome, Status, failure
from visp.entity.composition import composes, is_conductor
from visp.entity.execs import SequenceExec
from visp.entity.limits import SEQUENCE_LIMIT
from visp.entity.locking import marks_of
from visp.entity.names import FullyQualifiedName, from_id
from visp.entity.parameters import values

if TYPE_CHECKING:
    from visp.entity.action import Action
    from visp.entity.locking import Marks

TURNS_LIMIT = 2 * SEQUENCE_LIMIT + 1
"""Runs of conductors in one composition."""


class Turn(msgspec.Struct, frozen=True):
    """The conductor itself runs."""

    input: bytes


class Part(msgspec.Struct, frozen=True):
    """A component runs."""

    name: FullyQualifiedName
    input: bytes


class End(msgspec.Struct, frozen=True):
    """There is nothing more to run: what the composite came to."""

    outcome: Outcome


Step = Turn | Part | End

Ran = Finished | Outcome | End
"""What is known of a run: its record, only what it came to (it was interrupted), or that the composite ends with it."""


class Counts(msgspec.Struct):
    """What limits hold: runs of actions that are no composites, and of conductors.

    Shared by all that nest in one another and are of one sort: sequences in a sequence, conductors in a conductor.
    """

    parts: int = 0
    turns: int = 0


class Progress(msgspec.Struct):
    """How far one composite has come; see `StepMessage`.

    `step` is what runs, or is about to; `run` its order, once there is one. `index` counts a sequence's components
    before it, `state` is what a conductor asked to be told again.
    """

    order: Order
    start_ms: int
    counts: Counts
    step: Step
    index: int = 0
    state: bytes = composition.NOTHING
    run: Order | None = None
    ids: list[str] = []
    duration_ms: int = 0
    memory_mb: int | None = None

    @property
    def is_conductor(self) -> bool:
        return not isinstance(self.order.action.exec, SequenceExec)

    @property
    def runs_composite(self) -> bool:
        """Whether what runs is a composite itself; a conductor's own run is none."""
        return self.run is not None and isinstance(self.step, Part) and composes(self.run.action)


def begun(order: Order, start_ms: int, parent: Progress | None) -> Progress:
    """A composite of which nothing has run; `parent` is what it nests in."""
    progress = _unbegun(order, start_ms, parent)
    progress.step = next_step(progress, Outcome(Status.SUCCESS, order.content))
    return progress


def _unbegun(order: Order, start_ms: int, parent: Progress | None) -> Progress:
    is_sequence = isinstance(order.action.exec, SequenceExec)
    counts = Counts() if parent is None or parent.is_conductor is is_sequence else parent.counts
    return Progress(order, start_ms, counts, End(Outcome(Status.SUCCESS, order.content)))


def next_step(progress: Progress, outcome: Outcome) -> Step:
    """What follows from an outcome: of the run that was `progress.step`, or of nothing yet, for the first one."""
    if progress.is_conductor:
        return _next_in_composition(progress, outcome)
    exec = progress.order.action.exec
    assert isinstance(exec, SequenceExec)
    is_over = progress.index > 0 and _has_error(outcome.result)
    if is_over or progress.index >= len(exec.components):
        return End(outcome)
    return Part(exec.components[progress.index], outcome.result)


def _next_in_composition(progress: Progress, outcome: Outcome) -> Step:
    if not isinstance(progress.step, Turn):
        return _turn(progress, composition.argument(outcome.result, progress.state))
    if outcome.status != Status.SUCCESS:
        return End(_unsized(outcome))
    told = composition.parse_told(outcome.result)
    if told.action is None:
        return End(Outcome(Status.SUCCESS, outcome.result if told.params is None else told.params))
    progress.state = told.state
    name = composition.parse_component(told.action, progress.order.identity.namespace)
    if name is None:
        return _told_again(progress, wording.composition_unparsable(told.action.decode()))
    if progress.counts.parts >= SEQUENCE_LIMIT:
        return _told_again(progress, wording.COMPOSITION_TOO_LONG)
    return Part(name, composition.NOTHING if told.params is None else told.params)


def _turn(progress: Progress, input: bytes) -> Step:
    if progress.counts.turns >= TURNS_LIMIT:
        return End(failure(Status.APPLICATION_ERROR, wording.COMPOSITION_TOO_LONG))
    progress.counts.turns += 1
    return Turn(input)


def _told_again(progress: Progress, sentence: str) -> Step:
    """The conductor hears why its component cannot run."""
    return _turn(progress, composition.argument(payloads.encode({"error": sentence}), progress.state))


def unreadable(progress: Progress, name: FullyQualifiedName) -> Step:
    """The component may not be used."""
    if progress.is_conductor:
        return _told_again(progress, wording.composition_forbidden(name.id))
    return missing(progress, name)


def missing(progress: Progress, name: FullyQualifiedName) -> Step:
    """The component is not there."""
    if progress.is_conductor:
        return _told_again(progress, wording.composition_missing(name.id))
    return End(failure(Status.APPLICATION_ERROR, wording.SEQUENCE_COMPONENT_MISSING))


def counted(progress: Progress, action: Action) -> End | None:
    """Counts a component that is about to run; how the composite ends if that is one too many."""
    is_counted = not (is_conductor(action) if progress.is_conductor else isinstance(action.exec, SequenceExec))
    progress.counts.parts += is_counted
    if is_counted and not progress.is_conductor and progress.counts.parts > SEQUENCE_LIMIT:
        return End(failure(Status.APPLICATION_ERROR, wording.SEQUENCE_TOO_LONG))
    return None


def failed(progress: Progress) -> End:
    """A run could not be made."""
    sentence = wording.COMPOSITION_FAILED if progress.is_conductor else wording.SEQUENCE_FAILED
    return End(failure(Status.INTERNAL_ERROR, sentence))


def unanswered(progress: Progress, id: str) -> End:
    """A run did not answer in its time."""
    sentence = wording.composition_not_answered if progress.is_conductor else wording.component_not_answered
    return End(failure(Status.INTERNAL_ERROR, sentence(id)))


def add(progress: Progress, id: str, answer: Ran) -> None:
    """Adds a run, which is over, to the progress."""
    progress.run = None
    progress.ids.append(id)
    if not isinstance(answer, Finished):
        return
    head = answer.head
    progress.duration_ms += head.duration_ms or 0
    if head.limits is not None:
        progress.memory_mb = max(progress.memory_mb or 0, head.limits.memory_mb)


def after(progress: Progress, answer: Ran) -> Step:
    """What follows when the last attempt of `progress.step` was added."""
    progress.index += 1
    if isinstance(answer, End):
        return answer
    outcome = outcome_of(answer)
    if isinstance(answer, Outcome) and not progress.is_conductor:
        return End(outcome)
    return next_step(progress, outcome)


def outcome_of(answer: Ran) -> Outcome:
    """What a run came to."""
    if isinstance(answer, Outcome):
        return answer
    if isinstance(answer, End):
        return answer.outcome
    return Outcome(Status(answer.head.status), answer.result, answer.head.size)


def argument(action: Action, input: bytes) -> tuple[bytes, Marks]:
    """What a run is given, and what of it is locked: the action's parameters under the input.

    An array replaces everything.
    """
    answered = payloads.parse_answer(input) if action.parameters else None
    if answered is None or answered.fields is None:
        return input, ()
    fields = answered.fields
    return payloads.merge(values(action.parameters), fields), marks_of(action.parameters, fields)


def _has_error(result: bytes) -> bool:
    answered = payloads.parse_answer(result)
    return answered is not None and answered.fields is not None and "error" in answered.fields


def _unsized(outcome: Outcome) -> Outcome:
    return Outcome(outcome.status, outcome.result)


# ── as the ledger holds it ──────────────────────────────────────────────────────────────────────────────────────


def step_message(progress: Progress) -> StepMessage:
    """What a start would go on with."""
    step = progress.step
    assert not isinstance(step, End)
    is_named = progress.is_conductor and isinstance(step, Part)
    return StepMessage(
        run=message_of(progress.order, is_accepted=True),
        index=progress.index,
        part="" if progress.run is None else progress.run.id,
        input=step.input,
        ids=tuple(progress.ids),
        duration_ms=progress.duration_ms,
        memory_mb=progress.memory_mb,
        atomic=progress.counts.parts,
        start_ms=progress.start_ms,
        turns=progress.counts.turns,
        component=step.name.id if is_named and isinstance(step, Part) else "",
        state=progress.state if progress.is_conductor else None,
    )


def is_step_of(step: StepMessage, action: Action) -> bool:
    """Whether the action is still what the step was written of: a sequence, or a conductor."""
    return composes(action) and is_conductor(action) is (step.state is not None)


def resumed(order: Order, message: StepMessage, parent: Progress | None) -> Progress:
    """The progress that a step tells of. The action is what it was: see `is_step_of`."""
    progress = _unbegun(order, message.start_ms, parent)
    counts = progress.counts
    counts.parts, counts.turns = max(counts.parts, message.atomic), max(counts.turns, message.turns)
    progress.index = message.index
    progress.ids = list(message.ids)
    progress.duration_ms = message.duration_ms
    progress.memory_mb = message.memory_mb
    if message.state is None:
        progress.step = _sequence_step(progress, message)
    else:
        progress.state = message.state
        is_turn = not message.component
        progress.step = Turn(message.input) if is_turn else Part(from_id(message.component), message.input)
    return progress


def _sequence_step(progress: Progress, message: StepMessage) -> Step:
    """The component that was due; the sequence may have become shorter."""
    exec = progress.order.action.exec
    assert isinstance(exec, SequenceExec)
    if progress.index >= len(exec.components):
        return End(Outcome(Status.SUCCESS, message.input))
    return Part(exec.components[progress.index], message.input)


def head_of(progress: Progress, outcome: Outcome, end_ms: int) -> ActivationHead:
    """The head of a composite's record: its own limits, with the memory of the largest run."""
    order, action = progress.order, progress.order.action
    limits = action.limits
    if progress.memory_mb is not None:
        limits = msgspec.structs.replace(limits, memory_mb=progress.memory_mb)
    follow = order.follow
    return ActivationHead(
        id=order.id,
        namespace=order.identity.namespace,
        subject=order.identity.subject,
        name=action.name.name,
        version=action.version,
        start_ms=progress.start_ms,
        end_ms=end_ms,
        duration_ms=progress.duration_ms,
        status=outcome.status,
        size=outcome.size,
        path=action.name.id,
        kind="sequence",
        limits=limits,
        wait_ms=max(0, progress.start_ms - order.received_ms),
        cause=order.cause,
        is_topmost=order.cause is None,
        is_conductor=progress.is_conductor,
        binding=order.binding,
        retry_of=None if follow is None else follow.first,
        attempt=None if follow is None or follow.first is None else follow.attempt,
    )
