"""Moves what a server keeps out and in, as an archive that is of no store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from visp import premises
from visp.care import data_dir_of, secret_of
from visp.controller import subscriptions
from visp.controller.identities import NamespaceLimits, effective_limits, opens, pair_of, record_of
from visp.entity import portable as documents
from visp.entity.activation import shard_of
from visp.entity.api import Api, id_of
from visp.entity.execs import is_base64
from visp.entity.portable import StoredCode, StoredFile, reason_of
from visp.entity.site import FILE_LIMIT_BYTES
from visp.entity.subject import AuthKey
from visp.errors import Refused, RequestError
from visp.store import check, takeout
from visp.store.base import WITHIN
from visp.store.cache import COLLECTIONS, blobs_of
from visp.store.database import FAILURES
from visp.store.filesystem import FileBlobs
from visp.store.intake import Coming, Intake, Records
from visp.store.portable import (
    ACTIVATIONS,
    APIS,
    BLOBS,
    CLIENTS,
    CODE,
    KINDS,
    LIMITS,
    SUBJECTS,
    Manifest,
    PortableError,
    Reader,
)
from visp.store.segments import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from visp.entity.portable import ClientDocument, Entity, HeldNamespace
    from visp.entity.runtime_manifest import Manifest as RuntimeManifest
    from visp.settings import Settings
    from visp.store.base import KeyRecord, Subscription
    from visp.store.intake import OnConflict, Settled

    Progress = Callable[[str, int], None]

SHARDS = 64
"""Ids name one of so many."""
RECORDS_AT_ONCE = 500
TOLD = 5


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What came in: how much of each kind, what was there already and stayed, and keys that were made."""

    counts: dict[str, int]
    there: int = 0
    made: list[tuple[str, str, AuthKey]] = []


# ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def export(
    settings: Settings, target: Path | IO[bytes], *, has_keys: bool, has_activations: bool, progress: Progress
) -> tuple[Manifest, list[str]]:
    """Everything as one archive, to a file that appears when it is whole, or to a stream; what could not be read.

    Raises `PortableError`.
    """
    data_dir = data_dir_of(settings)
    if not (data_dir / check.ENTITIES).exists():
        raise PortableError(f"{data_dir} holds no data of a server: name its folder by --data-dir")
    key_of = _opener(settings, data_dir) if has_keys else None

    def write(file: IO[bytes]) -> tuple[Manifest, list[str]]:
        return takeout.take_out(
            data_dir,
            file,
            key_of=key_of,
            client_of=_leaver(settings, data_dir, has_keys=has_keys),
            has_activations=has_activations,
            progress=progress,
        )

    try:
        if not isinstance(target, Path):
            return write(target)
        target = target.resolve()
        if target.is_relative_to(data_dir):
            raise PortableError(f"{target} is in the data folder, with which it would be lost: choose another place")
        with _appearing(target) as file:
            return write(file)
    except OSError as error:
        raise PortableError(f"the archive cannot be written: {error.strerror or error}") from None


def show(settings: Settings, table: str, emit: Callable[[bytes], object], *, has_keys: bool) -> list[str]:
    """Gives a line for each document of a table (`takeout.TABLES`) to `emit`; what could not be read.

    Raises `PortableError`.
    """
    data_dir = data_dir_of(settings)
    if not (data_dir / check.ENTITIES).exists():
        raise PortableError(f"{data_dir} holds no data of a server: name its folder by --data-dir")
    key_of = _opener(settings, data_dir) if has_keys else None
    return takeout.show(data_dir, table, lambda _, line: emit(line + b"\n"), key_of)


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[IO[bytes]]:
    """A file for its owner alone, which gets its name when all of it is on disk."""
    if not target.parent.is_dir():
        raise PortableError(f"the folder {target.parent} is not there: make it, or choose another")
    if target.exists():
        raise PortableError(f"{target} is there already: choose another name")
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, target)
        sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def _opener(settings: Settings, data_dir: Path) -> Callable[[KeyRecord], str]:
    secret = secret_of(settings, data_dir)

    def key_of(record: KeyRecord) -> str:
        if secret is None or not opens(record.sealed, secret):
            raise PortableError(
                f"the secret in {premises.secret_path(settings, data_dir)} does not open the keys: put the right one "
                "there, or leave keys out by --no-keys"
            )
        return pair_of(record, secret).key

    return key_of


def _leaver(settings: Settings, data_dir: Path, *, has_keys: bool) -> Callable[[Subscription], ClientDocument]:
    secret = secret_of(settings, data_dir) if has_keys else None
    if has_keys and secret is None:
        secret = b""  # which opens nothing: keys have said so

    return lambda held: subscriptions.leaving(held, secret)


# ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def import_archive(settings: Settings, file: Path, on_conflict: OnConflict, progress: Progress) -> Taken:
    """Brings an archive into a data folder that no server uses: all of it was read and checked before.

    Raises `PortableError`, `CannotStart` and `StoreUnavailable`; entities and subjects are written all or none.
    """
    check_files([file])
    data_dir = premises.prepare_data_dir(settings)
    with premises.locked(data_dir):
        try:
            taken = asyncio.run(_import_archive(settings, data_dir, file, on_conflict, progress))
        except FAILURES as error:
            raise PortableError(f"{data_dir} cannot be written: {error}") from None
        hand_over(data_dir)
        return taken


