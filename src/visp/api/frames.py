"""The frames of an HTTP/2 connection, bounded before anything is made of them. Pure.

A frame of ten bytes may cost the server a thousand times what it cost to send. So frames are counted as they come, by
their heads alone; each bound stands here, and whoever passes one has the connection ended, with `ENHANCE_YOUR_CALM`
where no other code is named. Priorities are left out here, and so are frames of unknown types.

Source of the format: RFC 9113, sections 4 and 6. Of the attacks: its section 10.5, CVE-2019-9511 to 9518 (floods),
CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2025-8671 (resets that the server is made to send).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.api.heads import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS = 100
"""Requests of one connection at once, counted until the work on them is over, even if their client gave them up."""
FRAME_BYTES = 16 * 1024
"""Of one frame's payload, either way; a longer one ends the connection with `FRAME_SIZE_ERROR`."""
HEAD_FRAMES = 16
"""In which one head may come."""
SETTINGS_BYTES = 32 * 6
"""Of one frame of settings: six for each."""
SETTINGS = 100
"""Frames of settings in the life of a connection, those that acknowledge ours left out."""
RESETS, RESETS_PER_S = 200, 10.0
"""Requests that end before their answer because of the client, at once and then for each second."""
CHEAP, CHEAP_PER_S = 1_000, 100.0
"""Frames that carry little or nothing, at once and then for each second."""
LITTLE_BYTES = 64
"""A frame of a body that is shorter, and not the last, counts as one that carries nothing."""
PAID_BYTES = 1024
"""So much of an answer that was sent allows for one frame more: clients tell what they have taken."""

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR = 0x0, 0x1, 0x2
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0x6, 0x7, 0x8, 0xB
ANY_STREAM = (1 << 31) - 1

_DATA, _HEADERS, _PRIORITY, _SETTINGS, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x2, 0x4, 0x7, 0x9
_IGNORED = frozenset({_PRIORITY, _GOAWAY, *range(_CONTINUATION + 1, 256)})
_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4
_FRAME_HEAD_BYTES = 9
_PREFACE_BYTES = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


class Flood(Exception):
    """A bound is passed: the connection ends with this code. The text is for the log."""

    def __init__(self, reason: str, code: int = ENHANCE_YOUR_CALM) -> None:
        super().__init__(reason)
        self.code = code


class Allowance:
    """So many at once, and so many more for each second that passes. Times in seconds of one clock."""

    def __init__(self, most: int, per_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._left = float(most)
        self._at_s = 0.0

    def take(self, now_s: float) -> bool:
        """Takes one; false when none is left."""
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        self._left -= 1.0
        return self._left >= 0.0

    def pay(self, more: float) -> None:
        self._left = min(self._most, self._left + more)


class Frames:
    """What comes on one connection, beginning with the client's preface."""

    def __init__(self) -> None:
        self.is_in_head = False
        """A head has begun and is not complete."""
        self.is_leaving = False
        """The client said that it begins nothing more (GOAWAY)."""
        self._partial = b""
        self._left = _PREFACE_BYTES
        self._is_ignored = False
        self._ends_head = False
        self._head_bytes = 0
        self._head_frames = 0
        self._settings = 0
        self._cheap = Allowance(CHEAP, CHEAP_PER_S)
        self._resets = Allowance(RESETS, RESETS_PER_S)

    def pieces(self, data: bytes, now_s: float) -> Iterator[bytes]:
        """What is to be read of it, in pieces that end after each head, so that requests are looked at one by one.

        Raises `Flood`, before what is too much is given out.
        """
        data, self._partial = self._partial + data, b""
        start = at = 0
        end = len(data)
        while at < end:
            if not self._left:
                if end - at < _FRAME_HEAD_BYTES:
                    self._partial = data[at:]
                    end = at
                    break
                self._begin(data[at : at + _FRAME_HEAD_BYTES], now_s)
                if self._is_ignored and at > start:
                    yield data[start:at]
                at += _FRAME_HEAD_BYTES
            step = min(self._left, end - at)
            self._left -= step
            at += step
            if self._is_ignored:
                start = at
                self._is_ignored = bool(self._left)
            elif self._ends_head and not self._left:
                self._ends_head = self.is_in_head = False
                yield data[start:at]
                start = at
        if end > start:
            yield data[start:end]

    def _begin(self, head: bytes, now_s: float) -> None:
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        self._left = length
        if length > FRAME_BYTES:
            raise Flood("a frame is too long", FRAME_SIZE_ERROR)
        if self.is_in_head:
            if kind != _CONTINUATION:
                raise Flood("a head is not complete", PROTOCOL_ERROR)
            self._head_frames += 1
            self._head_bytes += length
        elif kind == _HEADERS:
            self.is_in_head = True
            self._head_frames = 1
            self._head_bytes = length
        elif kind != _DATA or (length < LITTLE_BYTES and not flags & _END_STREAM):
            self._count(kind, flags, length, now_s)
        if self.is_in_head:
            if self._head_bytes > HEAD_LIMIT_BYTES or self._head_frames > HEAD_FRAMES:
                raise Flood("a head is too large")
            self._ends_head = bool(flags & _END_HEADERS)

    def _count(self, kind: int, flags: int, length: int, now_s: float) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._settings += 1
            if self._settings > SETTINGS or length > SETTINGS_BYTES:
                raise Flood("too many settings")
        if not self._cheap.take(now_s):
            raise Flood("too many frames that carry little")
        self._is_ignored = kind in _IGNORED
        self.is_leaving |= kind == _GOAWAY

    def count_reset(self, now_s: float) -> None:
        """A request ended before its answer because of the client. Raises `Flood`."""
        if not self._resets.take(now_s):
            raise Flood("too many requests are given up")

    def count_sent(self, size: int) -> None:
        """So many bytes of answers were sent."""
        self._cheap.pay(size / PAID_BYTES)


def goaway(last_stream: int, code: int) -> bytes:
    """A frame of that kind: whatever comes with a later stream's number is not looked at."""
    head = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00"
    return head + last_stream.to_bytes(4, "big") + code.to_bytes(4, "big")
