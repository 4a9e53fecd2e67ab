"""What PostgreSQL's plugin `test_decoding` writes about changes, read. Pure.

BEGIN 742
table public.orders: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 name[text]:'it''s'
COMMIT 742
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from visp.feed.base import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

PEEK = (
    "SELECT lsn::text AS lsn, xid::text::bigint AS xid, data FROM pg_logical_slot_peek_changes("
    "$1, NULL, 5000, 'include-xids', '1', 'skip-empty-xacts', '1')"
)
_SLOT = re.compile(r"[a-z0-9_]{1,63}\Z")
_HEAD = re.compile(
    r'table ((?:"(?:[^"]|"")*"|[^\s.":]+)\.(?:"(?:[^"]|"")*"|[^\s.":]+)): (INSERT|UPDATE|DELETE|TRUNCATE): ?'
)
_COLUMN = re.compile(r'\s*("(?:[^"]|"")*"|[^\s\["]+)\[((?:[^\[\]]|\[\])*)\]:')
_VALUE = re.compile(r"B?'((?:[^']|'')*)'|(\S+)")
_NUMBERS = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision", "oid"})
_DOCUMENTS = frozenset({"json", "jsonb"})
UNCHANGED = "unchanged-toast-datum"

Row = dict[str, Json]


class Change(msgspec.Struct, frozen=True):
    """`id` tells it from all others of its database; `old` is what the table's replica identity makes known."""

    id: str
    lsn: str
    table: str
    op: str
    old: Row | None
    new: Row | None


class Reading:
    """Where one is in the lines of a slot; of the transaction `xid` the first `done` changes are left out."""

    def __init__(self, xid: int | None = None, done: int = 0) -> None:
        self._skipped = (xid, done)
        self._xid: int | None = None
        self._count = 0
        self.committed: str | None = None

    def take(self, lsn: str, xid: int, line: str) -> Change | None:
        """The change that a line tells of; `committed` is the end of the transaction that it ends."""
        self.committed = None
        if line.startswith("BEGIN"):
            self._xid, self._count = xid, 0
            return None
        if line.startswith("COMMIT"):
            self._xid, self.committed = None, lsn
            return None
        self._count += 1
        if self._skipped[0] == xid and self._count <= self._skipped[1]:
            return None
        return change(f"{lsn}-{self._count}", lsn, line)

    def position(self, lsn: str | None) -> Json:
        kept: dict[str, Json] = {} if lsn is None else {"lsn": lsn}
        if self._xid is not None:
            kept |= {"xid": self._xid, "done": self._count}
        return kept


def change(id: str, lsn: str, line: str) -> Change | None:
    """None: it is none of a table's."""
    head = _HEAD.match(line)
    if head is None:
        return None
    table = ".".join(_unquoted(part) for part in re.findall(r'"(?:[^"]|"")*"|[^.]+', head[1]))
    rest, op = line[head.end() :], head[2].lower()
    old: Row | None = None
    if op == "truncate":
        return Change(id, lsn, table, op, None, None)
    if op == "delete":
        return Change(id, lsn, table, op, columns(rest), None)
    if rest.startswith("old-key: "):
        old, end = _columns(rest, len("old-key: "))
        rest = rest[end:].lstrip().removeprefix("new-tuple: ")
    return Change(id, lsn, table, op, old, columns(rest))


def columns(text: str) -> Row:
    return _columns(text, 0)[0]


def _columns(text: str, at: int) -> tuple[Row, int]:
    """The columns from there on, and where they end."""
    row: Row = {}
    while (column := _COLUMN.match(text, at)) is not None:
        value = _VALUE.match(text, column.end())
        if value is None:
            break
        at = value.end()
        if value[2] != UNCHANGED:
            row[_unquoted(column[1])] = _value(column[2], value[1], value[2])
    return row, at


def _value(kind: str, quoted: str | None, bare: str | None) -> Json:
    if bare == "null":
        return None
    if bare in ("true", "false"):
        return bare == "true"
    text = quoted.replace("''", "'") if quoted is not None else bare or ""
    if kind in _NUMBERS or kind in _DOCUMENTS or kind.startswith("numeric("):
        try:
            msgspec.json.decode(text)
            return msgspec.Raw(text.encode())
        except (msgspec.DecodeError, RecursionError):
            return text
    return text


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def body(change: Change, keys: Sequence[str]) -> Json:
    """A change as an event: the key is that of the row as it is, or was."""
    row = change.new or change.old or {}
    told: dict[str, Json] = {
        "table": change.table,
        "op": change.op,
        "key": {name: row[name] for name in keys if name in row},
        "new": change.new,
        "lsn": change.lsn,
    }
    return told if change.old is None else {**told, "old": change.old}


def is_slot(name: str) -> bool:
    return _SLOT.match(name) is not None
