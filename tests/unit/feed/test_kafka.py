"""`messaging/kafkaFeed` and `messageHubFeed`: parameters to the letter, messages as events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visp.entity.limits import PAYLOAD_LIMIT_BYTES
from visp.feed.base import FeedRefused
from visp.feed.kafka import KafkaFeed, Message, MessageHubFeed, events, kept_as, offsets_of, shown

HUB = {"kafka_brokers_sasl": "a:9093", "topic": "t", "user": "u", "password": "p", "kafka_admin_url": "https://a"}
PLAIN = {"topic": "t", "isJSONData": False, "isBinaryKey": False, "isBinaryValue": False}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"brokers": "a:1"}, "You must supply a 'topic' parameter."),
        ({"topic": "t"}, "You must supply a 'brokers' parameter."),
        ({"topic": "t", "brokers": 7}, "You must supply a 'brokers' parameter as an array of Message Hub brokers."),
        ({"topic": "t", "brokers": "a"}, "You must supply a 'brokers' parameter as an array of Message Hub brokers."),
        (
            {"topic": "t", "brokers": "a:1", "isJSONData": "true", "isBinaryValue": True},
            "isJSONData and isBinaryValue cannot both be enabled.",
        ),
    ],
)
def test_kafka_refuses_in_openwhisks_words(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FeedRefused) as refused:
        KafkaFeed().parse(given, 0)
    assert (refused.value.sentence, refused.value.status) == (sentence, 400)


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        ("kafka_brokers_sasl", "You must supply a 'kafka_brokers_sasl' parameter."),
        ("user", "You must supply a 'user' parameter to authenticate with Message Hub."),
        ("password", "You must supply a 'password' parameter to authenticate with Message Hub."),
        ("kafka_admin_url", "You must supply a 'kafka_admin_url' parameter."),
        ("topic", "You must supply a 'topic' parameter."),
    ],
)
def test_message_hub_refuses_in_openwhisks_words(lacking: str, sentence: str) -> None:
    with pytest.raises(FeedRefused) as refused:
        MessageHubFeed().parse({name: value for name, value in HUB.items() if name != lacking}, 0)
    assert refused.value.sentence == sentence


def test_what_is_kept_is_shown_but_for_our_own() -> None:
    kept = KafkaFeed().parse({"brokers": "a:1, b:2", "topic": "t", "isJSONData": "true", "endpoint": "e"}, 0)
    assert KafkaFeed().shown(kept) == {**PLAIN, "isJSONData": True, "brokers": ["a:1", "b:2"]}
    assert KafkaFeed().created("u-u-i-d", kept) == {"uuid": "u-u-i-d"}
    assert set(MessageHubFeed().shown(MessageHubFeed().parse(HUB, 0))) == {*PLAIN, *HUB}


def test_update_changes_the_flags_alone() -> None:
    kept = KafkaFeed().parse({"brokers": "a:1", "topic": "t"}, 0)
    assert KafkaFeed().changed(kept, {"isBinaryKey": True, "topic": "other"}, 0) == kept | {"isBinaryKey": True}
    with pytest.raises(FeedRefused):
        KafkaFeed().changed(kept | {"isJSONData": True}, {"isBinaryValue": True}, 0)


def test_values_are_text_json_or_base64() -> None:
    assert shown(None, binary=False) is None
    assert shown(b"a\xff", binary=False) == "a\ufffd"
    assert shown(b"a\xff", binary=True) == "Yf8="
    assert bytes(shown(b'{"a":1}', binary=False, parsed=True)) == b'{"a":1}'
    assert shown(b"NaN", binary=False, parsed=True) == '"NaN"'
    assert shown(b"plain", binary=False, parsed=True) == '"plain"'


def message(offset: int, value: bytes, partition: int = 0) -> Message:
    return Message(partition, offset, None, value)


def test_messages_are_one_event_in_their_order() -> None:
    (made,) = events(PLAIN, [message(4, b"b"), message(9, b"c", 1), message(3, b"a")])
    assert made.key == "0:3-4,1:9-9"
    assert json.loads(made.body) == {
        "messages": [
            {"topic": "t", "partition": 0, "offset": 3, "key": None, "value": "a"},
            {"topic": "t", "partition": 0, "offset": 4, "key": None, "value": "b"},
            {"topic": "t", "partition": 1, "offset": 9, "key": None, "value": "c"},
        ]
    }


def test_events_stay_under_the_payload_limit_and_too_large_messages_are_skipped() -> None:
    many = [message(number, b"x" * 300_000) for number in range(7)] + [message(7, b"x" * PAYLOAD_LIMIT_BYTES)]
    made = list(events(PLAIN, many))
    assert [event.key for event in made] == ["0:0-2", "0:3-5", "0:6-6"]
    assert all(len(event.body) <= PAYLOAD_LIMIT_BYTES for event in made)
    assert made == list(events(PLAIN, reversed(many)))
    assert list(events(PLAIN, [many[-1]])) == []


def test_a_position_is_read_as_it_was_kept() -> None:
    assert offsets_of(json.loads(json.dumps(kept_as({0: 1, 11: 2}, {0: 5})))) == ({0: 1, 11: 2}, {0: 5})
    assert offsets_of(kept_as({0: 1}, None)) == ({0: 1}, {})
    assert offsets_of(None) == ({}, {})
