"""Names, paths and references, as OpenWhisk takes and refuses them."""

import pytest

from visp.entity.names import FullyQualifiedName, from_id, is_name, parse_name, parse_namespace, parse_qualified
from visp.errors import BadName, Malformed


@pytest.mark.parametrize("name", ["a", "_", "A9", "a b", "a@b", "a.b", "a-b", "a&b", "a" * 256, "a.", "a@", "a-", "a&"])
def test_names_that_are_taken(name: str) -> None:
    assert is_name(name)
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "$a", "a/b", "a?b", "é", "a\n", "-a", ".a", "@a", "&a", "..", "a\x00b", "\u202ea", "a" * 257],
)
def test_names_that_are_refused(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(BadName):
        parse_name(name)


def test_what_a_name_too_long_is_told() -> None:
    with pytest.raises(BadName, match=r"Name segement longer than allowed: 257 > 256\."):
        parse_name("a" * 257)
    with pytest.raises(BadName, match=r"Namespace longer than allowed: 300 > 256\."):
        parse_namespace("a" * 300)
    with pytest.raises(BadName, match=r"The namespace contains illegal characters\."):
        parse_namespace("a$")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/ns/a", FullyQualifiedName("ns", None, "a")),
        ("ns/a", FullyQualifiedName("ns", None, "a")),
        ("/ns/pkg/a", FullyQualifiedName("ns", "pkg", "a")),
        ("/ns//a", FullyQualifiedName("ns", None, "a")),
        ("/ns/default/a", FullyQualifiedName("ns", "default", "a")),
        ({"path": "ns/pkg", "name": "a"}, FullyQualifiedName("ns", "pkg", "a")),
        ({"path": "ns", "name": "a", "version": "1"}, FullyQualifiedName("ns", None, "a")),
    ],
)
def test_references(given: object, expected: FullyQualifiedName) -> None:
    assert parse_qualified(given) == expected


@pytest.mark.parametrize(
    "given", ["a", "/a", "", "/", 5, None, "a/b/c/d", "ns/$", {"path": "ns"}, {"name": "a"}, ["ns", "a"]]
)
def test_references_that_are_refused(given: object) -> None:
    with pytest.raises(Malformed):
        parse_qualified(given)


def test_the_callers_namespace_is_put_in_the_place_of_the_underscore() -> None:
    assert parse_qualified("/_/a").resolve("guest").id == "guest/a"
    assert parse_qualified("/other/a").resolve("guest").id == "other/a"


@pytest.mark.parametrize("id", ["ns/a", "ns/pkg/a"])
def test_an_id_names_what_it_was_made_of(id: str) -> None:
    assert from_id(id).id == id
