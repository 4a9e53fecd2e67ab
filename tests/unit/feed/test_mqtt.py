from __future__ import annotations

from typing import Any

import pytest

from visp.feed.base import FeedRefused
from visp.feed.mqtt import Mqtt, body_of

FEED = Mqtt()
GIVEN = {"url": "mqtt://broker.example", "topic": "a/b"}


@pytest.mark.parametrize(
    "given",
    [
        *({}, {"url": "mqtt://h"}, {**GIVEN, "url": "http://h"}, {**GIVEN, "url": "mqtt://u:p@h"}, {**GIVEN, "qos": 2}),
        *({**GIVEN, "topic": topic} for topic in ("a/#/b", "a+", "a#", ["a", ""], [5], {}, "\0")),
        *({**GIVEN, "payload_format": "xml"}, {**GIVEN, "filter": {"above": 3}}, {**GIVEN, "client_id": "x" * 201}),
        {**GIVEN, "url": "mqtt://"},
    ],
)
def test_what_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(FeedRefused) as refused:
        FEED.parse(given, 0)
    assert refused.value.status == 400


def test_what_is_kept() -> None:
    kept = FEED.parse(GIVEN, 0)
    assert kept == {**GIVEN, "qos": 1, "client_id": kept["client_id"], "payload_format": "auto"}
    assert kept["client_id"] != FEED.parse(GIVEN, 0)["client_id"]
    changed = FEED.changed(kept, {"topic": ["+/x", "#"], "qos": "0", "url": "mqtt://other"}, 0)
    assert changed == {**kept, "topic": ["+/x", "#"], "qos": 0}
    with pytest.raises(FeedRefused, match="no updatable"):
        FEED.changed(kept, {"url": "mqtt://other"}, 0)


@pytest.mark.parametrize(
    ("payload", "form", "body"),
    [
        (b'{"a":1}', "auto", {"a": 1}),
        (b'{"a":1}', "text", '{"a":1}'),
        (b'{"a":1}', "base64", "eyJhIjoxfQ=="),
        (b"NaN", "json", "NaN"),
        (b"plain", "auto", "plain"),
        (b"\xff", "auto", "/w=="),
        (b"\xff", "json", "\N{REPLACEMENT CHARACTER}"),
        (b"", "auto", ""),
        (b"[" * 100_000, "auto", "[" * 100_000),
    ],
)
def test_payload_formats(payload: bytes, form: str, body: Any) -> None:
    assert body_of(payload, form) == body


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FeedRefused, match=r"visp\[mqtt\]"):
        FEED.parse(GIVEN, 0)
