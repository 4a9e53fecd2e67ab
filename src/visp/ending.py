"""The end of a server: what is waited for, how long, and what becomes of the rest.

First nothing new is begun: accepted work that waits is left to the ledger, and the next start runs it. What is under
way comes to its end, within a bound. What is not over by then, or when somebody is in a hurry, is given an end that
loses nothing: a blocking caller is answered 202 with the id of his activation, which is accepted work from then on; any
other request ends with its connection.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from visp.telemetry import log

if TYPE_CHECKING:
    from visp.listening import Listening
    from visp.roles.assembly import Parts

LINGER_S = 0.5
"""How long an idle connection of a server that ends may still begin a request."""
LOOK_S = 0.01
TELL_EVERY_S = 2.0
HURRY_S = 2.0
"""How long those who are told to go may take to hear it: a sync of the ledger, and an answer."""


class Signals:
    """SIGTERM and SIGINT: the first one stops the server, the second hurries it, the third ends the process at once."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._heard)

    def _heard(self) -> None:
        if self.hurry.is_set():
            os._exit(130)
        (self.hurry if self.stop.is_set() else self.stop).set()


async def settle(
    parts: Parts,
    listening: Listening,
    within_s: float,
    *,
    hurry: asyncio.Event,
    is_off: asyncio.Event | None = None,
) -> None:
    """Until nothing is under way and no connection is left. At once when `is_off`: the server goes on.

    The connections' end is begun before: they are given away (`is_off` is there), or each closes with its next answer,
    as encrypted ones do in any case.
    """
    loop = asyncio.get_running_loop()
    began_s, told_s = loop.time(), -TELL_EVERY_S
    parts.hold_back()
    while True:
        requests, runs, passed_s = listening.requests, parts.under_way(), loop.time() - began_s
        if (is_off is None or listening.is_sealed) and passed_s >= LINGER_S:
            listening.close_idle()
        if (not requests and not runs and not listening.connections) or (is_off is not None and is_off.is_set()):
            break
        if hurry.is_set() or passed_s >= within_s:
            await _send_off(parts, listening, requests, runs, is_hurried=hurry.is_set())
            break
        if (requests or runs) and passed_s - told_s >= TELL_EVERY_S:
            told_s = passed_s
            log.info("stop.waits", requests=requests, activations=runs, at_most_s=round(within_s - passed_s, 1))
        await asyncio.sleep(LOOK_S)
    log.info("stop.settled", took_s=round(loop.time() - began_s, 3))


async def _send_off(parts: Parts, listening: Listening, requests: int, runs: int, *, is_hurried: bool) -> None:
    """Whoever still waits is told where to ask for the outcome; who cannot be told so is cut off."""
    log.warning(
        "stop.hurries",
        reason="a second signal" if is_hurried else "the time is over",
        requests=requests,
        activations=runs,
        at_most_s=HURRY_S,
    )
    loop = asyncio.get_running_loop()
    until_s = loop.time() + HURRY_S
    parts.hurry()
    while listening.requests and loop.time() < until_s:  # noqa: ASYNC110 - many things end a request, none tells of all
        await asyncio.sleep(LOOK_S)
    if listening.requests:
        log.warning("stop.cut", requests=listening.requests)
        listening.cut()
        await asyncio.sleep(0)
    listening.close_idle()
