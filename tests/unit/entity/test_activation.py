"""Records of activations as clients read them: what is there, what is left out, and ids that are none."""

import json

import msgspec
import pytest

from visp.entity.activation import (
    ActivationHead,
    Outcome,
    Phases,
    Status,
    failure,
    new_id,
    parse_id,
    render,
    render_annotations,
    render_response,
    summary,
)
from visp.entity.limits import ActionLimits
from visp.errors import BadName

ID = "0123456789abcdef" * 2
ACTION = ActivationHead(
    id=ID,
    namespace="guest",
    subject="guest",
    name="a",
    version="0.0.1",
    start_ms=1000,
    end_ms=1030,
    duration_ms=20,
    size=7,
    path="guest/pkg/a",
    kind="nodejs:20",
    limits=ActionLimits(),
    wait_ms=3,
    init_ms=9,
    is_timeout=False,
)
TRIGGER = ActivationHead(id=ID, namespace="guest", subject="guest", name="t", version="0.0.2", start_ms=1000)


def test_a_record_of_an_action() -> None:
    record = json.loads(render(ACTION, b'{"n":1}', ("one", 'two "quoted"')))
    assert record == {
        "activationId": ID,
        "namespace": "guest",
        "subject": "guest",
        "name": "a",
        "version": "0.0.1",
        "publish": False,
        "start": 1000,
        "end": 1030,
        "duration": 20,
        "logs": ["one", 'two "quoted"'],
        "response": {"result": {"n": 1}, "size": 7, "status": "success", "success": True},
        "annotations": [
            {"key": "path", "value": "guest/pkg/a"},
            {"key": "waitTime", "value": 3},
            {"key": "kind", "value": "nodejs:20"},
            {"key": "timeout", "value": False},
            {"key": "limits", "value": {"concurrency": 1, "logs": 10, "memory": 256, "timeout": 60000}},
            {"key": "initTime", "value": 9},
        ],
    }


def test_a_result_is_copied_unread() -> None:
    assert b'"response":{"result":{ "n" : 1e400 },' in render(ACTION, b'{ "n" : 1e400 }')


def test_phases_are_shown_to_who_asks() -> None:
    phases = Phases(0, 5, 4000, 9000, 9020, 30_000, None, 30_100, "first use")
    head = msgspec.structs.replace(ACTION, phases=phases)
    plain = render(ACTION, b"{}")
    assert render(head, b"{}") == render(ACTION, b"{}", has_phases=True) == plain
    shown = json.loads(render(head, b"{}", has_phases=True))
    assert shown["annotations"].pop() == {
        "key": "visp",
        "value": {
            "cold": "first use",
            "phases_us": {
                "queued": 0,
                "placed": 5,
                "created": 4000,
                "initialised": 9000,
                "run": 9020,
                "answered": 30_000,
                "stored": 30_100,
            },
        },
    }
    assert shown == json.loads(plain)
    assert summary(head) == summary(ACTION)
    assert b'"phases_us"' in msgspec.json.encode(summary(head, has_phases=True))


def test_a_warm_start_has_no_reason() -> None:
    head = msgspec.structs.replace(ACTION, phases=Phases(0, 0, None, None, 20, 400, 410, 420), binding="n/b")
    annotations = json.loads(render_annotations(head, has_phases=True))
    assert [entry["key"] for entry in annotations[-2:]] == ["visp", "binding"]
    reached = {"queued": 0, "placed": 0, "run": 20, "answered": 400, "logs": 410, "stored": 420}
    assert annotations[-2]["value"] == {"phases_us": reached}


def test_a_record_of_a_trigger() -> None:
    record = json.loads(render(TRIGGER, b'{"x":1}'))
    assert record["annotations"] == record["logs"] == []
    assert not {"end", "duration", "cause"} & set(record)
    assert record["response"] == {"result": {"x": 1}, "status": "success", "success": True}
    assert not {"end", "duration", "statusCode", "cause"} & set(summary(TRIGGER))


def test_a_part_of_a_sequence() -> None:
    bare = ActivationHead(id=ID, namespace="n", subject="s", name="a", version="1.0.0", start_ms=1, path="n/a")
    part = msgspec.structs.replace(bare, cause="c" * 32, binding="n/b")
    assert json.loads(render(part, b"{}"))["cause"] == "c" * 32
    assert summary(part)["cause"] == "c" * 32
    assert json.loads(render_annotations(part)) == [
        {"key": "path", "value": "n/a"},
        {"key": "kind", "value": "unknown"},
        {"key": "causedBy", "value": "sequence"},
        {"key": "binding", "value": "n/b"},
    ]


def test_a_primary_of_a_conductor() -> None:
    head = msgspec.structs.replace(
        ACTION, is_topmost=True, is_conductor=True, is_timeout=None, limits=None, init_ms=None, kind="sequence"
    )
    assert [entry["key"] for entry in json.loads(render_annotations(head))] == [
        "topmost",
        "path",
        "waitTime",
        "conductor",
        "kind",
    ]


def test_a_summary_has_the_time_on_the_wall() -> None:
    shown = summary(ACTION)
    assert (shown["duration"], shown["statusCode"], shown["end"]) == (30, 0, 1030)
    assert not {"response", "logs", "subject"} & set(shown)


@pytest.mark.parametrize(
    ("status", "word", "is_kept"),
    [
        (Status.SUCCESS, "success", True),
        (Status.APPLICATION_ERROR, "application error", True),
        (Status.DEVELOPER_ERROR, "action developer error", False),
        (Status.INTERNAL_ERROR, "whisk internal error", False),
    ],
)
def test_the_four_outcomes(status: Status, word: str, is_kept: bool) -> None:
    outcome = failure(status, 'a "b"')
    head = ActivationHead(id=ID, namespace="n", subject="s", name="a", version="1.0.0", start_ms=1, status=status)
    response = json.loads(render_response(head, outcome.result))
    assert response == {"result": {"error": 'a "b"'}, "status": word, "success": status == 0}
    assert Outcome(status, b"{}").is_kept is is_kept


def test_new_ids_are_ids_in_the_order_of_time() -> None:
    ids = [new_id(now_ms, shard) for now_ms, shard in ((1, 0), (2, 255), (1 << 47, 3))]
    assert sorted(ids) == ids
    assert [parse_id(id) for id in ids] == ids
    assert new_id(5) != new_id(5)


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("", "Activation id length is 0 but must be 32."),
        ("a" * 31, "Activation id length is 31 but must be 32."),
        ("g" * 32, "The activation id is not valid."),
        ("A" * 32, "The activation id is not valid."),
        ("٣" * 32, "The activation id is not valid."),
    ],
)
def test_ids_that_are_none(id: str, sentence: str) -> None:
    with pytest.raises(BadName) as raised:
        parse_id(id)
    assert raised.value.sentence == sentence
