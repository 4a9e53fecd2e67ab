"""Frames on a stream: a length of four bytes, little end first, then as many bytes. Pure."""

from __future__ import annotations

from struct import Struct

_LENGTH = Struct("<I")
FRAME_LIMIT_BYTES = 64 * 1024 * 1024
"""Longer than any record with its logs, or any entity."""


class BadFrame(Exception):
    """What came is no frame: the stream cannot be read on."""


def frame(body: bytes) -> bytes:
    """One frame; raises `BadFrame` for a body over the limit."""
    if len(body) > FRAME_LIMIT_BYTES:
        raise BadFrame(f"{len(body)} bytes are too many for a frame")
    return _LENGTH.pack(len(body)) + body


class Unframer:
    """Takes a stream in whatever pieces it comes, and gives the bodies of whole frames."""

    def __init__(self, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete by this piece, in order; raises `BadFrame`."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        at = 0
        while len(buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, at)
            if length > self._limit_bytes:
                raise BadFrame(f"a frame announces {length} bytes")
            end = at + _LENGTH.size + length
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[at + _LENGTH.size : end]))
            at = end
        del buffer[:at]
        return frames
