"""What is to be written to the log, and who is told once it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.store import frames
from visp.store.frames import Type
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visp.store.base import Then, Work
    from visp.store.unindexed import Pending


class Entry:
    """A frame to be written, and what follows when it is."""

    __slots__ = (
        "head",
        "id",
        "is_owed",
        "is_synced",
        "offset",
        "pending",
        "started",
        "tail",
        "then",
        "type",
        "works",
    )

    def __init__(
        self,
        type: Type,
        id: str,
        head: bytes,
        tail: bytes,
        then: Then | None,
        is_synced: bool,
        pending: Pending | None = None,
        works: Sequence[Work] = (),
        started: tuple[str, ...] = (),
    ) -> None:
        self.type = type
        self.id = id
        self.head = head
        self.tail = tail
        self.then = then
        self.is_synced = is_synced
        self.pending = pending
        self.works = works
        self.started = started
        self.offset = 0
        self.is_owed = False

    def begin(self, id: str, then: Then | None) -> None:
        """One of the works of this entry, which is not written yet, begins at once."""
        self.started += (id,)
        if then is not None:
            self.then = both(self.then, then)

    def pack(self, synced_to: int) -> bytes:
        """The frame, as things stand when it is written."""
        head = self.head
        if self.type is Type.ACCEPTED:
            record = None if self.pending is None else self.pending.record
            head = frames.accepted_head(self.works, record, self.started)
        return frames.pack(self.type, self.id, synced_to, head, self.tail)


def both(first: Then | None, second: Then) -> Then:
    """One after the other."""

    def then(error: Exception | None) -> None:
        if first is not None:
            tell(first, error)
        second(error)

    return then


def tell(then: Then, error: Exception | None) -> None:
    """One that raises must not keep the others from hearing."""
    try:
        then(error)
    except Exception:
        log.exception("ledger.then_failed")
