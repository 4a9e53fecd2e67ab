"""What an activation printed, as its record shows it.

A local launcher flushes before it replies, so what is in the pipes when the reply has come is the activation's log;
there is no mark to wait for and none to forge. An image ends each activation's output by a sentinel on both streams.
Entries stand in the order of reading.

Where runs of an action overlap in one container its launcher says whose a line is, if it can: `Printed`. What else
comes, from programs that they started, cannot be told apart. Then too each entry goes to one record: that of the run
which ends first after it was read, with a line that says so.

Source of the format: OpenWhisk's log entries (time stamp to width 30, stream, text) and its sentinel.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from visp import wording
from visp.runtime.base import STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.entity.activation import Outcome

MIB = 1024 * 1024
LINE_LIMIT_BYTES = 64 * 1024
"""A longer line is cut into entries of this size: a line of one gigabyte must not wait in memory for its end."""

SENTINEL = b"XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

_STREAMS = ("stdout: ", "stderr: ")


class Printed:
    """The lines of one of several runs, which its launcher told apart."""

    __slots__ = ("entries", "is_over", "kept_bytes", "limit_bytes")

    def __init__(self, limit_mb: int) -> None:
        self.limit_bytes = limit_mb * MIB
        self.entries: list[str] = []
        self.kept_bytes = 0
        self.is_over = limit_mb == 0

    def add(self, now_ns: int, stream: int, line: bytes) -> None:
        """One line, cut into entries where it is long."""
        if self.is_over:
            return
        stamp = render_time(now_ns)
        for at in range(0, len(line) or 1, LINE_LIMIT_BYTES):
            piece = line[at : at + LINE_LIMIT_BYTES]
            self.kept_bytes += len(stamp) + len(_STREAMS[stream]) + len(piece) + 1
            if self.kept_bytes > self.limit_bytes:
                self.is_over = True
                return
            self.entries.append(stamp + _STREAMS[stream] + piece.decode("utf-8", "replace"))


class LogCollector:
    """Collects for one container, an activation at a time, or several that cannot be told apart.

    Between activations what comes is counted and dropped.

    The limit counts entries as they are shown: a million empty lines are no small log.
    """

    __slots__ = (
        "_awaited",
        "_beside",
        "_entries",
        "_is_mixed",
        "_is_open",
        "_is_over",
        "_is_sentinelled",
        "_is_shared",
        "_kept_bytes",
        "_limit_bytes",
        "_now_ns",
        "_on_complete",
        "_partial",
        "dropped_bytes",
    )

    def __init__(self, now_ns: Callable[[], int], *, is_sentinelled: bool = False) -> None:
        self._now_ns = now_ns
        self._is_sentinelled = is_sentinelled
        self._awaited: set[int] = set()
        self._on_complete: Callable[[], None] | None = None
        self._is_open = False
        self._limit_bytes = 0
        self._kept_bytes = 0
        self._is_over = False
        self._beside = 0
        """Activations under way beside one; of a container that runs them one at a time, none."""
        self._is_shared = self._is_mixed = False
        """Whether some were at the same time since the container was at rest; whether one of them printed."""
        self._entries: list[str] = []
        self._partial = [b"", b""]
        self.dropped_bytes = 0

    def begin(self, limit_mb: int) -> None:
        """From here on output belongs to the activation that begins."""
        self._is_open = True
        self._limit_bytes = limit_mb * MIB
        self._kept_bytes = 0
        self._is_over = limit_mb == 0
        if self._is_sentinelled:
            self._awaited = {STDOUT, STDERR}

    def join(self, limit_mb: int) -> None:
        """As `begin`, where other activations of the same action may be under way."""
        if not self._is_open:
            self.begin(limit_mb)
            return
        self._beside += 1
        self._is_shared = True

    def when_complete(self, then: Callable[[], None]) -> None:
        """Calls `then` once the sentinels have come; at once if they have, or if none are to come."""
        if self._awaited:
            self._on_complete = then
        else:
            then()

    def feed(self, stream: int, data: bytes) -> None:
        """Output as it was read."""
        if not self._is_open or (self._is_over and not self._awaited):
            self.dropped_bytes += len(data)
            return
        lines = (self._partial[stream] + data).split(b"\n")
        rest = lines.pop()
        stamp = render_time(self._now_ns())
        for line in lines:
            self._add(stamp, stream, line)
        while len(rest) > LINE_LIMIT_BYTES:
            self._add(stamp, stream, rest[:LINE_LIMIT_BYTES])
            rest = rest[LINE_LIMIT_BYTES:]
        self._partial[stream] = rest

    def _add(self, stamp: str, stream: int, line: bytes) -> None:
        if self._is_sentinelled:
            if stream not in self._awaited:
                self.dropped_bytes += len(line)
                return
            if line.rstrip() == SENTINEL:
                self._see_sentinel(stream)
                return
        self._kept_bytes += len(stamp) + len(_STREAMS[stream]) + len(line) + 1
        if self._is_over or self._kept_bytes > self._limit_bytes:
            self._is_over = True
            self.dropped_bytes += len(line)
            return
        self._entries.append(stamp + _STREAMS[stream] + line.decode("utf-8", "replace"))

    def _see_sentinel(self, stream: int) -> None:
        self._awaited.discard(stream)
        then = self._on_complete
        if not self._awaited and then is not None:
            self._on_complete = None
            then()

    def end(self, outcome: Outcome, printed: Printed | None = None, *, is_complete: bool = True) -> tuple[str, ...]:
        """The activation's entries; the collector is closed until the next one begins, unless others are under way.

        `printed` are those of them that came beside. `is_complete` false: the sentinels did not come in time.
        """
        if self._beside:
            return self._end_beside(outcome, printed)
        self._is_open = False
        self._on_complete = None
        if (
            not self._entries
            and printed is None
            and self._partial == _NOTHING
            and not self._is_over
            and outcome.is_kept
            and is_complete
            and not self._is_shared
        ):
            return ()
        entries = self._closed(outcome, printed, is_complete=is_complete)
        self._is_shared = self._is_mixed = False
        return entries

    def _end_beside(self, outcome: Outcome, printed: Printed | None) -> tuple[str, ...]:
        """What comes from here on belongs to the next one that ends."""
        self._beside -= 1
        entries = self._closed(outcome, printed, is_complete=True)
        self._kept_bytes = 0
        self._is_over = self._limit_bytes == 0
        return entries

    def _closed(self, outcome: Outcome, printed: Printed | None, *, is_complete: bool) -> tuple[str, ...]:
        stamp = render_time(self._now_ns())
        for stream in (STDOUT, STDERR):
            if self._partial[stream]:
                self._add(stamp, stream, self._partial[stream])
                self._partial[stream] = b""
        if self._limit_bytes:
            if self._is_shared and self._entries:
                self._is_mixed = True
            if printed is not None:
                self._merge(printed)
            if self._is_mixed:
                self._entries.append(stamp + _STREAMS[STDERR] + wording.LOGS_MIXED)
            if self._is_over:
                self._entries.append(stamp + _STREAMS[STDERR] + wording.logs_truncated(self._limit_bytes))
            elif not is_complete:
                self._entries.append(stamp + _STREAMS[STDERR] + wording.LOGS_INCOMPLETE)
            if not outcome.is_kept:
                self._entries.append(stamp + _STREAMS[STDERR] + wording.LOGS_AFTER_FAILURE)
        entries, self._entries = tuple(self._entries), []
        return entries

    def _merge(self, printed: Printed) -> None:
        """One limit for both; by time."""
        room = self._limit_bytes - printed.kept_bytes
        others = []
        for entry in self._entries:
            room -= len(entry) + 1
            if room < 0:
                self._is_over = True
                break
            others.append(entry)
        self._is_over = self._is_over or printed.is_over
        self._entries = sorted([*printed.entries, *others], key=_time_of)


def _time_of(entry: str) -> str:
    return entry[:30]


_NOTHING = [b"", b""]
_second = 0
_second_text = ""


def render_time(now_ns: int) -> str:
    """`2026-01-02T03:04:05.123456789Z`, left-justified to 30, and a space. The text of the second is kept."""
    global _second, _second_text
    second, fraction = divmod(now_ns, 1_000_000_000)
    if second != _second:
        _second = second
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
    return f"{_second_text}{fraction:09d}Z "
