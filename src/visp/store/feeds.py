"""Feeds of triggers, in the file of what a server owes: what was asked for, how each stands, and who has its source.

A feed names its holder, and a holder says until when it is there: whoever finds that past may take what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.entity.feed import FeedEntry, Progress
from visp.errors import Corrupt
from visp.store.rows import checksum, readable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from visp.store.base import Kept
    from visp.store.database import Database

_ROW = "namespace, trigger, id, is_active, entry, progress, crc"
_OF = "namespace = ? AND trigger = ?"
PUT = f"INSERT OR REPLACE INTO feeds ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?)"
GET = f"SELECT {_ROW} FROM feeds WHERE {_OF}"
BY_ID = f"SELECT {_ROW} FROM feeds WHERE id = ?"
LIST = f"SELECT {_ROW} FROM feeds WHERE namespace = ? ORDER BY trigger"
ALL_FEEDS = f"SELECT {_ROW} FROM feeds ORDER BY namespace, trigger"
COUNT = "SELECT count(*) FROM feeds WHERE namespace = ?"
DROP = f"DELETE FROM feeds WHERE {_OF}"
RENEW = "INSERT OR REPLACE INTO feed_holders VALUES (?, ?)"
GONE = "SELECT holder FROM feed_holders WHERE until_ms <= ?"
FREE = "SELECT namespace, trigger FROM feeds WHERE holder = ? AND is_active = 1"
TAKE = f"UPDATE feeds SET holder = ? WHERE {_OF}"
HELD = f"SELECT {_ROW} FROM feeds WHERE holder = ? AND is_active = 1"
HELD_ONE = f"{GET} AND holder = ? AND is_active = 1"
ANY = "SELECT 1 FROM feeds LIMIT 1"
RELEASE = "UPDATE feeds SET holder = '' WHERE holder = ?"
LEAVE = "DELETE FROM feed_holders WHERE holder = ?"
RELEASE_ALL = "UPDATE feeds SET holder = ''"
LEAVE_ALL = "DELETE FROM feed_holders"
HOLDER = f"SELECT id, holder FROM feeds WHERE {_OF}"
WRITE = f"UPDATE feeds SET is_active = ?, entry = ?, progress = ?, crc = ? WHERE {_OF}"

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(FeedEntry).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode

Row = tuple[str, str, str, int, bytes, bytes, int]


class SqliteFeeds:
    """The feeds of all namespaces."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ── what users do ───────────────────────────────────────────────────────────────────────────────────────────

    async def put_feed(self, entry: FeedEntry, progress: Progress, limit: int) -> bool:
        """In the place of the trigger's feed, if it has one; false when the namespace has `limit` of them."""
        row = _row(entry, progress)

        def change(db: sqlite3.Connection) -> bool:
            is_held = db.execute(GET, row[:2]).fetchone() is not None
            if not is_held and db.execute(COUNT, row[:1]).fetchone()[0] >= limit:
                return False
            db.execute(PUT, row)
            return True

        return await self._database.write(change)

    async def change_feed(self, entry: FeedEntry) -> bool:
        """Replaces what is kept of this very feed; false when it is gone. Its progress stays.

        Whoever holds it goes on holding it, unless it is not active any more.
        """
        key = entry.namespace, entry.trigger

        def change(db: sqlite3.Connection) -> bool:
            found = db.execute(GET, key).fetchone()
            if found is None or found[2] != entry.id:
                return False
            _, progress = read_feed(found)
            db.execute(WRITE, (*_row(entry, progress)[3:], *key))
            return True

        return await self._database.write(change)

    async def feed(self, namespace: str, trigger: str) -> Kept | None:
        """Raises `Corrupt`."""
        row = await self._database.read(lambda db: db.execute(GET, (namespace, trigger)).fetchone())
        return None if row is None else read_feed(row)

    async def feeds(self, namespace: str) -> Sequence[Kept]:
        """All of a namespace, by trigger."""
        rows = await self._database.read(lambda db: db.execute(LIST, (namespace,)).fetchall())
        return readable(rows, read_feed)

    async def feed_of(self, id: str) -> Kept | None:
        """Raises `Corrupt`."""
        row = await self._database.read(lambda db: db.execute(BY_ID, (id,)).fetchone())
        return None if row is None else read_feed(row)

    async def count_feed(self, entry: FeedEntry, fired: int, at_ms: int) -> None:
        """So many events more were fired of this very feed."""
        key = entry.namespace, entry.trigger

        def change(db: sqlite3.Connection) -> None:
            found = db.execute(GET, key).fetchone()
            if found is not None and found[2] == entry.id:
                kept, progress = read_feed(found)
                more = msgspec.structs.replace(progress, fired=progress.fired + fired, last_event_ms=at_ms)
                db.execute(WRITE, (*_row(kept, more)[3:], *key))

        await self._database.write(change)

    async def drop_feed(self, namespace: str, trigger: str) -> bool:
        """Whether there was one."""
        return await self._database.write(lambda db: db.execute(DROP, (namespace, trigger)).rowcount > 0)

    # ── what those who run sources do ───────────────────────────────────────────────────────────────────────────

    async def free_all(self) -> None:
        """Nobody holds any: the server has just begun, and none of its processes runs."""

        def change(db: sqlite3.Connection) -> None:
            db.execute(RELEASE_ALL)
            db.execute(LEAVE_ALL)

        await self._database.write(change)

    async def lease(self, holder: str, now_ms: int, until_ms: int, share: int) -> Sequence[tuple[str, str]]:
        """`holder` is there until then; it takes one of `share` parts of what nobody has: namespaces and triggers."""

        def change(db: sqlite3.Connection) -> list[tuple[str, str]]:
            if db.execute(ANY).fetchone() is None:
                return []  # nothing is written for nothing: a server at rest leaves the disk alone
            db.execute(RENEW, (holder, until_ms))
            gone = [name for (name,) in db.execute(GONE, (now_ms,)).fetchall()]
            free = [key for name in ("", *gone) for key in db.execute(FREE, (name,)).fetchall()]
            taken = free[: -(-len(free) // share)]
            for key in taken:
                db.execute(TAKE, (holder, *key))
            return taken

        return await self._database.write(change)

    async def held(self, holder: str, keys: Collection[tuple[str, str]] | None = None) -> Sequence[Kept]:
        """What it has of these triggers, or all that it has."""

        def read(db: sqlite3.Connection) -> list[Kept]:
            if keys is None:
                return readable(db.execute(HELD, (holder,)), read_feed)
            found = (db.execute(HELD_ONE, (*key, holder)).fetchone() for key in keys)
            return readable((row for row in found if row is not None), read_feed)

        return await self._database.read(read)

    async def release(self, holder: str) -> None:
        """Whatever it has is anybody's from now on."""

        def change(db: sqlite3.Connection) -> None:
            db.execute(RELEASE, (holder,))
            db.execute(LEAVE, (holder,))

        await self._database.write(change)

    async def advance(
        self, entry: FeedEntry, progress: Progress, holder: str, *, disabled: FeedEntry | None = None
    ) -> bool:
        """Keeps how a feed stands; false when it is not the holder's any more. `disabled` takes the entry's place."""
        key = entry.namespace, entry.trigger

        def change(db: sqlite3.Connection) -> bool:
            held = db.execute(GET, key).fetchone()
            if held is None or db.execute(HOLDER, key).fetchone() != (entry.id, holder):
                return False
            kept, before = read_feed(held)
            # what is told to a feed's own address is counted beside its source
            fired, last_ms = max(progress.fired, before.fired), progress.last_event_ms or before.last_event_ms
            stands = msgspec.structs.replace(progress, fired=fired, last_event_ms=last_ms)
            db.execute(WRITE, (*_row(disabled or kept, stands)[3:], *key))
            return True

        return await self._database.write(change)


def _row(entry: FeedEntry, progress: Progress) -> Row:
    values = (entry.namespace, entry.trigger, entry.id, int(entry.is_active), _encode(entry), _encode(progress))
    return (*values, checksum(*values))


def read_feed(row: Row) -> Kept:
    """Raises `Corrupt`."""
    *values, crc = row
    if checksum(*values) != crc:
        raise Corrupt()
    return _decode_entry(row[4]), _decode_progress(row[5])
