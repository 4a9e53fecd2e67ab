"""Many fires from the command line: lines of a file, records of the past, samples; and fires that are followed."""

import json
import time

import pytest

from visp.cli import firing, samples
from visp.cli.firing import BATCH_LINES, Fire, chunks_of

ROUTE = "POST /namespaces/_/triggers/t"
RECORDS = "GET /namespaces/_/activations"
PAST = ("--since", "1000", "--upto", "2000")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)


class Server:
    """Fires in lines as the server does: each key of the newest batch of a source once."""

    def __init__(self, api):
        self.batches = {}
        self.fired = []
        self.troubles = []
        api.answerers[ROUTE] = self.fire

    def fire(self, request):
        if self.troubles:
            trouble = self.troubles.pop(0)
            if trouble is not None:
                return trouble
        source, _, number = request.query["batch"].rpartition("/")
        newest, keys = self.batches.get(source, (-1, set()))
        if int(number) < newest:
            return 409, b'{"error":"over","code":"c"}', {"X-Visp-Batch": str(newest)}
        if int(number) > newest:
            keys = set()
        self.batches[source] = int(number), keys
        answers = []
        for line in request.body:
            if line["key"] not in keys:
                keys.add(line["key"])
                self.fired.append(line["value"])
            answers.append({"activationId": f"id-{line['key']}"})
        return 200, "".join(json.dumps(answer) + "\n" for answer in answers).encode(), {}


def write(tmp_path, values):
    (tmp_path / "e.ndjson").write_text("".join(json.dumps(value) + "\n" for value in values))


def test_batches_are_of_so_many_lines():
    fires = (Fire(str(n), b"{}", f"line {n + 1}") for n in range(2 * BATCH_LINES + 1))
    chunks = list(chunks_of(fires, lambda before, first: before * 10 + int(first.key)))
    assert [len(chunk.fires) for chunk in chunks] == [BATCH_LINES, BATCH_LINES, 1]
    assert [chunk.number for chunk in chunks] == [0, 10 + BATCH_LINES, 20 + 2 * BATCH_LINES]


def test_lines_of_a_file(api, visp, tmp_path):
    server = Server(api)
    events = [{"n": n} for n in range(2 * BATCH_LINES + 5)]
    write(tmp_path, events)
    done = visp("trigger", "fire", "t", "--file", "e.ndjson")
    assert (done.exit_code, done.stdout) == (0, f"ok: triggered /_/t {len(events)} times\n")
    assert server.fired == events
    assert [len(request.body) for request in api.requests] == [BATCH_LINES, BATCH_LINES, 5]


def test_lines_that_were_fired_are_not_fired_again(api, visp, tmp_path):
    server = Server(api)
    events = [{"n": n} for n in range(2 * BATCH_LINES + 5)]
    write(tmp_path, events)
    server.troubles = [None, None, (400, b'{"error":"no","code":"c"}', {})]
    assert visp("trigger", "fire", "t", "--file", "e.ndjson").exit_code == 144
    done = visp("trigger", "fire", "t", "--file", "e.ndjson")
    assert f"goes on behind line {BATCH_LINES}" in done.stderr
    assert server.fired == events
    assert visp("trigger", "fire", "t", "--file", "e.ndjson").exit_code == 0
    assert server.fired == events
    assert visp("trigger", "fire", "t", "--file", "e.ndjson", "--again").exit_code == 0
    assert server.fired == events * 2


def test_a_batch_whose_answer_was_lost_is_sent_again(api, visp, tmp_path):
    server = Server(api)
    write(tmp_path, [{"n": 1}])
    server.troubles = [(503, b'{"error":"busy","code":"c"}', {"Retry-After": "1"})]
    assert visp("trigger", "fire", "t", "--file", "e.ndjson").exit_code == 0
    assert server.fired == [{"n": 1}]


