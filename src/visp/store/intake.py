"""Brings documents into a data folder that no server uses: what is settled first is then written, or nothing is.

What a rule is linked to travels with the rule. A trigger that comes in place of another has, of the links in its
document, those whose rules come with it, and keeps those of rules that stay.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from visp.entity.activation import shard_of
from visp.entity.api import Api
from visp.entity.execs import INLINE_CODE_BYTES, Code, SequenceExec
from visp.entity.portable import Entity, link_of, linked
from visp.entity.rule import Rule
from visp.entity.trigger import RuleLink, RuleStatus, Trigger, unlink
from visp.errors import Corrupt
from visp.store import apis, check, promises, rows, sqlite
from visp.store.base import WITHIN, KeyRecord, Put, Subscription
from visp.store.cache import COLLECTIONS, from_document, to_document
from visp.store.database import Database, read_only
from visp.store.index import HAS_ACTIVATION, SqliteActivations
from visp.store.portable import PortableError
from visp.store.sqlite import ENTITY_MIGRATIONS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from visp.entity.action import Action
    from visp.entity.activation import ActivationRecord
    from visp.store.base import BlobStore, Document

T = TypeVar("T")
OnConflict = Literal["skip", "replace", "fail"]
_NOUNS = {kind: collection[:-1] for collection, kind in COLLECTIONS.items()}


class Coming(msgspec.Struct, kw_only=True):
    """What is to come: entities and APIs by id, pairs, and limits by namespace; activations come after them.

    `made` are the uuids of pairs whose keys were made here, for want of one: they never replace another. Nor do
    clients, when their secrets stayed behind (`has_secrets`).
    """

    entities: dict[str, Entity] = {}
    keys: list[KeyRecord] = []
    made: set[str] = set()
    limits: dict[str, bytes] = {}
    apis: dict[str, Api] = {}
    clients: list[Subscription] = []
    has_secrets: bool = True


class Settled(msgspec.Struct, kw_only=True):
    """What is going to be written, and what is there already, by sentences such as `action ns/a`.

    `taken` are the ids of entities that come, and `apis` of APIs; changes may be more of them, for triggers that rules
    are linked to.
    """

    changes: list[Put] = []
    taken: set[str] = set()
    apis: set[str] = set()
    keys: list[KeyRecord] = []
    gone_uuids: list[str] = []
    limits: dict[str, bytes] = {}
    clients: list[Subscription] = []
    conflicts: list[str] = []


# ── what is there ───────────────────────────────────────────────────────────────────────────────────────────────


def settle(db: sqlite3.Connection | None, coming: Coming, on_conflict: OnConflict) -> Settled:
    """Compares what comes with what is there (None: nothing); with `fail` as with `skip`, and conflicts are told.

    Raises `Corrupt` when something that is to be replaced does not read.
    """
    settled = Settled()
    is_replacing = on_conflict == "replace"
    there: dict[str, Document] = {}
    taken: dict[str, Entity] = {}
    for id, entity in coming.entities.items():
        old = _document(db, id)
        if old is not None:
            there[id] = old
            settled.conflicts.append(f"{_NOUNS[type(entity)]} {id}")
        if old is None or is_replacing:
            taken[id] = entity
    final = _with_links(db, taken, coming, there)
    settled.taken = set(taken)
    for id, entity in final.items():
        document = there.get(id)
        settled.changes.append(Put(to_document(entity), None if document is None else document.revision))
    for id, api in coming.apis.items():
        old = _document(db, id)
        if old is not None:
            settled.conflicts.append(f"API {api.base_path} of {api.namespace}")
        if old is None or is_replacing:
            settled.apis.add(id)
            settled.changes.append(Put(apis.to_document(api), None if old is None else old.revision))
    _settle_keys(db, coming, settled, is_replacing=is_replacing)
    for namespace, limits in coming.limits.items():
        is_there = db is not None and db.execute(sqlite.GET_LIMITS, (namespace,)).fetchone() is not None
        if is_there:
            settled.conflicts.append(f"limits {namespace}")
        if not is_there or is_replacing:
            settled.limits[namespace] = limits
    return settled


def _with_links(
    db: sqlite3.Connection | None, taken: dict[str, Entity], coming: Coming, there: dict[str, Document]
) -> dict[str, Entity]:
    """What is taken, and triggers that are there already where a rule that is taken hangs on them.

    `there` gets the documents of those triggers.
    """
    final = dict(taken)
    found = {id: rule for id, rule in taken.items() if isinstance(rule, Rule)}

    def held(id: str) -> Trigger | None:
        """The trigger as it is there."""
        if id not in there and (document := _document(db, id)) is not None:
            there[id] = document
        try:
            entity = from_document(there[id]) if id in there else None
        except Corrupt:
            return None
        return entity if isinstance(entity, Trigger) else None

    for id, trigger in taken.items():
        if isinstance(trigger, Trigger):
            left = (held(id) or trigger).rules if id in there else None
            links = {rule: link for rule, link in (left or {}).items() if rule not in found}
            links |= {
                rule: link
                for rule, link in (trigger.rules or {}).items()
                if rule in found or (rule not in coming.entities and rule not in links)
            }
            final[id] = linked(trigger, links, found)
    for id, rule in found.items():
        told = coming.entities.get(rule.trigger.id)
        link = (told.rules or {}).get(id) if isinstance(told, Trigger) else None
        previous = _previous(there.get(id))
        if previous is not None and previous.trigger != rule.trigger and previous.trigger.id not in taken:
            trigger_before = _of(final, previous.trigger.id) or held(previous.trigger.id)
            if trigger_before is not None and id in (trigger_before.rules or {}):
                final[previous.trigger.id] = unlink(trigger_before, id)
        if rule.trigger.id in taken:
            continue
        now = _of(final, rule.trigger.id) or held(rule.trigger.id)
        if now is not None:
            status = link.status if link is not None else _status(now, id)
            if status is not None:
                final[rule.trigger.id] = linked(now, (now.rules or {}) | {id: link_of(rule, status)}, {})
    return final


def _of(entities: dict[str, Entity], id: str) -> Trigger | None:
    entity = entities.get(id)
    return entity if isinstance(entity, Trigger) else None


def _status(trigger: Trigger, rule_id: str) -> RuleStatus | None:
    link: RuleLink | None = (trigger.rules or {}).get(rule_id)
    return None if link is None else link.status


def _previous(document: Document | None) -> Rule | None:
    try:
        entity = None if document is None else from_document(document)
    except Corrupt:
        return None
    return entity if isinstance(entity, Rule) else None


def _document(db: sqlite3.Connection | None, id: str) -> Document | None:
    row = None if db is None else db.execute(sqlite.GET_DOCUMENT, (id,)).fetchone()
    return None if row is None else rows.document(row)


def _settle_keys(db: sqlite3.Connection | None, coming: Coming, settled: Settled, *, is_replacing: bool) -> None:
    """A pair is in the way of one for the same subject and namespace, and of one with the same uuid."""
    present = [] if db is None else [rows.key(row) for row in db.execute(sqlite.ALL_KEYS).fetchall()]
    by_place = {(key.subject, key.namespace): key for key in present}
    by_uuid = {key.uuid: key for key in present}
    for key in coming.keys:
        old = [one for one in (by_place.get((key.subject, key.namespace)), by_uuid.get(key.uuid)) if one is not None]
        if old:
            settled.conflicts.append(f"subject {key.subject} with its key of {key.namespace}")
        if not old or (is_replacing and key.uuid not in coming.made):
            settled.keys.append(key)
            settled.gone_uuids += [one.uuid for one in old if one.uuid != key.uuid]


def settle_clients(
    db: sqlite3.Connection, coming: Coming, settled: Settled, *, is_replacing: bool, clients_most: int
) -> None:
    """Raises `PortableError` when a namespace would have more of them than it may."""
    fresh: dict[str, int] = {}
    for client in coming.clients:
        key = client.namespace, client.base_path, client.digest
        is_there = db.execute(promises.GET_SUBSCRIPTION, key).fetchone() is not None
        if is_there:
            where = client.base_path.replace(WITHIN, " at ") or "all APIs"
            settled.conflicts.append(f"client {client.client} of {where} of {client.namespace}")
        else:
            fresh[client.namespace] = fresh.get(client.namespace, 0) + 1
        if not is_there or (is_replacing and coming.has_secrets):
            settled.clients.append(client)
    for namespace, count in fresh.items():
        (held,) = db.execute(promises.COUNT_SUBSCRIPTIONS, (namespace,)).fetchone()
        if held + count > clients_most:
            raise PortableError(
                f"{namespace} would have {held + count} clients of APIs, may have {clients_most}: nothing was written"
            )


class Records:
    """The indexes of a data folder, to be asked whether an activation is there."""

    def __init__(self, data_dir: Path) -> None:
        self._stack = contextlib.ExitStack()
        paths = sorted(data_dir.glob("activations-*.db"))
        self._indexes = [self._stack.enter_context(read_only(path)) for path in paths]

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def has(self, id: str) -> bool:
        key = (bytes.fromhex(id),)
        return any(db.execute(HAS_ACTIVATION, key).fetchone() is not None for db in self._indexes)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Intake:
    """The stores of a data folder, to be written: entities and subjects in one transaction, clients of APIs in another,
    records in groups.
    """

    def __init__(self, data_dir: Path, database: Database, promised: Database) -> None:
        self._data_dir = data_dir
        self._database = database
        self._promised = promised
        self._indexes: dict[int, SqliteActivations] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, data_dir: Path) -> AsyncIterator[Intake]:
        database = await Database.open(data_dir / check.ENTITIES, ENTITY_MIGRATIONS, synchronous="FULL")
        try:
            promised = await Database.open(data_dir / check.PROMISES, promises.MIGRATIONS, synchronous="FULL")
            intake = cls(data_dir, database, promised)
            try:
                yield intake
            finally:
                for index in intake._indexes.values():
                    await index.close()
                await promised.close()
        finally:
            await database.close()

    async def settle(self, coming: Coming, on_conflict: OnConflict, clients_most: int = 0) -> Settled:
        """Raises `PortableError` when a namespace would have more clients than that."""
        settled = await self._database.read(lambda db: settle(db, coming, on_conflict))
        is_replacing = on_conflict == "replace"
        await self._promised.read(
            lambda db: settle_clients(db, coming, settled, is_replacing=is_replacing, clients_most=clients_most)
        )
        return settled

    async def write(self, settled: Settled) -> None:
        """All entities and subjects or none, then all clients or none.

        Raises `Conflict` when what is there has changed.
        """

        def change(db: sqlite3.Connection) -> None:
            for put in settled.changes:
                sqlite.write_change(db, put)
            for uuid in settled.gone_uuids:
                db.execute(sqlite.DELETE_KEY, (uuid,))
            for key in settled.keys:
                sqlite.write_key(db, key)
            for namespace, limits in settled.limits.items():
                sqlite.write_limits(db, namespace, limits)

        await self._database.write(change)
        rows_ = [promises.row_of(client) for client in settled.clients]
        if rows_:
            await self._promised.write(lambda db: db.executemany(promises.PUT_SUBSCRIPTION, rows_).rowcount)

    async def records(self, records: Sequence[ActivationRecord]) -> None:
        """Each goes to the shard that its id names."""
        by_shard: dict[int, list[ActivationRecord]] = {}
        for record in records:
            by_shard.setdefault(shard_of(record.head.id), []).append(record)
        for shard, some in by_shard.items():
            index = self._indexes.get(shard)
            if index is None:
                # by its ledger's folder a server knows that there is such a shard
                (self._data_dir / "ledger" / str(shard)).mkdir(mode=0o700, parents=True, exist_ok=True)
                index = await SqliteActivations.open(self._data_dir / f"activations-{shard}.db")
                self._indexes[shard] = index
            await index.put(some, await index.indexed_to())


async def with_code_apart(action: Action, blobs: BlobStore) -> Action:
    """The action with large code as a blob, as a PUT stores it."""
    code = action.exec.code
    if isinstance(action.exec, SequenceExec) or code is None or code.inline is None:
        return action
    content = code.inline.encode()
    if len(content) <= INLINE_CODE_BYTES:
        return action
    stored = Code(code.is_binary, blob=await blobs.put(content))
    return msgspec.structs.replace(action, exec=msgspec.structs.replace(action.exec, code=stored))
