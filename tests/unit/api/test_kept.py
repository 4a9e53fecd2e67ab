"""Which answers of the gateway are kept, for whom, and for how long."""

from __future__ import annotations

import pytest

from visp.api.errors import HttpAnswer
from visp.api.kept import KeptAnswers, may_be_kept, place_of
from visp.clock import ManualClock
from visp.entity.gateway import Check, Keeping, KeyCheck, Operation, SecretCheck

KEEPING, OWN = Keeping(60), Keeping(60, by_credentials=True, vary=("x-lang",))
WHERE = ("guest", "/shop/x", "a=1")
OPERATION = Operation(id="x", verb="GET", target=None)


@pytest.mark.parametrize(
    ("checks", "name"),
    [
        ((), "authorization"),
        ((), "cookie"),
        ((KeyCheck("x-key"),), "x-key"),
        ((SecretCheck("x-id", "x-secret"),), "x-id"),
        ((SecretCheck("x-id", "x-secret"),), "x-secret"),
    ],
)
def test_what_credentials_brought_is_theirs_alone(checks: tuple[Check, ...], name: str) -> None:
    assert place_of(KEEPING, checks, {name: "a"}, WHERE) is None
    places = {place_of(OWN, checks, headers, WHERE) for headers in ({name: "a"}, {name: "b"}, {})}
    assert len(places) == 3
    assert None not in places


def test_what_tells_answers_apart() -> None:
    seen = {place_of(OWN, (), headers, WHERE) for headers in ({}, {"x-lang": "de"}, {"accept": "a"}, {"host": "h"})}
    assert len(seen) == 4
    assert place_of(OWN, (), {}, WHERE) == place_of(OWN, (), {"x-other": "1"}, WHERE)
    assert place_of(OWN, (), {}, WHERE) != place_of(OWN, (), {}, ("guest", "/shop/x", "a=2"))
    assert place_of(OWN, (), {"range": "bytes=0-1"}, WHERE) is None


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (HttpAnswer(200), True),
        (HttpAnswer(201), False),
        (HttpAnswer(404), False),
        (HttpAnswer(200, headers=(("Set-Cookie", "a=b"),)), False),
        (HttpAnswer(200, headers=(("Cache-Control", "max-age=1, Private"),)), False),
        (HttpAnswer(200, headers=(("Cache-Control", "public"), ("Vary", "Accept, X-Lang"))), True),
        (HttpAnswer(200, headers=(("Vary", "User-Agent"),)), False),
        (HttpAnswer(200, headers=(("Vary", "*"),)), False),
    ],
)
def test_answers(answer: HttpAnswer, is_kept: bool) -> None:
    assert may_be_kept(answer, OWN) is is_kept


def test_kept_for_its_seconds_and_its_document() -> None:
    clock = ManualClock()
    kept = KeptAnswers(clock)
    kept.keep(b"p", OPERATION, KEEPING, HttpAnswer(200, b"body"))
    clock.advance(59)
    found = kept.find(b"p", OPERATION)
    assert found is not None
    assert (found.body, found.headers) == (b"body", (("Age", "59"),))
    clock.advance(1)
    assert kept.find(b"p", OPERATION) is None
    kept.keep(b"p", OPERATION, KEEPING, HttpAnswer(200))
    assert kept.find(b"p", Operation(id="x", verb="GET", target=None)) is None
    assert kept.bytes == 0


def test_bounded() -> None:
    kept = KeptAnswers(ManualClock(), limit_bytes=10_000)
    for number in range(20):
        kept.keep(b"%d" % number, OPERATION, KEEPING, HttpAnswer(200, b"x" * 2000))
        assert kept.bytes <= 10_000
    assert kept.find(b"19", OPERATION) is not None
    assert kept.find(b"0", OPERATION) is None
    kept.keep(b"large", OPERATION, KEEPING, HttpAnswer(200, b"x" * 10_000))
    assert kept.find(b"large", OPERATION) is None
