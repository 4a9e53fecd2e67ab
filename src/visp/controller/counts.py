"""How often APIs are called, counted in one place for each key: among shards on the key's home.

A call that its home does not answer for is counted here meanwhile: a limit may then let more through, and no call has
to wait for a shard that is down.
"""

from __future__ import annotations

import contextlib
import zlib
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from visp.entitlement.quota import Key, Pace, Window
from visp.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.clock import Clock
    from visp.controller.abroad import Links

COUNT = "gateway.count"

_encode = msgspec.msgpack.Encoder().encode
_decode_wait = msgspec.msgpack.Decoder(int).decode


class Rule(msgspec.Struct, frozen=True, array_like=True):
    """How often what a key names may be called: `rate` times in a window, or without one once in each gap."""

    key: Key
    rate: int = 0
    window_s: int = 0
    gap_ms: int = 0


_decode_rule = msgspec.msgpack.Decoder(Rule).decode


class Counts:
    """Made before the links open, if there are any."""

    def __init__(self, clock: Clock, links: Links | None = None) -> None:
        self._pace = Pace(clock)
        self._window = Window(clock)
        self._links = links
        if links is not None:
            links.answer(COUNT, self._count_for)

    def count(self, rule: Rule, then: Callable[[int], None]) -> None:
        """`then` hears 0 for a call that is let through, and counted; else in how many seconds to come again.

        At once where the key's home is here.
        """
        links = self._links
        if links is not None:
            home = zlib.crc32("\n".join(rule.key).encode("utf-8", "surrogateescape")) % links.count
            if home != links.own and home in links.up():
                with contextlib.suppress(Overloaded):
                    links.ask_then(home, COUNT, _encode(rule), partial(self._heard, rule, then))
                    return
        then(self._count(rule))

    def _heard(self, rule: Rule, then: Callable[[int], None], answer: bytes | None) -> None:
        then(self._count(rule) if answer is None else _decode_wait(answer))

    def _count(self, rule: Rule) -> int:
        if rule.window_s:
            return self._window.wait_s(rule.key, rule.rate, rule.window_s)
        return -(-self._pace.wait_ms(rule.key, rule.gap_ms) // 1000)

    def _count_for(self, _: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        reply(_encode(self._count(_decode_rule(body))))
