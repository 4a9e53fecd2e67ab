"""Whether two versions differ, from the ratios of rounds."""

import pytest
from bench import verdict
from bench.verdict import Verdict


@pytest.mark.parametrize(
    ("differences", "chance"),
    [
        ([1, 2, 3, 4, 5], 2 / 32),  # all on one side
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([-1, 2, 3, 4, 5], 4 / 32),  # sums 0 and 1 below, and as many above
        ([1, -1], 1.0),
        ([0, 0], 1.0),
        ([0, 1, 2, 3, 4, 5], 2 / 32),  # a zero says nothing
        ([2, 2, 2, 2, 2], 2 / 32),  # equal sizes share their ranks
    ],
)
def test_chance_is_wilcoxons(differences: list[float], chance: float) -> None:
    assert verdict.chance(differences) == pytest.approx(chance)
    assert verdict.chance([-value for value in differences]) == pytest.approx(chance)


@pytest.mark.parametrize(
    ("ratios", "is_more_better", "expected"),
    [
        ([1.2, 1.3, 1.1, 1.25, 1.2, 1.15], True, Verdict.BETTER),
        ([1.2, 1.3, 1.1, 1.25, 1.2, 1.15], False, Verdict.WORSE),
        ([0.8, 0.7, 0.9, 0.75, 0.8, 0.85], False, Verdict.BETTER),
        ([1.2, 0.9, 1.1, 0.85, 1.2, 0.95], True, Verdict.SAME),
        ([1.001, 1.002, 1.003, 1.004, 1.005, 1.006], True, Verdict.SAME),  # sure, and too little to matter
        ([2.0, 2.0, 2.0, 2.0, 2.0], True, Verdict.UNSURE),
    ],
)
def test_verdicts(ratios: list[float], is_more_better: bool, expected: Verdict) -> None:
    assert verdict.of_ratios(ratios, is_more_better=is_more_better) is expected