async def _import_archive(
    settings: Settings, data_dir: Path, file: Path, on_conflict: OnConflict, progress: Progress
) -> Taken:
    with Records(data_dir) as records:
        archive = _Archive(settings, file, records, progress)
        manifest = archive.look_through()
        keys = archive.keys
        coming = Coming(
            entities=archive.entities,
            limits=archive.limits,
            apis=archive.apis,
            made=keys.made_uuids,
            has_secrets=manifest.has_keys,
        )
        secret = premises.read_secret(settings, data_dir)
        coming.keys = keys.records(secret)
        coming.clients = [subscriptions.arriving(client, secret) for client in archive.clients.values()]
        async with Intake.opened(data_dir) as intake:
            settled = await intake.settle(coming, on_conflict, subscriptions.SUBSCRIPTIONS_LIMIT)
            there = len(settled.conflicts) + archive.there
            if on_conflict == "fail" and there:
                raise _conflicts([*settled.conflicts, *archive.first_there][:TOLD], there)
            counts = counts_of(coming, settled)
            blobs, used = FileBlobs(data_dir / "blobs"), _blobs_of(coming.entities[id] for id in settled.taken)
            is_written = False
            for member in Reader(file).members():
                if member.kind in BLOBS:
                    if member.digest in used:
                        await blobs.put(member.content)
                    continue
                if not is_written:
                    await intake.write(settled)
                    is_written = True
                if member.kind == ACTIVATIONS:
                    progress(f"writing {ACTIVATIONS}", len(member.content))
                    found = map(documents.parse_record, member.lines())
                    some = [one for one in found if on_conflict == "replace" or not records.has(one.head.id)]
                    counts[ACTIVATIONS] += len(some)
                    for at in range(0, len(some), RECORDS_AT_ONCE):
                        await intake.records(some[at : at + RECORDS_AT_ONCE])
            if not is_written:
                await intake.write(settled)
    return Taken(counts=dict(counts), there=0 if on_conflict == "replace" else there, made=keys.made_of(settled))


def check_files(files: Sequence[Path]) -> None:
    """They are read twice, which a pipe cannot be."""
    for file in files:
        if not file.is_file():
            raise PortableError(f"there is no file {file}")


def _conflicts(first: Sequence[str], count: int) -> PortableError:
    others = f" and {count - len(first)} more" if count > len(first) else ""
    return PortableError(
        f"there is already: {', '.join(first)}{others}; nothing was written: --on-conflict skip keeps what is there, "
        "--on-conflict replace takes what comes"
    )


def _blobs_of(entities: Iterator[Entity]) -> set[str]:
    return {blob for entity in entities for blob in blobs_of(entity)}


def counts_of(coming: Coming, settled: Settled) -> Counter[str]:
    """How much of each kind is taken, but for activations."""
    counts = Counter(dict.fromkeys(KINDS, 0))
    collection_of = {kind: collection for collection, kind in COLLECTIONS.items()}
    counts.update(collection_of[type(coming.entities[id])] for id in settled.taken)
    counts[SUBJECTS] = len({key.subject for key in settled.keys})
    counts[LIMITS] = len(settled.limits)
    counts[APIS] = len(settled.apis)
    counts[CLIENTS] = len(settled.clients)
    return counts


class Keys:
    """Pairs that come, each for one subject and namespace."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, AuthKey]] = []
        self._held: list[tuple[str, str, AuthKey, bool]] = []
        self._uuids: set[str] = set()

    def add(self, subject: str, held: HeldNamespace, *, is_blocked: bool) -> None:
        """Raises `Refused`."""
        auth = documents.pair_of(subject, held)
        if auth.uuid in self._uuids:
            raise Refused(f"its authorization id for the namespace {held.name} comes twice")
        self._uuids.add(auth.uuid)
        self._held.append((subject, held.name, auth, is_blocked))
        if held.key is None:
            self.made.append((subject, held.name, auth))

    @property
    def made_uuids(self) -> set[str]:
        return {auth.uuid for _, _, auth in self.made}

    def made_of(self, settled: Settled) -> list[tuple[str, str, AuthKey]]:
        """The keys that were made, of pairs that were taken."""
        taken = {key.uuid for key in settled.keys}
        return [one for one in self.made if one[2].uuid in taken]

    def records(self, secret: bytes) -> list[KeyRecord]:
        return [
            msgspec.structs.replace(
                record_of(auth, secret, subject=subject, namespace=namespace), is_blocked=is_blocked
            )
            for subject, namespace, auth, is_blocked in self._held
        ]


def checked_limits(limits: msgspec.Raw, settings: Settings) -> tuple[bytes, list[str]]:
    """A namespace's limits, and the names of those that are none of ours and left out; raises `Refused`."""
    known = {field.encode_name for field in msgspec.structs.fields(NamespaceLimits)}
    fields = documents.fields_of(bytes(limits))
    kept = msgspec.json.encode({name: value for name, value in fields.items() if name in known})
    try:
        effective_limits(msgspec.json.decode(kept, type=NamespaceLimits), settings.limits)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise Refused(str(error)) from None
    return kept, sorted(fields.keys() - known)


