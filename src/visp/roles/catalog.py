"""The shipped packages in `whisk.system`: written at the first start, and at a start whose copy of one is another.

What was installed is known by its digest, an annotation of its package and of each action; what has not changed is not
written. Each package comes with all of its actions or not at all. What others have put into `whisk.system` stays as it
is, also beside the actions of a shipped package; values that an operator gave to a package's parameters stay too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp import catalog
from visp.entity import action as actions
from visp.entity import package as packages
from visp.entity.action import Action
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package
from visp.entity.parameters import text
from visp.entity.subject import SYSTEM
from visp.errors import Conflict, Corrupt, Malformed, ServiceError
from visp.store.base import EntityQuery
from visp.store.cache import Remove, Write
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visp.catalog import Entry, Shipped
    from visp.clock import Clock
    from visp.entity.locking import Locks
    from visp.entity.runtime_manifest import Manifest
    from visp.store.cache import EntityCache

AGAIN_S = 10.0
TRIES = 3
PAGE = 200


class Installer:
    """Writes packages, one after the other; of several processes of a server one has it."""

    def __init__(self, *, entities: EntityCache, manifest: Manifest, locks: Locks, clock: Clock) -> None:
        self._entities = entities
        self._manifest = manifest
        self._locks = locks
        self._clock = clock

    async def run(self, names: Sequence[str]) -> None:
        """Until all of these are there; what a store refuses is tried again after a while, conflicts a few times."""
        written, waiting, conflicts = 0, list(names), 0
        while waiting:
            name = waiting[0]
            try:
                written += await self.install(await asyncio.to_thread(catalog.read, name))
            except (Conflict, ServiceError) as error:
                log.warning("catalog.not_installed", package=name, reason=str(error))
                conflicts += isinstance(error, Conflict)
                if conflicts < TRIES:
                    await self._clock.sleep(AGAIN_S)
                    continue
            waiting.pop(0)
            conflicts = 0
        if written:
            log.info("catalog.installed", entities=written)

    async def install(self, shipped: Shipped) -> int:
        """How many entities were written or removed: none where the same package is there.

        Raises `Conflict` when somebody else wrote one, and what a store may.
        """
        name = FullyQualifiedName(SYSTEM, None, shipped.name)
        old = await self._package(name)
        if isinstance(old, str):
            log.warning("catalog.in_the_way", package=shipped.name, reason=old)
            return 0
        if old is not None and text(old.annotations, catalog.DIGEST) == shipped.digest:
            return 0
        there = {action.name.name: action for action in await self._actions(name)}
        changes: list[Write | Remove] = [self._made(name, shipped, old)]
        for entry in shipped.actions:
            change = self._made_action(FullyQualifiedName(SYSTEM, shipped.name, entry.name), entry, there)
            if change is not None:
                changes.append(change)
        kept = {entry.name for entry in shipped.actions}
        changes += [
            Remove(action)
            for action in there.values()
            if action.name.name not in kept and catalog.DIGEST in action.annotations
        ]
        await self._entities.write(*changes)
        return len(changes)

    async def _package(self, name: FullyQualifiedName) -> Package | str | None:
        """The package that is there, None for none; a sentence where nothing can be written."""
        try:
            found = await self._entities.get(name.id)
        except Corrupt:
            return "what is there cannot be read"
        if found is None or (isinstance(found, Package) and found.binding is None):
            return found
        return "something else has its name"

    async def _actions(self, name: FullyQualifiedName) -> list[Action]:
        found: list[Action] = []
        while True:
            query = EntityQuery(collection="actions", namespace=SYSTEM, package=name.name, skip=len(found), limit=PAGE)
            page = await self._entities.list(query)
            found += [action for action in page if isinstance(action, Action)]
            if len(page) < PAGE:
                return found

    def _made(self, name: FullyQualifiedName, shipped: Shipped, old: Package | None) -> Write:
        put = packages.parse_put(msgspec.json.encode(shipped.body), SYSTEM)
        parameters = self._locks.lock(put.parameters or {})
        now_ms = self._clock.now_ms()
        if old is None:
            return Write(packages.create(name, msgspec.structs.replace(put, parameters=parameters), now_ms), None)
        put = msgspec.structs.replace(put, parameters=parameters | old.parameters)
        return Write(packages.update(old, put, now_ms), old.revision)

    def _made_action(self, name: FullyQualifiedName, entry: Entry, there: dict[str, Action]) -> Write | None:
        """None where the same action is there, and for one whose kind this server's manifest does not have."""
        old = there.get(entry.name)
        if old is not None and text(old.annotations, catalog.DIGEST) == entry.digest:
            return None
        try:
            put = actions.parse_put(msgspec.json.encode(entry.body), self._manifest, SYSTEM)
        except Malformed as error:
            log.warning("catalog.left_out", action=name.id, reason=str(error))
            return None
        put = msgspec.structs.replace(put, parameters=self._locks.lock(put.parameters or {}))
        now_ms = self._clock.now_ms()
        made = actions.create(name, put, now_ms)
        if old is None:
            return Write(made, None)
        kept = actions.update(old, put, now_ms)
        return Write(msgspec.structs.replace(made, version=kept.version), old.revision)
