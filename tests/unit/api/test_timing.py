"""Where the time of an activation went, as a header says it."""

from __future__ import annotations

import msgspec
import pytest

from visp.api.errors import HttpAnswer
from visp.api.timing import timed, told
from visp.entity.activation import ActivationHead, Phases

WARM = Phases(0, 41, None, None, 60, 2060, 2070, 2080)
COLD = Phases(0, 41, 9120, 35870, 35902, 57310, 57322, 57340, "first use")
STEM_CELL = Phases(0, 10, None, 510, 600, 1600, 1600, 1700, "new revision")
KILLED = Phases(0, 41, 9120, None, None, None, None, 9200, "first use")


def head(phases: Phases | None) -> ActivationHead:
    made = ActivationHead(id="a", namespace="n", subject="s", name="a", version="0.0.1", start_ms=0, duration_ms=57)
    return msgspec.structs.replace(made, phases=phases)


@pytest.mark.parametrize(
    ("phases", "text"),
    [
        (WARM, "queue;dur=0.041, run;dur=2.000"),
        (COLD, 'queue;dur=0.041, start;dur=9.079, init;dur=26.750, run;dur=21.408, cold;desc="first use"'),
        (STEM_CELL, 'queue;dur=0.010, init;dur=0.500, run;dur=1.000, cold;desc="new revision"'),
        (KILLED, 'queue;dur=0.041, start;dur=9.079, cold;desc="first use"'),
        (None, "run;dur=57"),
    ],
)
def test_phases(phases: Phases | None, text: str) -> None:
    assert told(head(phases)) == text


def test_only_an_activations_answer_has_it() -> None:
    assert timed(HttpAnswer(200)).headers == ()
    assert timed(HttpAnswer(200, ran=head(WARM))).headers == (("Server-Timing", told(head(WARM))),)
