import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.entity import site as sites
from visp.entity.site import SiteFile, Unsatisfiable, Variant

SITE = {
    "index.html": SiteFile("a" * 64, 10),
    "docs/index.html": SiteFile("b" * 64, 20),
    "app.js": SiteFile("c" * 64, 30, "d" * 64, 5),
    "app.js.br": SiteFile("e" * 64, 4),
}


@given(st.text())
def test_a_clean_path_stays_inside(name):
    path = sites.clean_path(name)
    assert path is None or not {"", ".", ".."} & set(path.split("/"))


def test_what_a_path_means():
    assert [sites.find(SITE, path) for path in ("", "docs/", "app.js", "docs", "x")] == [
        "index.html",
        "docs/index.html",
        "app.js",
        None,
        None,
    ]
    assert [sites.is_folder(SITE, path) for path in ("docs", "", "app.js")] == [True, False, False]


@pytest.mark.parametrize(
    ("accepted", "variant"),
    [
        (None, Variant("c" * 64, 30)),
        ("identity", Variant("c" * 64, 30)),
        ("gzip", Variant("d" * 64, 5, "gzip")),
        ("gzip;q=0.000", Variant("c" * 64, 30)),
        ("gzip, br", Variant("e" * 64, 4, "br")),
        ("*", Variant("e" * 64, 4, "br")),
    ],
)
def test_the_smallest_form_that_is_welcome(accepted, variant):
    assert sites.variant(SITE, "app.js", accepted) == variant


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 40))
def test_ranges_lie_inside(first, last, size):
    try:
        bounds = sites.parse_range(f"bytes={first}-{last}", size)
    except Unsatisfiable:
        assert first >= size
        return
    assert bounds is None if last < first else bounds == (first, min(last, size - 1))


@pytest.mark.parametrize(
    ("header", "bounds"),
    [
        (None, None),
        ("bytes=-", None),
        ("bytes=5-", (5, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-99", (0, 9)),
        ("x=1-2", None),
    ],
)
def test_ranges(header, bounds):
    assert sites.parse_range(header, 10) == bounds


def test_what_is_known():
    assert sites.is_known('"a"', 'W/"b", W/"a"')
    assert sites.is_known('"a"', "*")
    assert not sites.is_known('"a"', '"b"')
    assert not sites.is_known('"a"', None)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.js", "text/javascript; charset=UTF-8"),
        ("a.HTML", "text/html; charset=UTF-8"),
        ("a.svg", "image/svg+xml"),
        ("a.unheard", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_types(path, kind):
    assert sites.content_type(path) == kind
