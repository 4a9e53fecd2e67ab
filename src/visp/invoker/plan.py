"""What to do for an activation that has no free container of its own. Pure.

The warm case, a READY container of the same key, never comes here: the pool finds it by one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from visp.invoker.slot import Slot

START_S = 0.5
"""How long a start is taken to last while none of the action was measured."""


class Demand(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The activations that wait for one key: what they need, and how their containers do.

    `busy` counts containers that run it or are being started for it, of them `starting` not yet up; `service_s` is how
    long a run takes and `cold_s` a start (smoothed; None: unknown); `waited_s` how long the first has waited.
    """

    kind: str
    memory_mb: int
    waiting: int
    waited_s: float
    busy: int
    starting: int
    service_s: float | None
    cold_s: float | None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The pool as planning sees it. `idle` are the slots that may be evicted, longest idle first."""

    paused: Slot | None
    stem_cell: Slot | None
    free_mb: int
    starts: int
    starts_limit: int
    idle: Sequence[Slot]
    spare: Sequence[Slot]
    """Stem cells of other kinds: they give way before a container that has code."""


class Resume(msgspec.Struct, frozen=True):
    slot: Slot


class Specialise(msgspec.Struct, frozen=True):
    """Load the action into a stem cell."""

    slot: Slot


class Create(msgspec.Struct, frozen=True):
    """Start a container for the action, once these are removed."""

    evicted: tuple[Slot, ...] = ()


class Wait(msgspec.Struct, frozen=True):
    """Nothing can, or need, be done now."""


Step = Resume | Specialise | Create | Wait


def plan(demand: Demand, view: View) -> Step:
    """Numbered cases:

    1. As many are being started as wait, and the first has not waited longer than a start takes: wait.
    2. A paused container of the key: resume it; that is quicker than anything but waiting for nothing.
    3. Its busy containers will be free before a new one could be up: wait.
    4. A stem cell of the kind and memory: specialise it.
    5. Room: create.
    6. Room after removing idle containers, the longest idle first: evict, then create.
    7. No room: wait.
    """
    if must_wait(demand, has_paused=view.paused is not None):
        return Wait()
    if view.paused is not None:
        return Resume(view.paused)
    if view.stem_cell is not None:
        return Specialise(view.stem_cell)
    if view.starts >= view.starts_limit:
        return Wait()
    if demand.memory_mb <= view.free_mb:
        return Create()
    evicted = choose_evicted(demand.memory_mb - view.free_mb, (*view.spare, *view.idle))
    return Wait() if evicted is None else Create(evicted)


def must_wait(demand: Demand, *, has_paused: bool) -> bool:
    """Cases 1 and 3, which need no look at the pool: under load they are nearly all there is."""
    patience_s = START_S if demand.cold_s is None else demand.cold_s
    if demand.starting >= demand.waiting and demand.waited_s <= patience_s:
        return True
    return not has_paused and not is_start_worth(demand)


def is_start_worth(demand: Demand) -> bool:
    """Whether another container comes sooner than a busy one gets free.

    Unknown times speak for a start: the first runs of an action are its measure. Who has waited longer than a start
    takes is not asked to wait on.
    """
    if demand.busy == 0 or demand.service_s is None or demand.cold_s is None:
        return True
    if demand.waited_s > demand.cold_s:
        return True
    expected_wait_s = demand.service_s * demand.waiting / demand.busy
    return expected_wait_s > demand.cold_s


def choose_evicted(needed_mb: int, candidates: Sequence[Slot]) -> tuple[Slot, ...] | None:
    """The first candidates that together free enough; None when all of them do not."""
    chosen: list[Slot] = []
    for slot in candidates:
        if needed_mb <= 0:
            break
        chosen.append(slot)
        needed_mb -= slot.memory_mb
    return tuple(chosen) if needed_mb <= 0 else None
