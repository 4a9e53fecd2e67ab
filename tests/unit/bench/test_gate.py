"""The gate's comparison can fail, both ways."""

import pytest
from bench import gate
from bench.gate import Own, Record

RECORD = Record(ratio=0.3, invocation_us=24.0)


@pytest.mark.parametrize("ratio", [0.271, 0.3, 0.329])
def test_within_a_tenth_of_the_record_nothing_is_wrong(ratio: float) -> None:
    assert gate.judge(Own(100 * ratio, 100), RECORD) is None


def test_more_than_a_tenth_above_is_a_regression() -> None:
    wrong = gate.judge(Own(24.0 * 1.2, 80.0), RECORD)
    assert wrong is not None
    assert "grown by 20%" in wrong


def test_five_microseconds_of_twenty_four_are_noticed_on_a_machine_of_any_speed() -> None:
    for speed in (0.5, 1.0, 2.0):
        assert gate.judge(Own((24.0 + 5.0) / speed, 80.0 / speed), RECORD) is not None
        assert gate.judge(Own(24.0 / speed, 80.0 / speed), RECORD) is None


def test_more_than_a_tenth_below_asks_for_a_new_record() -> None:
    wrong = gate.judge(Own(24.0 * 0.8, 80.0), RECORD)
    assert wrong is not None
    assert gate.ANEW in wrong


def test_what_disturbs_some_batches_does_not_count() -> None:
    assert gate.undisturbed([5.0, 1.0, 1.1, *[9.0] * 30]) == 1.1


def test_the_reference_works() -> None:
    for number in range(gate.REFERENCES):
        gate.reference(number)
