"""Locks, by the newest key, what is not locked, and anew what an older one locked: which then may be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.entity.action import Action
from visp.entity.execs import SequenceExec
from visp.entity.package import Package
from visp.errors import Conflict, Corrupt, ServiceError
from visp.store.cache import Write, from_document
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.entity.locking import Locks
    from visp.store.cache import EntityCache

PAGE = 200
AGAIN_S = 30.0


class Relock:
    """Looks through all actions and packages, once after a start with encryption on."""

    def __init__(self, entities: EntityCache, locks: Locks, clock: Clock) -> None:
        self._entities = entities
        self._locks = locks
        self._clock = clock

    async def run(self) -> None:
        """Until it has come through; it begins again where a write was not taken."""
        if not self._locks.is_on:
            return
        while True:
            try:
                count = await self.relock()
            except ServiceError as error:
                log.warning("parameters.not_relocked", reason=str(error))
                await self._clock.sleep(AGAIN_S)
            else:
                if count:
                    log.info("parameters.relocked", entities=count)
                return

    async def relock(self) -> int:
        """One look; how many entities were written. Their `version` and `updated` stay.

        Raises `StoreUnavailable` and what else a store may.
        """
        return await self._relock("actions") + await self._relock("packages")

    async def _relock(self, collection: str) -> int:
        count, after = 0, ""
        while page := await self._entities.store.scan(collection, after, PAGE):
            for document in page:
                try:
                    entity = from_document(document)
                except Corrupt:
                    continue  # nobody can be given its parameters either
                if not isinstance(entity, Action | Package):
                    continue
                if isinstance(entity, Action) and isinstance(entity.exec, SequenceExec):
                    continue  # its parameters are its components, and the server's own
                parameters = self._locks.relock(entity.parameters)
                if parameters is None:
                    continue
                try:
                    new = msgspec.structs.replace(entity, parameters=parameters)
                    await self._entities.write(Write(new, entity.revision))
                    count += 1
                except Conflict:
                    pass  # it was just written, and so locked by the newest key
            after = page[-1].id
        return count
