"""How often APIs are called, counted in one place for each key: among shards on the key's home.

A call that its home does not answer for is counted here meanwhile: a limit may then let more through, and no call has
to wait for a shard that is down.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

from visp.entitlement.quota import Pace, Window
from visp.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.clock import Clock
    from visp.controller.abroad import Links
    from visp.entitlement.quota import Key

COUNT = "gateway.count"

_encode = msgspec.msgpack.Encoder().encode
_decode_asked = msgspec.msgpack.Decoder(tuple[tuple[str, ...], int, int]).decode
_decode_wait = msgspec.msgpack.Decoder(int).decode


class Counts:
    """Made before the links open, if there are any."""

    def __init__(self, clock: Clock, links: Links | None = None) -> None:
        self._pace = Pace(clock)
        self._window = Window(clock)
        self._links = links
        if links is not None:
            links.answer(COUNT, self._count_for)

    async def wait_s(self, key: Key, *, rate: int = 0, window_s: int = 0, gap_ms: int = 0) -> int:
        """0 for a call that is let through, and counted; else in how many seconds to come again.

        Either `rate` calls in a window, or one in each gap.
        """
        rule = (gap_ms, 0) if gap_ms else (rate, window_s)
        links = self._links
        if links is not None:
            home = zlib.crc32("\n".join(key).encode("utf-8", "surrogateescape")) % links.count
            if home != links.own and home in links.up():
                try:
                    return _decode_wait(await links.ask(home, COUNT, _encode((key, *rule))))
                except ServiceError:
                    pass
        return self._count(key, *rule)

    def _count(self, key: Key, rate: int, window_s: int) -> int:
        if window_s:
            return self._window.wait_s(key, rate, window_s)
        return -(-self._pace.wait_ms(key, rate) // 1000)

    def _count_for(self, _: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        reply(_encode(self._count(*_decode_asked(body))))
