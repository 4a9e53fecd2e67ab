"""Stem cells follow cold starts and foretold uses."""

from visp.invoker.cell_demand import CellDemand
from visp.invoker.keepalive import GreedyDual, Usage
from visp.invoker.prewarm import WORTH_S, Cell, Wanted

NODE = Cell("nodejs:20", 256)
LARGE = Cell("nodejs:20", 512)
MOST = 4


def opened(count: int = 0) -> CellDemand:
    return CellDemand([Wanted(NODE, count)], MOST, GreedyDual(), 0.0)


def test_the_manifest_is_the_least() -> None:
    assert opened(2).counts(0.0) == {NODE: 2}


def test_a_burst_of_cold_starts_asks_for_as_many_for_a_while() -> None:
    demand = opened(2)
    for _ in range(3):
        demand.draw(LARGE)
    assert demand.counts(0.5) == {NODE: 2}, "a second is not over"
    assert demand.counts(1.0) == {NODE: 2, LARGE: 3}
    assert demand.counts(30.0)[LARGE] == 2
    assert demand.counts(300.0) == {NODE: 2}


def test_no_more_than_the_most() -> None:
    demand = opened(2)
    for _ in range(100):
        demand.draw(NODE)
    assert demand.counts(1.0) == {NODE: MOST}


def test_what_starts_fast_is_not_prepared() -> None:
    demand = opened()
    demand.started(LARGE, WORTH_S / 2)
    for _ in range(3):
        demand.draw(LARGE)
    assert demand.counts(1.0) == {NODE: 0}


def test_a_foretold_use_has_a_cell_at_hand_until_it_came_or_did_not() -> None:
    demand = opened()
    usage = Usage(0.0)
    for _ in range(20):
        usage.pauses.add(900.0)
    usage.last_s = 100.0
    demand.gone(usage, LARGE)
    assert demand.counts(400.0) == {NODE: 0}
    assert demand.counts(990.0) == {NODE: 0, LARGE: 1}
    assert demand.counts(2000.0) == {NODE: 0}, "it did not come"
    demand.gone(usage, LARGE)
    assert demand.counts(990.0) == {NODE: 0, LARGE: 1}
    usage.last_s = 1000.0
    assert demand.counts(1001.0) == {NODE: 0}, "it came"


def test_nothing_is_expected_of_an_action_that_comes_as_it_likes() -> None:
    demand = opened()
    demand.gone(Usage(0.0), LARGE)
    assert demand.counts(1000.0) == {NODE: 0}
