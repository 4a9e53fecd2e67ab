"""Reads a ledger back: what is still open, what is not indexed yet, and where the log ends. Blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.entity.activation import with_logs
from visp.errors import StoreUnavailable
from visp.store import frames, segments
from visp.store.frames import Type
from visp.telemetry import log

if TYPE_CHECKING:
    from pathlib import Path

    from visp.entity.activation import ActivationRecord
    from visp.store.base import Work
    from visp.store.frames import Frame
    from visp.store.segments import Segment

ACCEPTED, FINISHED = int(Type.ACCEPTED), int(Type.FINISHED)
"""Looked up for each entry of a log."""


class Held:
    """Accepted work, the segment that holds it, and whether its run line may have been sent."""

    __slots__ = ("is_started", "segment", "work")

    def __init__(self, work: Work, segment: Segment) -> None:
        self.work = work
        self.segment = segment
        self.is_started = False


class Replay:
    """What a log holds.

    `works` are those that have not ended, `records` those from `indexed_to` on with their offset.
    """

    def __init__(self, indexed_to: int) -> None:
        self.segments: list[Segment] = []
        self.works: dict[str, Held] = {}
        self.records: dict[str, tuple[ActivationRecord, int]] = {}
        self._indexed_to = indexed_to
        self._synced_to = 0

    def read(self, folder: Path) -> None:
        """Reads every segment, and cuts what was not whole when the last server ended.

        Raises `StoreUnavailable` for damage, and for what a newer visp wrote.
        """
        found = self.segments = segments.open_existing(folder)
        started: set[str] = set()
        finished: set[str] = set()
        for number, segment in enumerate(found, 1):
            data = segments.load(segment)
            later = found[number:]
            try:
                for frame in frames.scan(data, segment.base):
                    if frame.synced_to > self._synced_to:
                        self._synced_to = frame.synced_to
                    self._take(frame, segment, started, finished)
                    segment.used = frame.end - segment.base
                if later and later[0].base == segment.end:
                    continue
                self._check_end(segment, data, later)
            except msgspec.DecodeError as error:
                raise StoreUnavailable(
                    f"an entry of {segment.path} cannot be read ({error}): was it written by a newer visp?"
                ) from None
            del found[number:]
            break
        for id, held in self.works.items():
            held.is_started = id in started

    def _take(self, frame: Frame, segment: Segment, started: set[str], finished: set[str]) -> None:
        record: ActivationRecord | None = None
        if frame.type == FINISHED:  # by far the most of them
            finished.add(frame.id)
            self.works.pop(frame.id, None)
            if frame.offset < self._indexed_to:
                return
            record = frames.read_finished(frame)
        elif frame.type == ACCEPTED:
            accepted = frames.read_accepted(frame)
            for work in accepted.works:
                if work.id not in finished:
                    self.works[work.id] = Held(work, segment)
            if accepted.started:
                started.update(accepted.started)
            record = frames.record_of(accepted)
            if record is not None:
                finished.add(record.head.id)  # of a fire that was accepted before its time
                self.works.pop(record.head.id, None)
        elif frame.type == Type.STARTED:
            started.add(frame.id)
        elif frame.type == Type.ENDED:
            finished.add(frame.id)
            self.works.pop(frame.id, None)
        elif frame.id in self.records:
            held, offset = self.records[frame.id]
            self.records[frame.id] = (with_logs(held, *frames.read_logs(frame)), offset)
        if record is not None and frame.offset >= self._indexed_to:
            self.records[record.head.id] = (record, frame.offset)

    def _check_end(self, segment: Segment, data: bytearray, later: list[Segment]) -> None:
        """The log ends here; a place that is known to have been durable must not lie behind it."""
        used = frames.content_end(data)
        beyond = list(frames.scan_beyond(data, segment.used, segment.base)) if used > segment.used else []
        for other in later:
            beyond += frames.scan_beyond(segments.load(other), 0, other.base)
        synced_to = max([self._synced_to, *(frame.synced_to for frame in beyond)])
        if synced_to > segment.end:
            raise StoreUnavailable(
                f"the ledger is damaged at byte {segment.used} of {segment.path}: restore the data folder from a "
                "backup, or move this file and those after it away and lose what they hold"
            )
        for other in reversed(later):
            other.remove()
        if used > segment.used:
            log.warning("ledger.cut", segment=segment.path.name, at=segment.used, bytes=used - segment.used)
            segments.cut(segment)
