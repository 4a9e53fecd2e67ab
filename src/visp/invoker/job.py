"""An activation on its way through the invoker."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from visp.entity.execs import runtime_of

if TYPE_CHECKING:
    from visp.bus.messages import ActivationMessage
    from visp.entity.action import Action
    from visp.invoker.logs import Printed
    from visp.invoker.slot import Key
    from visp.invoker.streams import Stream


class Cold(StrEnum):
    """Why an activation found no warm container."""

    FIRST_USE = "first use"
    NEW_REVISION = "new revision"
    ALL_BUSY = "all busy"
    EVICTED = "evicted"
    EXPIRED = "expired"
    ENDED = "ended"
    """Its last container was of no more use: it failed, timed out or was killed."""


class Job:
    """A message, the action it names, and what is known of its run.

    `is_accepted` may turn true while it waits (its caller was detached); `has_begun` says that a line of it is out.
    `start_ms` and `start_s` are when its container began to work for it, init included; `init_ms` is set by a cold
    start; `run_s` is when the run line went out, `deadline_s` when its time is over. `tries` counts containers that
    could not serve it.

    `is_provision`: nobody asked for it; it ends when its container is up, and leaves no record.

    `content` is the argument with its locked values opened: it is nowhere but here.

    `placed_s` is when a container was chosen for it, `created_s` when the one made for it was up, `cold` why it got
    none that was warm (None: it did). `initialised_s` is when its code was in, `answered_s` when its answer came, and
    `logs_s` when what it printed was complete.

    `stream` is there once parts of its result have come, `printed` once lines have that are known to be its own.
    """

    __slots__ = (
        "action",
        "answered_s",
        "arrived_s",
        "cold",
        "content",
        "created_s",
        "deadline_s",
        "has_begun",
        "init_ms",
        "initialised_s",
        "is_accepted",
        "is_provision",
        "key",
        "logs_s",
        "message",
        "placed_s",
        "printed",
        "run_s",
        "start_ms",
        "start_s",
        "stream",
        "tries",
    )

    def __init__(
        self,
        message: ActivationMessage,
        action: Action,
        key: Key,
        arrived_s: float,
        *,
        tries: int = 0,
        is_provision: bool = False,
    ) -> None:
        self.message = message
        self.content = message.content
        self.action = action
        self.key = key
        self.arrived_s = arrived_s
        self.is_accepted = message.is_accepted
        self.start_ms = 0
        self.start_s = 0.0
        self.placed_s = arrived_s
        self.created_s: float | None = None
        self.cold: Cold | None = None
        self.initialised_s: float | None = None
        self.run_s: float | None = None
        self.deadline_s = 0.0
        self.answered_s: float | None = None
        self.logs_s: float | None = None
        self.init_ms: int | None = None
        self.stream: Stream | None = None
        self.printed: Printed | None = None
        self.has_begun = False
        self.tries = tries
        self.is_provision = is_provision

    @property
    def runtime(self) -> str:
        """What runs it; asked of those that need a container."""
        return runtime_of(self.action.exec)

    def reset(self) -> None:
        """As before its first container."""
        self.run_s = self.init_ms = self.created_s = self.initialised_s = self.cold = None
        self.stream = self.printed = None
        self.has_begun = False

    def __repr__(self) -> str:
        return f"<job {self.message.id} {self.message.action}>"
