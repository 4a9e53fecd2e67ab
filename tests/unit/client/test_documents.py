"""JSON as servers send it."""

import pytest

from visp.client import documents


def test_values_keep_the_text_they_came_as():
    raw = b'{"a": 1.50, "big": 123456789012345678901234567890, "far": 1e999}'
    assert documents.fields(raw) == {"a": b"1.50", "big": b"123456789012345678901234567890", "far": b"1e999"}
    assert documents.pretty(b'{"a":1.50}') == '{\n    "a": 1.50\n}'


@pytest.mark.parametrize(
    "raw", [b'{"a": "\\ud800"}', b'{"a": 1e999}', b"{", b"", b"\xff", b"[" * 100_000, b"null", b"5"]
)
def test_nothing_crashes_the_reader(raw):
    documents.value(raw)
    documents.fields(raw)
    assert isinstance(documents.pretty(raw), str)


def test_a_lone_surrogate_is_read_all_the_same():
    assert documents.fields(b'{"a": "\\ud800", "b": 1}') == {"a": b'"\\ud800"', "b": b"1"}


@pytest.mark.parametrize("document", [None, 5, [], {}, {"annotations": 5}, {"annotations": [5, {"key": "other"}]}])
def test_members_that_are_not_there(document):
    assert documents.text(document, "name") == ""
    assert documents.whole(document, "start") is None
    assert documents.annotation(document, "kind") is None


def test_of_an_annotation_that_is_given_twice_the_last_one_counts():
    entries = [{"key": "a", "value": 1}, {"key": "a", "value": 2}]
    assert documents.annotation({"annotations": entries}, "a") == 2


def test_true_is_no_number():
    assert documents.whole({"start": True}, "start") is None