def hand_over(data_dir: Path) -> None:
    """What root has made belongs to whom the folder belongs to."""
    owner = data_dir.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for folder in ("blobs", "ledger"):
        for path in (data_dir / folder, *(data_dir / folder).rglob("*")):
            _give(path, owner)
    for pattern in ("*.db*", "*.values", "*.values/**/*", "secret", "lock"):
        for path in data_dir.glob(pattern):
            _give(path, owner)


def _give(path: Path, owner: os.stat_result) -> None:
    if path.exists() and path.lstat().st_uid == 0:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


class _Archive:
    """An archive that is looked through: what is in it, but for code, files and activations."""

    def __init__(self, settings: Settings, file: Path, records: Records, progress: Progress) -> None:
        self.entities: dict[str, Entity] = {}
        self.limits: dict[str, bytes] = {}
        self.apis: dict[str, Api] = {}
        self.clients: dict[tuple[str, str, str], ClientDocument] = {}
        """By namespace, base path and id."""
        self.keys = Keys()
        self.there = 0
        """Activations that are there already, and the first of them by name."""
        self.first_there: list[str] = []
        self._settings = settings
        self._file = file
        self._kinds: RuntimeManifest = premises.read_manifest(settings)
        self._records = records
        self._progress = progress
        self._code: dict[str, StoredCode] = {}
        self._files: dict[str, StoredFile] = {}
        self._counts: Counter[str] = Counter()

    def look_through(self) -> Manifest:
        """Raises `PortableError`."""
        reader = Reader(self._file)
        for member in reader.members():
            self._progress(f"verifying {member.kind}", len(member.content))
            if member.kind in BLOBS:
                self._counts[member.kind] += 1
                if member.kind == CODE:
                    self._code[member.digest] = self._stored(member.digest, member.content)
                else:
                    self._files[member.digest] = StoredFile(len(member.content), _held_by(member.content))
                continue
            for line in member.lines():
                self._counts[member.kind] += 1
                try:
                    self._take(member.kind, line)
                except (RequestError, Refused) as error:
                    where = f"{member.kind} {self._counts[member.kind]}"
                    raise PortableError(f"{self._file} cannot be taken: {where}: {reason_of(error)}") from None
        if Counter(reader.manifest.counts) != self._counts:
            raise PortableError(f"{self._file} is damaged: it has not what its manifest counts; take another export")
        for namespace, place, client in self.clients:
            base_path = place.partition(WITHIN)[0]
            if base_path and id_of(namespace, base_path) not in self.apis:
                raise PortableError(f"{self._file} cannot be taken: the API of its client {client} is not in it")
        return reader.manifest

    def _stored(self, digest: str, content: bytes) -> StoredCode:
        try:
            return StoredCode(len(content), is_base64(content.decode()))
        except UnicodeDecodeError:
            raise PortableError(f"{self._file} cannot be taken: the code {digest} is no text") from None

    def _take(self, kind: str, line: bytes) -> None:
        if kind == ACTIVATIONS:
            record = documents.parse_record(line)
            if shard_of(record.head.id) >= SHARDS:
                raise Refused(f"{record.head.id} is no id of visp's")
            if self._records.has(record.head.id):
                self.there += 1
                if self.there <= TOLD:
                    self.first_there.append(f"activation {record.head.id}")
        elif kind == SUBJECTS:
            found = documents.parse_subject(line)
            for held in found.namespaces:
                self.keys.add(found.subject, held, is_blocked=found.blocked)
        elif kind == LIMITS:
            given = documents.parse_namespace_limits(line)
            self.limits[given.namespace], _ = checked_limits(given.limits, self._settings)
        elif kind == APIS:
            api = documents.parse_api(line)
            id = id_of(api.namespace, api.base_path)
            if id in self.apis:
                raise Refused(f"the API {api.base_path} of {api.namespace} comes twice")
            self.apis[id] = api
        elif kind == CLIENTS:
            client = documents.parse_client(line)
            key = client.namespace, client.base_path, client.client
            if key in self.clients:
                raise Refused(f"the client {client.client} of {client.namespace}{client.base_path} comes twice")
            subscriptions.arriving(client, b"")
            self.clients[key] = client
        else:
            now_ms = time.time_ns() // 1_000_000
            entity = documents.parse_entity(kind, line, self._kinds, self._code, now_ms, self._files)
            if entity.name.id in self.entities:
                raise Refused(f"{entity.name.id} comes twice")
            self.entities[entity.name.id] = entity


def _held_by(content: bytes) -> str | None:
    """The digest of what a file in gzip's form holds, of none that is longer than a site's file may be."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        whole = inflater.decompress(content, FILE_LIMIT_BYTES + 1)
    except zlib.error:
        return None
    is_all = inflater.eof and not inflater.unused_data and len(whole) <= FILE_LIMIT_BYTES
    return hashlib.sha256(whole).hexdigest() if is_all else None
