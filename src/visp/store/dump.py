"""Files of a CouchDB dump: documents, in whichever way they were fetched.

Taken are the answer of `_all_docs?include_docs=true`, an array of documents, a document on each line, and an array on
each line, which is what couchbackup writes. As CouchDB and these tools write them, one is read after another; a file
whose JSON is laid out otherwise is read whole, up to a size.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sqlite3
from typing import IO, TYPE_CHECKING

import msgspec

from visp.entity.limits import MIB
from visp.entity.portable import fields_of
from visp.errors import Refused, VispError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE_BYTES = 1024 * MIB
"""Of a line, and of a file that cannot be read by lines."""
_OPENING = re.compile(rb'\[\Z|\{[^\[\]]*"(?P<list>rows|docs)"\s*:\s*\[\Z')
_CLOSING = re.compile(rb"\]\s*\}?\Z")
_LINES = "print a document on each line (jq -c '.rows[].doc')"


class DumpError(VispError):
    """A file that is no dump, or cannot be read; the sentence says why and what to do."""


_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _NotJson(Exception):
    """Of a line or a file."""


def documents(path: Path) -> Iterator[bytes]:
    """Each document of a file, as it stands there. Raises `DumpError`."""
    try:
        with path.open("rb") as file:
            lines = _lines(path, file)
            first = next(lines, b"")
            opening = _OPENING.match(first)
            if opening is not None:
                found = _elements(path, lines, has_rows=opening["list"] == b"rows")
            else:
                found = _values(path, first, lines)
            try:
                one = next(found, None)
            except _NotJson:  # the first document takes more than a line
                found, one = iter(_whole(path)), None
            if one is not None:
                yield one
            yield from found
    except OSError as error:
        raise DumpError(f"{path} cannot be read: {error.strerror or error}") from None
    except _NotJson as error:
        raise DumpError(f"{path} is no dump, or was cut short: at {error.args[0]!r}; {_LINES}") from None


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Those that are not empty."""
    while line := file.readline(WHOLE_BYTES + 1):
        if len(line) > WHOLE_BYTES:
            raise DumpError(f"{path} has a line that is too long: {_LINES}")
        if text := line.strip():
            yield text


def _elements(path: Path, lines: Iterator[bytes], *, has_rows: bool) -> Iterator[bytes]:
    """The rows or documents of one list, each on a line."""
    for line in lines:
        if _CLOSING.match(line):
            return
        text = line.removesuffix(b",")
        if text:
            yield _of_row(path, text) if has_rows else _object(text)
    raise _NotJson("its end")


def _values(path: Path, first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in itertools.chain([first] if first else [], lines):
        yield from _of_value(path, line)


def _whole(path: Path) -> list[bytes]:
    if path.stat().st_size > WHOLE_BYTES:
        raise DumpError(f"{path} is too large to be read at once: {_LINES}")
    return _of_value(path, path.read_bytes().strip())


def _of_value(path: Path, text: bytes) -> list[bytes]:
    """The documents of a value: it is one itself, an array of them, or an answer that holds one."""
    if text[:1] == b"[":
        return [_object(item) for item in _array(text)]
    fields = _fields(text)
    if "rows" in fields:
        return [_of_row(path, row) for row in _array(bytes(fields["rows"]))]
    if "docs" in fields:
        return [_object(item) for item in _array(bytes(fields["docs"]))]
    return [text]


def _of_row(path: Path, row: bytes) -> bytes:
    document = bytes(_fields(row).get("doc", b"null"))
    if document == b"null":
        raise DumpError(f"{path} has rows without documents: ask CouchDB for _all_docs?include_docs=true")
    return document


def _object(text: bytes) -> bytes:
    _fields(text)
    return text


def _fields(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return fields_of(text)
    except Refused:
        raise _NotJson(_shown(text)) from None


def _array(text: bytes) -> list[bytes]:
    """Lone surrogates are let through, as `fields_of` does."""
    try:
        return [bytes(item) for item in _decode_array(text)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return [json.dumps(item, separators=(",", ":")).encode() for item in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        raise _NotJson(_shown(text)) from None


def _shown(text: bytes) -> str:
    return text[:60].decode(errors="replace")


class NewIds:
    """Ids for foreign activations that begin with their time and name their shard, as all ids here do.

    The same old id at the same time is always given the same new one. They are kept on disk: there may be many.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute("CREATE TABLE ids (old BLOB PRIMARY KEY, new TEXT NOT NULL) WITHOUT ROWID")

    def __enter__(self) -> NewIds:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add(self, old: str, start_ms: int) -> str | None:
        """The new id; None for an old one that was there before."""
        new = f"{start_ms:012x}00{hashlib.sha256(old.encode()).hexdigest()[:18]}"
        added = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (bytes.fromhex(old), new)).rowcount
        return new if added else None

    def get(self, old: str) -> str | None:
        """The new id of an old one that was added."""
        found = self._db.execute("SELECT new FROM ids WHERE old = ?", (bytes.fromhex(old),)).fetchone()
        return None if found is None else str(found[0])
