"""ActionLoop without I/O: lines in, and the HTTP answers that they stand for."""

import json

import pytest

from visp.runtime import actionloop
from visp.runtime.actionloop import ENDLESS_BYTES, ReplyReader
from visp.runtime.base import Gone, Reply

NOT_A_DICTIONARY = "The action did not return a dictionary or array."


def read_all(reader: ReplyReader, *pieces: bytes) -> list[tuple[bytes, int]]:
    return [complete for piece in pieces if (complete := reader.feed(piece)) is not None]


@pytest.mark.parametrize(
    "pieces",
    [[b'{"a":1}\n'], [b'{"a"', b":1}\n"], [b'{"a":1}', b"\n"], [bytes([byte]) for byte in b'{"a":1}\n']],
    ids=["at once", "in two", "end apart", "byte by byte"],
)
def test_a_line_however_it_comes(pieces: list[bytes]) -> None:
    assert read_all(ReplyReader(100), *pieces) == [(b'{"a":1}', 7)]


def test_one_line_after_the_other() -> None:
    assert read_all(ReplyReader(100), b"[1]\n", b"[2", b"]\n", b"[3]\n") == [(b"[1]", 3), (b"[2]", 3), (b"[3]", 3)]


def test_what_follows_a_line_in_the_same_read_is_dropped() -> None:
    assert read_all(ReplyReader(100), b"[1]\n[2]\n", b"[3]\n") == [(b"[1]", 3), (b"[3]", 3)]


@pytest.mark.parametrize("pieces", [[b"x" * 30 + b"\n"], [b"x" * 8, b"x" * 22, b"\n"]])
def test_of_a_long_line_only_the_start_is_kept_and_all_of_it_counted(pieces: list[bytes]) -> None:
    assert read_all(ReplyReader(10), *pieces) == [(b"x" * 11, 30)]


def test_a_line_that_does_not_end_is_endless() -> None:
    reader = ReplyReader(10)
    piece = b"x" * (1 << 20)
    for _ in range(ENDLESS_BYTES // len(piece)):
        reader.feed(piece)
    assert not reader.is_endless
    reader.feed(b"x")
    assert reader.is_endless


@pytest.mark.parametrize("line", [b'{"a":1}', b"[1]", b'  {"a":1}'])
def test_an_object_or_array_is_answered_as_it_is(line: bytes) -> None:
    assert actionloop.run_reply(line, len(line), "python") == Reply(200, line, len(line))


@pytest.mark.parametrize("line", [b"", b"null", b'"text"', b"7"])
def test_anything_else_is_what_the_proxy_says_of_it(line: bytes) -> None:
    reply = actionloop.run_reply(line, len(line), "python")
    assert (reply.status, json.loads(reply.body)) == (502, {"error": NOT_A_DICTIONARY})
    assert reply.size_bytes == len(reply.body)


def test_a_family_without_a_proxy_answers_for_itself() -> None:
    assert actionloop.run_reply(b'"text"', 6, "nodejs") == Reply(200, b'"text"', 6)


@pytest.mark.parametrize("family", ["python", "nodejs"])
def test_an_exclamation_mark_is_an_error_status(family: str) -> None:
    assert actionloop.run_reply(b'!{"error":1}', 12, family) == Reply(502, b'{"error":1}', 11)
    assert actionloop.init_reply(b'!{"error":1}', 12) == Reply(502, b'{"error":1}', 11)


@pytest.mark.parametrize("line", [b'{"ok":true}', b'{"ok": true, "concurrent":true}'])
def test_init_is_good_where_a_line_says_so(line: bytes) -> None:
    assert actionloop.init_reply(line, len(line)) == Reply(200, line, len(line))


@pytest.mark.parametrize("line", [b"", b"{}", b'{"ok":false}', b'{"ok":1}', b"[]", b"ready", b"\xff"])
def test_any_other_line_is_no_good_init(line: bytes) -> None:
    reply = actionloop.init_reply(line, len(line))
    assert (reply.status, reply.body) == (502, b'{"error":"The action did not initialize properly."}')


def test_the_proxy_speaks_for_a_child_that_is_gone() -> None:
    gone = actionloop.gone("python", is_init=False, was_sent=True)
    assert gone.reply is not None
    assert (gone.reply.status, json.loads(gone.reply.body)) == (400, {"error": "command exited"})
    gone = actionloop.gone("python", is_init=True, was_sent=True)
    assert gone.reply is not None
    assert gone.reply.status == 502


def test_nobody_speaks_where_there_is_no_proxy_or_nothing_was_asked() -> None:
    assert actionloop.gone("nodejs", is_init=False, was_sent=True) == Gone(True, None)
    assert actionloop.gone("python", is_init=True, was_sent=False) == Gone(False, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'@abc {"a":1}', (b"abc", b'{"a":1}', 5)),
        (b'@abc !{"error":1}', (b"abc", b'!{"error":1}', 5)),
        (b"@abc  two", (b"abc", b" two", 5)),
        (b'{"a": 1}', (b"", b'{"a": 1}', 0)),
        (b"@", (b"", b"@", 0)),
        (b"", (b"", b"", 0)),
        (b"@" + b"x" * 100 + b" {}", (b"", b"@" + b"x" * 100 + b" {}", 0)),
    ],
)
def test_a_tag_names_the_activation(line: bytes, expected: tuple[bytes, bytes, int]) -> None:
    assert actionloop.untag(line) == expected
