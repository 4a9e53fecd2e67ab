"""Limits of an action: what a body may name, how it merges with what was stored, and which violation is told first."""

from typing import Any

import pytest

from visp.entity.limits import (
    ActionLimits,
    LimitRanges,
    Range,
    check_ranges,
    merge_limits,
    parse_byte_size,
    parse_limits,
    range_violation,
    render_byte_size,
)
from visp.errors import BadRequest, Malformed


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (None, {}),
        ({}, {}),
        ({"timeout": None, "memory": 128, "unknown": "x"}, {"memory": 128}),
        ({"timeout": 1.0, "logs": 0, "instances": 0}, {"timeout": 1, "logs": 0, "instances": 0}),
        ({"memory": -5}, {"memory": -5}),
    ],
)
def test_limits_of_a_body(given: Any, parsed: dict[str, int]) -> None:
    assert parse_limits(given) == parsed


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (5, "Object expected in field 'timeout'"),
        ([], "Object expected in field 'timeout'"),
        ({"timeout": "1"}, "time limit malformed"),
        ({"memory": True}, "memory limit malformed"),
        ({"logs": {}}, "log limit malformed"),
        ({"concurrency": []}, "concurrency limit malformed"),
        ({"instances": "x"}, "instance concurrency limit malformed"),
        ({"timeout": 0.5}, "requirement failed: time limit must be whole number"),
        ({"concurrency": 0.5}, "requirement failed: intra concurrency limit must be whole number"),
        ({"instances": -1}, "requirement failed: Action container concurrency must be greater than or equal to 0."),
    ],
)
def test_limits_that_are_malformed(given: Any, reason: str) -> None:
    with pytest.raises(Malformed) as raised:
        parse_limits(given)
    assert raised.value.reason == reason


def test_a_merge_over_defaults_and_over_what_was_stored() -> None:
    created = merge_limits(None, {"memory": 128, "instances": 2})
    assert created.render() == {"timeout": 60000, "memory": 128, "logs": 10, "concurrency": 1, "instances": 2}
    updated = merge_limits(created, {"timeout": 100})
    assert updated.render() == created.render() | {"timeout": 100}
    assert "instances" not in ActionLimits().render()


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (ActionLimits(), None),
        (ActionLimits(memory_mb=1, timeout_ms=1), "memory size 1 MB below allowed threshold of 128 MB"),
        (
            ActionLimits(timeout_ms=99, logs_mb=11),
            "duration 99 milliseconds below allowed threshold of 100 milliseconds",
        ),
        (ActionLimits(logs_mb=11, concurrency=9), "log size 11 MB exceeds allowed threshold of 10 MB"),
        (ActionLimits(concurrency=0), "concurrency 0 below allowed threshold of 1"),
    ],
)
def test_the_first_violation_is_told(limits: ActionLimits, sentence: str | None) -> None:
    assert range_violation(limits, LimitRanges()) == sentence


def test_a_namespaces_own_bound_is_named() -> None:
    ranges = LimitRanges(memory_mb=Range(128, 200, 256))
    with pytest.raises(BadRequest, match="requirement failed: memory size 256 MB exceeds allowed threshold of 200 MB"):
        check_ranges(ActionLimits(), ranges)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5 B", 5), ("5B", 5), ("1 KB", 1024), ("1k", 1024), ("2 MB", 2097152), ("2m", 2097152), (" 1 GB ", 1 << 30)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_byte_size(text) == size
    assert parse_byte_size(render_byte_size(size)) == size


@pytest.mark.parametrize("text", ["", "5", "B", "-1 B", "1.5 MB", "1 TB", "1 KiB", "٣ B", "1 B x"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_byte_size(text)
