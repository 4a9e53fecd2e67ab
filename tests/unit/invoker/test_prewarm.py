"""Which stem cells are started."""

from visp.invoker.prewarm import Cell, Wanted, counts, follow, missing

PYTHON, NODE = Cell("python:3.11", 256), Cell("nodejs:20", 256)
BOTH = {PYTHON: 2, NODE: 2}


def test_what_lacks_is_started_each_sort_in_turn() -> None:
    assert missing(BOTH, {}, 10_000, 10) == [PYTHON, NODE, PYTHON, NODE]


def test_what_is_there_is_not_started_again() -> None:
    assert missing(BOTH, {PYTHON: 2, NODE: 1}, 10_000, 10) == [NODE]


def test_no_more_than_memory_allows() -> None:
    assert missing(BOTH, {}, 600, 10) == [PYTHON, NODE]


def test_what_does_not_fit_does_not_hold_up_what_does() -> None:
    large = Cell("java:8", 512)
    assert missing({large: 1, NODE: 1}, {}, 300, 10) == [NODE]


def test_no_more_than_starts_allow() -> None:
    assert missing(BOTH, {}, 10_000, 3) == [PYTHON, NODE, PYTHON]
    assert missing(BOTH, {}, 10_000, 0) == []


def test_more_than_wanted_is_no_reason_to_start() -> None:
    assert missing({PYTHON: 1}, {PYTHON: 3}, 10_000, 10) == []


def test_the_level_of_demand_rises_at_once_and_fades() -> None:
    level = follow(0.0, 5)
    assert level == 5.0
    assert 2.0 < follow(level, 0, 34) < 3.0
    assert follow(level, 2) > 4.5


def test_the_greatest_reason_counts_and_demand_has_a_bound() -> None:
    wanted = [Wanted(PYTHON, 2)]
    assert counts(wanted, {PYTHON: 1.0, NODE: 9.0}, {NODE: 1}, 4) == {PYTHON: 2, NODE: 4}
    assert counts(wanted, {}, {NODE: 1}, 4) == {PYTHON: 2, NODE: 1}
    assert counts([Wanted(PYTHON, 6)], {}, {}, 4) == {PYTHON: 6}, "what the manifest asks for is not bounded by demand"
