"""Removes stored code that no action names any more: what an update replaced, what a delete left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.entity.action import Action
from visp.entity.execs import SequenceExec
from visp.errors import ServiceError
from visp.store.cache import from_document
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.store.base import BlobStore, EntityStore

EVERY_S = 3600.0
SPARED_S = 3600.0
"""Younger blobs stay: the action that names one is written after it."""
PAGE = 500


class BlobSweep:
    """Looks through all actions, once an hour."""

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
        after = ""
        while page := await self._entities.scan("actions", after, PAGE):
            for document in page:
                action = from_document(document)
                exec = action.exec if isinstance(action, Action) else None
                if exec is not None and not isinstance(exec, SequenceExec) and exec.code is not None and exec.code.blob:
                    used.add(exec.code.blob)
            after = page[-1].id
        return await self._blobs.sweep(frozenset(used), SPARED_S)
