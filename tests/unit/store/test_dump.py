"""Dumps of CouchDB: every way in which the documents of a database are fetched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from visp.store import dump
from visp.store.dump import DumpError, NewIds, documents

if TYPE_CHECKING:
    from pathlib import Path

DOCS = [{"_id": "a", "x": [1, {"y": "]}"}]}, {"_id": "b", "text": "\n[{"}, {"_id": "c"}]
ROWS = [{"id": doc["_id"], "key": doc["_id"], "value": {"rev": "1-x"}, "doc": doc} for doc in DOCS]
ALL_DOCS = {"total_rows": 3, "offset": 0, "rows": ROWS}


def lines(values: list, end: str = "\n") -> str:
    return end.join(json.dumps(value) for value in values)


COUCHDB = '{"total_rows":3,"offset":0,"rows":[\r\n' + lines(ROWS, ",\r\n") + "\r\n]}\n"


@pytest.mark.parametrize(
    "text",
    [
        COUCHDB,
        json.dumps(ALL_DOCS),
        json.dumps(ALL_DOCS, indent=2),
        json.dumps(DOCS),
        json.dumps(DOCS, indent=1),
        json.dumps({"docs": DOCS}),
        "[\n" + lines(DOCS, ",\n") + "\n]\n",
        lines(DOCS),
        "\n" + lines(DOCS, "\n\n") + "\n",
        lines([DOCS[:2], DOCS[2:]]) + "\n",
        lines([{"docs": DOCS[:1]}, *DOCS[1:]]),
    ],
)
def test_every_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dump.json"
    path.write_text(text)
    assert [json.loads(raw) for raw in documents(path)] == DOCS


def test_numbers_and_lone_surrogates_stay(tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    path.write_text('{"_id":"a","n":1.50,"big":123456789012345678901234567890}\n')
    assert list(documents(path)) == [path.read_bytes().strip()]
    path.write_text('{"rows":[\n{"id":"a","doc":{"_id":"a","s":"\\ud83d"}}\n]}')
    assert [json.loads(raw) for raw in documents(path)] == [{"_id": "a", "s": "\ud83d"}]
    path.write_text('[{"_id":"a","s":"\\ud83d"}]')
    assert [json.loads(raw) for raw in documents(path)] == [{"_id": "a", "s": "\ud83d"}]


def test_an_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    for text in ("", "[]", "[\n]", '{"total_rows":0,"offset":0,"rows":[\n\n]}'):
        path.write_text(text)
        assert list(documents(path)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (COUCHDB.rpartition("\r\n]}")[0], "its end"),
        (COUCHDB[:-40], "was cut short"),
        (lines(DOCS)[:-3], "was cut short"),
        ("-- a table\n1,2\n", "is no dump"),
        ("[1, 2]", "is no dump"),
        ('{"rows":[{"id":"a","value":{}}]}', "include_docs=true"),
        ('{"rows":[\n{"id":"a","value":{}}\n]}', "include_docs=true"),
    ],
)
def test_what_is_no_dump(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "dump.json"
    path.write_text(text)
    with pytest.raises(DumpError, match=says):
        list(documents(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="cannot be read"):
        list(documents(tmp_path / "no.json"))


def test_what_is_too_large_to_be_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dump.json"
    monkeypatch.setattr(dump, "WHOLE_BYTES", 200)
    path.write_text(json.dumps(ALL_DOCS, indent=2))
    with pytest.raises(DumpError, match="too large"):
        list(documents(path))
    path.write_text(json.dumps(ALL_DOCS))
    with pytest.raises(DumpError, match="too long"):
        list(documents(path))


def test_new_ids() -> None:
    with NewIds() as ids:
        new = ids.add("ab" * 16, 0x18C000000001)
        assert new is not None
        assert (new[:14], len(new)) == ("18c00000000100", 32)
        assert ids.add("ab" * 16, 5) is None
        assert (ids.get("ab" * 16), ids.get("cd" * 16)) == (new, None)
    with NewIds() as others:
        assert others.add("ab" * 16, 0x18C000000001) == new
