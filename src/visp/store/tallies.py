"""How many records an index has, by the time of their start: who counts them, or skips many, does not walk over them.

There is a tally for each span of time in which something started, of a whole namespace and of each name in it: spans
of 16 seconds, and of 70 minutes. They are written with the rows that they count.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from visp.store.base import ActivationQuery
    from visp.store.index import SqliteActivations

    Tally = tuple[str, str, int, int]
    """Namespace, name, level, and the number of the span."""

WIDE, NARROW = LEVELS = (22, 14)
"""Of a span of 2^level milliseconds. A year has 7,500 wide ones; what is left at both ends of any time is 255 narrow
ones and the rows of less than one. A third level would cost writers more than it saves readers.
"""
STEP = WIDE - NARROW
ALL = ""
"""In the place of a name: all of the namespace."""
DEEP = 1_000
"""What is skipped is walked over up to here: that takes less time than to look for the place."""
END_MS = 1 << 62
"""After every start."""
TALLIES_AT_ONCE = 50

# ── written ─────────────────────────────────────────────────────────────────────────────────────────────────────

MAKE = (
    "CREATE TABLE tallies (namespace TEXT NOT NULL, name TEXT NOT NULL, level INTEGER NOT NULL, "
    "span INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (namespace, name, level, span)) WITHOUT ROWID"
)
_SOUND = "typeof(namespace) = 'text' AND typeof(name) = 'text' AND typeof(start_ms) = 'integer'"
_BY_NAME = (
    "SELECT namespace, name, 14, start_ms >> 14, count(*) AS count FROM activations "
    f"WHERE {_SOUND} GROUP BY namespace, name, start_ms >> 14"
)
_OF_ALL = "SELECT namespace, '', 14, span, sum(count) FROM tallies WHERE level = 14 AND name <> '' GROUP BY 1, span"
_WIDER = "SELECT namespace, name, 22, span >> 8, sum(count) FROM tallies WHERE level = 14 GROUP BY 1, 2, span >> 8"
FILL = tuple(f"INSERT INTO tallies {select}" for select in (_BY_NAME, _OF_ALL, _WIDER))
MISCOUNTED = (
    f"WITH counted (namespace, name, level, span, count) AS ({_BY_NAME} UNION ALL {_OF_ALL} UNION ALL {_WIDER} "
    "UNION ALL SELECT namespace, name, level, span, -count FROM tallies) "
    "SELECT DISTINCT namespace FROM counted GROUP BY namespace, name, level, span HAVING sum(count) <> 0"
)
"""Namespaces whose records are not as many as their tallies say."""
_ADD = "INSERT INTO tallies (namespace, name, level, span, count) VALUES "
_COUNTS = "(?, ?, ?, ?, ?)"
DROP_SPENT = "DELETE FROM tallies WHERE namespace = ? AND name = ? AND level = ? AND span = ? AND count <= 0"


def make(db: sqlite3.Connection) -> None:
    """The migration: an index of five million records takes some fifteen seconds."""
    db.execute(MAKE)
    for sql in FILL:
        db.execute(sql)


def add_tallies(count: int) -> str:
    """Adds to this many."""
    return f"{_ADD}{', '.join([_COUNTS] * count)} ON CONFLICT DO UPDATE SET count = count + excluded.count"


def tally(places: Iterable[tuple[Any, Any, Any]]) -> Counter[Tally]:
    """Counts of records by their namespace, name and start. Pure; what is damaged is in none."""
    narrow = Counter(
        (namespace, name, start_ms >> NARROW)
        for namespace, name, start_ms in places
        if isinstance(start_ms, int) and isinstance(name, str) and isinstance(namespace, str)
    )
    out: Counter[Tally] = Counter()
    for (namespace, name, span), count in narrow.items():
        if not (_is_text(namespace) and _is_text(name)):
            continue
        for level in LEVELS:
            at = span >> level - NARROW
            out[namespace, name, level, at] += count
            out[namespace, ALL, level, at] += count
    return out


def _is_text(name: str) -> bool:
    """Damaged bytes are read as surrogates, which cannot be written: there is no tally of them."""
    return name.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in name)


def add(db: sqlite3.Connection, counts: Mapping[Tally, int]) -> None:
    rows = [(*key, count) for key, count in counts.items()]
    for at in range(0, len(rows), TALLIES_AT_ONCE):
        some = rows[at : at + TALLIES_AT_ONCE]
        db.execute(add_tallies(len(some)), [value for row in some for value in row])


def take(db: sqlite3.Connection, counts: Mapping[Tally, int]) -> None:
    """Of rows that are gone."""
    add(db, {key: -count for key, count in counts.items()})
    db.executemany(DROP_SPENT, counts.keys())


# ── read ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _after(edge: str, starts: str) -> str:
    """How many rows start at this edge or later: those up to the next span's begin one by one."""
    tallied = " + ".join(
        "(SELECT coalesce(sum(count), 0) FROM tallies WHERE namespace = :namespace AND name = :name "
        f"AND level = {level} AND span >= :{edge}_{level} AND span < :{edge}_{level}_end)"
        for level in LEVELS
    )
    return (
        f"(SELECT count(*) FROM activations WHERE {starts} AND start_ms >= :{edge} AND start_ms < :{edge}_end)"
        f" + {tallied}"
    )


