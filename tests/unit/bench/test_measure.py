"""Rounds, ratios and charts."""

from collections.abc import Callable

from bench import measure
from bench.load import Load
from bench.measure import Chart, Series


def load(p50_us: int) -> Load:
    curve = ((50.0, p50_us), (99.0, 10 * p50_us))
    return Load(100, 1_000_000, p50_us, 10 * p50_us, 20 * p50_us, 0, 0, curve)


def test_rounds_take_turns_and_every_second_one_goes_backwards() -> None:
    order: list[str] = []
    sides = [lambda name=name: order.append(name) or name for name in "ab"]
    assert measure.interleaved(3, *sides) == (["a"] * 3, ["b"] * 3)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_ratios_are_of_a_round_not_of_medians() -> None:
    found = measure.ratio([2.0, 30.0, 3.0], [1.0, 10.0, 3.0])
    assert found.rounds == (2.0, 3.0, 1.0)
    assert (found.low, found.median, found.high) == (1.0, 2.0, 3.0)


def test_a_load_is_set_beside_invocations_by_one_client_and_by_many() -> None:
    asked: list[tuple[str, int, int]] = []

    def side(name: str, requests: int) -> Callable[[int, int], Load]:
        def run(clients: int, seconds: int) -> Load:
            asked.append((name, clients, seconds))
            return Load(requests * clients, 1_000_000, 1, 1, 1, 0, 0)

        return run

    found = list(measure.beside_invocations("web", 2, 5, 0.9, side("web", 8), side("invoke", 10)))
    assert [finding.ratio.median for finding in found if finding.ratio] == [0.8, 0.8]
    assert [finding.is_met for finding in found] == [False, False]
    warm, turns = [("invoke", 1, 1), ("web", 1, 1)], [("web", 1, 5), ("invoke", 1, 5)]
    assert asked[:6] == [*warm, *turns, *reversed(turns)]


def test_the_curve_is_of_the_middle_round_in_milliseconds() -> None:
    series = measure.cdf("visp", [load(900), load(100), load(200)])
    assert series == Series("visp", (0.2, 2.0), (50.0, 99.0))


def test_charts_of_one_name_become_one() -> None:
    python = Chart(name="cold", title="Cold", x_label="ms", series=(measure.bar("Python", 40.0),), style="bars")
    node = Chart(name="cold", title="Cold", x_label="ms", series=(measure.bar("Node.js", 55.0),), style="bars")
    other = Chart(name="memory", title="Memory", x_label="containers", series=())
    merged = measure.merged([python, other, node])
    assert [chart.name for chart in merged] == ["cold", "memory"]
    assert [series.label for series in merged[0].series] == ["Python", "Node.js"]
