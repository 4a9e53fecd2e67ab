"""What is done for an activation without a free container, case by case."""

from typing import Any

import pytest

from visp.invoker.plan import Create, Demand, Resume, Specialise, View, Wait, choose_evicted, plan
from visp.invoker.slot import Slot


def demand(**fields: Any) -> Demand:
    values: dict[str, Any] = {
        "memory_mb": 256,
        "waiting": 1,
        "waited_s": 0.0,
        "containers": 0,
        "starting": 0,
        "service_s": None,
        "cold_s": None,
    }
    return Demand(**(values | fields))


def view(**fields: Any) -> View[Slot]:
    values: dict[str, Any] = {
        "paused": None,
        "stem_cell": None,
        "free_mb": 1024,
        "starts": 0,
        "starts_limit": 2,
        "idle": (),
        "spare": (),
    }
    return View(**(values | fields))


def slot(id: str = "c1", memory_mb: int = 256) -> Slot:
    return Slot(id, "python:3.11", memory_mb, 0.0)


OLD, NEW, CELL = slot("old"), slot("new"), slot("cell")


@pytest.mark.parametrize(
    ("asked", "seen", "step"),
    [
        (demand(starting=1), view(paused=OLD), Wait()),
        (demand(starting=1, waiting=2), view(), Create()),
        (demand(starting=1, waited_s=0.6), view(), Create()),
        (demand(starting=1, waited_s=0.6, cold_s=1.0), view(), Wait()),
        (demand(), view(paused=OLD, stem_cell=NEW), Resume(OLD)),
        (demand(containers=1, service_s=0.01, cold_s=0.1), view(stem_cell=NEW), Wait()),
        (demand(containers=1, service_s=0.2, cold_s=0.1), view(), Create()),
        (demand(containers=1, service_s=0.01, cold_s=0.1, waiting=11), view(), Create()),
        (demand(containers=1, service_s=0.01, cold_s=0.1, waited_s=0.11), view(), Create()),
        (demand(containers=1, service_s=None, cold_s=0.1), view(), Create()),
        (demand(containers=1, service_s=0.01, cold_s=0.1, arrivals=100.0), view(), Wait()),
        (demand(containers=1, service_s=0.01, cold_s=0.1, arrivals=300.0, waiting=10), view(), Create()),
        (demand(containers=1, service_s=0.2, cold_s=0.1, concurrency=4), view(), Wait()),
        (demand(containers=2, service_s=9.0, cold_s=0.1, useful=2, waited_s=9.0), view(), Wait()),
        (demand(containers=2, service_s=9.0, cold_s=0.1, useful=3), view(), Create()),
        (demand(containers=2, service_s=9.0, cold_s=0.1, instances=2), view(), Wait()),
        (demand(containers=2, service_s=9.0, cold_s=0.1, instances=3), view(), Create()),
        (demand(), view(stem_cell=NEW, starts=2, free_mb=0), Specialise(NEW)),
        (demand(), view(starts=2), Wait()),
        (demand(), view(free_mb=256), Create()),
        (demand(), view(free_mb=255, idle=(OLD, NEW)), Create((OLD,))),
        (demand(), view(free_mb=0, idle=(OLD,), spare=(CELL,)), Create((CELL,))),
        (demand(memory_mb=512), view(free_mb=0, idle=(OLD, NEW)), Create((OLD, NEW))),
        (demand(memory_mb=512), view(free_mb=0, idle=(OLD,)), Wait(is_full=True)),
    ],
    ids=[
        "1 one starts, one waits",
        "1 more wait than start",
        "1 an initialisation that lasts is not waited for",
        "1 as long as a start takes",
        "2 resume before all",
        "3 a busy one will be free sooner",
        "3 a start is quicker",
        "3 many wait",
        "3 waited long enough",
        "3 nothing is known",
        "3 one is enough for what comes",
        "3 what comes during the start is more than one can take",
        "3 a container that runs several at once",
        "3 every core is busy",
        "3 every core is busy, and it has few",
        "3 no more instances",
        "3 one more instance",
        "4 a stem cell needs neither memory nor a start",
        "5 too many starts",
        "5 just enough room",
        "6 the longest idle goes",
        "6 a stem cell goes first",
        "6 as many as it takes",
        "7 not even then",
    ],
)
def test_plan(asked: Demand, seen: View[Slot], step: object) -> None:
    assert plan(asked, seen) == step


def test_no_more_is_evicted_than_needed() -> None:
    assert choose_evicted(300, (slot("a", 128), slot("b", 256), slot("c", 512))) is not None
    evicted = choose_evicted(300, (slot("a", 128), slot("b", 256), slot("c", 512)))
    assert evicted is not None
    assert [candidate.id for candidate in evicted] == ["a", "b"]


def test_nothing_is_evicted_in_vain() -> None:
    assert choose_evicted(300, (slot("a", 128),)) is None
