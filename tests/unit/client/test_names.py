"""Names as people type them."""

import pytest

from visp.client.errors import Misused
from visp.client.names import escape, parse_collection, parse_entity, parse_namespace


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        ("foo", "_/foo"),
        ("pkg/foo", "_/pkg/foo"),
        ("/ns/foo", "ns/foo"),
        ("/ns/pkg/foo", "ns/pkg/foo"),
        ("ns/pkg/foo", "ns/pkg/foo"),
        ("/_/foo", "_/foo"),
        ("default/foo", "_/foo"),
        ("a b", "_/a b"),
    ],
)
def test_entities(typed, id):
    assert parse_entity(typed).id == id


@pytest.mark.parametrize("typed", ["", "/", "/ns", "a/b/c/d", "a//b", "/ns/../x", ".", "a/.."])
def test_what_is_no_entity(typed):
    with pytest.raises(Misused):
        parse_entity(typed)


def test_collections():
    assert parse_collection("/ns") == ("ns", None)
    assert parse_collection("/ns/pkg") == ("ns", "pkg")
    assert parse_collection("pkg") == ("_", "pkg")
    assert parse_namespace("/ns") == parse_namespace("ns") == "ns"
    for typed in ("/ns/pkg/x", "pkg/x"):
        with pytest.raises(Misused):
            parse_collection(typed)


def test_segments_are_escaped():
    assert escape("a b/c?d%e&é") == "a%20b%2Fc%3Fd%25e%26%C3%A9"
