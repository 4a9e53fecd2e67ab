"""What follows from a failure: policies as annotations say them, and the next step as a pure function."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.bus.follow import follow_ups
from visp.bus.messages import ActivationMessage, LetterMessage, decode_task
from visp.entity.activation import Status
from visp.entity.follow import Follow, RetryPolicy, backoff_ms, following_id, merged, parse
from visp.entity.parameters import Parameters, plain
from visp.errors import BadRequest

ID = "0123456789ab05" + "c" * 18
MESSAGE = ActivationMessage(
    id=ID,
    transid="t",
    namespace="ns",
    namespace_uuid="u",
    subject="s",
    action="ns/a",
    revision=3,
    content=b"{}",
    received_ms=1_000,
    is_blocking=True,
)


def annotated(**values: Any) -> Parameters:
    out: Parameters = {}
    for key, value in values.items():
        out |= plain(key.replace("_", "-"), value)
    return out


def test_nothing_is_asked_for_without_annotations() -> None:
    assert parse(annotated(other=1), "ns") is None


def test_fields_that_are_missing_have_their_defaults() -> None:
    assert parse(annotated(retry={}), "ns") == Follow(retry=RetryPolicy())
    assert parse(annotated(retry=None, dead_letter=False), "ns") == Follow()


@pytest.mark.parametrize(
    ("text", "target"),
    [("t", "ns/t"), ("/_/t", "ns/t"), ("/ns/p/t", "ns/p/t"), ("p/t", "ns/p/t"), (True, "")],
)
def test_dead_letter_names_something_of_the_namespace(text: Any, target: str) -> None:
    assert parse(annotated(dead_letter=text), "ns") == Follow(dead_letter=target)


@pytest.mark.parametrize("value", ["/other/t", "a/b/c", "", "/ns", "a b\n", 7, {}])
def test_what_cannot_be_meant_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest):
        parse(annotated(dead_letter=value), "ns")


@pytest.mark.parametrize(
    "value",
    [{"attempts": 0}, {"attempts": 101}, {"backoff_ms": 0}, {"on": []}, {"on": ["never"]}, {"more": 1}, [], "x"],
)
def test_malformed_policies_are_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="retry"):
        parse(annotated(retry=value), "ns")


def test_first_that_says_something_wins() -> None:
    rule, action = Follow(dead_letter=""), Follow(retry=RetryPolicy(attempts=9), dead_letter="ns/t")
    assert merged(rule, None, action) == Follow(retry=RetryPolicy(attempts=9), dead_letter="")
    assert merged(None, Follow()) is None


@given(attempt=st.integers(1, 100), draw=st.floats(0, 1), base=st.integers(1, 1_000), most=st.integers(1, 100_000))
def test_backoff_doubles_up_to_its_bound_and_is_drawn_from_the_upper_half(
    attempt: int, draw: float, base: int, most: int
) -> None:
    policy = RetryPolicy(backoff_ms=base, max_backoff_ms=most)
    whole = min(most, base * 2 ** (attempt - 1))
    assert whole / 2 - 1 <= backoff_ms(policy, attempt, draw) <= whole


def test_success_and_what_was_not_named_are_followed_by_nothing() -> None:
    policy = RetryPolicy(on=("internal",))
    message = msgspec.structs.replace(MESSAGE, follow=Follow(retry=policy, dead_letter=""))
    for status in (Status.SUCCESS, Status.APPLICATION_ERROR, Status.DEVELOPER_ERROR):
        assert follow_ups(message, status, b"{}", 0, 0.5) == ()
    assert len(follow_ups(message, Status.INTERNAL_ERROR, b"{}", 0, 0.5)) == 1
    assert follow_ups(MESSAGE, Status.INTERNAL_ERROR, b"{}", 0, 0.5) == ()


def test_attempts_follow_one_another_under_ids_that_are_known_beforehand() -> None:
    policy = RetryPolicy(attempts=3, backoff_ms=100, max_backoff_ms=100)
    message = msgspec.structs.replace(MESSAGE, follow=Follow(retry=policy, dead_letter="ns/t"))
    seen = [ID]
    for attempt in (2, 3):
        (next,) = follow_ups(message, Status.INTERNAL_ERROR, b"{}", 5_000, 1.0)
        again = decode_task(next.task)
        assert isinstance(again, ActivationMessage)
        assert again.follow == Follow(retry=policy, dead_letter="ns/t", attempt=attempt, first=ID)
        assert (again.id, again.is_accepted, again.is_blocking) == (next.id, True, False)
        assert next.due_ms == again.received_ms == 5_100
        assert next.id == following_id(seen[-1], "attempt")
        assert next.id[:14] == ID[:14]  # the same shard's
        seen.append(next.id)
        message = again
    assert len(set(seen)) == 3
    (last,) = follow_ups(message, Status.INTERNAL_ERROR, b'{"error":1}', 6_000, 1.0)
    letter = decode_task(last.task)
    assert isinstance(letter, LetterMessage)
    assert (letter.run, letter.status, letter.result, letter.target) == (message, 3, b'{"error":1}', "ns/t")
    assert last.due_ms == 6_000


def test_message_without_what_follows_reads_as_it_was_written_before() -> None:
    old = msgspec.msgpack.encode(list(msgspec.structs.astuple(MESSAGE))[:-1])
    assert decode_task(old) == MESSAGE
