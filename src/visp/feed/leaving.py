"""What a feed has made at its source is taken away when the feed goes: in bounded time, and the feed goes anyway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from visp.errors import VispError
from visp.feed.base import trace_of
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.entity.feed import Opened
    from visp.feed.base import Feed, Leaving, Reach

TAKE_AWAY_S = 10.0


async def take_away(kind: Feed, opened: Opened, reach: Reach, trigger: str) -> None:
    """Nothing is done for a feed that has made nothing; `trigger` is its name in the log."""
    if not opened.made or trace_of(kind, opened.parameters) is None:
        return
    try:
        async with asyncio.timeout(TAKE_AWAY_S):
            await cast("Leaving", kind).deleted(opened.parameters, reach)
    except Exception as error:  # whatever a library raises over what a server says
        reason = str(error) if isinstance(error, VispError) else type(error).__name__
        log.warning("feed.trace_left", feed=kind.name, trigger=trigger, reason=reason)
