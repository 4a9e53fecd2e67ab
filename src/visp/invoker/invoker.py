"""The invoker: takes activations from the bus, runs them, records and acknowledges them.

Decide, then act, then record: the pool finds a container, `_run` sends the run line, `_finish` writes the outcome to
the ledger, and only then is the result acknowledged. The container is free before that write: it is not held for it.
"""

from __future__ import annotations

import asyncio
import math
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

from visp import wording
from visp.bus import base as topics
from visp.bus.follow import follow_ups
from visp.bus.messages import (
    WARM_LIMIT,
    ActivationMessage,
    CompletionAck,
    Credit,
    Detached,
    EntityChanged,
    Part,
    Ping,
    Provide,
    ResultAck,
)
from visp.container.base import Address, ContainerSpec, Mount, Template
from visp.entity.action import Action
from visp.entity.activation import ActivationRecord, Outcome, Status, failure
from visp.entity.execs import IMAGE, SequenceExec, runtime_of
from visp.entity.keeping import is_kept
from visp.entity.limits import PLATFORM
from visp.entity.locking import CannotUnlock
from visp.entity.network import own_policy
from visp.errors import Corrupt, StartFailed, StoreUnavailable
from visp.invoker import activate
from visp.invoker.cores import Cores
from visp.invoker.imports import Imports
from visp.invoker.job import Job
from visp.invoker.logs import LogCollector, Printed
from visp.invoker.meter import Meter
from visp.invoker.pool import TRIES, Pool
from visp.invoker.provision import Provision
from visp.invoker.slot import WORKING, Key, Slot, State
from visp.invoker.streams import Stream
from visp.runtime.base import CONCURRENT, IMPORTED, STREAMS, CodeRefused, Gone, PreparedCode, Reply, imported
from visp.store.base import Work
from visp.telemetry import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from visp.bus.base import Bus
    from visp.bus.messages import Deferred, Message
    from visp.clock import Clock
    from visp.container.base import Container, Maker
    from visp.entity.activation import Phases
    from visp.entity.execs import BlackboxExec, CodeExec
    from visp.entity.locking import Locks
    from visp.entity.network import Policy
    from visp.invoker.compiled import Compiled
    from visp.invoker.prewarm import Wanted
    from visp.runtime.base import ActionClient, Kind, OnOutput
    from visp.settings import Settings
    from visp.store.base import Ledger
    from visp.store.cache import EntityCache
    from visp.telemetry.metrics import Family

    OpenDoors = Callable[
        [Sequence[socket.socket], asyncio.Future[Any], Callable[[], str | None], Callable[[], Policy]], None
    ]
    LeadOut = Callable[[Sequence[socket.socket], asyncio.Future[Any], str, Policy], Awaitable[dict[str, str]]]

