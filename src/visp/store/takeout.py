"""Takes everything out of a data folder, as documents, while a server writes it or not.

The entities are those of one moment; code or a file that is missing then was replaced since, and they are read again.
Records are those that the index had at about that moment: each is complete, and one that is swept meanwhile is left
out.
"""

from __future__ import annotations

import hashlib
from typing import IO, TYPE_CHECKING

import msgspec

from visp.entity.api import id_of
from visp.entity.package import Package
from visp.entity.portable import (
    ApiDocument,
    HeldNamespace,
    LimitsDocument,
    SubjectDocument,
    render_entity,
    render_record,
)
from visp.errors import Corrupt, Refused
from visp.store import apis, check, index, portable, promises, rows, sqlite
from visp.store.base import WITHIN
from visp.store.cache import blobs_of, from_document
from visp.store.database import FAILURES, read_only
from visp.store.portable import Manifest, PortableError, Writer
from visp.store.values import Values

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from visp.entity.portable import ClientDocument, Entity
    from visp.store.base import Document, KeyRecord, Subscription

TRIES = 3
PAGE = 500
CHECK = "`visp admin check` says what is damaged"


def take_out(
    data_dir: Path,
    file: IO[bytes],
    *,
    key_of: Callable[[KeyRecord], str] | None,
    client_of: Callable[[Subscription], ClientDocument],
    has_activations: bool,
    progress: Callable[[str, int], None],
) -> tuple[Manifest, list[str]]:
    """Writes an archive of the data folder to `file`; what is in it, and what could not be read.

    `key_of` opens a key; None leaves all of them out. `client_of` makes a document of a client of an API, or raises
    `Refused`. Raises `PortableError` and `OSError`.
    """
    writer = Writer(file)
    leaving = _Leaving(data_dir, writer.document, progress, writer)
    try:
        leaving.entities(key_of)
        leaving.clients(client_of)
        if has_activations:
            leaving.activations()
    except FAILURES as error:
        raise PortableError(f"the archive cannot be made: {error}; {CHECK}") from None
    return writer.finish(has_keys=key_of is not None, has_activations=has_activations), leaving.damages


TABLES = ("subjects", "whisks", "activations")
"""What OpenWhisk keeps apart: keys with limits, entities, records."""


def show(
    data_dir: Path, table: str, emit: Callable[[str, bytes], object], key_of: Callable[[KeyRecord], str] | None
) -> list[str]:
    """Gives each document of a table to `emit`, with its kind; what could not be read. Code is left out.

    Raises `PortableError`.
    """
    leaving = _Leaving(data_dir, emit, lambda _, __: None)
    try:
        if table == "activations":
            leaving.activations()
        else:
            with read_only(data_dir / check.ENTITIES) as db:
                db.execute("BEGIN")
                if table == "subjects":
                    leaving.subjects(db, key_of)
                else:
                    leaving.documents(db, {})
    except FAILURES as error:
        raise PortableError(f"the data cannot be read: {error}; {CHECK}") from None
    return leaving.damages


