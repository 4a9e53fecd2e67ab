"""Users' JSON: what is taken, what is refused, and that its values are passed on as they came."""

import json

import msgspec
import pytest

from visp.entity import payload
from visp.errors import Malformed


@pytest.mark.parametrize(
    "body",
    [
        b'"text"',
        b"5",
        b"[1]",
        b"null",
        b"{bad",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":01}',
        b'{"a":1}x',
        b'{"a":"\xff"}',
        b'{"a":"\n"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_bodies_that_are_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        payload.parse_object(body)


@pytest.mark.parametrize("character", ["a", "\u00e9", "\u20ac", "\U0001f600", "\n", "\\", '"', "\x01"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_texts_are_measured_whatever_stands_where_a_piece_ends(character: str, is_ascii: bool) -> None:
    for before in range(payload.CHARACTER_BYTES + 1):
        text = "x" * (payload.PIECE_BYTES - before) + character * 2 * payload.PIECE_BYTES
        raw = msgspec.Raw(json.dumps(text, ensure_ascii=is_ascii).encode())
        assert payload.text_bytes(raw) == len(text.encode())


@pytest.mark.parametrize("raw", [b"", b"5", b"null", b'["a"]', b'"\\x"', b'"\\ud800"', b'"\xff"'])
def test_what_is_no_text_has_no_length(raw: bytes) -> None:
    with pytest.raises(Malformed):
        payload.text_bytes(msgspec.Raw(raw))


def test_no_body_is_an_empty_object() -> None:
    assert payload.parse_object(b"") == {}


def test_numbers_keep_their_digits_and_text_its_bytes() -> None:
    body = '{"big":123456789012345678901234567890,"float":1.50,"text":"é\\u2028"}'.encode()
    assert payload.merge({}, payload.parse_object(body)) == body


def test_the_payload_wins_over_defaults_and_duplicates_end_with_the_last() -> None:
    defaults = payload.parse_object(b'{"a":1,"b":2}')
    assert payload.merge(defaults, payload.parse_object(b'{"b":3,"b":4}')) == b'{"a":1,"b":4}'


def test_an_argument_is_one_line() -> None:
    merged = payload.merge({}, payload.parse_object(b'{\r\n"a":\n[1,\n2]}'))
    assert b"\n" not in merged
    assert b"\r" not in merged


@pytest.mark.parametrize("raw", [b"5", b'"x"', b"null", b"", b"{", b"not json", b'{"a":"\xff"}', b'{"a":\\udead}'])
def test_answers_that_are_neither_object_nor_array(raw: bytes) -> None:
    assert payload.parse_answer(raw) is None


def test_answers() -> None:
    answered = payload.parse_answer(b'{"error":5}')
    assert answered is not None
    assert answered.fields is not None
    assert "error" in answered.fields
    assert payload.parse_answer(b"[1,2]") == payload.Answer(None, b"[1,2]")


def test_lone_surrogates_pass_as_escapes() -> None:
    answered = payload.parse_answer(b'{"a":"\\ud800"}')
    assert answered == payload.Answer(answered.fields if answered else None, b'{"a":"\\ud800"}')


@pytest.mark.parametrize(("raw", "expected"), [(b"abc", 3), ("é".encode(), 1), ("😀".encode(), 2)])
def test_characters_are_counted_as_java_counts_them(raw: bytes, expected: int) -> None:
    assert payload.characters(raw) == expected
