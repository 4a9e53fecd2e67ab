"""Which records are kept."""

import pytest

from visp.entity.activation import Status
from visp.entity.keeping import STORE_ACTIVATIONS, Keep, is_kept, keep_of, parse
from visp.entity.parameters import plain
from visp.errors import BadRequest


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("all", {0, 1, 2, 3}),
        ("always", {0, 1, 2, 3}),
        ("errors", {1, 2, 3}),
        ("none", set()),
    ],
)
def test_an_outcome_is_kept_or_not(keep: Keep, kept: set[int]) -> None:
    assert {status for status in Status if is_kept(keep, status)} == kept


def test_a_request_is_heard_before_the_namespace_and_that_before_the_action() -> None:
    errors = plain(STORE_ACTIVATIONS, "errors")
    assert keep_of({}, is_storing=True) == "all"
    assert keep_of(errors, is_storing=True) == "errors"
    assert keep_of(errors, is_storing=False) == "none"
    assert keep_of(errors, is_storing=False, is_forced=True) == "always"


@pytest.mark.parametrize("value", ["always", "All", True, None, 5])
def test_what_cannot_be_meant_is_refused(value: object) -> None:
    with pytest.raises(BadRequest, match=r"all, errors, none"):
        parse(plain(STORE_ACTIVATIONS, value))
    assert parse({}) is None
