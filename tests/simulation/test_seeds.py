"""The platform in a world of its own, two hundred times over; and that the world would show what is wrong.

A seed that fails says how to see it again: `python -m tests.simulation SEED --trace`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from tests.simulation.world import Lived, World, live

from visp.entity.activation import ActivationRecord
from visp.invoker.initializer import Initializer
from visp.invoker.job import Job
from visp.invoker.pool import Pool
from visp.invoker.records import Records
from visp.invoker.slot import Key, Slot
from visp.store.base import Then, Work
from visp.store.ledger import EmbeddedLedger
from visp.store.segments import Segment

SEEDS = range(100)
GROUPS = [SEEDS[at : at + 10] for at in range(0, len(SEEDS), 10)]
QUICK = (0, 3, 5, 12, 71)
"""Where the defects planted below were found: they are looked for there first."""
FAILED_ONCE = {
    164: "a sequence waited for one in it that a crash had kept off the disk when both became accepted work",
    1281: "a record without an action did not say which attempt it was",
    1600: "the same, of a third attempt",
    241: "a detached call whose beginning could not be written was left to the next start",
    1642: "so was a delayed fire",
    3338: "so was what had been marked before, for a container that could not serve it",
    2540: "so was a sequence that went on, when the record of one in it could not be written",
}
"""Seeds beyond those, and what was wrong when they were found: they stay."""


@pytest.mark.slow(reason="ten lives of the whole platform, with its crashes")
@pytest.mark.parametrize("seeds", GROUPS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_nothing_is_lost_and_nothing_runs_twice(seeds: Sequence[int]) -> None:
    broken = [lived.broken for seed in seeds if (lived := live(World(seed))).broken is not None]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once_does_not_again(seed: int) -> None:
    assert live(World(seed)).broken is None, FAILED_ONCE[seed]


def test_these_worlds_are_no_quiet_ones() -> None:
    lived = [live(World(seed)) for seed in SEEDS[:10]]
    assert sum(each.crashes for each in lived) >= 10
    assert sum(each.given for each in lived) >= 100
    assert sum(each.runs for each in lived) >= 100


# ── a seed is the whole of a fate ───────────────────────────────────────────────────────────────────────────────


def test_a_seed_is_lived_again_step_by_step() -> None:
    for seed in (3, 7, 11):
        first, between, again = World(seed), World(seed + 1), World(seed)
        for world in (first, between, again):
            live(world)
        assert first.digest == again.digest != between.digest
        assert (first.steps, first.kills, first.runs) == (again.steps, again.kills, again.runs)


@pytest.mark.slow(reason="starts two interpreters")
def test_another_process_lives_it_the_same_way() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(said) == 1
    assert live(World(7)).digest in said.pop()


def test_a_broken_seed_says_how_to_see_it_again() -> None:
    with patch.object(EmbeddedLedger, "start", _forgets_started):
        broken = first_broken().broken
    assert broken is not None
    assert "python -m tests.simulation" in broken
    seed = int(broken.partition("python -m tests.simulation ")[2].split()[0])
    with patch.object(EmbeddedLedger, "start", _forgets_started):
        assert live(World(seed)).broken == broken


# ── defects that are planted are found ──────────────────────────────────────────────────────────────────────────


def first_broken() -> Lived:
    for seed in (*QUICK, *SEEDS):
        lived = live(World(seed))
        if lived.broken is not None:
            return lived
    raise AssertionError("no seed of these finds it")


def _forgets_started(self: EmbeddedLedger, ids: Sequence[str], then: Then) -> None:
    self._loop.call_soon(then, None)


def _started_is_not_synced(self: EmbeddedLedger, ids: Sequence[str], then: Then) -> None:
    _START(self, ids, lambda _: None)
    self._loop.call_soon(then, None)


async def _runs_before_it_is_started(self: Initializer, slot: Slot, job: Job) -> bool:
    self._ledger.start([job.message.id], lambda _: None)
    return True


def _accepts_before_it_is_synced(
    self: EmbeddedLedger, works: Sequence[Work], record: ActivationRecord | None, then: Then, **named: Any
) -> None:
    _ACCEPT(self, works, record, lambda _: None, **named)
    self._loop.call_soon(then, None)


def _forgets_what_is_open(self: EmbeddedLedger) -> list[Any]:
    return [work for work in _OPEN_WORK(self) if work.is_started]


def _submits_to_any(self: Pool, job: Job) -> None:
    """Namespaces share a container of an action that is called the same."""
    for key, slots in self._ready.items():
        if slots and key.action.rpartition("/")[2] == job.key.action.rpartition("/")[2]:
            job.key = key
            break
    _SUBMIT(self, job)


def _keeps_old_revisions(namespace: str, action: str, revision: int) -> Key:
    return Key(namespace, action, 1)


def _takes_too_much(self: Pool, *values: Any, **named: Any) -> None:
    _MAKE_POOL(self, *values, **named | {"memory_mb": 2 * named["memory_mb"]})


def _loses_an_answer(self: Records, record: ActivationRecord, *others: Any) -> None:
    if record.head.status != 3:
        _WRITE(self, record, *others)


def _syncs_nothing(self: Segment) -> None:
    """Only says so."""


_START, _ACCEPT, _OPEN_WORK = EmbeddedLedger.start, EmbeddedLedger.accept, EmbeddedLedger.open_work
_SUBMIT, _MAKE_POOL, _WRITE = Pool.submit, Pool.__init__, Records._write

DEFECTS: dict[str, tuple[str, Any, str]] = {
    "the ledger forgets what was started": ("visp.store.ledger.EmbeddedLedger.start", _forgets_started, "runs 2 times"),
    "started is not waited for": (  # it is synced with what it begins, of composites
        "visp.store.ledger.EmbeddedLedger.start",
        _started_is_not_synced,
        "runs 2 times|is lost",
    ),
    "code is loaded before that": (
        "visp.invoker.initializer.Initializer._mark_started",
        _runs_before_it_is_started,
        "runs 2 times",
    ),
    "202 before it is synced": (  # of what is lost so some is waited for in vain
        "visp.store.ledger.EmbeddedLedger.accept",
        _accepts_before_it_is_synced,
        "is lost|in flight",
    ),
    "a sync that does nothing": ("visp.store.segments.Segment.sync", _syncs_nothing, "is lost|is damaged"),
    "a restart forgets what waits": ("visp.store.ledger.EmbeddedLedger.open_work", _forgets_what_is_open, "open"),
    "namespaces share containers": ("visp.invoker.pool.Pool.submit", _submits_to_any, "ran as|has the result"),
    "a container outlives its revision": ("visp.invoker.invoker.Key", _keeps_old_revisions, "ran code|is to serve"),
    "more memory than there is": ("visp.invoker.pool.Pool.__init__", _takes_too_much, "MB of"),
    "an outcome that is not written": ("visp.invoker.records.Records._write", _loses_an_answer, "in flight"),
}


@pytest.mark.slow(reason="lives until a seed finds it")
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect: str) -> None:
    where, planted, said = DEFECTS[defect]
    with patch(where, planted):
        broken = first_broken().broken
    assert broken is not None
    assert re.search(said, broken.splitlines()[0])
