"""`visp activation`: records, logs, and following them."""

import json

import pytest

from visp.cli.polling import Poll

ID = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
LINES = ["2026-01-01T00:00:00.123456789Z stdout: one: two", "2026-01-01T00:00:00Z stdout: no fraction"]
RECORD = {
    "namespace": "guest",
    "name": "hello",
    "version": "0.0.2",
    "activationId": ID,
    "start": 1767225600123,
    "duration": 15,
    "statusCode": 0,
    "annotations": [{"key": "kind", "value": "python:3.11"}, {"key": "initTime", "value": 3}],
    "response": {"status": "success", "success": True, "result": {"a": 1}},
    "logs": LINES,
}


def test_list_has_the_columns_of_wsk(api, visp):
    strange = {"activationId": OTHER, "start": "?", "statusCode": 9, "annotations": {}}
    trigger = {"activationId": OTHER, "start": 10**18, "namespace": "guest", "name": "t", "version": "0.0.1"}
    api.answer("GET /namespaces/_/activations", body=[RECORD, strange, trigger])
    done = visp("activation", "list", "pkg/hello", "--since", "5", "--upto", "6", "-l", "3")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["Datetime", "Activation", "ID", "Kind", "Start", "Duration", "Status", "Entity"]
    assert lines[1] == (f"2026-01-01 00:00:00 {ID} python:3.11  cold  15ms       success           guest/hello:0.0.2")
    assert "unknown" in lines[2]
    assert lines[3].endswith("guest/t:0.0.1")
    assert api.requests[0].query == {"limit": "3", "skip": "0", "name": "pkg/hello", "since": "5", "upto": "6"}


def test_list_of_a_namespace_and_whole_records(api, visp):
    api.answer("GET /namespaces/ns/activations", body=[RECORD])
    assert json.loads(visp("activation", "list", "/ns", "--full").stdout) == [RECORD]
    assert api.requests[0].query == {"limit": "30", "skip": "0", "docs": "true"}
    assert json.loads(visp("activation", "list", "/ns/p/a", "--json").stdout) == [RECORD]
    assert api.requests[1].query["name"] == "p/a"


def test_get_by_id_and_field(api, visp):
    api.answer(f"GET /namespaces/_/activations/{ID}", body=RECORD)
    whole = visp("activation", "get", ID)
    assert whole.stdout.startswith(f"ok: got activation {ID}\n{{")
    assert json.loads(whole.stdout.split("\n", 1)[1]) == RECORD
    field = visp("activation", "get", ID, "duration")
    assert field.stdout == f"ok: got activation {ID}, displaying field duration\n15\n"


def test_get_the_last_one(api, visp):
    api.answer("GET /namespaces/_/activations", body=[RECORD])
    api.answer(f"GET /namespaces/_/activations/{ID}", body=RECORD)
    done = visp("activation", "get", "--last", "duration")
    assert done.stdout == f"ok: got activation {ID}, displaying field duration\n15\n"
    assert api.requests[0].query == {"limit": "1", "skip": "0"}


def test_the_last_of_none(api, visp):
    api.answer("GET /namespaces/_/activations", body=[])
    done = visp("activation", "logs", "--last")
    assert done.exit_code == 1
    assert "does not contain any activations" in done.stderr


@pytest.mark.parametrize("arguments", [("get",), ("logs",), ("result",), ("logs", ID, "--last")])
def test_an_id_or_last(visp, arguments):
    assert visp("activation", *arguments).exit_code == 2


def test_summary_and_logs_of_a_record(api, visp):
    api.answer(f"GET /namespaces/_/activations/{ID}", body=RECORD)
    assert visp("activation", "get", ID, "--logs").stdout == f"one: two\n{LINES[1]}\n"
    assert visp("activation", "get", ID, "-s").stdout == (
        "activation result for '/guest/hello' (success at 2026-01-01T00:00:00Z)\n{\n    \"a\": 1\n}\n"
    )


def test_logs_whole_and_stripped(api, visp):
    api.answer(f"GET /namespaces/_/activations/{ID}/logs", body={"logs": [*LINES, 5]})
    assert visp("activation", "logs", ID).stdout == "\n".join(LINES) + "\n"
    assert visp("activation", "logs", ID, "--strip").stdout == f"one: two\n{LINES[1]}\n"


def test_result(api, visp):
    api.answer(f"GET /namespaces/_/activations/{ID}/result", body=RECORD["response"])
    assert visp("activation", "result", ID).stdout == '{\n    "a": 1\n}\n'
    assert json.loads(visp("activation", "result", ID, "--json").stdout) == RECORD["response"]


def test_a_bad_id_is_told(api, visp):
    api.refuse("GET /namespaces/_/activations/xyz", 400, "Activation id length is 3 but must be 32.")
    done = visp("activation", "get", "xyz")
    assert done.exit_code == 144
    assert "Unable to get activation: Activation id length is 3 but must be 32. (code tid7)" in done.stderr


# ── poll ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_poll_prints_what_there_is_and_ends_when_it_is_told_to(api, visp):
    api.answer("GET /namespaces/_/activations", body=[RECORD])
    api.answer(f"GET /namespaces/_/activations/{ID}", body=RECORD)
    done = visp("activation", "poll", "hello", "--since-minutes", "1", "--exit", "0")
    assert done.exit_code == 0
    assert done.stdout == "Polling for activation logs\n\nActivation: 'hello' (" + ID + ")\n" + "\n".join(LINES) + "\n"
    assert api.requests[0].query["name"] == "hello"


class Records:
    """Stands for the client: a list that grows, as a namespace's does."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int]] = []

    def activations(self, namespace, *, name, limit, since_ms) -> bytes:
        found = [one for one in self.records if since_ms is None or one[1] >= since_ms]
        newest_first = sorted(found, key=lambda one: -one[1])[:limit]
        return json.dumps([{"activationId": id, "start": start} for id, start in newest_first]).encode()

    def activation(self, id, namespace) -> bytes:
        return json.dumps({"activationId": id}).encode()


def ids(poll: Poll) -> list[str]:
    return [record["activationId"] for record in poll.fresh()]


def test_poll_shows_each_record_once_even_one_that_was_listed_late():
    records = Records()
    records.records = [("old", 1_000_000)]
    poll = Poll(records, "_", None, None)
    assert ids(poll) == []
    records.records += [("second", 1_000_020), ("first", 1_000_010)]
    assert ids(poll) == ["first", "second"]
    assert ids(poll) == []
    records.records.append(("began before and ended after", 1_000_015))
    assert ids(poll) == ["began before and ended after"]
    records.records.append(("much later", 9_000_000))
    assert ids(poll) == ["much later"]
    assert ids(poll) == []


def test_poll_of_an_empty_namespace_begins_with_the_first_record():
    records = Records()
    poll = Poll(records, "_", None, None)
    records.records.append(("first", 5))
    assert ids(poll) == ["first"]
