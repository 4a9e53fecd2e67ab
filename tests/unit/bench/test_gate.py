"""The gate's comparison can fail, both ways."""

import pytest
from bench import gate
from bench.gate import Own, Record
from bench.goals import own_python

RECORD = Record(ratio=0.4, invocation=200_000)


@pytest.mark.parametrize("ratio", [0.381, 0.4, 0.419])
def test_within_a_twentieth_of_the_record_nothing_is_wrong(ratio: float) -> None:
    assert gate.judge(Own(500_000 * ratio, 500_000), RECORD) is None


def test_more_than_a_twentieth_above_is_a_regression() -> None:
    wrong = gate.judge(Own(212_000, 500_000), RECORD)
    assert wrong is not None
    assert "grown by 6%" in wrong


def test_a_build_that_takes_more_for_everything_is_held_to_the_same() -> None:
    for build in (0.5, 1.0, 2.0):
        assert gate.judge(Own(212_000 * build, 500_000 * build), RECORD) is not None
        assert gate.judge(Own(200_000 * build, 500_000 * build), RECORD) is None


def test_more_than_a_twentieth_below_asks_for_a_new_record() -> None:
    wrong = gate.judge(Own(188_000, 500_000), RECORD)
    assert wrong is not None
    assert gate.ANEW in wrong


def test_what_disturbs_some_batches_does_not_count() -> None:
    assert own_python.undisturbed([5.0, 1.0, 1.1, *[9.0] * 30]) == 1.1


def test_the_reference_works() -> None:
    for number in range(gate.REFERENCES):
        gate.reference(number)
