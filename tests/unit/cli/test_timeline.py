"""`visp activation get --timeline`: bars on one scale, the reason of a cold start, and what has no phases."""

import pytest

from visp.cli.timeline import COLD, NO_PHASES, NOT_INITIALISED, WORDS, Span, bar_of, phase_spans
from visp.entity.activation import PHASES
from visp.invoker.job import Cold

ID = "0123456789abcdef0123456789abcdef"
PART = "f" * 32
COLD_RUN = {
    "cold": "new revision",
    "phases_us": {
        "queued": 0,
        "placed": 500,
        "created": 5000,
        "initialised": 9_990,
        "run": 10_000,
        "answered": 1_250_000,
        "logs": 1_250_020,
        "stored": 1_250_049,
    },
}


def record(told=None, **more):
    annotations = [{"key": "kind", "value": "python:3.11"}] + ([{"key": "visp", "value": told}] if told else [])
    return {
        "activationId": ID,
        "namespace": "guest",
        "name": "hello",
        "start": 1000,
        "annotations": annotations,
        "response": {"status": "success"},
    } | more


def test_a_cold_start_is_drawn_with_its_reason(api, visp):
    api.answer(f"GET /namespaces/_/activations/{ID}", body=record(COLD_RUN))
    done = visp("activation", "get", ID, "--timeline")
    assert api.requests[0].query == {"phases": "true"}
    assert done.exit_code == 0
    head, reason, empty, *rows = done.stdout.splitlines()
    assert head == f"activation {ID} of /guest/hello: success"
    assert reason == "cold start, new revision: the action was changed since its last container began"
    assert empty == ""
    assert [row[:22].strip() for row in rows] == ["", *WORDS.values(), "total"]
    assert [row[22:].split()[:4] for row in rows[2:4]] == [
        ["500", "µs", "500", "µs"],
        ["4.50", "ms", "5.00", "ms"],
    ]
    ran = next(row for row in rows if row.startswith("ran"))
    assert ran.split()[1:5] == ["1.24", "s", "1.25", "s"]
    assert ran.count("█") > 50
    assert all(len(row) <= 100 for row in rows)
    assert rows[-1].split() == ["total", "1.25", "s"]


def test_a_warm_start_says_so_and_the_newest_can_be_taken(api, visp):
    warm = {"phases_us": {"queued": 0, "placed": 0, "run": 15, "answered": 400, "logs": 410, "stored": 420}}
    api.answer("GET /namespaces/_/activations", body=[record()])
    api.answer(f"GET /namespaces/_/activations/{ID}", body=record(warm))
    rows = visp("activation", "get", "--last", "--timeline").stdout.splitlines()
    assert rows[1].startswith("warm start")
    assert not any(row.startswith(("container created", "code initialised")) for row in rows)


@pytest.mark.parametrize("told", [None, "strange", {"phases_us": []}, {"phases_us": {"queued": "0"}}])
def test_a_record_without_phases_says_so(api, visp, told):
    api.answer(f"GET /namespaces/_/activations/{ID}", body=record(told))
    done = visp("activation", "get", ID, "--timeline")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, NO_PHASES)


def test_a_sequence_shows_the_components_that_have_a_record(api, visp):
    whole = record(annotations=[{"key": "kind", "value": "sequence"}], logs=[PART, "e" * 32], start=1000, name="both")
    api.answer(f"GET /namespaces/_/activations/{ID}", body=whole)
    api.answer(f"GET /namespaces/_/activations/{PART}", body={"name": "first", "start": 1020, "duration": 30})
    rows = visp("activation", "get", ID, "--timeline").stdout.splitlines()
    assert rows[3].startswith("first")
    assert rows[3].split()[1:5] == ["30.0", "ms", "50.0", "ms"]
    assert rows[4].split() == ["total", "50.0", "ms"]


def test_with_json_it_is_the_record_with_its_phases(api, visp):
    api.answer(f"GET /namespaces/_/activations/{ID}", body=record(COLD_RUN))
    done = visp("activation", "get", ID, "--timeline", "--json")
    assert '"phases_us"' in done.stdout
    assert api.requests[0].query == {"phases": "true"}


@pytest.mark.parametrize(
    ("span", "bar"),
    [
        (Span("", 0, 100), (0, 10)),
        (Span("", 0, 1), (0, 0)),
        (Span("", 50, 100), (5, 5)),
        (Span("", 100, 100), (9, 0)),
    ],
)
def test_bars_share_one_scale(span, bar):
    assert bar_of(span, 100, 10) == bar


def test_a_bar_of_nothing():
    assert bar_of(Span("", 0, 0), 0, 10) == (0, 0)


def test_logs_that_came_late_stand_behind_the_record():
    spans = phase_spans({"phases_us": {"queued": -1, "placed": 0, "run": 5, "answered": 20, "logs": 90, "stored": 30}})
    assert [(span.begin_us, span.end_us) for span in spans] == [(0, 0), (0, 0), (0, 5), (5, 20), (20, 30), (30, 90)]
    assert [span.label for span in spans][-2:] == [WORDS["stored"], WORDS["logs"]]


def test_an_answer_without_a_run_was_a_failed_initialisation():
    spans = phase_spans({"phases_us": {"queued": 0, "placed": 5, "answered": 20, "stored": 30}})
    assert [span.label for span in spans][2:] == [NOT_INITIALISED, WORDS["stored"]]


def test_every_phase_and_every_reason_has_words():
    assert set(WORDS) == set(PHASES)
    assert set(COLD) == {reason.value for reason in Cold}
