"""The life of one container, as a table.

::

    STARTING ─▶ STEMCELL ─▶ INITIALIZING ─▶ BUSY ⇄ READY          any ─▶ REMOVING ─▶ GONE
        └───────────────────────▲            ▲        │           (failure, eviction, age, shutdown)
                                             │ resume ▼
                                       RESUMING ◀─ PAUSED ◀─ PAUSING

STARTING holds memory and no container yet; STEMCELL waits without code; INITIALIZING loads an action's code; READY
waits for its action; BUSY runs. A pair that is not in the table is a bug, not a case.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import asyncio

    from visp.container.base import Container
    from visp.invoker.job import Job
    from visp.invoker.logs import LogCollector
    from visp.runtime.base import ActionClient


class State(IntEnum):
    STARTING = auto()
    STEMCELL = auto()
    INITIALIZING = auto()
    READY = auto()
    BUSY = auto()
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
    (State.READY, SlotEvent.PAUSE): State.PAUSING,
    (State.PAUSING, SlotEvent.PAUSED): State.PAUSED,
    (State.PAUSED, SlotEvent.RESUME): State.RESUMING,
    (State.RESUMING, SlotEvent.RUN): State.BUSY,
    (State.REMOVING, SlotEvent.REMOVED): State.GONE,
} | {(state, SlotEvent.REMOVE): State.REMOVING for state in State if state not in (State.REMOVING, State.GONE)}

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
        "client",
        "container",
        "deadline_s",
        "id",
        "idle_since_s",
        "job",
        "key",
        "kind",
        "logs",
        "memory_mb",
        "missing_mb",
        "run_suffix",
        "state",
        "timer",
    )

    def __init__(self, id: str, kind: str, memory_mb: int, now_s: float, key: Key | None = None) -> None:
        self.id = id
        self.kind = kind
        self.memory_mb = memory_mb
        self.missing_mb = 0
        """Of its memory, what containers that are being removed for it still hold."""
        self.key = key
        self.state = State.STARTING
        self.idle_since_s = now_s
        self.job: Job | None = None
        self.container: Container | None = None
        self.client: ActionClient | None = None
        self.logs: LogCollector | None = None
        self.run_suffix = b""
        self.deadline_s = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def on(self, event: SlotEvent) -> None:
        """Moves to the next state; raises `LookupError` for what cannot be."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LookupError(f"slot {self.id}: {event.name} in state {self.state.name}") from None

    def __repr__(self) -> str:
        serves = f" {self.key.namespace}:{self.key.action}@{self.key.revision}" if self.key else ""
        return f"<{self.id} {self.kind} {self.memory_mb}MB {self.state.name}{serves}>"
