from __future__ import annotations

from typing import Any

import pytest

from visp.feed.base import FeedRefused
from visp.feed.conditions import filter_of, parse_condition, parse_filter

EVENT = {"topic": "home/kitchen", "body": {"temp": 21.5, "on": True, "tags": ["a", {"b": 1}], "none": None}}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"path": "body.temp", "above": 21}, True),
        ({"path": "body.temp", "above": 21.5}, False),
        ({"path": "body.temp", "below": 22}, True),
        ({"path": "body.temp", "above": 20, "below": 21}, False),
        ({"path": "body.on", "above": 0}, False),
        ({"path": "topic", "above": 0}, False),
        ({"path": "body.on", "equals": True}, True),
        ({"path": "body.on", "equals": 1}, False),
        ({"path": "body.none", "equals": None}, True),
        ({"path": "body.nothing", "equals": None}, False),
        ({"path": "body.tags", "equals": ["a", {"b": 1.0}]}, True),
        ({"path": "body.tags.1.b", "equals": 1}, True),
        ({"path": "body.tags.2", "equals": 1}, False),
        ({"path": "body.tags.-1", "equals": {"b": 1}}, False),
        ({"path": "body.tags.1.b", "equals": True}, False),
        ({"path": "topic", "in": ["x", "home/kitchen"]}, True),
        ({"path": "topic", "in": []}, False),
        ({"path": "topic", "matches": "^home/"}, True),
        ({"path": "topic", "matches": "^kitchen"}, False),
        ({"path": "body.temp", "matches": "21"}, False),
        ({"not": {"path": "body.nothing", "equals": 1}}, True),
        ({"all": [{"path": "topic", "matches": "home"}, {"path": "body.on", "equals": False}]}, False),
        ({"any": [{"path": "topic", "matches": "home"}, {"path": "body.on", "equals": False}]}, True),
        ({"any": [{"path": "topic", "matches": "x"}], "path": "body.on", "equals": True}, False),
    ],
)
def test_conditions(condition: Any, holds: bool) -> None:
    assert parse_condition(condition)(EVENT) is holds


@pytest.mark.parametrize(
    "condition",
    [
        *(5, "x", [], {}, {"path": "a"}, {"above": 3}, {"path": "", "above": 3}, {"path": 3, "above": 3}, {"all": []}),
        *(
            {"path": "a", "above": "3"},
            {"path": "a", "above": True},
            {"path": "a", "in": "x"},
            {"path": "a", "matches": "("},
        ),
        *({"path": "a", "matches": 5}, {"path": "a", "like": "x"}, {"not": []}, {"any": {}}),
        {"all": [{"path": "a", "equals": 1}] * 101},
    ],
)
def test_what_cannot_be_meant(condition: Any) -> None:
    with pytest.raises(FeedRefused, match=r"^The filter cannot be used: ") as refused:
        parse_condition(condition)
    assert refused.value.status == 400


def test_depth_has_a_bound() -> None:
    condition: Any = {"path": "a", "equals": 1}
    for _ in range(12):
        condition = {"not": condition}
    with pytest.raises(FeedRefused):
        parse_condition(condition)


def test_a_filter_is_kept_as_it_was_given() -> None:
    wish = {"path": "body.temp", "above": 30}
    assert parse_filter({"filter": wish, "url": "x"}) == {"filter": wish}
    assert parse_filter({"filter": ""}) == parse_filter({}) == {}
    assert filter_of({"filter": wish})({"body": {"temp": 31}})
    assert filter_of({})({})
