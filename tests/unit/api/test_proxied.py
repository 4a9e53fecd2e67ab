"""Headers of requests that go elsewhere, and of what is answered there."""

from __future__ import annotations

import pytest

from visp.api.proxied import answered, is_loop, passed_on, sent


def test_what_belongs_to_a_connection_stays_on_it() -> None:
    given = {
        "connection": "close, x-mine, content-type",
        "x-mine": "1",
        "te": "trailers",
        "proxy-authorization": "p",
        "content-type": "text/plain",
        "x-kept": "é",
    }
    assert passed_on(given, is_key_ours=False) == {"content-type": "text/plain", "x-kept": "é"}
    told = answered([("Connection", "x-mine"), ("X-Mine", "1"), ("Keep-Alive", "5"), ("Set-Cookie", "a=1")])
    assert told == (("Set-Cookie", "a=1"),)


def test_a_key_of_the_platform_and_a_secret_of_a_web_action_are_not_passed_on() -> None:
    given = {"authorization": "Basic x", "x-require-whisk-auth": "s"}
    assert passed_on(given, is_key_ours=True) == {}
    assert passed_on(given, is_key_ours=False) == {"authorization": "Basic x"}


def test_what_tells_of_the_targets_server_is_ours_to_tell() -> None:
    given = [("Date", "d"), ("Server", "s"), ("X-Accel-Redirect", "/etc"), ("X-Request-Id", "1"), ("Alt-Svc", "h3")]
    assert answered([*given, ("Content-Length", "4"), ("ETag", '"1"')]) == (("ETag", '"1"'),)


def test_bytes_of_a_header_go_on_as_they_came() -> None:
    out = sent({"host": "here", "content-length": "1", "x-name": "é".encode().decode("latin-1"), "x-set": 7})
    assert out == {"x-name": "é", "x-set": "7", "cdn-loop": "visp"}


@pytest.mark.parametrize(
    ("told", "is_it"), [("", False), ("visp, other;v=1, visp", False), ("visp, VISP;x=y,other, visp", True)]
)
def test_a_circle_is_seen(told: str, is_it: bool) -> None:
    assert is_loop({"cdn-loop": told}) is is_it
    assert sent({"cdn-loop": "visp"})["cdn-loop"] == "visp, visp"
