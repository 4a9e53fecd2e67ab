"""Runs: the run line goes out, an answer comes back or time is over, and the container is free or ended.

The container is free before the outcome is written: it is not held for that.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from visp.bus import base as topics
from visp.bus.messages import Part
from visp.entity.limits import PLATFORM
from visp.invoker import activate
from visp.invoker.containers import was_out_of_memory
from visp.invoker.logs import Printed
from visp.invoker.pool import TRIES
from visp.invoker.slot import WORKING, State
from visp.invoker.streams import Stream
from visp.runtime.base import Gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.bus.base import Bus
    from visp.bus.messages import Credit
    from visp.clock import Clock
    from visp.entity.activation import Outcome, Phases
    from visp.invoker.compiled import Compiled
    from visp.invoker.job import Job
    from visp.invoker.pool import Pool
    from visp.invoker.records import Records
    from visp.invoker.slot import Slot
    from visp.runtime.base import Kind, Reply
    from visp.store.base import Ledger

LOGS_S = 10.0
"""How long after the reply the rest of an image's logs is waited for."""
LATE_LOGS_S = 0.05
"""The same where no end of them is marked: they have as long a way as the reply."""


class Runs:
    """What goes on in BUSY slots. `pool` is told when it is over; it is there before the first run."""

    pool: Pool

    def __init__(
        self,
        *,
        bus: Bus,
        ledger: Ledger,
        records: Records,
        kind_of: Callable[[str], Kind | None],
        compiled: Compiled | None,
        tasks: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._records = records
        self._jobs = records.jobs
        self._kind_of = kind_of
        self._compiled = compiled
        self._tasks = tasks
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    def run(self, slot: Slot, job: Job) -> None:
        """Runs a job in a BUSY slot: at once, or when an accepted job's `started` is on disk."""
        if not job.is_accepted or job.init_ms is not None:
            self._send_run(slot, job)
            return

        def started(error: Exception | None) -> None:
            if job not in slot.jobs or slot.state not in WORKING:
                return  # the pool is closed: the job runs, or ends, at the next start
            if slot.state is State.DRAINING and job.tries < TRIES:
                self.pool.retry(slot, job)  # a run beside it went wrong meanwhile
            elif error is None:
                self._send_run(slot, job)
            else:
                self.pool.finished(slot, job, None)
                self._records.not_marked(job, error)

        self._ledger.start([job.message.id], started)

    def _send_run(self, slot: Slot, job: Job) -> None:
        assert slot.client is not None
        assert slot.logs is not None
        clock, lanes = self._clock, slot.lanes
        now_s, now_ms = clock.monotonic_s(), clock.now_ms()
        job.run_s = now_s
        job.has_begun = True
        if job.init_ms is None:
            job.start_ms, job.start_s = now_ms, now_s
            if lanes is None:
                slot.logs.begin(job.action.limits.logs_mb)
            else:
                slot.logs.join(job.action.limits.logs_mb)
        limit_ms = job.action.limits.timeout_ms
        job.deadline_s = now_s + limit_ms / 1000
        if slot.timer is None:  # one timer for a slot, armed again only when it goes off early
            slot.timer = self._loop.call_later(limit_ms / 1000, self._check_deadline, slot)
        elif slot.timer.when() > self._loop.time() + limit_ms / 1000:
            slot.timer.cancel()
            slot.timer = self._loop.call_later(limit_ms / 1000, self._check_deadline, slot)
        body = activate.run_body(job, slot.run_suffix, now_ms + limit_ms)
        if lanes is None:
            slot.client.run(body, lambda reply: self._answered(slot, job, reply))
        else:
            lanes.run(job.message.id, body, lambda reply: self._answered(slot, job, reply))

    def _check_deadline(self, slot: Slot) -> None:
        """Ends what is over time. Runs beside it go on: each to its own end or its own limit."""
        slot.timer = None
        now_s = self._clock.monotonic_s()
        left_s = None
        for job in tuple(slot.jobs):
            if slot.state not in WORKING or job.run_s is None:
                continue
            if job.deadline_s > now_s:
                left_s = min(job.deadline_s - now_s, left_s or math.inf)
            else:
                limit_ms = job.action.limits.timeout_ms
                self.end_run(slot, job, activate.timed_out(limit_ms, is_init=False), is_timeout=True)
        if left_s is not None and slot.state in WORKING and slot.timer is None:
            slot.timer = self._loop.call_later(left_s, self._check_deadline, slot)

    def _answered(self, slot: Slot, job: Job, reply: Reply | Gone) -> None:
        if job not in slot.jobs:
            return  # over time already
        if self._clock.monotonic_s() >= job.deadline_s:  # time is measured first, whatever came back
            limit_ms = job.action.limits.timeout_ms
            self.end_run(slot, job, activate.timed_out(limit_ms, is_init=False), is_timeout=True)
        elif isinstance(reply, Gone):
            if not self.goes_elsewhere(slot, job, reply):
                self.pool.spend(slot)
                self._tasks.create_task(self._end_gone(slot, job, reply))
        elif reply.status != activate.SHUTTING_DOWN or not self.goes_elsewhere(slot, job, reply):
            outcome = activate.classify_run(reply, job.message.answers or PLATFORM)
            self.end_run(slot, job, outcome if job.stream is None else activate.streamed(outcome, job.stream))

    def goes_elsewhere(self, slot: Slot, job: Job, reply: Reply | Gone) -> bool:
        """Whether the container has not begun with the job and never will: then another gets it, a few times."""
        if isinstance(reply, Gone):
            is_untouched = not reply.was_sent and job.init_ms is None
        else:
            is_untouched = reply.status == activate.SHUTTING_DOWN
        if not is_untouched or job.tries >= TRIES:
            return False
        self.pool.retry(slot, job)
        return True

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────────────────

    def printed(self, id: str, stream: int, line: bytes) -> None:
        """A line of a run beside which others are under way."""
        job = self._jobs.get(id)
        if job is not None:
            if job.printed is None:
                job.printed = Printed(job.action.limits.logs_mb)
            job.printed.add(self._clock.now_ns(), stream, line)

    def passed_on(self, slot: Slot, id: str, data: bytes) -> bool:
        """A part of a result. False when there may be none."""
        job = self._jobs.get(id) if id else next(iter(slot.jobs), None)
        if job is None or job not in slot.jobs:
            return True  # over time already
        if job.stream is None:
            job.stream = self._begin_stream(slot, job, id)
        stream = job.stream
        if not stream.take(data):
            return False
        if stream.is_read:
            self._bus.publish(topics.PARTS, Part(job.message.id, data))
        else:
            stream.taken(len(data))
        return True

    def _begin_stream(self, slot: Slot, job: Job, id: str) -> Stream:
        client, lanes = slot.client, slot.lanes
        assert client is not None

        def grant(count_bytes: int) -> None:
            if job not in slot.jobs:
                return
            if lanes is None:
                client.grant(count_bytes)
            else:
                lanes.grant(id, count_bytes)

        limit_bytes = (job.message.answers or PLATFORM).whole
        return Stream(limit_bytes, grant, is_read=job.message.is_streamed)

    def credit(self, credit: Credit) -> None:
        """Parts were taken by whoever reads them, or nobody reads them any more."""
        job = self._jobs.get(credit.id)
        if job is None:
            return
        if credit.count_bytes is None:
            if job.stream is not None:
                job.stream.abandon()
        elif job.stream is not None and job.stream.is_read:
            job.stream.taken(credit.count_bytes)

    # ── the end of a run ────────────────────────────────────────────────────────────────────────────────────────

    def end_run(
        self, slot: Slot, job: Job, outcome: Outcome, *, is_init: bool = False, is_timeout: bool = False
    ) -> None:
        """Collects the logs, frees or ends the container, and records the outcome."""
        now_s = job.answered_s = self._clock.monotonic_s()
        duration_ms = round((now_s - job.start_s) * 1000)
        if is_init and job.init_ms is None:
            job.init_ms = duration_ms
        assert slot.client is not None
        assert slot.logs is not None
        service_s = None if job.run_s is None else now_s - job.run_s
        if not slot.client.drain():
            phases = self._records.record(job, outcome, (), duration_ms, is_timeout=is_timeout, has_all_logs=False)
            job.run_s = None  # there is an answer: the deadline is over
            slot.client.cancel()  # and what came now would be another
            may_serve = outcome.is_kept and not is_init
            self._tasks.create_task(self._end_logs(slot, job, outcome, service_s, phases, may_serve=may_serve))
            return
        logs = slot.logs.end(outcome, job.printed)
        job.logs_s = self._clock.monotonic_s()
        if outcome.is_kept and not is_init and self._is_collected(slot, job):
            self._tasks.create_task(self._collect(slot, job, service_s))
        elif outcome.is_kept and not is_init:
            self.pool.finished(slot, job, service_s)
        else:
            self.pool.failed(slot, job)
        self._records.record(job, outcome, logs, duration_ms, is_timeout=is_timeout)

    def _is_collected(self, slot: Slot, job: Job) -> bool:
        """Whether what the container compiled is asked for now."""
        if self._compiled is None or job.init_ms is None or slot.concurrency > 1:
            return False
        kind = self._kind_of(slot.kind)
        return kind is not None and kind.keeps_compiled and self._compiled.wants(slot, job.init_ms)

    async def _collect(self, slot: Slot, job: Job, service_s: float | None) -> None:
        """The run is answered; until this is over the container is not free."""
        assert self._compiled is not None
        job.run_s = None  # the deadline is over
        has_answered = await self._compiled.collect(slot)
        if has_answered and slot.client is not None:
            slot.client.drain()
            self.pool.finished(slot, job, service_s)
        else:
            self.pool.failed(slot, job)

    async def _end_logs(
        self, slot: Slot, job: Job, outcome: Outcome, service_s: float | None, phases: Phases, *, may_serve: bool
    ) -> None:
        """Waits for the rest of the logs, which come beside the answer; until then the container is not free.

        Of what may have no sentinels, a failure too, for what is on its way: that much is complete.
        """
        assert slot.logs is not None
        assert slot.container is not None
        complete: asyncio.Future[None] = self._loop.create_future()
        slot.logs.when_complete(lambda: complete.set_result(None))
        kind = self._kind_of(slot.kind)
        is_waited_for = outcome.is_kept and kind is not None and kind.is_sentinelled
        patience = asyncio.ensure_future(self._clock.sleep(LOGS_S if is_waited_for else LATE_LOGS_S))
        awaited: list[asyncio.Future[Any]] = [complete, patience, slot.container.exited]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        is_complete = complete.done() or not is_waited_for
        logs = slot.logs.end(outcome, is_complete=is_complete)
        if is_complete and may_serve and not slot.container.exited.done():
            self.pool.finished(slot, job, service_s)
        else:
            self.pool.failed(slot, job)
        self._records.add_logs(job, logs, phases)

    async def _end_gone(self, slot: Slot, job: Job, gone: Gone) -> None:
        outcome = await self.outcome_of_gone(slot, job, gone, is_init=False)
        if job in slot.jobs and job.message.id in self._jobs:  # its time was over meanwhile, else
            self.end_run(slot, job, outcome)

    async def outcome_of_gone(self, slot: Slot, job: Job, gone: Gone, *, is_init: bool) -> Outcome:
        """Out of memory, if the kernel says so; else what the kind's image would have said."""
        assert slot.container is not None
        is_out_of_memory = await was_out_of_memory(slot.container)
        if gone.reply is None or is_out_of_memory:
            return activate.gone(is_init=is_init, is_out_of_memory=is_out_of_memory)
        limits = job.message.answers or PLATFORM
        if is_init:
            return activate.classify_init(gone.reply, limits) or activate.gone(is_init=True, is_out_of_memory=False)
        return activate.classify_run(gone.reply, limits)
