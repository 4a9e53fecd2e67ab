"""What to do for an activation that has no free container of its own. Pure.

The warm case, a READY container of the same key, never comes here: the pool finds it by one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

START_S = 0.5
"""How long a start is taken to last while none of the action was measured."""
PROTECTED_S = 1.0
"""A container used within this time is not taken from a namespace that holds less than the taker."""


class Held(Protocol):
    """What planning knows of a container: the memory it holds."""

    @property
    def memory_mb(self) -> int: ...


S = TypeVar("S", bound=Held)


class Demand(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The activations that wait for one key: what they need, and how their containers do.

    `containers` counts those that run it or are being started for it, of them `starting` not yet up, each running
    `concurrency` at once, and no more than `instances` of them (None: no limit); `useful` is the number beyond which
    they would only take the cores from each other (None: there are cores to spare). `arrivals` is how many come in a
    second; `service_s` how long a run takes and `cold_s` a start (smoothed; None: unknown); `waited_s` how long the
    first has waited.
    """

    memory_mb: int
    waiting: int
    waited_s: float
    containers: int
    starting: int
    arrivals: float = 0.0
    service_s: float | None = None
    cold_s: float | None = None
    concurrency: int = 1
    instances: int | None = None
    useful: int | None = None


class View(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """The pool as planning sees it.

    `idle` are the containers that may be evicted for this demand, the least worth first; `spare` stem cells of other
    sorts, which give way before a container that has code.
    """

    paused: S | None
    stem_cell: S | None
    free_mb: int
    starts: int
    starts_limit: int
    idle: Sequence[S] = ()
    spare: Sequence[S] = ()


class Resume(msgspec.Struct, Generic[S], frozen=True):
    slot: S


class Specialise(msgspec.Struct, Generic[S], frozen=True):
    """Load the action into a stem cell."""

    slot: S


class Create(msgspec.Struct, Generic[S], frozen=True):
    """Start a container for the action, once these are removed."""

    evicted: tuple[S, ...] = ()


class Wait(msgspec.Struct, frozen=True):
    """Nothing can, or need, be done now. `is_full`: a container is worth starting, and there is no memory for it."""

    is_full: bool = False


WAIT, WAIT_FOR_MEMORY = Wait(), Wait(is_full=True)


def plan(demand: Demand, view: View[S]) -> Resume[S] | Specialise[S] | Create[S] | Wait:
    """Numbered cases:

    1. As many are being started as wait, and the first has not waited longer than a start takes: wait.
    2. A paused container of the key: resume it; that is quicker than anything but waiting for nothing.
    3. Its containers will be free before a new one could be up, or it has as many as it may: wait.
    4. A stem cell of the kind and memory: specialise it.
    5. Room: create.
    6. Room after removing idle containers, the least worth first: evict, then create.
    7. No room: wait.
    """
    if must_wait(demand, has_paused=view.paused is not None):
        return WAIT
    if view.paused is not None:
        return Resume(view.paused)
    if view.stem_cell is not None:
        return Specialise(view.stem_cell)
    if view.starts >= view.starts_limit:
        return WAIT
    if demand.memory_mb <= view.free_mb:
        return Create()
    evicted = choose_evicted(demand.memory_mb - view.free_mb, (*view.spare, *view.idle))
    return WAIT_FOR_MEMORY if evicted is None else Create(evicted)


def must_wait(demand: Demand, *, has_paused: bool) -> bool:
    """Cases 1 and 3, which need no look at the pool: under load they are nearly all there is."""
    patience_s = START_S if demand.cold_s is None else demand.cold_s
    if demand.starting * demand.concurrency >= demand.waiting and demand.waited_s <= patience_s:
        return True
    return not has_paused and not is_start_worth(demand)


def is_start_worth(demand: Demand) -> bool:
    """Whether another container would be up before those there are have worked off what waits.

    What comes during the start counts too, as far as it is more than they can take: by Little's law `arrivals` ×
    `service_s` runs are under way at once in the long run, so fewer containers than that fall behind for ever, and
    more only help a burst that is still there when they are up. No more is foretold than waits already: a rate and a
    time that were measured under load rise together. Unknown times speak for a start: the first runs of an action are
    its measure. Who has waited longer than a start takes is not asked to wait on. But where every core is busy, more
    containers do the same work slower.
    """
    if demand.instances is not None and demand.containers >= demand.instances:
        return False
    if demand.useful is not None and demand.containers >= demand.useful:
        return False
    if demand.containers == 0 or demand.service_s is None or demand.cold_s is None:
        return True
    if demand.waited_s > demand.cold_s:
        return True
    at_once = demand.containers * demand.concurrency
    backlog_s = demand.waiting * demand.service_s
    growth_s = max(0.0, demand.arrivals * demand.service_s - at_once) * demand.cold_s
    return (backlog_s + min(growth_s, backlog_s)) / at_once > demand.cold_s


def choose_evicted(needed_mb: int, candidates: Sequence[S]) -> tuple[S, ...] | None:
    """The first candidates that together free enough; None when all of them do not."""
    chosen: list[S] = []
    for slot in candidates:
        if needed_mb <= 0:
            break
        chosen.append(slot)
        needed_mb -= slot.memory_mb
    return tuple(chosen) if needed_mb <= 0 else None