_OF_NAMESPACE = "namespace = :namespace"
_OF_NAME = "namespace = :namespace AND name = :name"
COUNT = f"SELECT {_after('low', _OF_NAMESPACE)} - ({_after('high', _OF_NAMESPACE)})"
COUNT_OF_NAME = f"SELECT {_after('low', _OF_NAME)} - ({_after('high', _OF_NAME)})"
TALLIES = (
    "SELECT span, count FROM tallies WHERE namespace = ? AND name = ? AND level = ? AND span >= ? AND span < ? "
    "ORDER BY span"
)


def count(db: sqlite3.Connection, query: ActivationQuery) -> int:
    low, high = window(query)
    if high < low:
        return 0
    values = {"namespace": query.namespace, "name": query.name or ALL} | _edge("low", low) | _edge("high", high + 1)
    (found,) = db.execute(COUNT if query.name is None else COUNT_OF_NAME, values).fetchone()
    return max(0, int(found))


def window(query: ActivationQuery) -> tuple[int, int]:
    """First and last start of what is asked for; in the range of what SQLite can hold and add one to."""
    low = 0 if query.since_ms is None else min(max(query.since_ms, 0), END_MS)
    high = END_MS if query.upto_ms is None else min(max(query.upto_ms, -1), END_MS)
    return low, high


def _edge(name: str, start_ms: int) -> dict[str, int]:
    """What is counted from this start on: rows up to the next narrow span, narrow spans up to the next wide one."""
    narrow, wide = -(-start_ms >> NARROW), -(-start_ms >> WIDE)
    return {
        name: start_ms,
        f"{name}_end": narrow << NARROW,
        f"{name}_{NARROW}": narrow,
        f"{name}_{NARROW}_end": wide << STEP,
        f"{name}_{WIDE}": wide,
        f"{name}_{WIDE}_end": END_MS,
    }


async def nearer(query: ActivationQuery, indexes: Sequence[SqliteActivations]) -> ActivationQuery:
    """The same page of these indexes together, asked for by a query that skips no more than one span has.

    Looked for from the newest record on: what is removed meanwhile, the oldest, moves nothing.
    """
    if query.skip < DEEP:
        return query
    left = query.skip
    if query.upto_ms is not None:
        newer = msgspec.structs.replace(query, since_ms=query.upto_ms + 1, upto_ms=None)
        left += sum(await asyncio.gather(*(index.count(newer) for index in indexes)))
    first, end = 0, END_MS
    for level in LEVELS:
        counts: Counter[int] = Counter()
        for found in await asyncio.gather(*(index.tallied(query, level, first, end) for index in indexes)):
            counts.update(found)
        for span in sorted(counts, reverse=True):
            if counts[span] > left:
                break
            left -= counts[span]
        else:
            return msgspec.structs.replace(query, skip=0, limit=0)
        first, end = span << STEP, (span + 1) << STEP
    return msgspec.structs.replace(query, upto_ms=((span + 1) << NARROW) - 1, skip=left)
