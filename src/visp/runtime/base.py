"""How the invoker speaks to one container, whatever wire it has.

Two wires (`client.py`): JSON lines over pipes for local containers, HTTP `/init` and `/run` for images. Both give the
`(status, body)` that the kind's official image would have answered over HTTP, so one classification serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

STDOUT, STDERR = 0, 1

CONCURRENT_FAMILIES = frozenset({"nodejs"})
"""Families whose launcher runs several activations at once, if its init line asks for it (`concurrency`)."""
CONCURRENT = b'{"ok":true,"concurrent":true}'
"""What such a launcher answers to that; with any other answer it is given one run at a time."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A container's answer: HTTP status and raw body; only its first bytes when `size_bytes` exceeds the limit."""

    status: int
    body: bytes
    size_bytes: int


class Gone(msgspec.Struct, frozen=True):
    """The container ended, or broke its wire, before it answered.

    `was_sent` is false when nothing of the request had left. `reply` is what the kind's official image answers for a
    child that is gone; None when there the connection breaks too.
    """

    was_sent: bool = True
    reply: Reply | None = None


Then = Callable[[Reply | Gone], None]
"""Called once, from the event loop, never from inside the call that took it."""

OnOutput = Callable[[int, bytes], None]
"""`STDOUT` or `STDERR`, and bytes as they came, in the order of reading."""


class Lanes(Protocol):
    """Several runs at once in one container."""

    def run(self, id: str, payload: bytes, then: Then) -> None:
        """As `ActionClient.run`, for the activation with this id; each run is answered, or `Gone`, by itself."""
        ...


class ActionClient(Protocol):
    """The connection to one container. One call at a time, unless the container runs several at once: then its runs go
    through what `share` gives.

    `cancel` forgets the caller of what is under way (a deadline passed): a reply that comes later is dropped, and the
    container must then be destroyed by its owner.
    """

    def init(self, payload: bytes, then: Then) -> None:
        """`payload` is the `/init` body, one line of JSON."""
        ...

    def run(self, payload: bytes, then: Then) -> None:
        """`payload` is the `/run` body, one line of JSON without the line end. Writes at once; no task, no await."""
        ...

    def share(self) -> Lanes | None:
        """From now on, after an init that asked for it, several runs may be under way, and replies name theirs.

        None where the wire carries one at a time.
        """
        ...

    def cancel(self) -> None:
        """Forgets the caller of what is under way."""
        ...

    def give_up(self) -> None:
        """The container is known to have ended: what is under way, if anything, is answered with `Gone` now."""
        ...

    def drain(self) -> bool:
        """Hands over to `on_output` what the log pipes hold at this instant, without waiting.

        True when the logs of the last call are complete by that (local containers: always, after a reply).
        """
        ...

    def close(self) -> None:
        """Stops reading and writing. Descriptors belong to the container."""
        ...


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to start inside a container for a kind: its argument list, its environment, and host paths to show
    read-only. `template` is the host's path of a program whose children can become it, where the kind has one.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    mounts: tuple[tuple[str, str], ...]
    template: str | None = None


class PreparedCode(msgspec.Struct, frozen=True):
    """Code as the init line carries it: its text, or the host folder where it lies unpacked (to be seen at
    `/action`).
    """

    text: str | None = None
    folder: str | None = None


class CodeRefused(Exception):
    """Code that cannot be unpacked. `sentence` is for its developer: it becomes the init error."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
