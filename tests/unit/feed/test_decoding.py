"""What `test_decoding` writes, as changes."""

from __future__ import annotations

import json

import msgspec

from visp.feed.decoding import Reading, body, change, columns, is_slot


def decoded(text: str) -> object:
    return json.loads(msgspec.json.encode(columns(text)))


def test_columns_are_read_with_their_types() -> None:
    assert decoded(
        "id[integer]:1 name[character varying]:'it''s [a]: b' \"odd [\"\"x\"[text]:null tags[integer[]]:'{1,2}' "
        "on[boolean]:true n[numeric]:1.50 d[jsonb]:'{\"a\": [1]}' nan[double precision]:NaN bits[bit]:B'101' "
        "at[timestamp without time zone]:'2026-01-01 00:00:00' big[text]:unchanged-toast-datum last[text]:''"
    ) == {
        "id": 1, "name": "it's [a]: b", 'odd ["x': None, "tags": "{1,2}", "on": True, "n": 1.5, "d": {"a": [1]},
        "nan": "NaN", "bits": "101", "at": "2026-01-01 00:00:00", "last": "",
    }  # fmt: skip


def test_an_update_has_what_was() -> None:
    made = change("k", "0/1", "table public.t: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 a[text]:'x'")
    assert made is not None
    told = json.loads(msgspec.json.encode(body(made, ["id"])))
    assert told == {"table": "public.t", "op": "update", "key": {"id": 2}, "new": {"id": 2, "a": "x"}, "lsn": "0/1",
                    "old": {"id": 1}}  # fmt: skip


def test_deletions_and_truncations() -> None:
    gone = change("k", "0/1", "table public.t: DELETE: id[integer]:1")
    assert gone is not None
    assert (gone.op, gone.new, set(gone.old or ())) == ("delete", None, {"id"})
    nothing = change("k", "0/1", "table public.t: DELETE: (no-tuple-data)")
    assert nothing is not None
    assert nothing.old == {}
    emptied = change("k", "0/1", 'table public."My.t": TRUNCATE: (no-flags)')
    assert emptied is not None
    assert (emptied.table, emptied.op) == ("public.My.t", "truncate")
    assert change("k", "0/1", "message: transactional: 1") is None


def test_reading_goes_on_inside_a_transaction() -> None:
    lines = [("0/1", "BEGIN 7"), ("0/1", "table public.t: INSERT: id[integer]:1"),
             ("0/2", "table public.t: INSERT: id[integer]:2"), ("0/3", "COMMIT 7")]  # fmt: skip
    first = Reading()
    found = [first.take(lsn, 7, line) for lsn, line in lines[:2]]
    assert found[1] is not None
    position = first.position("0/0")
    assert position == {"lsn": "0/0", "xid": 7, "done": 1}
    again = Reading(7, 1)
    told = [again.take(lsn, 7, line) for lsn, line in lines]
    assert [one.id for one in told if one is not None] == ["0/2-2"]
    assert again.committed == "0/3"
    assert again.position("0/3") == {"lsn": "0/3"}


def test_names_of_slots() -> None:
    assert is_slot("visp_1")
    assert not any(map(is_slot, ("", "A", "a-b", "a" * 64)))
