import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.controller import webaction
from visp.entity.activation import Status
from visp.entity.names import FullyQualifiedName


@pytest.mark.parametrize(
    ("path", "package", "name", "extension", "rest"),
    [
        ("ns/default/a", None, "a", "http", ""),
        ("ns/pkg/a.json", "pkg", "a", "json", ""),
        ("ns/pkg/a.json/", "pkg", "a", "json", "/"),
        ("ns/pkg/a.b.text/x/y%2F", "pkg", "a.b", "text", "/x/y%2F"),
        ("ns/pkg/a.xml", "pkg", "a.xml", "http", ""),
        ("ns/pkg/a%20b.svg", "pkg", "a b", "svg", ""),
    ],
)
def test_addresses(path, package, name, extension, rest):
    address = webaction.parse_address(webaction.PREFIX + path)
    assert address is not None
    assert address.name == FullyQualifiedName("ns", package, name)
    assert (address.extension, address.rest) == (extension, rest)


@pytest.mark.parametrize("path", ["", "ns", "ns/pkg", "ns/pkg/", "ns/pkg/.json", "ns//a", "n*s/pkg/a", "ns/pkg/%00"])
def test_what_is_no_address(path):
    assert webaction.parse_address(webaction.PREFIX + path) is None


def test_the_context_hides_how_the_body_came():
    given_ = webaction.context("PUT", [("a", "1"), ("a", "2"), ("content-length", "3")], "/p", "who")
    shown = {key: json.loads(bytes(value)) for key, value in given_.items()}
    assert shown == {"__ow_method": "put", "__ow_headers": {"a": "2"}, "__ow_path": "/p", "__ow_user": "who"}


@pytest.mark.parametrize(
    ("query", "written"), [("", ""), ("a=1&b=%20x", "a=1&b=+x"), ("flag&a==", "flag&a=%3D"), ("%C3%BC=+", "%C3%BC=+")]
)
def test_a_query_is_written_anew(query, written):
    assert webaction.rendered_query(query) == written


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["body", "headers", "statusCode", "html", "text", "svg", "error", "Content-Type", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON_VALUES, st.sampled_from(sorted(webaction.TRANSCODERS)), st.sampled_from(list(Status)))
def test_every_outcome_is_a_response_or_unfit(value, extension, status):
    try:
        made = webaction.response(status, msgspec.json.encode(value), extension)
    except webaction.Unfit:
        return
    assert 200 <= made.status < 600
    for name, line in made.headers:
        assert name.isascii()
        assert not set("\r\n\0") & set(name + line)
        line.encode("latin-1")


def test_halves_of_surrogate_pairs_are_question_marks():
    assert webaction.text_of(b'"a\\ud800b"') == b"a?b"


def test_headers_that_a_browser_asks_for_are_allowed():
    assert webaction.USUAL_CORS is webaction.cors(None)
    assert webaction.cors("X-Foo")[-1] == ("Access-Control-Allow-Headers", "X-Foo")
