"""Virtual time: arrivals, starts and ends of runs in their order, and what the platform decides at each of them.

The decisions are the server's own functions: `scheduler.placement`, `invoker.plan`, `invoker.fair`,
`invoker.keepalive`, `invoker.prewarm`. What is here performs them, as `invoker/pool.py` does, but on numbers in place
of containers; the cases follow that module and are named alike. Between two events nothing happens, so a thousand idle
hours cost nothing: where the pool looks again each 20 ms, the simulation computes when a look would tell something new.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

from visp.invoker.job import Cold
from visp.invoker.keepalive import POLICIES
from visp.invoker.plan import PROTECTED_S, START_S, WAIT, Create, Wait, must_wait, plan
from visp.invoker.prewarm import Cell, missing
from visp.sim.fleet import KIND, Container, Invoker, Job, Key, Standing
from visp.sim.outcome import Outcome
from visp.sim.outlook import demand_of, gives_way_to_blocked, is_before, view_of
from visp.sim.placing import Placing
from visp.sim.published import CREATE_SHARE
from visp.sim.workload import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from visp.invoker.plan import Resume, Specialise
    from visp.sim.fleet import Setup
    from visp.sim.workload import Actions, Arrival

TICK_S = 0.02
"""As in the pool."""
REVISION = 1
LATER_S = 1e-6
"""A look is this much later than the time from which it would tell something new."""
SWEEP_S = 1.0
SLOW_SWEEP_S = 5.0
"""Stem cells are seen to a second after a cold start drew one, then this often while any are wanted."""
SLOWDOWN_FLOOR_S = 0.1
"""A run counts as no shorter when its delay is compared with it: nobody minds 9 ms on top of 1."""
PROGRESS_EVERY = 1 << 14

FINISHED, STARTED, CHECK, LOOK, SWEEP, EXPECT, CELL_UP = range(7)
"""What an event is: a run ends; a start ends; an idle container may be too old; a job has waited for as long as a start
takes, or all are looked at (no key); stem cells are seen to; an action is expected to be used again, so they are; one
is up."""


class Engine:
    """One run of one policy."""

    def __init__(self, actions: Actions, setup: Setup, policy: str) -> None:
        self._policy = POLICIES[policy]
        self._actions = actions
        self._setup = setup
        self.invokers = [
            Invoker(id, setup.memory_mb, self._policy, setup.stem_cells_most) for id in range(setup.invokers)
        ]
        self._placing = Placing(self.invokers, actions)
        self._keys: dict[int, Key] = {}
        self._events: list[tuple[float, int, int, Container | Invoker, Key | None]] = []
        self._serial = 0
        self._create_s: dict[int, float] = {}
        self._busy_mb = self._starting_mb = self._idle_mb = self._waiting = 0
        namespaces = max(actions.namespace, default=-1) + 1
        self.outcome = Outcome(len(actions), namespaces)

    def run(self, arrivals: Iterable[Arrival], progress: Callable[[int, float], None] | None = None) -> Outcome:
        """Simulates until the last arrival has ended; `progress` is told arrivals and virtual time now and then."""
        events, outcome, series = self._events, self.outcome, self.outcome.series
        arrived_of = outcome.arrived_of
        last_s = 0.0
        for at_s, action, run_s in arrivals:
            if at_s < last_s:
                raise WorkloadError(f"an arrival at {at_s} s after one at {last_s} s: they must be sorted")
            last_s = at_s
            while events and events[0][0] <= at_s:
                self._next()
            if at_s >= series.next_s:
                self._sample(at_s)
            outcome.arrived += 1
            arrived_of[action] += 1
            self._arrive(at_s, action, run_s)
            if progress is not None and not outcome.arrived % PROGRESS_EVERY:
                progress(outcome.arrived, at_s)
        while outcome.finished + outcome.refused < outcome.arrived:
            if events[0][0] >= series.next_s:
                self._sample(events[0][0])
            self._next()
        self._settle()
        return outcome

    # ── events ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _push(self, at_s: float, kind: int, what: Container | Invoker, key: Key | None = None) -> None:
        self._serial += 1
        heapq.heappush(self._events, (at_s, self._serial, kind, what, key))

    def _next(self) -> None:
        now_s, _, kind, what, key = heapq.heappop(self._events)
        if isinstance(what, Container):
            if kind == FINISHED:
                self._finished(now_s, what)
            elif kind == STARTED:
                self._started(now_s, what)
            elif kind == CHECK:
                self._check(now_s, what)
            else:
                self._cell_is_up(now_s, what)
        elif kind == SWEEP:
            self._sweep(now_s, what)
        elif kind == EXPECT:
            self._sweep_at(what, now_s)
        elif key is None:
            what.is_ticking = False
            self._plan_all(now_s, what)
        elif key in what.queues:
            what.queues[key][0].look_s = math.inf
            self._plan_one(now_s, what, key)

    def _arrive(self, now_s: float, action: int, run_s: float) -> None:
        memory_mb = self._actions.memory_mb[action]
        if memory_mb > self._setup.memory_mb:
            self.outcome.refused += 1
            return
        invoker = self._placing.place(action, memory_mb)
        key = self._keys.get(action)
        if key is None:
            namespace = self._actions.namespace[action]
            key = Key(action, self._actions.namespace_name(namespace), namespace, memory_mb)
            self._keys[action] = key
        elif key not in invoker.waiting.queues:
            container = self._fetch(now_s, invoker, action)
            if container is not None:
                self._engage(now_s, container, now_s, run_s)
                return
        self._waiting += 1
        invoker.waiting.push(Job(key, now_s, run_s))
        self._plan_one(now_s, invoker, key)

    def _finished(self, now_s: float, container: Container) -> None:
        invoker, key, usage = container.invoker, container.key, container.usage
        assert key is not None
        assert usage is not None
        self.outcome.finished += 1
        self.outcome.end_s = now_s
        self._busy_mb -= container.memory_mb
        usage.served(container.run_s)
        container.idle_since_s = now_s
        container.age = invoker.age
        action = key.action
        left = invoker.engaged[action] - 1
        if left:
            invoker.engaged[action] = left
        else:
            del invoker.engaged[action]
        queues = invoker.waiting.queues
        if not queues:
            self._shelve(now_s, container, action)
            return
        queue = queues.get(key)
        if queue is None:
            self._shelve(now_s, container, action)
            self._plan_all(now_s, invoker)
        elif gives_way_to_blocked(invoker, container, queue[0]):
            self._remove(now_s, container, Cold.EVICTED)
            self._plan_all(now_s, invoker)
        else:
            was_blocked = queue[0] is invoker.blocked
            job = self._pop(now_s, invoker, key)
            invoker.engaged[action] = invoker.engaged.get(action, 0) + 1
            self._engage(now_s, container, job.arrived_s, job.run_s)
            if was_blocked and (len(queues) > 1 or (queues and key not in queues)):
                self._plan_all(now_s, invoker)  # what was kept for it is for the next

    def _started(self, now_s: float, container: Container) -> None:
        invoker, job, key = container.invoker, container.job, container.key
        assert job is not None
        assert key is not None
        assert container.usage is not None
        invoker.initialized(container, key.action)
        container.job = None
        container.usage.started(now_s - job.placed_s)
        self._starting_mb -= container.memory_mb
        self._run(now_s, container, key.namespace_number, now_s - job.arrived_s, job.run_s)
        if invoker.waiting.queues:
            self._plan_all(now_s, invoker)

    # ── what is performed ───────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self, now_s: float, invoker: Invoker, action: int) -> Container | None:
        """A warm container, which has been idle until now."""
        container = invoker.fetch(action)
        if container is not None:
            self._idle_mb -= container.memory_mb
            self.outcome.idle_mb_s += container.memory_mb * (now_s - container.idle_since_s)
        return container

    def _engage(self, now_s: float, container: Container, arrived_s: float, run_s: float) -> None:
        """Runs a job in a warm container."""
        usage, key = container.usage, container.key
        assert usage is not None
        assert key is not None
        usage.uses += 1
        pause_s = arrived_s - container.idle_since_s
        if pause_s > usage.pauses.SHORTEST_S:
            usage.pauses.add(pause_s)
        invoker = container.invoker
        if invoker.waiting.queues:
            self._charge(now_s, invoker, container)
        waited_s = now_s - arrived_s
        self.outcome.queueing.add(waited_s)
        self._run(now_s, container, key.namespace_number, waited_s, run_s)

    def _run(self, now_s: float, container: Container, namespace: int, delay_s: float, run_s: float) -> None:
        outcome = self.outcome
        outcome.delay.add(delay_s)
        outcome.runs_of[namespace] += 1
        outcome.slowdown_of[namespace] += 1.0 + delay_s / max(run_s, SLOWDOWN_FLOOR_S)
        outcome.busy_mb_s += container.memory_mb * run_s
        self._busy_mb += container.memory_mb
        container.run_s = run_s
        self._serial += 1
        heapq.heappush(self._events, (now_s + run_s, self._serial, FINISHED, container, None))

    def _shelve(self, now_s: float, container: Container, action: int) -> None:
        """The container is idle; its time-out is looked at when it is due at the earliest."""
        usage = container.usage
        assert usage is not None
        self._idle_mb += container.memory_mb
        priority = self._policy.priority(usage, container.memory_mb, container.age, now_s, now_s)
        container.invoker.shelve(container, action, priority)
        if container.pauses_seen != usage.pauses.total:
            container.pauses_seen = usage.pauses.total
            container.keep_s = self._policy.keep_s(usage, self._setup.idle_s)
        due_s = now_s + container.keep_s
        if container.check_s > due_s:
            self._check_at(container, due_s)

    def _check_at(self, container: Container, due_s: float) -> None:
        if due_s < math.inf:
            container.check_s = due_s
            self._push(due_s, CHECK, container)

    def _check(self, now_s: float, container: Container) -> None:
        """A container's time-out, if it has been idle since; a look other than the last that was asked for is void."""
        if now_s != container.check_s or container.standing is Standing.GONE:
            return
        container.check_s = math.inf
        if container.standing is not Standing.IDLE:
            return
        due_s = container.idle_since_s + container.keep_s
        if due_s > now_s:
            self._check_at(container, due_s)
            return
        invoker = container.invoker
        self._remove(now_s, container, Cold.EXPIRED)
        if invoker.waiting.queues:
            self._plan_all(now_s, invoker)

    def _remove(self, now_s: float, container: Container, why: Cold) -> None:
        """Ends a container that is idle, or was just released, or a stem cell. It was idle until now."""
        invoker, outcome = container.invoker, self.outcome
        if container.standing is Standing.CELL:
            outcome.cells_mb_s += container.memory_mb * (now_s - container.idle_since_s)
        elif container.standing is Standing.IDLE:
            self._idle_mb -= container.memory_mb
            outcome.idle_mb_s += container.memory_mb * (now_s - container.idle_since_s)
        if why is Cold.EVICTED:
            outcome.evicted += 1
            invoker.evicted_since += 1
        elif why is Cold.EXPIRED:
            outcome.expired += 1
        was_last = invoker.remove(container, why)
        self._placing.has_more_room(invoker)
        if was_last and container.usage is not None:
            invoker.cell_demand.gone(container.usage, Cell(KIND, container.memory_mb))
            expected = self._policy.expected_s(container.usage)
            if expected is not None and self._setup.stem_cells_most:
                self._push(max(now_s, container.usage.last_s + expected[0]), EXPECT, invoker)

    # ── planning ────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_all(self, now_s: float, invoker: Invoker) -> None:
        """Performs steps for whoever's turn it is, until there is nothing to do now: each step may change the turns."""
        while invoker.waiting.queues and self._plan_next(now_s, invoker):
            pass

    def _plan_next(self, now_s: float, invoker: Invoker) -> bool:
        """Looks at the waiting keys in their turn, up to the first step; whether there was one.

        Of a namespace that found no memory, what needs as much is not looked at.
        """
        invoker.blocked = None
        full_mb: dict[int, int] = {}
        for key in invoker.waiting.in_turn():
            is_full = key.memory_mb >= full_mb.get(key.namespace_number, math.inf)
            if is_full and key.action not in invoker.ready and key.memory_mb not in invoker.cells:
                continue
            wait = self._plan_key(now_s, invoker, key)
            if wait is None:
                return True
            if wait.is_full:
                full_mb[key.namespace_number] = key.memory_mb
        return False

    def _plan_one(self, now_s: float, invoker: Invoker, key: Key) -> None:
        """One key, or all, if its turn is before that of the job that memory is kept for."""
        queues = invoker.queues
        if invoker.blocked is not None and is_before(invoker, queues[key][0], invoker.blocked):
            self._plan_all(now_s, invoker)
            return
        while key in queues and self._plan_key(now_s, invoker, key) is None:
            pass

    def _arm_tick(self, now_s: float, invoker: Invoker) -> None:
        """All are looked at soon: nothing is kept for a job any more, or it may be another's turn."""
        if invoker.waiting.queues and not invoker.is_ticking:
            invoker.is_ticking = True
            self._push(now_s + TICK_S, LOOK, invoker)

    def _plan_key(self, now_s: float, invoker: Invoker, key: Key) -> Wait | None:
        """Performs a step for a waiting key; why there is none to do now."""
        container = self._fetch(now_s, invoker, key.action)
        if container is not None:
            job = self._pop(now_s, invoker, key)
            self._engage(now_s, container, job.arrived_s, job.run_s)
            return None
        job = invoker.queues[key][0]
        demand = demand_of(invoker, key, now_s)
        if must_wait(demand, has_paused=False):
            patience_s = START_S if demand.cold_s is None else demand.cold_s
            self._look_at(invoker, job, max(now_s, job.arrived_s + patience_s) + LATER_S)
            return WAIT
        step = plan(demand, view_of(invoker, key, self._policy, self._setup.starts_at_once, now_s))
        if isinstance(step, Wait):
            if step.is_full:
                if invoker.blocked is None:
                    invoker.blocked = job
                self._look_when_unprotected(now_s, invoker, job)
            return step
        self._perform(now_s, invoker, key, step)
        return None

    def _look_at(self, invoker: Invoker, job: Job, at_s: float) -> None:
        if at_s < job.look_s:
            job.look_s = at_s
            self._push(at_s, LOOK, invoker, job.key)

    def _look_when_unprotected(self, now_s: float, invoker: Invoker, job: Job) -> None:
        """Idle containers that were used just now may be taken a little later."""
        if job.look_s <= now_s + PROTECTED_S:
            return
        since_s = [container.idle_since_s for _, _, container in invoker.idle]
        later = [at_s + PROTECTED_S for at_s in since_s if at_s + PROTECTED_S > now_s]
        if later:
            self._look_at(invoker, job, min(later) + LATER_S)

    def _charge(self, now_s: float, invoker: Invoker, container: Container, more_s: float = 0.0) -> None:
        """While others wait, what begins is on its namespace's account."""
        assert container.key is not None
        assert container.usage is not None
        if invoker.waiting.queues:
            seconds = (container.usage.service_s or START_S) + more_s
            invoker.waiting.accounts.charge(container.key.namespace, container.memory_mb, seconds)
            if invoker.blocked is not None:
                self._arm_tick(now_s, invoker)

    def _pop(self, now_s: float, invoker: Invoker, key: Key) -> Job:
        job: Job = invoker.waiting.pop(key, now_s)
        self._waiting -= 1
        self._placing.fewer_wait(invoker)
        if job is invoker.blocked:
            invoker.blocked = None
            self._arm_tick(now_s, invoker)
        return job

    def _perform(
        self,
        now_s: float,
        invoker: Invoker,
        key: Key,
        step: Resume[Container] | Specialise[Container] | Create[Container],
    ) -> None:
        """A cold start. Nothing is ever paused, so nothing resumes."""
        job = self._pop(now_s, invoker, key)
        outcome, action, memory_mb = self.outcome, key.action, key.memory_mb
        usage = invoker.usage_of(action, now_s)
        usage.uses += 1
        is_busy = action in invoker.engaged
        why = usage.why_cold(REVISION, is_busy=is_busy)
        if why is not Cold.FIRST_USE and not is_busy:
            usage.pauses.add(job.arrived_s - usage.last_s)
        usage.revision = REVISION
        outcome.cold += 1
        outcome.cold_of[action] += 1
        outcome.reasons[why] += 1
        outcome.queueing.add(now_s - job.arrived_s)
        cold_s = self._actions.cold_s[action]
        self._draw(now_s, invoker, memory_mb, cold_s)
        if isinstance(step, Create):
            for evicted in step.evicted:
                self._remove(now_s, evicted, Cold.EVICTED if evicted.key is not None else Cold.ENDED)
            self._serial += 1
            container = invoker.add(self._serial, memory_mb, now_s)
        else:
            container = step.slot
            cold_s *= 1.0 - CREATE_SHARE
            outcome.cells_used += 1
            outcome.cells_mb_s += memory_mb * (now_s - container.idle_since_s)
        invoker.assign(container, key, usage, job)
        self._starting_mb += memory_mb
        outcome.starting_mb_s += memory_mb * cold_s
        self._charge(now_s, invoker, container, usage.cold_s or START_S)
        self._push(now_s + cold_s, STARTED, container)

    # ── stem cells ──────────────────────────────────────────────────────────────────────────────────────────────

    def _draw(self, now_s: float, invoker: Invoker, memory_mb: int, cold_s: float) -> None:
        if not self._setup.stem_cells_most:
            return
        self._create_s[memory_mb] = cold_s * CREATE_SHARE
        if invoker.sweep_s > now_s + SWEEP_S:
            invoker.cell_demand.counts(now_s)  # what was drawn before lies in a second of its own
            self._sweep_at(invoker, now_s + SWEEP_S)
        invoker.cell_demand.draw(Cell(KIND, memory_mb))

    def _sweep_at(self, invoker: Invoker, at_s: float) -> None:
        if self._setup.stem_cells_most and at_s < invoker.sweep_s:
            invoker.sweep_s = at_s
            self._push(at_s, SWEEP, invoker)

    def _sweep(self, now_s: float, invoker: Invoker) -> None:
        """Removes stem cells that are not wanted any more, and starts those that are."""
        if now_s != invoker.sweep_s:
            return  # an earlier one was asked for since
        invoker.sweep_s = math.inf
        if invoker.waiting.queues:
            self._sweep_at(invoker, now_s + SWEEP_S)  # work goes before preparation
            return
        counts = invoker.cell_demand.counts(now_s)
        for memory_mb, cells in list(invoker.cells.items()):
            for container in cells[counts.get(Cell(KIND, memory_mb), 0) :]:
                self._remove(now_s, container, Cold.ENDED)
        present = invoker.cell_counts()
        free_mb = invoker.memory_mb - invoker.used_mb
        for cell in missing(counts, present, free_mb, self._setup.starts_at_once - invoker.starts):
            self._serial += 1
            container = invoker.add_coming_cell(self._serial, cell.memory_mb, now_s)
            self.outcome.cells_started += 1
            self._push(now_s + self._create_s[cell.memory_mb], CELL_UP, container)
        if any(counts.values()):
            self._sweep_at(invoker, now_s + SLOW_SWEEP_S)

    def _cell_is_up(self, now_s: float, container: Container) -> None:
        invoker = container.invoker
        invoker.cell_is_up(container)
        invoker.cell_demand.started(Cell(KIND, container.memory_mb), now_s - container.idle_since_s)
        if invoker.waiting.queues:
            self._plan_all(now_s, invoker)

    # ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _sample(self, now_s: float) -> None:
        outcome = self.outcome
        state = (self._busy_mb, self._starting_mb, self._idle_mb, self._waiting, outcome.arrived, outcome.cold)
        outcome.series.take(now_s, state)

    def _settle(self) -> None:
        """What is idle at the end has been so until then."""
        outcome, end_s = self.outcome, self.outcome.end_s
        self._sample(end_s)
        for invoker in self.invokers:
            for _, _, container in invoker.idle:
                outcome.idle_mb_s += container.memory_mb * (end_s - container.idle_since_s)
            for container in (*invoker.spare(), *invoker.coming):
                outcome.cells_mb_s += container.memory_mb * (end_s - container.idle_since_s)
