"""The HTTP contract of action images: requests to write, responses to read. Sans I/O.

Source: OpenWhisk's container contract. A response of unknown length counts as no response; one over the result limit is
read no further than the limit, and its connection is not used again. Interim responses (1xx) are passed over.
"""

from __future__ import annotations

from visp.runtime.base import Gone, Reply

HEAD_LIMIT_BYTES = 64 * 1024
LENGTH_DIGITS = 18
SWITCHING_PROTOCOLS = 101
NO_CONTENT = 204


def render(path: str, host: str, port: int, body: bytes) -> bytes:
    """A POST with a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class ResponseReader:
    """Reads one response after the other from a connection."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.keeps_alive = True
        self._reset()

    def _reset(self) -> None:
        self._head = bytearray()
        self._status = 0
        self._length = -1
        self._parts: list[bytes] = []
        self._seen_bytes = 0

    def feed(self, data: bytes) -> Reply | Gone | None:
        """A complete response, `Gone` for one that cannot be used, None while it is incomplete."""
        while self._length < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if (len(self._head) if end < 0 else end) > HEAD_LIMIT_BYTES:
                return Gone()
            if end < 0:
                return None
            data = bytes(self._head[end + 4 :])
            if not self._parse_head(bytes(self._head[:end])):
                return Gone()
            self._head.clear()
        self._seen_bytes += len(data)
        self._parts.append(data)
        if self._seen_bytes > self._length:
            return Gone()  # more than was announced: the two sides no longer agree
        if self._seen_bytes == self._length or self._seen_bytes > self._limit_bytes:
            self.keeps_alive = self.keeps_alive and self._seen_bytes == self._length
            reply = Reply(self._status, b"".join(self._parts)[: self._limit_bytes + 1], self._length)
            self._reset()
            return reply
        return None

    def _parse_head(self, head: bytes) -> bool:
        """Status and length (of an interim response: neither); false for what cannot be an answer."""
        lines = head.split(b"\r\n")
        words = lines[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not _is_number(words[1], 3):
            return False
        self._status = int(words[1])
        if self._status < 200:
            return self._status != SWITCHING_PROTOCOLS
        self.keeps_alive = words[0] == b"HTTP/1.1"
        length = -1
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name, value = name.strip().lower(), value.strip()
            if name == b"content-length":
                if not _is_number(value, LENGTH_DIGITS) or length >= 0:
                    return False
                length = int(value)
            elif name == b"connection" and value.lower() == b"close":
                self.keeps_alive = False
            elif name == b"transfer-encoding":
                return False
        if length < 0 or self._status == NO_CONTENT:
            return False
        self._length = length
        return True


def _is_number(text: bytes, digits: int) -> bool:
    return text.isdigit() and len(text) <= digits
