"""What feeds of visp's own are given: fields, addresses that stay, passwords that are not shown."""

from __future__ import annotations

import pytest

from visp import wording
from visp.feed.base import FeedRefused
from visp.feed.nats import Stream as NatsStream
from visp.feed.parameters import masked, place
from visp.feed.postgres import Changes, slot_of
from visp.feed.redis import Stream
from visp.feed.s3 import Objects

REDIS = {"url": "redis://u:p@h:7000/2", "stream": "s"}


def test_what_is_not_a_field_is_left_out_and_defaults_are_kept() -> None:
    kept = Stream().parse({**REDIS, "apihost": "x", "group": None, "filter": {"path": "id", "equals": 1}}, 0)
    assert kept == {**REDIS, "consumer": "visp", "from": "$", "filter": {"path": "id", "equals": 1}}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, wording.feed_parameter_missing("url")),
        ({"url": "redis://h"}, wording.feed_parameter_missing("stream")),
        ({"url": "http://h", "stream": "s"}, "begins with redis:// or rediss://"),
        ({"url": "redis://a,b", "stream": "s"}, "one host"),
        ({"url": "redis://h:99999", "stream": "s"}, "one host"),
        ({"url": "redis://h", "stream": [1]}, "a text"),
        ({"url": "redis://h", "stream": "s", "from": "x"}, "the id of an entry"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(FeedRefused, match=sentence):
        Stream().parse(given, 0)


def test_update_takes_anything_but_the_address() -> None:
    kept = Stream().parse(REDIS, 0)
    assert Stream().changed(kept, {"url": "redis://u:new@h:7000/2"}, 0)["url"] == "redis://u:new@h:7000/2"
    assert Stream().changed(kept, {"password": "x"}, 0)["password"] == "x"
    with pytest.raises(FeedRefused, match="'url' cannot be updated"):
        Stream().changed(kept, {"url": "redis://u:p@other:7000/2"}, 0)
    with pytest.raises(FeedRefused, match="'stream' cannot be updated"):
        Stream().changed(kept, {"stream": "t"}, 0)


def test_a_filter_can_be_changed_and_taken_away() -> None:
    condition = {"path": "id", "equals": 1}
    kept = Stream().parse({**REDIS, "filter": condition}, 0)
    assert Stream().changed(kept, {}, 0)["filter"] == condition
    assert "filter" not in Stream().changed(kept, {"filter": None}, 0)


def test_passwords_of_urls_are_not_shown() -> None:
    assert Stream().shown(Stream().parse(REDIS, 0))["url"] == "redis://u:***@h:7000/2"
    assert masked("nats://t0ken@h") == "nats://***@h"
    assert masked("nats://h") == "nats://h"


def test_a_place_is_read_with_what_was_escaped() -> None:
    where = place("postgres://a%40b:p%2Fw@[::1]/my%20db?sslmode=disable", 5432)
    assert (where.user, where.password, where.path, str(where)) == ("a@b", "p/w", "my db", "[::1]:5432")
    assert "p/w" not in repr(where)


def test_a_slot_is_the_same_for_the_same_tables_of_a_database() -> None:
    one = Changes().parse({"url": "postgres://a:b@h/d", "tables": "x,y"}, 0)
    other = Changes().parse({"url": "postgres://c:d@h/d", "tables": ["public.y", "x"]}, 0)
    assert slot_of(one) == slot_of(other)
    assert slot_of(one | {"slot": "mine"}) == "mine"
    with pytest.raises(FeedRefused, match="'slot' must be lower-case"):
        Changes().parse({"url": "postgres://h", "tables": "x", "slot": "Mine"}, 0)


@pytest.mark.parametrize("query", ["sslmode=maybe", "host=/tmp", "sslcert=/etc/x", "service=x"])
def test_options_of_a_url_that_lead_elsewhere_are_refused(query: str) -> None:
    with pytest.raises(FeedRefused, match="sslmode"):
        Changes().parse({"url": f"postgres://h/d?{query}", "tables": "x"}, 0)


def test_keys_of_a_bucket_come_together() -> None:
    with pytest.raises(FeedRefused, match="'secret_key'"):
        Objects().parse({"bucket": "b", "access_key": "a"}, 0)
    with pytest.raises(FeedRefused, match="from 5 to 86400"):
        Objects().parse({"bucket": "b", "interval_s": 1}, 0)


def test_nats_asks_for_a_stream() -> None:
    with pytest.raises(FeedRefused, match="'stream'"):
        NatsStream().parse({"url": "nats://h"}, 0)
