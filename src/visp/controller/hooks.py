"""Calls of completion web hooks: signed, and tried again until they are heard or it has been too long.

Source of what an answer means: the Standard Webhooks specification 1.0 (2xx is heard, 410 is never again).
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from visp.controller.outbound import NotReached
from visp.entity.hook import body_of, headers_of
from visp.telemetry import log
from visp.telemetry.metrics import Family, Tally

if TYPE_CHECKING:
    from visp.bus.messages import HookMessage
    from visp.clock import Clock
    from visp.controller.outbound import Outbound
    from visp.settings import Hooks as Limits
    from visp.store.base import ActivationStore

CALLS = "visp_hook_calls_total"
FIRST_S, LONGEST_S = 1.0, 600.0
BUSY_S = 1.0
"""Until a call is tried again that found as many of its namespace under way as there may be."""
GONE = 410


class Hooks:
    """Makes calls; `Later` keeps those that wait."""

    def __init__(self, *, activations: ActivationStore, outbound: Outbound, clock: Clock, limits: Limits) -> None:
        self._activations = activations
        self._outbound = outbound
        self._clock = clock
        self._limits = limits
        self._under_way: Counter[str] = Counter()
        self._tally = Tally()

    def measured(self) -> list[Family]:
        """What became of calls, for a scrape."""
        return [Family(CALLS, "Calls of completion web hooks.", "counter", self._tally.samples(), ("outcome",))]

    async def call(self, message: HookMessage) -> float | None:
        """Tries once. The seconds after which to try again; None when there is nothing left to do.

        Raises `ServiceError` where the record cannot be read now.
        """
        namespace = message.namespace
        if self._under_way[namespace] >= self._limits.at_once:
            return BUSY_S * (1 + random.random())
        self._under_way[namespace] += 1
        try:
            return await self._call(message)
        finally:
            self._under_way[namespace] -= 1
            if not self._under_way[namespace]:
                del self._under_way[namespace]

    def drop(self, message: HookMessage) -> None:
        """Counts one for which there is no room."""
        self._tally.add("dropped")
        log.warning("hook.dropped", activation=message.activation, limit=self._limits.waiting)

    async def _call(self, message: HookMessage) -> float | None:
        record = await self._activations.get(message.namespace, message.activation)
        if record is None:  # as old as the records that are kept
            self._give_up(message, "its record is gone")
            return None
        now_ms = self._clock.now_ms()
        body = body_of(record, datetime.fromtimestamp(message.at_ms / 1000, UTC).isoformat())
        headers = headers_of(message.hook, message.id, now_ms // 1000, body)
        try:
            status = await self._outbound.post(message.hook.url, body, headers)
            reason = f"answered {status}"
        except NotReached as error:
            status, reason = 0, str(error)
        if 200 <= status < 300:
            self._tally.add("heard")
            return None
        age_s = max(0, now_ms - message.at_ms) / 1000
        if status == GONE or age_s >= self._limits.give_up_s:
            self._give_up(message, reason)
            return None
        self._tally.add("failed")
        log.info("hook.failed", activation=message.activation, reason=reason)
        return wait_s(age_s, random.random())

    def _give_up(self, message: HookMessage, reason: str) -> None:
        self._tally.add("given_up")
        log.warning("hook.given_up", activation=message.activation, reason=reason)


def wait_s(age_s: float, draw: float) -> float:
    """How long to wait before a call is tried again that was due `age_s` ago: as long again, so that times double
    without anyone counting; from the upper half of that (`draw` from 0 to 1).
    """
    return min(LONGEST_S, max(FIRST_S, age_s)) * (0.5 + draw / 2)
