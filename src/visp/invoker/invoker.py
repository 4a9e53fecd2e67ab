"""The invoker: takes activations from the bus, has them run, and says how it is.

Decide, then act, then record: the pool finds a container, `runs.py` sends the run line, `records.py` writes the outcome
to the ledger, and only then is the result acknowledged.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from visp import wording
from visp.bus import base as topics
from visp.bus.messages import WARM_LIMIT, ActivationMessage, Credit, Detached, EntityChanged, Ping, Provide
from visp.entity.action import Action
from visp.entity.activation import Status, failure
from visp.entity.execs import SequenceExec, runtime_of
from visp.entity.locking import CannotUnlock
from visp.errors import Corrupt
from visp.invoker.containers import Containers
from visp.invoker.cores import Cores
from visp.invoker.imports import Imports
from visp.invoker.initializer import Initializer
from visp.invoker.job import Job
from visp.invoker.pool import Pool
from visp.invoker.provision import Provision
from visp.invoker.records import Records
from visp.invoker.runs import Runs
from visp.invoker.slot import Key
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from visp.bus.base import Bus
    from visp.bus.messages import Message
    from visp.clock import Clock
    from visp.container.base import Maker
    from visp.entity.locking import Locks
    from visp.invoker.compiled import Compiled
    from visp.invoker.containers import Connect, OpenDoors
    from visp.invoker.initializer import LeadOut, PrepareCode
    from visp.invoker.prewarm import Wanted
    from visp.runtime.base import Kind
    from visp.settings import Settings
    from visp.store.base import Ledger
    from visp.store.cache import EntityCache
    from visp.telemetry.metrics import Family

PING_S = 1.0


class Invoker:
    """One invoker; `async with` it: when the block is left nothing of it runs."""

    def __init__(
        self,
        *,
        id: int,
        bus: Bus,
        ledger: Ledger,
        entities: EntityCache,
        driver: Maker,
        connect: Connect,
        kind_of: Callable[[str], Kind | None],
        prepare_code: PrepareCode,
        key_of: Callable[[str], Awaitable[str | None]],
        locks: Locks,
        settings: Settings,
        wanted: tuple[Wanted, ...],
        memory_mb: int,
        starts_limit: int,
        compiled: Compiled | None,
        api_host: str,
        open_doors: OpenDoors,
        lead_out: LeadOut,
        clock: Clock,
        admit: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._id = id
        self._bus = bus
        self._ledger = ledger
        self._entities = entities
        self._driver = driver
        self._kind_of = kind_of
        self._locks = locks
        self._settings = settings
        self._wanted = wanted
        self._memory_mb = memory_mb
        self._starts_limit = starts_limit
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._imports = Imports()
        self._records = Records(bus, ledger, clock, lambda job, said: self._provision.failed(job, said))
        self._jobs = self._records.jobs
        self._loading: dict[str, bool] = {}
        """By id those whose action is being read, and whether they were detached meanwhile."""
        self._containers = Containers(
            driver=driver,
            connect=connect,
            kind_of=kind_of,
            imports=self._imports,
            api_host=api_host,
            open_doors=open_doors,
            start_timeout_s=settings.pool.start_timeout_s,
            clock=clock,
        )
        self._runs = Runs(
            bus=bus,
            ledger=ledger,
            records=self._records,
            kind_of=kind_of,
            compiled=compiled,
            tasks=self._tasks,
            clock=clock,
        )
        self._initializer = Initializer(
            containers=self._containers,
            runs=self._runs,
            records=self._records,
            ledger=ledger,
            imports=self._imports,
            compiled=compiled,
            prepare_code=prepare_code,
            key_of=key_of,
            lead_out=lead_out,
            admit=admit,
            clock=clock,
        )
        self._held: list[Job] = []
        self._is_holding = False
        self._is_hold_due = False
        self._background: list[asyncio.Task[None]] = []
        self._unsubscribe: list[Callable[[], None]] = []
        self.pool: Pool
        self._provision: Provision

    async def __aenter__(self) -> Invoker:
        await self._tasks.__aenter__()
        self.pool = Pool(
            settings=self._settings.pool,
            memory_mb=self._memory_mb,
            starts_limit=self._starts_limit,
            wanted=[entry for entry in self._wanted if self._kind_of(entry.cell.kind) is not None],
            clock=self._clock,
            tasks=self._tasks,
            open_cell=self._containers.open_cell,
            prepare=self._initializer.initialize,
            run=self._runs.run,
            start_failed=self._records.start_failed,
            rest=self._containers.rest,
            concurrency_of=self._concurrency_of,
            is_better_new=self._is_better_new,
            cores=Cores(self._clock),
        )
        self._containers.pool = self._runs.pool = self._initializer.pool = self.pool
        self._unsubscribe = [
            self._bus.subscribe(topics.invoker_topic(self._id), self._heard),
            self._bus.subscribe(topics.ENTITIES, self._heard),
        ]
        self._ping()
        self._provision = Provision(self.pool, self._entities, self._clock, self._settings.pool.provisioned_share)
        on_and_on = (self._ping_on(), self.pool.upkeep.sweep(), self._provision.keep())
        self._background = [self._tasks.create_task(work) for work in on_and_on]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        for task in self._background:
            task.cancel()
        await self.pool.close()
        await self._tasks.__aexit__(None, None, None)

    def measured(self) -> list[Family]:
        """What this invoker has counted, for a scrape."""
        return self._records.meter.families(self.pool)

    # ── before the end ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def under_way(self) -> int:
        """Activations that run here or are going to, without those that are held back."""
        return len(self._jobs) + len(self._loading) - len(self._held)

    def hold_back(self) -> None:
        """Accepted work that has no container is not begun any more: the ledger has it, and the next start runs it."""
        self._is_holding = True
        self._is_hold_due = False
        self._held += self.pool.withdraw(lambda job: job.is_accepted)
        self._held += self._records.unmarked
        self._records.unmarked = []

    def go_on(self) -> None:
        """There is no next start: what was held back runs here after all."""
        self._is_holding = self._is_hold_due = False
        held, self._held = self._held, []
        for job in held:
            self.pool.submit(job)

    # ── from the bus ────────────────────────────────────────────────────────────────────────────────────────────

    def _heard(self, message: Message) -> None:
        if isinstance(message, ActivationMessage):
            id = message.id
            if id in self._jobs or id in self._loading:
                return  # it comes again
            if message.is_accepted and not self._ledger.has_waiting(id):
                return  # the same, however late; or it was not accepted
            action = self._entities.peek(message.action)
            if message.unfit is not None:
                self._records.abort(message, failure(Status.APPLICATION_ERROR, message.unfit))
            elif isinstance(action, Action):
                self._submit(message, action)
            else:
                self._loading[message.id] = False
                self._tasks.create_task(self._load(message))
        elif isinstance(message, Detached):
            self._detach(message.id)
        elif isinstance(message, Provide):
            self._provision.heard(message)
        elif isinstance(message, Credit):
            self._runs.credit(message)
        elif isinstance(message, EntityChanged):
            self.pool.forget_revisions(message.id, message.revision)

    def _detach(self, id: str) -> None:
        """The activation is accepted work now: what has begun is marked as started at once."""
        job = self._jobs.get(id)
        if job is not None:
            job.is_accepted = True
            if job.has_begun:
                self._ledger.start([id], _ignore)
            elif self._is_holding and not self._is_hold_due:  # many are detached in one turn: they are looked for once
                self._is_hold_due = True
                self._loop.call_soon(lambda: self.hold_back() if self._is_holding else None)
        elif id in self._loading:
            self._loading[id] = True

    async def _load(self, message: ActivationMessage) -> None:
        try:
            action = await self._entities.get(message.action)
        except Corrupt:
            self._records.abort(message, failure(Status.INTERNAL_ERROR, wording.ACTION_UNREADABLE))
        except Exception as error:  # whatever the store raises: the activation still ends with a record
            log.error("invoker.action_not_fetched", transid=message.transid, reason=repr(error))
            self._records.abort(message, failure(Status.INTERNAL_ERROR, wording.ACTION_NOT_FETCHED))
        else:
            if isinstance(action, Action) and not isinstance(action.exec, SequenceExec):
                self._submit(message, action, is_detached=self._loading[message.id])
            else:
                self._records.abort(message, failure(Status.APPLICATION_ERROR, wording.ACTION_GONE))
        finally:
            del self._loading[message.id]

    def _submit(self, message: ActivationMessage, action: Action, *, is_detached: bool = False) -> None:
        key = Key(message.namespace, message.action, action.revision)
        job = Job(message, action, key, self._clock.monotonic_s())
        if message.locked:
            try:
                job.content = self._locks.unlocked(message.content, message.locked)
            except CannotUnlock as error:
                log.error("invoker.locked", transid=message.transid, action=message.action, reason=str(error))
                self._records.abort(message, failure(Status.INTERNAL_ERROR, wording.PARAMETERS_LOCKED))
                return
        if is_detached:
            job.is_accepted = True
        self._jobs[message.id] = job
        self._place(job)

    def _place(self, job: Job) -> None:
        if self._is_holding and job.is_accepted:
            self._held.append(job)
        else:
            self.pool.submit(job)

    def _is_better_new(self, job: Job) -> bool:
        """Where a template has loaded already what the action would still have to."""
        return self._driver.has_templates and bool(self._imports.of(job.message.action))

    def _concurrency_of(self, action: Action) -> int:
        """How many of its runs one container takes at once: as many as it may, if its launcher can."""
        if action.limits.concurrency == 1:
            return 1
        kind = self._kind_of(runtime_of(action.exec))
        if kind is None or not kind.is_concurrent:
            return 1
        return min(action.limits.concurrency, self._settings.limits.concurrency)

    def has(self, id: str) -> bool:
        """Whether an activation waits or runs here."""
        return id in self._jobs or id in self._loading

    def owner_of(self, id: str) -> str | None:
        """The uuid of the namespace whose activation waits or runs here; None for any other id."""
        job = self._jobs.get(id)
        return None if job is None else job.message.namespace_uuid

    # ── pings ───────────────────────────────────────────────────────────────────────────────────────────────────

    def ping(self) -> Ping:
        """How this invoker is now."""
        pool = self.pool
        warm = tuple(islice(pool.warm(), WARM_LIMIT))
        return Ping(self._id, pool.memory_mb, pool.used_mb, pool.waiting, warm)

    def _ping(self) -> None:
        self._bus.publish(topics.PINGS, self.ping())

    async def _ping_on(self) -> None:
        while True:
            await self._clock.sleep(PING_S)
            self._ping()
            unmarked, self._records.unmarked = self._records.unmarked, []
            for job in unmarked:
                self._place(job)


def _ignore(_: object) -> None:
    """For an entry whose failure shows in the one that follows it."""
