"""`visp activation get --timeline`: where the time of an activation went.

Each row is one phase: when it was reached, how long that took since the one before, and a bar on one scale for all.
Only the bars know how wide the terminal is; into a pipe they have a width of their own, so that the text is stable.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import msgspec

from visp.cli import output
from visp.client import documents
from visp.client.errors import ApiError
from visp.entity.activation import PHASES, PHASES_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORDS = {
    "queued": "reached the invoker",
    "placed": "waited for a container",
    "created": "container created",
    "initialised": "code initialised",
    "run": "begun",
    "answered": "ran",
    "logs": "logs collected",
    "stored": "handed to the ledger",
}
"""What the time up to a phase was spent on."""
NOT_INITIALISED = "failed to initialise"
"""What it was spent on when the answer came before there was a run."""

COLD = {
    "first use": "the action had no container here before",
    "new revision": "the action was changed since its last container began",
    "all busy": "every container of the action was busy",
    "evicted": "its last container gave way to another action that needed the memory",
    "expired": "its last container had been idle for too long",
    "ended": "its last container was of no more use: it failed, timed out or was killed",
}
"""Reasons of a cold start, in words; another one is shown as it is."""

PIPED_WIDTH = 100
NARROWEST_BAR = 10
NUMBER_WIDTH = 8
NO_PHASES = (
    "This record says nothing of its phases: it was written by an earlier version or another platform, or nothing "
    "was run for it."
)


class Span(msgspec.Struct, frozen=True):
    """One row: what it is, from when to when (microseconds)."""

    label: str
    begin_us: int
    end_us: int


def show(record: Any, part_of: Callable[[str], Any]) -> None:
    """Draws a record that was asked for with its phases; `part_of` fetches that of a sequence's component by id."""
    path = f"/{documents.text(record, 'namespace')}/{documents.text(record, 'name')}"
    status = documents.text(record.get("response"), "status") if isinstance(record, dict) else ""
    output.line(f"activation {documents.text(record, 'activationId')} of {path}: {status or 'unknown'}")
    told = documents.annotation(record, PHASES_KEY)
    if documents.annotation(record, "kind") == "sequence":
        spans = component_spans(record, part_of)
    else:
        spans = phase_spans(told)
        if spans:
            output.line(_start_in_words(told))
    if not spans:
        output.line(NO_PHASES)
        return
    output.line("")
    _draw(spans)


def phase_spans(told: Any) -> list[Span]:
    """From the annotation: the phases that were reached, each from the one before on; empty when it tells nothing."""
    members = told.get("phases_us") if isinstance(told, dict) else None
    reached = {phase: max(0, us) for phase in PHASES if (us := documents.whole(members, phase)) is not None}
    spans: list[Span] = []
    before_us = 0
    # A stable sort: phases that were reached at one time stay in their order
    for phase, us in sorted(reached.items(), key=lambda entry: entry[1]):
        is_init = phase == "answered" and "run" not in reached
        spans.append(Span(NOT_INITIALISED if is_init else WORDS[phase], before_us, us))
        before_us = us
    return spans


def component_spans(record: Any, part_of: Callable[[str], Any]) -> list[Span]:
    """The components of a sequence, whose ids are its log, from its own start on; those that still have a record."""
    start_ms = documents.whole(record, "start") or 0
    logs = record.get("logs") if isinstance(record, dict) else None
    spans: list[Span] = []
    for id in logs if isinstance(logs, list) else []:
        try:
            part = part_of(str(id))
        except ApiError:  # it is kept no longer
            continue
        begin_ms = max(0, (documents.whole(part, "start") or start_ms) - start_ms)
        took_ms = documents.whole(part, "duration") or 0
        spans.append(Span(documents.text(part, "name") or str(id), begin_ms * 1000, (begin_ms + took_ms) * 1000))
    return spans


def _start_in_words(told: Any) -> str:
    reason = documents.text(told, "cold")
    if not reason:
        return "warm start: a container was ready, or paused"
    meaning = COLD.get(reason)
    return f"cold start, {reason}" + ("" if meaning is None else f": {meaning}")


def _draw(spans: Sequence[Span]) -> None:
    total_us = max(span.end_us for span in spans)
    labels = max(len(span.label) for span in spans)
    width = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns if output.is_terminal() else PIPED_WIDTH

    def cells(label: str, took: str, at: str) -> str:
        return f"{label:<{labels}}  {took:>{NUMBER_WIDTH}}  {at:>{NUMBER_WIDTH}}"

    bars = max(NARROWEST_BAR, width - len(cells("", "", "")) - 2)
    output.line(cells("", "took", "at"))
    for span in spans:
        text = cells(span.label, _human(span.end_us - span.begin_us), _human(span.end_us))
        output.bar(text + "  ", *bar_of(span, total_us, bars))
    output.line(cells("total", _human(total_us), "").rstrip())


def bar_of(span: Span, total_us: int, width: int) -> tuple[int, int]:
    """Blanks before the bar, and its cells, none of them beyond `width`; 0 cells for what is too short for one."""
    if total_us <= 0:
        return 0, 0
    begin, end = (round(us * width / total_us) for us in (span.begin_us, span.end_us))
    return min(begin, width - 1), end - begin


def _human(us: int) -> str:
    """A duration with three digits that count: `7 µs`, `4.62 ms`, `1.20 s`, `3 min 5 s`."""
    if us < 1000:
        return f"{us} µs"
    if us < 60_000_000:
        value, unit = (us / 1000, "ms") if us < 999_500 else (us / 1_000_000, "s")
        return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
    minutes, seconds = divmod(round(us / 1_000_000), 60)
    return f"{minutes} min {seconds} s"