def test_lines_that_are_too_many_for_now_are_sent_again_alone(api, visp, tmp_path):
    server = Server(api)
    write(tmp_path, [{"n": 1}, {"n": 2}])
    server.troubles = [(200, b'{"activationId":"a"}\n{"status":429,"error":"too many","code":"c"}\n', {})]
    done = visp("trigger", "fire", "t", "--file", "e.ndjson", "--json")
    assert [json.loads(line)["activationId"] for line in done.stdout.splitlines()] == ["a", "id-2"]
    assert [len(request.body) for request in api.requests] == [2, 1]


def test_a_server_that_stays_busy_is_given_up(api, visp, tmp_path, monkeypatch):
    monkeypatch.setattr(firing, "PATIENCE_S", -1.0)
    Server(api).troubles = [(503, b'{"error":"busy","code":"c"}', {})]
    write(tmp_path, [{}])
    done = visp("trigger", "fire", "t", "--file", "e.ndjson")
    assert done.exit_code != 0
    assert "busy" in done.stderr


def test_a_line_that_is_no_object_is_told_and_the_others_are_fired(api, visp):
    server = Server(api)
    done = visp("trigger", "fire", "t", "--file", "-", input='{"a":1}\n\n[]\n{"a":2}')
    assert done.exit_code == 1
    assert "line 3: no JSON object" in done.stderr
    assert "1 of 3 lines were refused" in done.stderr
    assert server.fired == [{"a": 1}, {"a": 2}]


def test_a_line_that_the_server_refuses_is_told(api, visp):
    Server(api).troubles = [(200, b'{"status":413,"error":"larger than allowed","code":"c"}\n{"status":204}\n', {})]
    done = visp("trigger", "fire", "t", "--file", "-", input="{}\n{}\n")
    assert "line 1: larger than allowed" in done.stderr
    assert "for 1 no rule was active" in done.stderr


def test_lines_with_keys(api, visp):
    server = Server(api)
    visp("trigger", "fire", "t", "--file", "-", "--keyed", input='{"key":"k","value":{"a":1}}\n{"a":1}\n')
    assert api.requests[0].body == [{"key": "k", "value": {"a": 1}}]
    assert server.fired == [{"a": 1}]


def test_what_a_file_excludes(visp, tmp_path):
    write(tmp_path, [{}])
    for more in (["-p", "a", "1"], ["--delay", "1s"], ["--sample", "mqtt/feed"]):
        assert visp("trigger", "fire", "t", "--file", "e.ndjson", *more).exit_code == 2
    assert visp("trigger", "fire", "t", "--keyed").exit_code == 2
    assert "cannot read none" in visp("trigger", "fire", "t", "--file", "none").stderr


# ── replay ──────────────────────────────────────────────────────────────────────────────────────────────────────


def record(n, start, **more):
    head = {"activationId": f"{n:032x}", "annotations": [], "name": "t", "start": start}
    return head | {"response": {"result": {"n": n}}} | more


class History:
    """Answers lists of records, the newest first."""

    def __init__(self, api, records):
        self.records = records
        api.answerers[RECORDS] = self.list

    def list(self, request):
        query = request.query
        found = [one for one in reversed(self.records) if int(query["since"]) <= one["start"] <= int(query["upto"])]
        if "count" in query:
            return 200, json.dumps({"activations": len(found)}).encode(), {}
        skip, limit = int(query["skip"]), int(query["limit"])
        return 200, json.dumps(found[skip : skip + limit]).encode(), {}


def test_replay_fires_oldest_first_what_triggers_were_fired_with(api, visp):
    server = Server(api)
    of_an_action = record(999, 1001, annotations=[{"key": "path", "value": "guest/t"}], end=1002)
    History(api, [record(n, 1000 + n) for n in range(450)] + [of_an_action])
    assert visp("trigger", "replay", "t", *PAST).stdout == "ok: triggered /_/t 450 times\n"
    assert server.fired == [{"n": n} for n in range(450)]


