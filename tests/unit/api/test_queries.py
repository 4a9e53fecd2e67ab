"""Query parameters: what is taken, what it means, and the words for what is not."""

import pytest

from visp.api import queries
from visp.api.queries import Page, parse_query
from visp.errors import BadQuery, BadRequest


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b"", {}),
        (b"a=1&b=two", {"a": "1", "b": "two"}),
        (b"a", {"a": ""}),
        (b"a=&b", {"a": "", "b": ""}),
        (b"a=1&a=2", {"a": "1"}),
        (b"a=%C3%A9+b", {"a": "é b"}),
        (b"a=%ff", {"a": "\ufffd"}),
        (b"&&a=1&", {"a": "1"}),
    ],
)
def test_fields(raw: bytes, fields: dict[str, str]) -> None:
    assert parse_query(raw) == fields


def test_too_many_fields() -> None:
    assert len(parse_query(b"&".join(b"f%d=1" % number for number in range(100)))) == 100
    with pytest.raises(BadRequest, match="more than 100"):
        parse_query(b"&".join(b"f%d=1" % number for number in range(101)))


@pytest.mark.parametrize("text", ["true", "TRUE", "yes", "On", "1"])
def test_true(text: str) -> None:
    assert queries.boolean({"x": text}, "x") is True


@pytest.mark.parametrize("text", ["false", "No", "OFF", "0"])
def test_false(text: str) -> None:
    assert queries.boolean({"x": text}, "x", default=True) is False


@pytest.mark.parametrize("query", [{}, {"x": ""}])
@pytest.mark.parametrize("default", [True, False])
def test_a_boolean_that_is_not_given(query: dict[str, str], default: bool) -> None:
    assert queries.boolean(query, "x", default=default) is default


@pytest.mark.parametrize("text", ["maybe", "2", " ", "true "])
def test_no_booleans(text: str) -> None:
    with pytest.raises(BadQuery) as raised:
        queries.boolean({"x": text}, "x")
    assert raised.value.sentence == f"The query parameter 'x' was malformed:\n'{text}' is not a valid Boolean value"
    assert not raised.value.is_routed


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, Page(0, 30, False)),
        ({"limit": "0"}, Page(0, 200, False)),
        ({"limit": "200", "skip": "7"}, Page(7, 200, False)),
        ({"limit": "+5", "skip": "-0"}, Page(0, 5, False)),
        ({"count": "true", "skip": "2147483647"}, Page(2147483647, 30, True)),
    ],
)
def test_pages(query: dict[str, str], page: Page) -> None:
    assert queries.page(query, "actions") == page


@pytest.mark.parametrize("text", ["", "abc", "1.5", "1e2", "٣", "0x1", "2147483648", "-2147483649", "--1", "9" * 5000])
@pytest.mark.parametrize("name", ["limit", "skip"])
def test_pages_that_are_no_numbers(name: str, text: str) -> None:
    with pytest.raises(BadQuery) as raised:
        queries.page({name: text}, "rules")
    assert raised.value.sentence.endswith(f"The value '{text}' is not an integer for rules.")


@pytest.mark.parametrize(("text", "wait_ms"), [("1", 1), ("60000", 60000), ("00500", 500)])
def test_waits(text: str, wait_ms: int) -> None:
    assert queries.wait_ms({"timeout": text}, 60_000) == wait_ms
    assert queries.wait_ms({}, 60_000) == 60_000


@pytest.mark.parametrize("text", ["", "0", "-1", "60001", "1.0", "abc"])
def test_no_waits(text: str) -> None:
    with pytest.raises(BadQuery, match=r"Timeout must be number of milliseconds up to 60000\."):
        queries.wait_ms({"timeout": text}, 60_000)


def test_a_list_of_activations() -> None:
    given = {"name": "pkg/a", "since": "5", "upto": "-6", "limit": "3", "skip": "2", "docs": "true"}
    query, page, has_docs = queries.activations(given, "ns")
    assert (query.namespace, query.name, query.since_ms, query.upto_ms) == ("ns", "pkg/a", 5, -6)
    assert (query.skip, query.limit, page.is_count, has_docs) == (2, 3, False, True)


@pytest.mark.parametrize(("text", "name"), [("", None), ("  ", None), ("a", "a"), ("/a/", "a"), ("p//a", "p/a")])
def test_name_filters(text: str, name: str | None) -> None:
    assert queries.activations({"name": text}, "ns")[0].name == name


@pytest.mark.parametrize(
    "query",
    [
        {"name": "a/b/c"},
        {"name": "$"},
        {"name": "/"},
        {"since": "x"},
        {"upto": "9223372036854775808"},
        {"count": "true", "docs": "true", "since": "x"},
    ],
)
def test_lists_of_activations_that_cannot_be(query: dict[str, str]) -> None:
    with pytest.raises(BadQuery):
        queries.activations(query, "ns")


def test_docs_do_not_go_with_count() -> None:
    with pytest.raises(BadRequest, match=r"The parameter 'docs' is not permitted with 'count'\.") as raised:
        queries.activations({"count": "true", "docs": "true"}, "ns")
    assert raised.value.is_routed


@pytest.mark.parametrize(
    ("query", "wait_s"), [({}, None), ({"wait": "0"}, 0), ({"wait": "2.5"}, 2.5), ({"wait": "61"}, 60)]
)
def test_waits_for_a_record(query: dict[str, str], wait_s: float | None) -> None:
    assert queries.wait_s(query, 60) == wait_s


@pytest.mark.parametrize("text", ["", "x", "-1", "1e9", "nan", "inf", "+1", " 1", "1" * 10, ".5"])
def test_no_waits_for_a_record(text: str) -> None:
    with pytest.raises(BadQuery, match="wait"):
        queries.wait_s({"wait": text}, 60)
