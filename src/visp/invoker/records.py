"""The activations under way, and the record with which each of them ends.

The outcome is written to the ledger, and only then is the result acknowledged.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from visp import wording
from visp.bus import base as topics
from visp.bus.follow import follow_ups
from visp.bus.messages import CompletionAck, ResultAck
from visp.entity.activation import ActivationRecord, Status, failure
from visp.entity.keeping import is_kept
from visp.errors import Corrupt, StartFailed, StoreUnavailable
from visp.invoker import activate
from visp.invoker.meter import Meter
from visp.store.base import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.base import Bus
    from visp.bus.messages import ActivationMessage, Deferred
    from visp.clock import Clock
    from visp.entity.activation import Outcome, Phases
    from visp.invoker.job import Job
    from visp.store.base import Ledger


class Records:
    """Who runs what here: `jobs`, until the record of each.

    `provision_failed` hears of what nobody asked for and could not be brought up: it leaves no record."""

    def __init__(self, bus: Bus, ledger: Ledger, clock: Clock, provision_failed: Callable[[Job, str], None]) -> None:
        self._bus = bus
        self._ledger = ledger
        self._clock = clock
        self._provision_failed = provision_failed
        self.meter = Meter()
        self.jobs: dict[str, Job] = {}
        """Every activation that waits or runs here, by id."""
        self.unmarked: list[Job] = []
        """Accepted work whose beginning could not be written: it is begun again at the next ping."""

    def record(
        self,
        job: Job,
        outcome: Outcome,
        logs: tuple[str, ...],
        duration_ms: int,
        *,
        is_timeout: bool,
        has_all_logs: bool = True,
    ) -> Phases:
        """Writes the outcome; whoever waits hears of it once it is written."""
        if job.is_provision:
            self._provision_failed(job, outcome.result.decode("utf-8", "replace"))
            return activate.phases_of(job, self._clock.monotonic_s())
        self.jobs.pop(job.message.id, None)
        end_ms = job.start_ms + duration_ms
        phases = activate.phases_of(job, self._clock.monotonic_s())
        self.meter.record(job.action.exec.kind, outcome.status, phases)
        head = activate.head_of(job, outcome, end_ms, duration_ms, is_timeout=is_timeout, phases=phases)
        record = ActivationRecord(head=head, result=outcome.result, logs=logs, has_all_logs=has_all_logs)
        self._write(record, job.message)
        return phases

    def _write(self, record: ActivationRecord, message: ActivationMessage) -> None:
        bus = self._bus
        if message.follow is not None:
            self._follow(message, record)

        def written(error: Exception | None) -> None:
            said = None if error is None else str(error)
            bus.publish(topics.ACKS, ResultAck(record.head, record.result, said, record.has_all_logs))

        self._ledger.finish(record, written, is_kept=is_kept(message.keep, record.head.status))

    def _follow(self, message: ActivationMessage, record: ActivationRecord) -> None:
        """What follows from the outcome is accepted by the write that records it."""
        now_ms = self._clock.now_ms()
        for next in follow_ups(message, record.head.status, record.result, now_ms, random.random()):

            def accepted(_: Exception | None, next: Deferred = next) -> None:
                self._bus.publish(topics.LATER, next)

            self._ledger.accept([Work(next.id, next.task, next.due_ms)], None, accepted, is_owed=True)

    def abort(self, message: ActivationMessage, outcome: Outcome) -> None:
        """An activation whose action could not be had: the fallback record."""
        head = activate.fallback_head(message, outcome, self._clock.now_ms())
        self._write(ActivationRecord(head=head, result=outcome.result), message)

    def start_failed(self, job: Job, error: Exception) -> None:
        """No container could be had, or no code for it: start is end, and there is no init time."""
        job.start_ms, job.start_s, job.init_ms = self._clock.now_ms(), self._clock.monotonic_s(), None
        status, sentence = Status.INTERNAL_ERROR, wording.NO_RESOURCES
        if isinstance(error, StartFailed):
            sentence = error.sentence or sentence
            if error.is_developer_error:
                status = Status.DEVELOPER_ERROR
        elif isinstance(error, Corrupt):
            sentence = wording.ACTION_UNREADABLE
        elif isinstance(error, StoreUnavailable):
            sentence = wording.ACTION_NOT_FETCHED
        self.record(job, failure(status, sentence), (), 0, is_timeout=False)

    def not_marked(self, job: Job, error: Exception) -> None:
        """Nothing can be written: the activation was not begun. What the ledger holds is begun once that can be said.

        It may have been said before, of a container that could not serve it. The caller of anything else is told so.
        """
        if self._ledger.has_open(job.message.id):
            job.reset()
            self.unmarked.append(job)
            return
        self.jobs.pop(job.message.id, None)
        outcome = failure(Status.INTERNAL_ERROR, wording.DISK_FULL)
        head = activate.head_of(job, outcome, job.start_ms, 0, is_timeout=False)
        self._bus.publish(topics.ACKS, ResultAck(head, outcome.result, str(error), is_complete=True))

    def add_logs(self, job: Job, logs: tuple[str, ...], phases: Phases) -> None:
        """The rest of what was printed, of an activation that was recorded without it."""
        assert job.answered_s is not None
        assert phases.answered is not None
        took_us = int((self._clock.monotonic_s() - job.answered_s) * 1e6)
        self.meter.record_late_logs(took_us)
        self._ledger.add_logs(job.message.id, logs, phases.answered + took_us)
        self._bus.publish(topics.ACKS, CompletionAck(job.message.id))