PING_S = 1.0
TIMER_S = 0.001
"""How much too early a timer of the loop may go off: nobody is ended before the limit."""
EXIT_GRACE_S = 0.25
"""How long to wait for the kernel's word on why a container ended."""
LOGS_S = 10.0
"""How long after the reply the rest of an image's logs is waited for."""
LATE_LOGS_S = 0.05
"""The same where no end of them is marked: they have as long a way as the reply."""


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
        connect: Callable[[Container, str, OnOutput], ActionClient],
        kind_of: Callable[[str], Kind | None],
        prepare_code: Callable[[CodeExec | BlackboxExec, Kind, str], Awaitable[PreparedCode]],
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
        self._admit = admit
        self._bus = bus
        self._ledger = ledger
        self._entities = entities
        self._driver = driver
        self._connect = connect
        self._kind_of = kind_of
        self._prepare_code = prepare_code
        self._key_of = key_of
        self._locks = locks
        self._settings = settings
        self._wanted = wanted
        self._memory_mb = memory_mb
        self._starts_limit = starts_limit
        self._compiled = compiled
        self._api_host = api_host
        self._open_doors = open_doors
        self._lead_out = lead_out
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._jobs: dict[str, Job] = {}
        """Every activation that waits or runs here, by id; `_loading` those whose action is being read, and whether
        they were detached meanwhile."""
        self._loading: dict[str, bool] = {}
        self._held: list[Job] = []
        self._unmarked: list[Job] = []
        """Accepted work whose beginning could not be written: it is begun again at the next ping."""
        self._is_holding = False
        self._is_hold_due = False
        self._imports = Imports()
        self._background: list[asyncio.Task[None]] = []
        self._unsubscribe: list[Callable[[], None]] = []
        self._meter = Meter()
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
            open_cell=self._open_cell,
            prepare=self._initialize,
            run=self._run,
            start_failed=self._start_failed,
            rest=self._rest,
            concurrency_of=self._concurrency_of,
            is_better_new=self._is_better_new,
            cores=Cores(self._clock),
        )
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
        return self._meter.families(self.pool)

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
        self._held += self._unmarked
        self._unmarked = []

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
                self._abort(message, failure(Status.APPLICATION_ERROR, message.unfit))
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
            self._credit(message)
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
            self._abort(message, failure(Status.INTERNAL_ERROR, wording.ACTION_UNREADABLE))
        except Exception as error:  # whatever the store raises: the activation still ends with a record
            log.error("invoker.action_not_fetched", transid=message.transid, reason=repr(error))
            self._abort(message, failure(Status.INTERNAL_ERROR, wording.ACTION_NOT_FETCHED))
        else:
            if isinstance(action, Action) and not isinstance(action.exec, SequenceExec):
                self._submit(message, action, is_detached=self._loading[message.id])
            else:
                self._abort(message, failure(Status.APPLICATION_ERROR, wording.ACTION_GONE))
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
                self._abort(message, failure(Status.INTERNAL_ERROR, wording.PARAMETERS_LOCKED))
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

    # ── a container for a job ───────────────────────────────────────────────────────────────────────────────────

    async def _open_cell(self, slot: Slot) -> None:
        """Starts a container without code. Raises `StartFailed`."""
        await self._create(slot, None)

    async def _create(self, slot: Slot, code_folder: str | None, *, suffix: str = "") -> None:
        command = self._kind(slot.kind).command(slot.memory_mb)
        mounts = tuple(Mount(host, inside) for host, inside in command.mounts)
        spec = ContainerSpec(
            id=f"{slot.id}{suffix}",
            argv=command.argv,
            env=command.env | {"__OW_API_HOST": self._api_host},
            memory_mb=slot.memory_mb,
            mounts=mounts,
            code_folder=code_folder,
            template=None if command.template is None else self._template(slot, command.template, command.argv, mounts),
            root=command.root,
            image=command.image,
            reserve_mb=command.reserve_mb,
        )
        limit_s: float | None = self._settings.pool.start_timeout_s
        if command.image is not None:  # it may have to be pulled: its driver bounds that, and how many at once
            limit_s = None
            self.pool.launched(slot)
        try:
            async with asyncio.timeout(limit_s):
                container = await self._driver.create(spec)
        except TimeoutError:
            raise StartFailed(f"no container within {limit_s} s") from None
        slot.container = container
        if slot.state in (State.REMOVING, State.GONE):
            await container.destroy()
            raise StartFailed("the invoker is closing")
        self._open_doors(
            container.doors,
            container.exited,
            lambda: None if slot.key is None else slot.key.namespace,
            lambda: slot.policy,
        )
        slot.logs = LogCollector(self._clock.now_ns, is_sentinelled=isinstance(container.wire, Address))
        slot.client = self._connect(container, slot.kind, slot.logs.feed)
        container.exited.add_done_callback(lambda _: self._exited(slot, container))
        self.pool.launched(slot)

    def _template(self, slot: Slot, program: str, argv: tuple[str, ...], mounts: tuple[Mount, ...]) -> Template:
        """With what the slot's action imports, if that is known."""
        imports = () if slot.key is None else self._imports.of(slot.key.action)
        return Template(program=program, argv=argv, mounts=mounts, imports=imports)

    def _kind(self, runtime: str) -> Kind:
        """Raises `StartFailed` for what nothing runs here."""
        kind = self._kind_of(runtime)
        if kind is not None:
            return kind
        if runtime.startswith(IMAGE):
            sentence = wording.image_not_pulled(runtime.removeprefix(IMAGE))
            raise StartFailed("no container engine", sentence, is_developer_error=True)
        raise StartFailed(f"kind {runtime} has no runtime on this machine (`visp doctor` says what is missing)")

    def _rest(self, slot: Slot) -> None:
        kind = self._kind_of(slot.kind)
        if kind is not None and kind.rests and slot.client is not None:
            slot.client.rest()

    async def _replace(self, slot: Slot, code_folder: str) -> None:
        """A tree that cannot be brought into the stem cell: a container over it takes the cell's place."""
        assert slot.client is not None
        assert slot.container is not None
        client, container = slot.client, slot.container
        slot.client = slot.container = None
        client.close()
        await container.destroy()
        await self._create(slot, code_folder, suffix="-tree")

    def _exited(self, slot: Slot, container: Container) -> None:
        """A container that ends while nobody uses it leaves the pool.

        One in use is noticed by its client, save where a process that it left behind keeps the channel open.
        """
        if slot.container is not container:
            return  # the slot has another by now
        if not slot.jobs:
            self.pool.lost(slot)
        else:
            self._loop.call_later(EXIT_GRACE_S, self._give_up, slot, container)

    def _give_up(self, slot: Slot, container: Container) -> None:
        if slot.container is not container:
            return
        if not slot.jobs:
            self.pool.lost(slot)
        elif slot.client is not None:
            slot.client.give_up()

    async def _initialize(self, slot: Slot, job: Job) -> bool:
        """Brings the job's code into the slot. False when that came to an outcome already. Raises `StartFailed`."""
        action = job.action
        exec = action.exec
        job.start_ms, job.start_s = self._clock.now_ms(), self._clock.monotonic_s()
        if isinstance(exec, SequenceExec):  # the action was made a sequence after its activation was accepted
            self._end_unstarted(slot, job, failure(Status.APPLICATION_ERROR, wording.ACTION_GONE))
            return False
        self._admit(job.message.namespace)
        try:
            code = await self._prepare_code(exec, self._kind(slot.kind), job.message.namespace)
        except CodeRefused as refused:
            job.init_ms = 0  # a failed initialisation that took no time
            self._end_unstarted(slot, job, failure(Status.DEVELOPER_ERROR, refused.sentence))
            return False
        if code.folder is not None and self._compiled is not None:
            code = PreparedCode(folder=self._compiled.of(code.folder, job.key))
        slot.folder = code.folder
        if slot.container is None:
            await self._create(slot, code.folder)
            job.created_s = self._clock.monotonic_s()
        elif code.folder is not None and not await slot.container.add_code(code.folder):
            await self._replace(slot, code.folder)
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
            self._not_marked(job, error)
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
            self._end_run(slot, job, activate.timed_out(limit_ms, is_init=True), is_init=True, is_timeout=True)
            return False
        if self._goes_elsewhere(slot, job, reply):
            return False
        if isinstance(reply, Gone):
            if not reply.was_sent:
                raise StartFailed("every container ended before it was given the code")
            outcome = await self._outcome_of_gone(slot, job, reply, is_init=True)
        else:
            failed = activate.classify_init(reply, job.message.answers or PLATFORM)
            if failed is None:
                job.init_ms = round(took_s * 1000)
                job.initialised_s = job.start_s + took_s
                if reply.body.startswith(IMPORTED):
                    self._imports.learn(job.message.action, imported(reply.body))
                if STREAMS in reply.body:
                    slot.client.stream(lambda id, data: self._passed_on(slot, id, data))
                if slot.concurrency > 1:
                    can = CONCURRENT in reply.body
                    slot.lanes = slot.client.share(self._printed) if can else None
                    if slot.lanes is None:
                        slot.concurrency = 1
                return True
            outcome = failed
        job.init_ms = round(took_s * 1000)
        self._end_run(slot, job, outcome, is_init=True)
        return False

    def _goes_elsewhere(self, slot: Slot, job: Job, reply: Reply | Gone) -> bool:
        """Whether the container has not begun with the job and never will: then another gets it, a few times."""
        if isinstance(reply, Gone):
            is_untouched = not reply.was_sent and job.init_ms is None
        else:
            is_untouched = reply.status == activate.SHUTTING_DOWN
        if not is_untouched or job.tries >= TRIES:
            return False
        self.pool.retry(slot, job)
        return True

    # ── a run ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, slot: Slot, job: Job) -> None:
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
                self._not_marked(job, error)

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
                self._end_run(slot, job, activate.timed_out(limit_ms, is_init=False), is_timeout=True)
        if left_s is not None and slot.state in WORKING and slot.timer is None:
            slot.timer = self._loop.call_later(left_s, self._check_deadline, slot)

    def _answered(self, slot: Slot, job: Job, reply: Reply | Gone) -> None:
        if job not in slot.jobs:
            return  # over time already
        if self._clock.monotonic_s() >= job.deadline_s:  # time is measured first, whatever came back
            limit_ms = job.action.limits.timeout_ms
            self._end_run(slot, job, activate.timed_out(limit_ms, is_init=False), is_timeout=True)
        elif isinstance(reply, Gone):
            if not self._goes_elsewhere(slot, job, reply):
                self.pool.spend(slot)
                self._tasks.create_task(self._end_gone(slot, job, reply))
        elif reply.status != activate.SHUTTING_DOWN or not self._goes_elsewhere(slot, job, reply):
            outcome = activate.classify_run(reply, job.message.answers or PLATFORM)
            self._end_run(slot, job, outcome if job.stream is None else activate.streamed(outcome, job.stream))

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────────────────

    def _printed(self, id: str, stream: int, line: bytes) -> None:
        """A line of a run beside which others are under way."""
        job = self._jobs.get(id)
        if job is not None:
            if job.printed is None:
                job.printed = Printed(job.action.limits.logs_mb)
            job.printed.add(self._clock.now_ns(), stream, line)

    def _passed_on(self, slot: Slot, id: str, data: bytes) -> bool:
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

    def _credit(self, credit: Credit) -> None:
        job = self._jobs.get(credit.id)
        if job is None:
            return
        if credit.count_bytes is None:
            if job.stream is not None:
                job.stream.abandon()
        elif job.stream is not None and job.stream.is_read:
            job.stream.taken(credit.count_bytes)

    async def _end_gone(self, slot: Slot, job: Job, gone: Gone) -> None:
        outcome = await self._outcome_of_gone(slot, job, gone, is_init=False)
        if job in slot.jobs and job.message.id in self._jobs:  # its time was over meanwhile, else
            self._end_run(slot, job, outcome)

    async def _outcome_of_gone(self, slot: Slot, job: Job, gone: Gone, *, is_init: bool) -> Outcome:
        """Out of memory, if the kernel says so; else what the kind's image would have said."""
        assert slot.container is not None
        done, _ = await asyncio.wait([slot.container.exited], timeout=EXIT_GRACE_S)
        is_out_of_memory = bool(done) and slot.container.exited.result().is_out_of_memory
        if gone.reply is None or is_out_of_memory:
            return activate.gone(is_init=is_init, is_out_of_memory=is_out_of_memory)
        limits = job.message.answers or PLATFORM
        if is_init:
            return activate.classify_init(gone.reply, limits) or activate.gone(is_init=True, is_out_of_memory=False)
        return activate.classify_run(gone.reply, limits)

    # ── the end of a run ────────────────────────────────────────────────────────────────────────────────────────

    def _end_run(
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
            phases = self._record(job, outcome, (), duration_ms, is_timeout=is_timeout, has_all_logs=False)
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
        self._record(job, outcome, logs, duration_ms, is_timeout=is_timeout)

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
        assert job.answered_s is not None
        assert phases.answered is not None
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
        took_us = int((self._clock.monotonic_s() - job.answered_s) * 1e6)
        self._meter.record_late_logs(took_us)
        if is_complete and may_serve and not slot.container.exited.done():
            self.pool.finished(slot, job, service_s)
        else:
            self.pool.failed(slot, job)
        self._ledger.add_logs(job.message.id, logs, phases.answered + took_us)
        self._bus.publish(topics.ACKS, CompletionAck(job.message.id))

    def _end_unstarted(self, slot: Slot, job: Job, outcome: Outcome) -> None:
        """There is an outcome before a container was asked."""
        self.pool.failed(slot, job)
        self._record(job, outcome, (), 0, is_timeout=False)

    def _start_failed(self, job: Job, error: Exception) -> None:
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
        self._record(job, failure(status, sentence), (), 0, is_timeout=False)

    def _record(
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
            self._provision.failed(job, outcome.result.decode("utf-8", "replace"))
            return activate.phases_of(job, self._clock.monotonic_s())
        self._jobs.pop(job.message.id, None)
        end_ms = job.start_ms + duration_ms
        phases = activate.phases_of(job, self._clock.monotonic_s())
        self._meter.record(job.action.exec.kind, outcome.status, phases)
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

    def _abort(self, message: ActivationMessage, outcome: Outcome) -> None:
        """An activation whose action could not be had: the fallback record."""
        head = activate.fallback_head(message, outcome, self._clock.now_ms())
        self._write(ActivationRecord(head=head, result=outcome.result), message)

    def _not_marked(self, job: Job, error: Exception) -> None:
        """Nothing can be written: the activation was not begun. What the ledger holds is begun once that can be said.

        It may have been said before, of a container that could not serve it. The caller of anything else is told so.
        """
        if self._ledger.has_open(job.message.id):
            job.reset()
            self._unmarked.append(job)
            return
        self._jobs.pop(job.message.id, None)
        outcome = failure(Status.INTERNAL_ERROR, wording.DISK_FULL)
        head = activate.head_of(job, outcome, job.start_ms, 0, is_timeout=False)
        self._bus.publish(topics.ACKS, ResultAck(head, outcome.result, str(error), is_complete=True))

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
            unmarked, self._unmarked = self._unmarked, []
            for job in unmarked:
                self._place(job)


def _ignore(_: object) -> None:
    """For an entry whose failure shows in the one that follows it."""
