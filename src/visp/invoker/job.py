"""An activation on its way through the invoker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visp.bus.messages import ActivationMessage
    from visp.entity.action import Action
    from visp.invoker.slot import Key


class Job:
    """A message, the action it names, and what is known of its run.

    `is_accepted` may turn true while it waits (its caller was detached); `has_begun` says that a line of it is out.
    `start_ms` and `start_s` are when its container began to work for it, init included; `init_ms` is set by a cold
    start; `run_s` is when the run line went out. `tries` counts containers that could not serve it.
    """

    __slots__ = (
        "action",
        "arrived_s",
        "has_begun",
        "init_ms",
        "is_accepted",
        "key",
        "message",
        "run_s",
        "start_ms",
        "start_s",
        "tries",
    )

    def __init__(self, message: ActivationMessage, action: Action, key: Key, arrived_s: float) -> None:
        self.message = message
        self.action = action
        self.key = key
        self.arrived_s = arrived_s
        self.is_accepted = message.is_accepted
        self.start_ms = 0
        self.start_s = 0.0
        self.run_s: float | None = None
        self.init_ms: int | None = None
        self.has_begun = False
        self.tries = 0

    def reset(self) -> None:
        """As before its first container, which could not serve it."""
        self.run_s = self.init_ms = None
        self.has_begun = False
        self.tries += 1

    def __repr__(self) -> str:
        return f"<job {self.message.id} {self.message.action}>"
