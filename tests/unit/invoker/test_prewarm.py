"""Which stem cells are started."""

from visp.invoker.prewarm import Cell, Wanted, missing

PYTHON, NODE = Cell("python:3.11", 256), Cell("nodejs:20", 256)
BOTH = (Wanted(PYTHON, 2), Wanted(NODE, 2))


def test_what_lacks_is_started_each_sort_in_turn() -> None:
    assert missing(BOTH, {}, 10_000, 10) == [PYTHON, NODE, PYTHON, NODE]


def test_what_is_there_is_not_started_again() -> None:
    assert missing(BOTH, {PYTHON: 2, NODE: 1}, 10_000, 10) == [NODE]


def test_no_more_than_memory_allows() -> None:
    assert missing(BOTH, {}, 600, 10) == [PYTHON, NODE]


def test_what_does_not_fit_does_not_hold_up_what_does() -> None:
    large = Cell("java:8", 512)
    assert missing((Wanted(large, 1), Wanted(NODE, 1)), {}, 300, 10) == [NODE]


def test_no_more_than_starts_allow() -> None:
    assert missing(BOTH, {}, 10_000, 3) == [PYTHON, NODE, PYTHON]
    assert missing(BOTH, {}, 10_000, 0) == []


def test_more_than_wanted_is_no_reason_to_start() -> None:
    assert missing((Wanted(PYTHON, 1),), {PYTHON: 3}, 10_000, 10) == []
