"""What planning is shown of an invoker, as `invoker/outlook.py` shows it of itself, and who has to give way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.invoker.fair import gives_way
from visp.invoker.plan import Demand, View

if TYPE_CHECKING:
    from visp.invoker.keepalive import Policy
    from visp.sim.fleet import Container, Invoker, Job, Key

STARVED_S = 0.25
"""As of the real one."""


def demand_of(invoker: Invoker, key: Key, now_s: float) -> Demand:
    queue = invoker.queues[key]
    usage = invoker.usage_of(key.action, now_s)
    return Demand(
        memory_mb=key.memory_mb,
        waiting=len(queue),
        waited_s=now_s - queue[0].arrived_s,
        containers=invoker.engaged.get(key.action, 0),
        starting=invoker.initializing.get(key.action, 0),
        arrivals=usage.arrivals(len(queue), now_s),
        service_s=usage.service_s,
        cold_s=usage.cold_s,
    )


def view_of(invoker: Invoker, key: Key, policy: Policy, starts_limit: int, now_s: float) -> View[Container]:
    cells = invoker.cells.get(key.memory_mb)
    free_mb = invoker.memory_mb - invoker.used_mb
    blocked = invoker.blocked
    if blocked is not None and blocked.key is not key:
        free_mb -= blocked.key.memory_mb
    spare: list[Container] = []
    idle: list[Container] = []
    if free_mb < key.memory_mb:
        spare = invoker.spare()
        idle = invoker.evictable(key, key.memory_mb - free_mb, policy, now_s)
    return View(
        paused=None,
        stem_cell=cells[-1] if cells else None,
        free_mb=free_mb,
        starts=invoker.starts,
        starts_limit=starts_limit,
        idle=idle,
        spare=spare,
    )


def is_before(invoker: Invoker, job: Job, other: Job) -> bool:
    """Whether it is the job's turn before the other's."""
    turn = invoker.waiting.accounts.waiting_turn
    return bool((turn(job.key.namespace), job.arrived_s) < (turn(other.key.namespace), other.arrived_s))


def gives_way_to_blocked(invoker: Invoker, container: Container, own_next: Job) -> bool:
    """Whether this container is removed, though it has work, for the job whose turn it is to get memory."""
    blocked = invoker.blocked
    if blocked is None or blocked.key is own_next.key:
        return False
    needed_mb = blocked.key.memory_mb
    if invoker.memory_mb - invoker.used_mb >= needed_mb:
        return False
    taker, giver = blocked.key, own_next.key
    if taker.namespace_number == giver.namespace_number:
        return taker.action not in invoker.engaged and blocked.arrived_s < own_next.arrived_s - STARVED_S
    held_mb = invoker.held_mb
    taker_mb, giver_mb = held_mb.get(taker.namespace_number, 0), held_mb[giver.namespace_number]
    if gives_way(needed_mb, taker_mb, container.memory_mb, giver_mb):
        return True
    turn = invoker.waiting.accounts.waiting_turn
    return bool(turn(taker.namespace) + container.memory_mb * STARVED_S < turn(giver.namespace))
