from __future__ import annotations

from typing import Any

import pytest

from visp.feed.base import FeedRefused
from visp.feed.changes import Changes

FEED = Changes()
PASSWORD = {"username": "u", "password": "p"}
GIVEN = {"dbname": "db", "host": "couch.example", **PASSWORD}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "cloudant trigger feed: missing dbname parameter"),
        ({"dbname": "db"}, "cloudant trigger feed: missing host parameter"),
        (
            {"dbname": "db", "host": "h", "username": "u"},
            "cloudant trigger feed: Must specify parameter/s of iamApiKey or username/password",
        ),
        (
            {**GIVEN, "query_params": {"a": 1}},
            "The query_params parameter is only allowed if the filter parameter is defined",
        ),
        (
            {**GIVEN, "filter": "d/f", "query_params": "{"},
            "The query_params parameter cannot be parsed. Ensure it is valid JSON.",
        ),
        ({**GIVEN, "filter": "d/f", "query_params": "[1]"}, "The query_params parameter is not a valid JSON Object"),
        ({**GIVEN, "filter": "d/f", "query_params": [1]}, "The query_params parameter is not a valid JSON Object"),
        ({**GIVEN, "host": "a/b"}, "The host parameter 'a/b' is no name or address of a host."),
        ({**GIVEN, "host": "u:p@b"}, "The host parameter 'u:p@b' is no name or address of a host."),
        ({**GIVEN, "host": "b?x"}, "The host parameter 'b?x' is no name or address of a host."),
    ],
)
def test_sentences(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FeedRefused) as refused:
        FEED.parse(given, 0)
    assert (refused.value.status, refused.value.sentence) == (400, sentence)


def test_what_is_kept_and_shown() -> None:
    kept = FEED.parse({**GIVEN, "port": "5984", "filter": "d/f", "query_params": '{"a": "b"}', "since": "3-x"}, 0)
    assert FEED.shown(kept) == {
        **GIVEN,
        **{"protocol": "https", "port": 5984, "filter": "d/f", "query_params": {"a": "b"}, "since": "3-x"},
    }
    assert FEED.secrets == {"password", "iamApiKey"}


def test_an_api_key_in_place_of_a_password() -> None:
    kept = FEED.parse({"dbname": "db", "host": "h", "iamApiKey": "k"}, 0)
    assert kept["iamUrl"] == "https://iam.cloud.ibm.com/identity/token"


def test_updates_are_of_filters() -> None:
    kept = FEED.parse({**GIVEN, "filter": "d/f", "query_params": {"a": 1}}, 0)
    assert FEED.changed(kept, {"filter": "d/g"}, 0) == {**kept, "filter": "d/g"}
    assert FEED.changed(kept, {"query_params": '{"b":2}'}, 0) == {**kept, "query_params": {"b": 2}}
    with pytest.raises(FeedRefused, match=r"^no updatable parameters were specified$"):
        FEED.changed(kept, {"host": "other"}, 0)
    with pytest.raises(FeedRefused):
        FEED.changed(FEED.parse(GIVEN, 0), {"query_params": {}}, 0)
