"""Reads everything that a data folder holds, and says what is damaged. Changes nothing; a server may run meanwhile.

Each function looks at one part and gives what is wrong with it. What a server that runs removes or writes while it is
being read is no damage: a thing that looks damaged is looked at a second time.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import msgspec

from visp.errors import VispError
from visp.store import feeds, frames, index, promises, rows, sqlite, tallies, wal
from visp.store.cache import WITH_BLOBS, blobs_of, from_document
from visp.store.database import FAILURES, read_only
from visp.store.frames import Type
from visp.store.values import Values

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path


RESTORE = "stop the server and restore a backup: visp admin restore FILE --data-dir {folder} --replace"
RECORD_LOST = "the record is answered with an error and left out of lists; it goes with its age"
TOLD = 20
"""Damages of one kind in one file that are told one by one."""
LOOKS = 3
ENTITIES, PROMISES = "entities.db", "promises.db"
INDEX_NAME = re.compile(r"activations-(\d+)\.db")
SEGMENT_NAME = re.compile(r"[0-9a-f]{16}\.seg")


class Damage(msgspec.Struct, frozen=True):
    """One thing that is damaged, what is wrong with it, and what to do."""

    path: str
    says: str
    mend: str


def everything(data_dir: Path, *, is_running: bool, progress: Callable[[str, int], None]) -> Iterator[Damage]:
    """Every damage of a data folder; `is_running` when a server may write it meanwhile.

    `progress` hears what is looked at, and how many bytes it has.
    """
    named: dict[str, str] = {}
    path = data_dir / ENTITIES
    if path.exists():
        progress(path.name, path.stat().st_size)
        yield from _log(path, is_running)
        yield from entities(path, named)
    path = data_dir / PROMISES
    if path.exists():
        progress(path.name, path.stat().st_size)
        yield from _log(path, is_running)
        yield from promised(path)
    for path in sorted(data_dir.glob("activations-*.db")):
        progress(path.name, path.stat().st_size)
        yield from activations(path, Values(index.folder_of(path)))
    for folder in sorted((data_dir / "ledger").glob("*/")):
        progress(f"ledger/{folder.name}", sum(path.stat().st_size for path in _segments(folder)))
        yield from ledger(folder)
    progress("blobs", 0)
    yield from blobs(data_dir / "blobs", named)


# ── SQLite ──────────────────────────────────────────────────────────────────────────────────────────────────────


def entities(path: Path, named: dict[str, str]) -> Iterator[Damage]:
    """Damages of the entities' file. `named` gets the blobs that its entities name, and one entity for each."""
    mend = RESTORE.format(folder=path.parent)

    def read_document(row: Any) -> None:
        document = rows.document(row)
        if document.collection in WITH_BLOBS:
            named.update(dict.fromkeys(blobs_of(from_document(document)), document.id))

    try:
        with read_only(path) as db:
            yield from _version(db, path, len(sqlite.ENTITY_MIGRATIONS))
            yield from _pages(db, path, mend)
            for sql, read in (
                (sqlite.ALL_DOCUMENTS, read_document),
                (sqlite.ALL_KEYS, rows.key),
                (sqlite.ALL_LIMITS, rows.limits),
            ):
                bad = (f"the row {row[0]!r}" for row in db.execute(sql) if not _reads(read, row))
                yield from _told(path, bad, mend)
            yield from _counter(db, sqlite.GET_LAST_REVISION, path, mend)
    except FAILURES as error:
        yield Damage(str(path), f"cannot be read: {error}", mend)


def activations(path: Path, values: Values) -> Iterator[Damage]:
    """Damages of an index of records and of its large results."""
    mend = (
        f"{RESTORE.format(folder=path.parent)}; or stop the server and move {path.name}, its -wal, -shm and "
        f"{path.stem}.values away: records that are no longer in the ledger are lost then"
    )
    try:
        with read_only(path) as db:
            yield from _version(db, path, len(index.ACTIVATION_MIGRATIONS))
            yield from _pages(db, path, mend)
            yield from _counter(db, index.PROGRESS, path, "start the server: it indexes anew what the ledger holds")
            suspect = [row[0] for row in db.execute(index.ALL_ACTIVATIONS) if not is_whole(row, values)]
        with read_only(path) as db:  # as it is now: what has been removed meanwhile is no damage
            bad = (
                f"the record {id.hex() if isinstance(id, bytes) else repr(id)}"
                for id in suspect
                for row in db.execute(index.ONE_ACTIVATION, (id,)).fetchall()
                if not is_whole(row, values)
            )
            yield from _told(path, bad, RECORD_LOST)
            for (namespace,) in db.execute(tallies.MISCOUNTED).fetchall():
                yield Damage(str(path), f"the number of records of {namespace} is not what is counted", mend)
    except FAILURES as error:
        yield Damage(str(path), f"cannot be read: {error}", mend)


def promised(path: Path) -> Iterator[Damage]:
    """Damages of the file of dead letters, idempotency keys, batches and subscriptions."""
    mend = RESTORE.format(folder=path.parent)
    try:
        with read_only(path) as db:
            yield from _version(db, path, len(promises.MIGRATIONS))
            yield from _pages(db, path, mend)
            for sql, read in (
                (promises.ALL_LETTERS, promises.read_letter),
                (promises.ALL_PROMISES, promises.read_promise),
                (promises.ALL_BATCHES, promises.read_batch),
                (promises.ALL_SUBSCRIPTIONS, promises.read_subscription),
                (feeds.ALL_FEEDS, feeds.read_feed),
            ):
                bad = (f"the row {row[0]!r}" for row in db.execute(sql) if not _reads(read, row))
                yield from _told(path, bad, mend)
            for (namespace,) in db.execute(promises.MISCOUNTED).fetchall():
                yield Damage(str(path), f"the number of keys of {namespace} is not what is counted", mend)
    except FAILURES as error:
        yield Damage(str(path), f"cannot be read: {error}", mend)


