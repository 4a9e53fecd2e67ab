"""Which URLs the door answers itself: plain ones; whatever is odd or wrong is the application's to explain."""

import pytest

from visp.api.door import Target, parse_target

NS = b"/api/v1/namespaces/"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (NS + b"_/actions/a", Target("_", False, "a", None, False)),
        (NS + b"guest/triggers/t", Target("guest", True, "t", None, False)),
        (NS + b"_/actions/a.b-c@d&e", Target("_", False, "a.b-c@d&e", None, False)),
        (NS + b"_/actions/a?", Target("_", False, "a", None, False)),
        (NS + b"_/actions/a?blocking=true", Target("_", False, "a", 60_000, False)),
        (NS + b"_/actions/a?blocking=yes&result=1", Target("_", False, "a", 60_000, True)),
        (NS + b"_/actions/a?blocking=true&timeout=5", Target("_", False, "a", 5, False)),
        (NS + b"_/actions/a?timeout=5&result=true", Target("_", False, "a", None, True)),
        (NS + b"_/actions/a?unknown=1", Target("_", False, "a", None, False)),
    ],
)
def test_hot_urls(url: bytes, target: Target) -> None:
    assert parse_target(url, 60_000) == target


@pytest.mark.parametrize(
    "url",
    [
        b"/",
        b"/api/v1",
        NS,
        NS + b"_/actions",
        NS + b"_/actions/",
        NS + b"_/actions/a/",
        NS + b"_/actions/pkg/a",
        NS + b"_/rules/r",
        NS + b"_/packages/p",
        NS + b"/actions/a",
        NS + b"_//a",
        NS + b"_/actions/$",
        NS + b"_/actions/a%20b",
        NS + b"_/actions/\xe9",
        NS + b"$/actions/a",
        NS + b"_/actions/a?blocking=maybe",
        NS + b"_/actions/a?blocking=tru%65",
        NS + b"_/actions/a?timeout=0",
        NS + b"_/actions/a?timeout=60001",
        NS + b"_/actions/a?x=a+b",
        NS + b"_/actions/a?" + b"&".join(b"f%d" % number for number in range(101)),
        b"/api/v2/namespaces/_/actions/a",
        b"http://localhost" + NS + b"_/actions/a",
    ],
)
def test_urls_for_the_application(url: bytes) -> None:
    assert parse_target(url, 60_000) is None
