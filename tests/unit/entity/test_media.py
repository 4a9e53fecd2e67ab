import pytest

from visp.entity.media import accepts, parse_media_type


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("text/html", "text/html"),
        (" Text/HTML ; Charset=utf-8", "text/html; charset=UTF-8"),
        ('multipart/form-data; boundary="a;b"', 'multipart/form-data; boundary="a;b"'),
        ("text/plain;", "text/plain"),
    ],
)
def test_types_are_read_and_written(text, shown):
    parsed = parse_media_type(text)
    assert parsed is not None
    assert parsed.render() == shown


@pytest.mark.parametrize("text", ["", "text", "text/", "/plain", "text/plain; x=", "text/pl ain", "text/plain; =a"])
def test_what_is_no_type(text):
    assert parse_media_type(text) is None


@pytest.mark.parametrize(
    ("text", "is_textual", "is_json"),
    [
        ("text/css", True, False),
        ("text/unheard-of", False, False),
        ("text/unheard-of; charset=utf-8", True, False),
        ("application/json", False, True),
        ("application/json; charset=utf-8", False, True),
        ("application/hal+json", False, True),
        ("application/problem+json", True, True),
        ("application/xml", True, False),
        ("image/svg+xml", False, False),
        ("image/png; charset=utf-8", False, False),
        ("application/x-unheard-of; charset=utf-8", True, False),
        ("application/x-www-form-urlencoded", True, False),
    ],
)
def test_text_and_bytes(text, is_textual, is_json):
    parsed = parse_media_type(text)
    assert parsed is not None
    assert parsed.is_textual is is_textual
    assert parsed.is_json is is_json


@pytest.mark.parametrize(
    ("header", "is_welcome"),
    [
        (None, True),
        ("", True),
        ("*/*", True),
        ("text/html", True),
        ("TEXT/*;q=0.1", True),
        ("text/html;q=0, */*", False),
        ("text/xml, image/*", False),
        ("text/*;q=0, text/html;q=0.5", True),
        ("nothing that is a range", True),
        ("*/*;q=0", False),
    ],
)
def test_what_a_caller_accepts(header, is_welcome):
    assert accepts(header, "text/html") is is_welcome
