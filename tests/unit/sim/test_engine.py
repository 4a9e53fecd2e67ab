"""Virtual time keeps the promises of the pool: memory, order, and that everything comes to its end."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visp.invoker.job import Cold
from visp.invoker.keepalive import POLICIES
from visp.invoker.plan import START_S, Wait, plan
from visp.sim.engine import CELL_UP, FINISHED, LATER_S, STARTED, Engine
from visp.sim.fleet import Container, Invoker, Setup, Standing
from visp.sim.outcome import Outcome
from visp.sim.outlook import demand_of, view_of
from visp.sim.workload import Actions, Arrival, WorkloadError

POLICY = st.sampled_from(sorted(POLICIES))


def table(*rows: tuple[int, int, float]) -> Actions:
    actions = Actions()
    for namespace, memory_mb, cold_s in rows:
        actions.add(namespace, memory_mb, cold_s)
    return actions


def setup(invokers: int = 1, memory_mb: int = 1024, starts: int = 4, idle_s: float = 60.0, cells: int = 0) -> Setup:
    return Setup(invokers=invokers, memory_mb=memory_mb, starts_at_once=starts, idle_s=idle_s, stem_cells_most=cells)


def simulate(actions: Actions, arrivals: list[Arrival], policy: str = "timeout", **machines: float) -> Outcome:
    return Engine(actions, setup(**machines), policy).run(arrivals)


# ── by example ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_first_use_is_cold_and_the_next_is_warm():
    outcome = simulate(table((0, 256, 0.5)), [(0.0, 0, 1.0), (5.0, 0, 1.0)])
    assert (outcome.arrived, outcome.finished, outcome.cold) == (2, 2, 1)
    assert outcome.end_s == 6.0
    assert outcome.delay.longest_s == 0.5
    assert outcome.busy_mb_s == 256 * 2
    assert outcome.starting_mb_s == 256 * 0.5
    assert outcome.idle_mb_s == 256 * 3.5  # from 1.5 to 5


def test_a_container_is_kept_as_long_as_its_policy_says():
    arrivals = [(0.0, 0, 1.0), (100.0, 0, 1.0)]
    action = (0, 256, 0.5)
    timeout, forever = (simulate(table(action), arrivals, policy) for policy in ("timeout", "lru"))
    assert (timeout.cold, timeout.expired, timeout.reasons[Cold.EXPIRED]) == (2, 1, 1)
    assert timeout.idle_mb_s == 256 * 60
    assert (forever.cold, forever.expired) == (1, 0)


def test_the_least_worth_gives_way_when_memory_is_short():
    actions = table((0, 512, 0.5), (0, 512, 0.5), (0, 512, 0.5))
    arrivals = [(0.0, 0, 0.1), (10.0, 1, 0.1), (20.0, 2, 0.1), (30.0, 1, 0.1), (40.0, 0, 0.1)]
    outcome = simulate(actions, arrivals, "lru")
    assert outcome.evicted == 2  # 0 for 2, then 2 for 0
    assert (outcome.cold, outcome.reasons[Cold.EVICTED]) == (4, 1)


def test_a_run_that_is_about_to_end_is_waited_for():
    # Once a start is known to take 10 s and a run 0.1 s, the second of two at once waits for the first.
    arrivals = [(0.0, 0, 0.1), (20.0, 0, 0.1), (20.01, 0, 0.1)]
    outcome = simulate(table((0, 128, 10.0)), arrivals)
    assert outcome.cold == 1
    assert outcome.queueing.longest_s == pytest.approx(0.09)


def test_what_no_invoker_can_hold_is_refused():
    outcome = simulate(table((0, 2048, 0.5), (0, 128, 0.5)), [(0.0, 0, 1.0), (1.0, 1, 1.0)])
    assert (outcome.arrived, outcome.refused, outcome.finished) == (2, 1, 1)


def test_regular_use_is_expected_with_a_stem_cell():
    arrivals = [(600.0 * number, 0, 0.1) for number in range(30)]
    outcome = simulate(table((0, 256, 1.0)), arrivals, "greedy-dual", cells=4, idle_s=300.0)
    assert outcome.cells_used > 10
    assert outcome.idle_mb_s < 256 * 600 * 15  # not kept all the while


def test_unsorted_arrivals_are_refused():
    with pytest.raises(WorkloadError, match="must be sorted"):
        simulate(table((0, 128, 0.1)), [(1.0, 0, 1.0), (0.5, 0, 1.0)])


# ── always ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Checked(Engine):
    """Looks at the whole fleet after every event."""

    def _next(self) -> None:
        now_s = self._events[0][0]
        super()._next()
        self.check(now_s)

    def _arrive(self, now_s: float, action: int, run_s: float) -> None:
        super()._arrive(now_s, action, run_s)
        self.check(now_s)

    def _remove(self, now_s: float, container: Container, why: Cold) -> None:
        working = {id(what) for _, _, kind, what, _ in self._events if kind in (FINISHED, STARTED, CELL_UP)}
        assert id(container) not in working, "a container was removed while it worked"
        super()._remove(now_s, container, why)

    def check(self, now_s: float) -> None:
        if self._events and self._events[0][0] <= now_s + 2 * LATER_S:
            return  # the present moment is not over, looks that are due included
        working = [what for _, _, kind, what, _ in self._events if kind in (FINISHED, STARTED, CELL_UP)]
        for invoker in self.invokers:
            idle = [container for _, _, container in invoker.idle]
            busy = [what for what in working if isinstance(what, Container) and what.invoker is invoker]
            held = [*idle, *busy, *invoker.spare()]
            assert sum(container.memory_mb for container in held) == invoker.used_mb <= invoker.memory_mb
            assert len({id(container) for container in held}) == len(held)
            assert invoker.idle == sorted(invoker.idle)
            assert sorted(map(id, idle)) == sorted(id(one) for ready in invoker.ready.values() for one in ready)
            assert sum(invoker.engaged.values()) == len(busy) - len(invoker.coming)
            assert 0 <= invoker.starts == sum(one.standing is Standing.STARTING for one in busy)
            if not invoker.is_ticking:
                self.check_waiting(now_s, invoker)

    def check_waiting(self, now_s: float, invoker: Invoker) -> None:
        """Who has waited longer than a start takes waits because no step is possible."""
        for key in invoker.queues:
            assert key.action not in invoker.ready
            demand = demand_of(invoker, key, now_s)
            if demand.waited_s > (demand.cold_s or START_S) + 2 * LATER_S:
                view = view_of(invoker, key, self._policy, self._setup.starts_at_once, now_s)
                assert isinstance(plan(demand, view), Wait)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Actions, list[Arrival]]:
    memory_mb = st.sampled_from([128, 256, 512, 1024])
    rows = draw(st.lists(st.tuples(st.integers(0, 3), memory_mb, st.sampled_from([0.05, 0.5, 3.0])), min_size=1))
    pause_s = st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 90))
    invocation = st.tuples(pause_s, st.integers(0, len(rows) - 1), st.sampled_from([0.001, 0.1, 2.0, 30.0]))
    at_s, arrivals = 0.0, []
    for after_s, action, run_s in draw(st.lists(invocation, max_size=60)):
        at_s += after_s
        arrivals.append((at_s, action, run_s))
    return table(*rows), arrivals


@settings(max_examples=150, deadline=None)
@given(workloads(), POLICY, st.integers(1, 3), st.sampled_from([1024, 1536]), st.integers(1, 3), st.integers(0, 2))
def test_memory_order_and_end(workload, policy, invokers, memory_mb, starts, cells):
    actions, arrivals = workload
    machines = setup(invokers=invokers, memory_mb=memory_mb, starts=starts, cells=cells)
    engine = Checked(actions, machines, policy)
    outcome = engine.run(arrivals)
    assert outcome.arrived == outcome.finished == len(arrivals)
    assert outcome.delay.zeros + outcome.delay.count == len(arrivals)
    assert sum(outcome.arrived_of) == len(arrivals)
    assert sum(outcome.cold_of) == outcome.cold == sum(outcome.reasons.values())
    assert outcome.busy_mb_s == pytest.approx(sum(run_s * actions.memory_mb[action] for _, action, run_s in arrivals))
    assert engine._busy_mb == engine._starting_mb == engine._waiting == 0
    assert engine._idle_mb == sum(one.memory_mb for invoker in engine.invokers for _, _, one in invoker.idle)
    capacity_mb_s = invokers * memory_mb * outcome.end_s
    held_mb_s = outcome.busy_mb_s + outcome.starting_mb_s + outcome.idle_mb_s + outcome.cells_mb_s
    assert held_mb_s <= capacity_mb_s * (1 + 1e-9) or not arrivals
    assert heapq.nsmallest(1, engine._events) == engine._events[:1]