def test_a_replay_that_is_begun_again_fires_nothing_twice(api, visp):
    server = Server(api)
    history = History(api, [record(n, 1000 + n // 3) for n in range(2 * BATCH_LINES + 50)])
    server.troubles = [None, None, (400, b'{"error":"no","code":"c"}', {})]
    assert visp("trigger", "replay", "t", *PAST).exit_code == 144
    del history.records[: BATCH_LINES + 7]  # what is old goes meanwhile
    assert "goes on with what was fired at" in visp("trigger", "replay", "t", *PAST).stderr
    assert server.fired == [{"n": n} for n in range(2 * BATCH_LINES + 50)]


def test_a_limited_replay_takes_the_oldest(api, visp):
    server = Server(api)
    History(api, [record(n, 1000 + n) for n in range(5)])
    visp("trigger", "replay", "t", *PAST, "--limit", "2")
    assert server.fired == [{"n": 0}, {"n": 1}]
    visp("trigger", "replay", "t", *PAST, "--limit", "3")
    assert server.fired == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_trial_fires_nothing(api, visp):
    server = Server(api)
    History(api, [record(7, 1500)])
    done = visp("trigger", "replay", "t", *PAST, "--dry-run")
    assert done.stdout == f'1970-01-01T00:00:01.500Z {7:032x} {{"n": 7}}\nok: would trigger /_/t 1 times\n'
    assert json.loads(visp("trigger", "replay", "t", *PAST, "--dry-run", "--json").stdout) == record(7, 1500)
    assert server.fired == []


def test_a_range_must_have_passed(visp):
    assert visp("trigger", "replay", "t", "--since", "5", "--upto", "4").exit_code == 2
    assert visp("trigger", "replay", "t", "--since", "5", "--upto", "9999-01-01").exit_code == 2
    assert visp("trigger", "replay", "t", "--since", "10m", "--upto", "7").exit_code == 2


# ── samples and tail ────────────────────────────────────────────────────────────────────────────────────────────


def test_each_sample_is_an_object_and_can_be_fired(api, visp):
    listed = visp("event", "samples").stdout.split()
    assert listed == sorted(samples.samples())
    api.answer(ROUTE, 202, {"activationId": "i"})
    for feed in listed:
        value = json.loads(visp("event", "sample", feed).stdout)
        assert isinstance(value, dict)
        assert visp("trigger", "fire", "t", "--sample", f"/whisk.system/{feed}").exit_code == 0
        assert api.requests[-1].body == value
    visp("trigger", "fire", "t", "--sample", "mqtt/feed", "-p", "qos", "0")
    assert api.requests[-1].body["qos"] == 0
    assert visp("event", "sample", "none/none").exit_code == 2


def stream(*records, lost=0):
    out = b"retry: 1000\n\n:\n\n"
    if lost:
        out += b'event: lost\ndata: {"count":%d}\n\n' % lost
    for one in records:
        out += b"id: x\nevent: record\ndata: %b\n\n" % json.dumps(one).encode()
    return 200, out, {"Content-Type": "text/event-stream"}


def test_tail_prints_fires_and_goes_on_where_the_stream_ended(api, visp):
    action = record(2, 1500, annotations=[{"key": "path", "value": "guest/t"}])
    streams = [stream(record(1, 1500), action, lost=3), stream(record(3, 1700))]
    asked = []

    def answer(request):
        asked.append(request)
        return streams.pop(0) if streams else (404, b'{"error":"gone","code":"c"}', {})

    api.answerers[RECORDS] = answer
    done = visp("event", "tail", "t", "--since", "1000")
    assert done.stdout == (
        f'1970-01-01T00:00:01.500Z t {1:032x} {{"n": 1}}\n1970-01-01T00:00:01.700Z t {3:032x} {{"n": 3}}\n'
    )
    assert "3 records are not shown" in done.stderr
    assert asked[0].query == {"name": "t", "since": "1000"}
    assert [request.headers.get("last-event-id") for request in asked] == [None, f"{2:032x}", f"{3:032x}"]


def test_tail_ends_when_it_is_told_to(api, visp):
    api.answerers[RECORDS] = lambda _: stream(record(1, 1500))
    done = visp("event", "tail", "--json", "--exit", "0")
    assert done.exit_code == 0
    assert all(json.loads(line) == record(1, 1500) for line in done.stdout.splitlines())
