"""Sources whose events are fired only where a feed's `filter` holds; positions move on all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.feed.base import Batch, Json, Source, Watch
from visp.feed.conditions import FILTER, Condition, filter_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def sifted(source: Source, parameters: Mapping[str, Json]) -> Source:
    return Sifted(source, filter_of(parameters)) if FILTER in parameters else source


class Sifted:
    def __init__(self, source: Source, holds: Condition) -> None:
        self._source = source
        self._holds = holds

    async def run(self, watch: Watch, position: Json) -> None:
        await self._source.run(_Sieve(watch, self._holds), position)


class _Sieve:
    def __init__(self, watch: Watch, holds: Condition) -> None:
        self.clock = watch.clock
        self.live = watch.live
        self._watch = watch
        self._holds = holds

    async def fire(self, batch: Batch) -> None:
        events = [event for event in batch.events if self._holds(msgspec.json.decode(event.body))]
        await self._watch.fire(Batch(events, batch.position))
