"""Removes stored code and files that nothing names any more: what an update replaced, what a delete left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.errors import ServiceError
from visp.store.cache import WITH_BLOBS, blobs_of, from_document
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.store.base import BlobStore, EntityStore

EVERY_S = 3600.0
SPARED_S = 3600.0
"""Younger blobs stay: what names one is written after it."""
PAGE = 500


class BlobSweep:
    """Looks through all actions and packages, once an hour."""

    def __init__(self, entities: EntityStore, blobs: BlobStore, clock: Clock) -> None:
        self._entities = entities
        self._blobs = blobs
        self._clock = clock

    async def run(self) -> None:
        """Sweeps for as long as it is let."""
        while True:
            await self._clock.sleep(EVERY_S)
            try:
                removed = await self.sweep()
            except ServiceError as error:  # a document that does not read may name any blob: none is removed
                log.error("blobs.not_swept", reason=str(error))
            else:
                if removed:
                    log.info("blobs.swept", removed=removed)

    async def sweep(self) -> int:
        """One sweep; how many blobs were removed. Raises `Corrupt` and `StoreUnavailable`, and removes nothing then."""
        used: set[str] = set()
        for collection in WITH_BLOBS:
            after = ""
            while page := await self._entities.scan(collection, after, PAGE):
                for document in page:
                    used.update(blobs_of(from_document(document)))
                after = page[-1].id
        return await self._blobs.sweep(frozenset(used), SPARED_S)
