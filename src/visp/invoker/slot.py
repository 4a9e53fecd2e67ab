"""The life of one container, as a table.

::

                                            DRAINING ─▶ (REMOVING)
                                               ▲ no more runs
    STARTING ─▶ STEMCELL ─▶ INITIALIZING ─▶ BUSY ⇄ READY          any ─▶ REMOVING ─▶ GONE
        └───────────────────────▲            ▲        │           (failure, eviction, age, shutdown)
                                             │ resume ▼
                                       RESUMING ◀─ PAUSED ◀─ PAUSING

STARTING holds memory and no container yet; STEMCELL waits without code; INITIALIZING loads an action's code; READY
waits for its action; BUSY runs, from the first of its runs until none is left; DRAINING is BUSY, takes no more, and is
removed after the last. A pair that is not in the table is a bug, not a case.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TYPE_CHECKING

import msgspec

from visp.entity.network import INTERNET
from visp.invoker.job import Cold

if TYPE_CHECKING:
    import asyncio

    from visp.container.base import Container
    from visp.invoker.job import Job
    from visp.invoker.keepalive import Usage
    from visp.invoker.logs import LogCollector
    from visp.runtime.base import ActionClient, Lanes


class State(IntEnum):
    STARTING = auto()
    STEMCELL = auto()
    INITIALIZING = auto()
    READY = auto()
    BUSY = auto()
    DRAINING = auto()
    PAUSING = auto()
    PAUSED = auto()
    RESUMING = auto()
    REMOVING = auto()
    GONE = auto()


class SlotEvent(IntEnum):
    UP = auto()
    """A container without code has started."""
    INIT = auto()
    """Code is being loaded: into a stem cell, or into a container made for it."""
    RUN = auto()
    DONE = auto()
    SPEND = auto()
    """It takes no more runs; those that it has come to their own end."""
    PAUSE = auto()
    PAUSED = auto()
    RESUME = auto()
    REMOVE = auto()
    REMOVED = auto()


TRANSITIONS: dict[tuple[State, SlotEvent], State] = {
    (State.STARTING, SlotEvent.UP): State.STEMCELL,
    (State.STARTING, SlotEvent.INIT): State.INITIALIZING,
    (State.STEMCELL, SlotEvent.INIT): State.INITIALIZING,
    (State.INITIALIZING, SlotEvent.RUN): State.BUSY,
    (State.READY, SlotEvent.RUN): State.BUSY,
    (State.BUSY, SlotEvent.DONE): State.READY,
    (State.BUSY, SlotEvent.SPEND): State.DRAINING,
    (State.READY, SlotEvent.PAUSE): State.PAUSING,
    (State.PAUSING, SlotEvent.PAUSED): State.PAUSED,
    (State.PAUSED, SlotEvent.RESUME): State.RESUMING,
    (State.RESUMING, SlotEvent.RUN): State.BUSY,
    (State.REMOVING, SlotEvent.REMOVED): State.GONE,
} | {(state, SlotEvent.REMOVE): State.REMOVING for state in State if state not in (State.REMOVING, State.GONE)}

WORKING = frozenset({State.BUSY, State.DRAINING})
"""States in which runs go on."""
IDLE = frozenset({State.READY, State.PAUSED})
"""States whose container may be taken away for another action."""


class Key(msgspec.Struct, frozen=True, gc=False):
    """What a container serves in its life: one namespace's use of one revision of one action."""

    namespace: str
    action: str
    revision: int


class Slot:
    """One container's place in the pool; owned and changed by the pool alone."""

    __slots__ = (
        "age",
        "charged_until_s",
        "client",
        "concurrency",
        "container",
        "folder",
        "id",
        "idle_since_s",
        "jobs",
        "key",
        "kind",
        "lanes",
        "logs",
        "memory_mb",
        "missing_mb",
        "policy",
        "priority",
        "rested_s",
        "run_suffix",
        "state",
        "timer",
        "usage",
        "why_spent",
    )

    def __init__(self, id: str, kind: str, memory_mb: int, now_s: float, key: Key | None = None) -> None:
        self.id = id
        self.kind = kind
        self.memory_mb = memory_mb
        self.missing_mb = 0
        """Of its memory, what containers that are being removed for it still hold."""
        self.key = key
        self.state = State.STARTING
        self.usage: Usage | None = None
        """How its key's action is used; set together with the key."""
        self.idle_since_s = now_s
        self.rested_s = -1.0
        """Since when it was idle when it was told to give memory back."""
        self.age = self.priority = 0.0
        """For eviction: what the pool's age was when it was last used, and its worth when that was last asked for."""
        self.jobs: set[Job] = set()
        """What it works for: nobody else counts its runs. Never more than `concurrency`."""
        self.concurrency = 1
        """How many of its action's runs it takes at once; set together with the key."""
        self.why_spent = Cold.ENDED
        """Why it is DRAINING."""
        self.charged_until_s = 0.0
        """Up to when its memory is on its namespace's account."""
        self.folder: str | None = None
        """The host folder of the code that it was given, if that is one."""
        self.container: Container | None = None
        self.client: ActionClient | None = None
        self.lanes: Lanes | None = None
        """What its runs go through once it is up, if it takes several at once; else they go to `client`."""
        self.logs: LogCollector | None = None
        self.run_suffix = b""
        self.policy = INTERNET
        """What its action asks to reach; set before its code comes."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def has_room(self) -> bool:
        """Whether it can take a run now: an idle one, or a BUSY one that may have more."""
        return self.state is State.READY or (self.state is State.BUSY and len(self.jobs) < self.concurrency)

    def on(self, event: SlotEvent) -> None:
        """Moves to the next state; raises `LookupError` for what cannot be."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LookupError(f"slot {self.id}: {event.name} in state {self.state.name}") from None

    def __repr__(self) -> str:
        serves = f" {self.key.namespace}:{self.key.action}@{self.key.revision}" if self.key else ""
        runs = f" {len(self.jobs)}/{self.concurrency}" if self.concurrency > 1 else ""
        return f"<{self.id} {self.kind} {self.memory_mb}MB {self.state.name}{runs}{serves}>"
