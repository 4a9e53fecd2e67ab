"""Placement over many invokers chooses as the server's does, which looks at all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from visp.invoker import outlook as planned
from visp.invoker import pool
from visp.invoker.keepalive import POLICIES
from visp.scheduler.fleet import InvokerView
from visp.scheduler.placement import place
from visp.sim import engine, outlook
from visp.sim.fleet import Invoker, Job, Key
from visp.sim.placing import Placing
from visp.sim.workload import Actions

MEMORY_MB = 1024
NOBODY = -1


def seen(invoker: Invoker, actions: Actions) -> InvokerView:
    warm = {actions.name_of(action) for action in invoker.ready}
    return InvokerView(invoker.id, MEMORY_MB, invoker.used_mb, len(invoker.waiting), True, warm)


@given(st.integers(2, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 3), st.integers(0, 9)), max_size=80))
def test_it_agrees_with_a_look_at_all(count, steps):
    actions = Actions()
    for _ in range(10):
        actions.add(0, 256, 0.1)
    invokers = [Invoker(id, MEMORY_MB, POLICIES["lru"], 0) for id in range(count)]
    placing = Placing(invokers, actions)
    for at, change, action in steps:
        invoker, key = invokers[at % count], Key(action, "ns0", 0, 256)
        if change == 0:
            invoker.used_mb = min(MEMORY_MB, invoker.used_mb + 256)
        elif change == 1:
            invoker.used_mb = max(0, invoker.used_mb - 512)
            placing.has_more_room(invoker)
        elif change == 2:
            invoker.waiting.push(Job(key, 0.0, 1.0))
        elif invoker.queues:
            invoker.waiting.pop(next(iter(invoker.queues)), 0.0)
            placing.fewer_wait(invoker)
        fleet = [seen(one, actions) for one in invokers]
        expected = place(fleet, NOBODY, "ns0", actions.name_of(action), 256)
        assert placing.place(action, 256).id == expected


def test_its_times_are_those_of_the_pool():
    assert engine.TICK_S == pool.TICK_S
    assert outlook.STARVED_S == planned.STARVED_S