def is_whole(row: Sequence[Any], values: Values) -> bool:
    """Whether a record reads, with its result."""
    return _reads(lambda row: rows.record(index.with_result(values, *row)), row)


def _version(db: sqlite3.Connection, path: Path, newest: int) -> Iterator[Damage]:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > newest:
        yield Damage(str(path), f"a newer visp wrote it (version {version}, this one knows {newest})", "use that one")
    elif version < newest:
        says = f"is of version {version}, this visp's is {newest}"
        yield Damage(str(path), says, "start the server once, and check again")


def _pages(db: sqlite3.Connection, path: Path, mend: str) -> Iterator[Damage]:
    for (found,) in db.execute(f"PRAGMA integrity_check({TOLD})").fetchall():
        if found != "ok":
            yield Damage(str(path), " ".join(str(found).split()), mend)


def _counter(db: sqlite3.Connection, sql: str, path: Path, mend: str) -> Iterator[Damage]:
    value, crc = db.execute(sql).fetchone() or (0, rows.NO_CHECKSUM)
    if rows.checksum(value) != crc:
        yield Damage(str(path), "its counter does not match its checksum", mend)


def _log(path: Path, is_running: bool) -> Iterator[Damage]:
    if not is_running and wal.examine(path).is_damaged:
        yield Damage(f"{path}-wal", "holds changes behind damage", RESTORE.format(folder=path.parent))


def _reads(read: Callable[[Any], object], row: Any) -> bool:
    try:
        read(row)
    except (VispError, ValueError, TypeError, OSError):
        return False
    return True


def _told(path: Path, damages: Iterable[str], mend: str) -> Iterator[Damage]:
    number = 0
    for number, what in enumerate(damages, 1):
        if number <= TOLD:
            yield Damage(str(path), f"{what} does not match its checksum", mend)
    if number > TOLD:
        yield Damage(str(path), f"{number - TOLD} more do not match theirs", mend)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def blobs(folder: Path, named: dict[str, str]) -> Iterator[Damage]:
    """Damages of stored code: what is not what its name says, and what an action names and is not there."""
    present = set()
    for path in sorted(folder.glob("*/[0-9a-f]*")):
        present.add(path.name)
        try:
            is_whole = hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        except FileNotFoundError:
            continue
        if not is_whole:
            user = named.get(path.name)
            yield Damage(
                str(path),
                "is not what its SHA-256 says",
                f"update the action {user} with its code" if user else "nothing uses it: remove it",
            )
    for digest, id in named.items():
        if digest not in present and not (folder / digest[:2] / digest).exists():
            yield Damage(str(folder / digest[:2] / digest), "is missing", f"update the action {id} with its code")


class Followed(msgspec.Struct, frozen=True):
    """How far a ledger is whole: `used` bytes of each segment that belongs to it; what is wrong, if anything is."""

    used: list[int]
    damage: str | None = None


def follow(parts: Sequence[tuple[int, Callable[[], bytes]]], enough: int | None = None) -> Followed:
    """Reads segments, each an offset and what loads it, as a start of the server does.

    Behind the end there may be what was being written; what is known to have been durable may not, but for what lies
    behind a segment that is missing at `enough` or later: one that came and went unseen.
    """
    used: list[int] = []
    end = synced_to = 0
    for number, (base, load) in enumerate(parts):
        data, end = load(), base
        try:
            for frame in frames.scan(data, base):
                _decode(frame)
                synced_to, end = max(synced_to, frame.synced_to), frame.end
        except (msgspec.MsgspecError, ValueError) as error:
            return Followed(used, f"the entry at byte {end - base} of {base:016x}.seg cannot be read ({error})")
        used.append(end - base)
        later = parts[number + 1 :]
        if later and later[0][0] == end:
            continue
        beyond = list(frames.scan_beyond(data, end - base, base))
        if later and not beyond and enough is not None and end >= enough:
            break
        for other, load_other in later:
            beyond += frames.scan_beyond(load_other(), 0, other)
        if max([synced_to, *(frame.synced_to for frame in beyond)]) > end:
            return Followed(used, f"it is damaged at byte {end - base} of {base:016x}.seg")
        break
    return Followed(used)


def ledger(folder: Path) -> Iterator[Damage]:
    """Damages of one shard's ledger."""
    mend = RESTORE.format(folder=folder.parent.parent)
    for path in _segments(folder):
        if SEGMENT_NAME.fullmatch(path.name) is None:
            yield Damage(str(path), "is no segment of a ledger", "move it away")
            return
    seen: Followed | None = None
    for _ in range(LOOKS):  # what looks damaged may have been written, or removed, while it was read
        try:
            paths = _segments(folder)
            found = follow([(int(path.stem, 16), path.read_bytes) for path in paths])
        except FileNotFoundError:
            continue
        if found.damage is None:
            return
        if found == seen:
            break
        seen = found
    if seen is not None and seen.damage is not None:
        mend += "; or move that file and those after it away, and lose what they hold"
        yield Damage(str(folder), seen.damage, mend)


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def _decode(frame: frames.Frame) -> None:
    if frame.type == Type.FINISHED:
        frames.read_finished(frame)
    elif frame.type == Type.ACCEPTED:
        frames.read_accepted(frame)
    elif frame.type == Type.LOGS:
        frames.read_logs(frame)
