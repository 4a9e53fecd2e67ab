"""Brings an action's code into a container: its own, or a stem cell that becomes one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from visp import wording
from visp.entity.activation import Status, failure
from visp.entity.execs import SequenceExec
from visp.entity.limits import PLATFORM
from visp.entity.network import own_policy
from visp.errors import StartFailed
from visp.invoker import activate
from visp.runtime.base import CONCURRENT, IMPORTED, STREAMS, CodeRefused, Gone, PreparedCode, imported

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from visp.clock import Clock
    from visp.entity.activation import Outcome
    from visp.entity.execs import BlackboxExec, CodeExec
    from visp.entity.network import Policy
    from visp.invoker.compiled import Compiled
    from visp.invoker.containers import Containers
    from visp.invoker.imports import Imports
    from visp.invoker.job import Job
    from visp.invoker.pool import Pool
    from visp.invoker.records import Records
    from visp.invoker.runs import Runs
    from visp.invoker.slot import Slot
    from visp.runtime.base import Kind, Reply
    from visp.store.base import Ledger

    PrepareCode = Callable[[CodeExec | BlackboxExec, Kind, str], Awaitable[PreparedCode]]
    LeadOut = Callable[[Sequence[socket.socket], asyncio.Future[Any], str, Policy], Awaitable[dict[str, str]]]

TIMER_S = 0.001
"""How much too early a timer of the loop may go off: nobody is ended before the limit."""


class Initializer:
    """`pool` is there before the first container."""

    pool: Pool

    def __init__(
        self,
        *,
        containers: Containers,
        runs: Runs,
        records: Records,
        ledger: Ledger,
        imports: Imports,
        compiled: Compiled | None,
        prepare_code: PrepareCode,
        key_of: Callable[[str], Awaitable[str | None]],
        lead_out: LeadOut,
        admit: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._containers = containers
        self._runs = runs
        self._records = records
        self._ledger = ledger
        self._imports = imports
        self._compiled = compiled
        self._prepare_code = prepare_code
        self._key_of = key_of
        self._lead_out = lead_out
        self._admit = admit
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    async def initialize(self, slot: Slot, job: Job) -> bool:
        """Brings the job's code into the slot. False when that came to an outcome already. Raises `StartFailed`."""
        action = job.action
        exec = action.exec
        job.start_ms, job.start_s = self._clock.now_ms(), self._clock.monotonic_s()
        if isinstance(exec, SequenceExec):  # the action was made a sequence after its activation was accepted
            self._end_unstarted(slot, job, failure(Status.APPLICATION_ERROR, wording.ACTION_GONE))
            return False
        self._admit(job.message.namespace)
        try:
            code = await self._prepare_code(exec, self._containers.kind(slot.kind), job.message.namespace)
        except CodeRefused as refused:
            job.init_ms = 0  # a failed initialisation that took no time
            self._end_unstarted(slot, job, failure(Status.DEVELOPER_ERROR, refused.sentence))
            return False
        if code.folder is not None and self._compiled is not None:
            code = PreparedCode(folder=self._compiled.of(code.folder, job.key))
        slot.folder = code.folder
        if slot.container is None:
            await self._containers.create(slot, code.folder, text=code.text)
            job.created_s = self._clock.monotonic_s()
        elif code.folder is not None and not await slot.container.add_code(code.folder):
            await self._containers.replace(slot, code.folder)
            job.created_s = self._clock.monotonic_s()
        api_key = None
        if activate.gives_api_key(action):
            api_key = await self._key_of(job.message.namespace_uuid)
        slot.policy = own_policy(action.annotations)
        slot.run_suffix = activate.run_suffix(action, job.message.namespace, api_key)
        container = slot.container
        assert container is not None
        network = await self._lead_out(container.doors, container.exited, job.message.namespace, slot.policy)
        if job.is_accepted and not await self._mark_started(slot, job):
            return False
        return await self._send_init(slot, job, code, api_key, network)

    async def _mark_started(self, slot: Slot, job: Job) -> bool:
        synced: asyncio.Future[Exception | None] = self._loop.create_future()
        self._ledger.start([job.message.id], lambda error: None if synced.done() else synced.set_result(error))
        error = await synced
        if error is not None:
            self.pool.failed(slot, job)
            self._records.not_marked(job, error)
        return error is None

    async def _send_init(
        self, slot: Slot, job: Job, code: PreparedCode, api_key: str | None, network: dict[str, str]
    ) -> bool:
        """Sends the init line and waits for its answer. False when it failed."""
        assert slot.client is not None
        assert slot.container is not None
        assert slot.logs is not None
        clock = self._clock
        limit_ms = job.action.limits.timeout_ms
        answered: asyncio.Future[Reply | Gone] = self._loop.create_future()

        def settle(reply: Reply | Gone) -> None:
            if not answered.done():
                answered.set_result(reply)

        slot.logs.begin(job.action.limits.logs_mb)
        job.start_ms, job.start_s = clock.now_ms(), clock.monotonic_s()
        job.has_begun = True
        deadline_ms = job.start_ms + limit_ms
        body = activate.init_body(job, code, slot.container.code_at, deadline_ms, api_key, slot.concurrency, network)
        slot.client.init(body, settle)
        try:
            async with asyncio.timeout(limit_ms / 1000 + TIMER_S):
                reply = await answered
        except TimeoutError:
            reply = None
        took_s = clock.monotonic_s() - job.start_s
        if reply is None or took_s * 1000 >= limit_ms:  # time is measured first, whatever came back
            slot.client.cancel()
            self._runs.end_run(slot, job, activate.timed_out(limit_ms, is_init=True), is_init=True, is_timeout=True)
            return False
        if self._runs.goes_elsewhere(slot, job, reply):
            return False
        if isinstance(reply, Gone):
            if not reply.was_sent:
                raise StartFailed("every container ended before it was given the code")
            outcome = await self._runs.outcome_of_gone(slot, job, reply, is_init=True)
        else:
            failed = activate.classify_init(reply, job.message.answers or PLATFORM)
            if failed is None:
                job.init_ms = round(took_s * 1000)
                job.initialised_s = job.start_s + took_s
                if reply.body.startswith(IMPORTED):
                    self._imports.learn(job.message.action, imported(reply.body))
                if STREAMS in reply.body:
                    slot.client.stream(lambda id, data: self._runs.passed_on(slot, id, data))
                if slot.concurrency > 1:
                    can = CONCURRENT in reply.body
                    slot.lanes = slot.client.share(self._runs.printed) if can else None
                    if slot.lanes is None:
                        slot.concurrency = 1
                return True
            outcome = failed
        job.init_ms = round(took_s * 1000)
        self._runs.end_run(slot, job, outcome, is_init=True)
        return False

    def _end_unstarted(self, slot: Slot, job: Job, outcome: Outcome) -> None:
        """There is an outcome before a container was asked."""
        self.pool.failed(slot, job)
        self._records.record(job, outcome, (), 0, is_timeout=False)