class _Leaving:
    """Documents on their way out; code and files go to the archive, where there is one."""

    def __init__(
        self,
        data_dir: Path,
        emit: Callable[[str, bytes], object],
        progress: Callable[[str, int], None],
        writer: Writer | None = None,
    ) -> None:
        self._emit = emit
        self._writer = writer
        self.damages: list[str] = []
        self._data_dir = data_dir
        self._progress = progress
        self._written: set[tuple[str, str]] = set()
        """Blobs that are in the archive, by kind and digest."""
        self._apis: set[str] = set()
        """Ids of APIs that went out."""
        self._told: dict[str, tuple[int, int]] = {}
        """Documents of each kind, and their bytes."""

    def entities(self, key_of: Callable[[KeyRecord], str] | None) -> None:
        for left in reversed(range(TRIES)):
            with read_only(self._data_dir / check.ENTITIES) as db:
                db.execute("BEGIN")
                missing = self._blobs(db)
                if missing and left:
                    continue
                self.damages += missing.values()
                self.documents(db, missing)
                self.subjects(db, key_of)
                self.apis(db)
                return

    def _blobs(self, db: sqlite3.Connection) -> dict[str, str]:
        """Writes the code and files that these entities name; what is missing of them, with a sentence for each."""
        missing: dict[str, str] = {}
        for kind, collection in ((portable.CODE, "actions"), (portable.FILES, "packages")):
            for document in self._scan(db, collection):
                for digest in blobs_of(from_document(document)):
                    if (kind, digest) not in self._written and digest not in missing and not self._blob(kind, digest):
                        missing[digest] = (
                            f"the code {digest} of {document.id} is missing or damaged: the action is left out"
                            if kind == portable.CODE
                            else f"the file {digest} of {document.id}'s site is missing or damaged: it is left out"
                        )
        return missing

    def _blob(self, kind: str, digest: str) -> bool:
        """Writes one; whether it is there, and what it was."""
        try:
            content = (self._data_dir / "blobs" / digest[:2] / digest).read_bytes()
        except FileNotFoundError:
            return False
        if hashlib.sha256(content).hexdigest() != digest:
            return False
        self._progress(f"{kind}/{digest}", len(content))
        if self._writer is not None:
            self._writer.blob(kind, digest, content)
        self._written.add((kind, digest))
        return True

    def documents(self, db: sqlite3.Connection, missing: dict[str, str]) -> None:
        for collection in portable.COLLECTIONS:
            for document in self._scan(db, collection):
                entity = _without(from_document(document), missing)
                if entity is not None:
                    self._document(collection, render_entity(entity))

    def apis(self, db: sqlite3.Connection) -> None:
        for document in self._scan(db, apis.COLLECTION, apis.from_document):
            told = ApiDocument(document.namespace, document.updated_ms, msgspec.Raw(document.body))
            self._document(portable.APIS, msgspec.json.encode(told))
            self._apis.add(id_of(document.namespace, document.name))

    def clients(self, client_of: Callable[[Subscription], ClientDocument]) -> None:
        """Those of the APIs that went out: of one that was made since, neither is there."""
        path = self._data_dir / check.PROMISES
        if not path.exists():
            return
        with read_only(path) as db:
            for row in db.execute(promises.SUBSCRIPTIONS_IN_ORDER):
                try:
                    held = promises.read_subscription(row)
                    if self._is_of_one(held):
                        self._document(portable.CLIENTS, msgspec.json.encode(client_of(held)))
                except (Corrupt, Refused):
                    self.damages.append(f"the client {row[3]!r} of {row[0]}{row[1]} does not read: it is left out")

    def _is_of_one(self, held: Subscription) -> bool:
        """Whether its API went out, or it is a client of all of its namespace's."""
        base_path = held.base_path.partition(WITHIN)[0]
        return not base_path or id_of(held.namespace, base_path) in self._apis

    def _scan(
        self, db: sqlite3.Connection, collection: str, read: Callable[[Document], object] = from_document
    ) -> Iterator[Document]:
        """Those that `read` takes; the others are said once."""
        after = ""
        while found := db.execute(sqlite.SCAN_DOCUMENTS, (collection, after, PAGE)).fetchall():
            for row in found:
                try:
                    document = rows.document(row)
                    read(document)
                except Corrupt:
                    said = f"{collection[:-1]} {row[0]!r} does not read: it is left out"
                    if said not in self.damages:
                        self.damages.append(said)
                    continue
                yield document
            after = found[-1][0]

    def subjects(self, db: sqlite3.Connection, key_of: Callable[[KeyRecord], str] | None) -> None:
        held: dict[str, list[KeyRecord]] = {}
        for row in db.execute(sqlite.ALL_KEYS).fetchall():
            try:
                key = rows.key(row)
            except Corrupt:
                self.damages.append(f"the key {row[0]!r} does not read: it is left out")
                continue
            held.setdefault(key.subject, []).append(key)
        for subject, keys in sorted(held.items()):
            namespaces = tuple(
                HeldNamespace(key.namespace, key.uuid, None if key_of is None else key_of(key))
                for key in sorted(keys, key=lambda key: (key.namespace, key.uuid))
            )
            found = SubjectDocument(subject, namespaces, any(key.is_blocked for key in keys))
            self._document(portable.SUBJECTS, msgspec.json.encode(found))
        for row in sorted(db.execute(sqlite.ALL_LIMITS).fetchall()):
            try:
                limits = msgspec.Raw(rows.limits(row))
            except Corrupt:
                self.damages.append(f"the limits of {row[0]!r} do not read: they are left out")
                continue
            self._document(portable.LIMITS, msgspec.json.encode(LimitsDocument(row[0], limits)))

    def activations(self) -> None:
        for path in sorted(self._data_dir.glob("activations-*.db")):
            for row in _records(path):
                try:
                    line = render_record(rows.record(row))
                except Corrupt:
                    self.damages.append(f"the record {row[0].hex()} does not read: it is left out")
                    continue
                self._document(portable.ACTIVATIONS, line)

    def _document(self, kind: str, line: bytes) -> None:
        written, size_bytes = self._told.get(kind, (0, 0))
        self._told[kind] = written + 1, size_bytes + len(line)
        if written % PAGE == 0:
            self._progress(kind, size_bytes)
        self._emit(kind, line)


def _without(entity: Entity, missing: dict[str, str]) -> Entity | None:
    """What is left of an entity without these blobs: nothing of an action, a package without some of its files."""
    if missing.keys().isdisjoint(blobs_of(entity)):
        return entity
    if not isinstance(entity, Package):
        return None
    site = {path: file for path, file in entity.site.items() if missing.keys().isdisjoint(file.digests)}
    return msgspec.structs.replace(entity, site=site)


def _records(path: Path) -> Iterator[rows.ActivationRow]:
    """The rows that an index has now, in pages of their own: a server that runs is not kept from its log."""
    values = Values(index.folder_of(path))
    after = b""
    with read_only(path) as db:
        (last,) = db.execute(index.NEWEST_ID).fetchone()
        while found := db.execute(index.ACTIVATIONS_AFTER, (after, last, PAGE)).fetchall():
            for row in found:
                whole = index.with_result(values, *row)
                is_lost = isinstance(row[5], int) and not whole[5]
                if is_lost and db.execute(index.HAS_ACTIVATION, (row[0],)).fetchone() is None:
                    continue  # it was swept since, with its result
                yield whole
            after = found[-1][0]
