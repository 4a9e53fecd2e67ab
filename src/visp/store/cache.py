"""Entities in memory: immutable values by id, the store's own revision on each.

The one cache of documents. It is filled by reads and by this process's own writes, and emptied by what others write
(`heard`); a value is only ever replaced by one of a higher revision, so a slow read cannot bring back an old one.
Bounded: beyond `limit` entries the least recently filled go first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from visp.entity.action import Action
from visp.entity.execs import SequenceExec
from visp.entity.package import Package
from visp.entity.rule import Rule
from visp.entity.trigger import Trigger
from visp.errors import Conflict, Corrupt
from visp.store.base import Delete, Document, Put
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from visp.entity.execs import Code
    from visp.store.base import BlobStore, EntityQuery, EntityStore

Entity = Action | Trigger | Rule | Package

COLLECTIONS: Final[dict[str, type[Entity]]] = {
    "actions": Action,
    "triggers": Trigger,
    "rules": Rule,
    "packages": Package,
}
_COLLECTION_OF: Final = {kind: collection for collection, kind in COLLECTIONS.items()}
_DECODERS: Final = {collection: msgspec.json.Decoder(kind) for collection, kind in COLLECTIONS.items()}

CACHED_ENTITIES = 100_000
CACHED_CODE_BYTES = 64 * 1024 * 1024


def to_document(entity: Entity) -> Document:
    """The stored form of an entity; lists of what is published leave bindings out, which are their owner's alone."""
    return Document(
        id=entity.name.id,
        collection=_COLLECTION_OF[type(entity)],
        namespace=entity.name.namespace,
        package=entity.name.package,
        name=entity.name.name,
        updated_ms=entity.updated_ms,
        publish=entity.publish and not (isinstance(entity, Package) and entity.binding is not None),
        body=msgspec.json.encode(entity),
    )


class Write(msgspec.Struct, frozen=True):
    """Store `entity` in place of revision `expected` (None: where none is)."""

    entity: Entity
    expected: int | None


class Remove(msgspec.Struct, frozen=True):
    """Delete `entity`, which must still be at the revision it has."""

    entity: Entity


def _change(change: Write | Remove) -> Put | Delete:
    if isinstance(change, Write):
        return Put(to_document(change.entity), change.expected)
    return Delete(change.entity.name.id, change.entity.revision)


def from_document(document: Document) -> Entity:
    """Raises `Corrupt` when the body does not read."""
    try:
        entity: Entity = _DECODERS[document.collection].decode(document.body)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        raise Corrupt() from None
    return msgspec.structs.replace(entity, revision=document.revision)


WITH_BLOBS: Final = ("actions", "packages")
"""Collections of what may name blobs."""


def blobs_of(entity: Entity) -> tuple[str, ...]:
    """The blobs that it names: those alone are kept."""
    if isinstance(entity, Package):
        return tuple(digest for file in entity.site.values() for digest in file.digests)
    exec = entity.exec if isinstance(entity, Action) else None
    if exec is None or isinstance(exec, SequenceExec) or exec.code is None or exec.code.blob is None:
        return ()
    return (exec.code.blob,)


class EntityCache:
    """Reads through to the store; `peek` is what the hot path uses.

    `changed` hears of every write of this server, as id and revision, 0 for what was deleted.
    """

    def __init__(
        self,
        store: EntityStore,
        blobs: BlobStore,
        limit: int = CACHED_ENTITIES,
        changed: Callable[[str, int], None] | None = None,
    ) -> None:
        self.store = store
        self._blobs = blobs
        self._limit = limit
        self._changed = changed
        self._entities: dict[str, Entity] = {}
        self._changes = 0
        self._writing = 0
        self._heard: dict[str, int] = {}
        """Revisions that were heard of while a write of ours is under way; its answer may come after a newer one."""
        self._code: dict[str, str] = {}
        self._code_bytes = 0

    def peek(self, id: str) -> Entity | None:
        """What is in memory under this id."""
        return self._entities.get(id)

    async def get(self, id: str) -> Entity | None:
        """The entity under this id, of whatever collection; raises `Corrupt`."""
        found = self._entities.get(id)
        if found is not None:
            return found
        changes = self._changes
        document = await self.store.get(id)
        if document is None:
            return None
        entity = from_document(document)
        # a write that ended while we read may have removed what we now hold: then it is returned, and not kept
        return self._keep(entity) if changes == self._changes else entity

    async def list(self, query: EntityQuery) -> list[Entity]:
        """Entities of a collection, as the store orders them; a document that does not read is left out."""
        out: list[Entity] = []
        for document in await self.store.list(query):
            held = self._entities.get(document.id)
            if held is None or held.revision != document.revision:
                try:
                    held = from_document(document)
                except Corrupt:
                    log.error("cache.unreadable", id=document.id, revision=document.revision)
                    continue
            out.append(held)
        return out

    async def write(self, *changes: Write | Remove) -> None:
        """Stores all changes or none; raises `Conflict` when one of the entities is not at its expected revision.

        A caller that is cancelled leaves it to end by itself: what was committed must not be hidden by what is held.
        """
        await asyncio.shield(asyncio.ensure_future(self._write(changes)))

    async def _write(self, changes: Sequence[Write | Remove]) -> None:
        self._writing += 1
        try:
            revisions = await self.store.write([_change(change) for change in changes])
            for change, revision in zip(changes, revisions, strict=True):
                self._take(change, revision)
        except Conflict:
            for change in changes:  # someone else's write is newer than what we hold
                self.forget(change.entity.name.id)
            raise
        finally:
            self._writing -= 1
            if not self._writing:
                self._heard.clear()

    def _take(self, change: Write | Remove, revision: int) -> None:
        id = change.entity.name.id
        if isinstance(change, Write) and self._heard.get(id, revision) == revision:
            self._changes += 1
            self._keep(msgspec.structs.replace(change.entity, revision=revision))
        else:
            self.forget(id)
        if self._changed is not None:
            self._changed(id, revision)

    def heard(self, id: str, revision: int) -> None:
        """The store has this revision now (0: it was deleted), whoever wrote it."""
        self.forget(id)
        if self._writing:
            self._heard[id] = revision

    def clear(self) -> None:
        """Drops all that is held: changes may have been missed."""
        self._changes += 1
        self._entities.clear()

    def forget(self, id: str) -> None:
        """Drops what is held under this id."""
        self._changes += 1
        self._entities.pop(id, None)

    async def code(self, code: Code) -> str:
        """The code's text; raises `Corrupt` when its blob is gone."""
        if code.blob is None:
            return code.inline or ""
        text = self._code.get(code.blob)
        if text is None:
            text = (await self._blobs.get(code.blob)).decode()
            self._keep_code(code.blob, text)
        return text

    def _keep(self, entity: Entity) -> Entity:
        id = entity.name.id
        held = self._entities.get(id)
        if held is not None and held.revision >= entity.revision:
            return held
        self._entities.pop(id, None)
        while len(self._entities) >= self._limit:
            del self._entities[next(iter(self._entities))]
        self._entities[id] = entity
        return entity

    def _keep_code(self, digest: str, text: str) -> None:
        if digest in self._code or len(text) > CACHED_CODE_BYTES // 4:
            return
        while self._code and self._code_bytes + len(text) > CACHED_CODE_BYTES:
            self._code_bytes -= len(self._code.pop(next(iter(self._code))))
        self._code[digest] = text
        self._code_bytes += len(text)
