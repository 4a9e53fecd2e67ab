"""Retries, dead letters, delays and idempotency keys: what was accepted is done, once, over restarts."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import Api
from tests.system.places import Place, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAKE = ("--driver", "visp.container.fake:FakeDriver")
WITHIN_S = 30.0
OK, BROKEN = {"answer": {"ok": True}}, {"answer": {"error": "broken"}}


@pytest.fixture
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


def until(found: Callable[[], Any]) -> Any:
    """What `found` gives once it gives something."""
    end_s = time.monotonic() + WITHIN_S
    while not (value := found()):
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.02)
    return value


def put_action(api: Api, name: str, behaviour: dict[str, Any], **annotations: Any) -> None:
    body = {
        "exec": {"kind": "nodejs:20", "code": json.dumps(behaviour)},
        "annotations": [{"key": key.replace("_", "-"), "value": value} for key, value in annotations.items()],
    }
    answer = api.request("PUT", f"actions/{name}?overwrite=true", body)
    assert answer.status == 200, answer


def invoke(api: Api, name: str, query: str = "", headers: dict[str, str] | None = None, body: Any = None) -> Any:
    answer = api.request("POST", f"actions/{name}{query}", {} if body is None else body, headers)
    assert answer.status == 202, answer
    return answer.json["activationId"]


def record(api: Api, id: str) -> Any:
    return until(lambda: (answer := api.request("GET", f"activations/{id}")).status == 200 and answer.json)


def records(api: Api, name: str, count: int) -> list[dict[str, Any]]:
    """Whole records of an action, the oldest first, once there are so many."""

    def found() -> Any:
        listed = api.request("GET", f"activations?name={name}&docs=true&limit=200").json
        return listed if len(listed) >= count else None

    return sorted(until(found), key=lambda one: one["start"])


def annotation(record: dict[str, Any], key: str) -> Any:
    return {entry["key"]: entry["value"] for entry in record["annotations"]}.get(key)


def test_failed_run_is_tried_again_and_each_attempt_names_the_first(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "bad", BROKEN, retry={"attempts": 3, "backoff_ms": 1})
    first = invoke(api, "bad")
    attempts = records(api, "bad", 3)
    assert [annotation(one, "attempt") for one in attempts] == [None, 2, 3]
    assert [annotation(one, "retryOf") for one in attempts] == [None, first, first]
    assert attempts[0]["activationId"] == first
    assert len({one["activationId"] for one in attempts}) == 3


def test_success_ends_it_and_what_was_not_named_is_not_retried(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "good", OK, retry={"attempts": 3, "backoff_ms": 1})
    put_action(api, "other", BROKEN, retry={"attempts": 3, "backoff_ms": 1, "on": ["internal"]})
    put_action(api, "after", BROKEN, retry={"attempts": 2, "backoff_ms": 1})
    for name in ("good", "other", "after"):
        invoke(api, name)
    assert len(records(api, "after", 2)) == 2
    assert len(records(api, "good", 1)) == 1
    assert len(records(api, "other", 1)) == 1


def test_blocking_caller_gets_the_first_attempt(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "bad", BROKEN, retry={"attempts": 2, "backoff_ms": 1})
    answer = api.request("POST", "actions/bad?blocking=true", {})
    assert answer.status == 502
    attempts = records(api, "bad", 2)
    assert attempts[0]["activationId"] == answer.json["activationId"]


def test_malformed_policy_is_refused_when_it_is_stored(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    for key, value in (
        ("retry", {"attempts": 0}),
        ("retry", {"attempts": 3, "often": True}),
        ("retry", "yes"),
        ("retry", {"on": ["never"]}),
        ("dead-letter", "/other/trigger"),
        ("dead-letter", 7),
    ):
        body = {"exec": {"kind": "nodejs:20", "code": "{}"}, "annotations": [{"key": key, "value": value}]}
        answer = api.request("PUT", "actions/bad", body)
        assert (answer.status, key in answer.json["error"]) == (400, True), answer


def test_attempts_go_on_after_a_kill(place: Place) -> None:
    server = place.start(*FAKE)
    api = Api(server.url)
    put_action(api, "bad", BROKEN, retry={"attempts": 3, "backoff_ms": 2000})
    first = invoke(api, "bad")
    record(api, first)
    waiting = until(lambda: api.request("GET", "delayed").json)
    assert (waiting[0]["retryOf"], waiting[0]["attempt"]) == (first, 2)
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE).url)
    attempts = records(api, "bad", 3)
    assert [annotation(one, "attempt") for one in attempts] == [None, 2, 3]


def test_interrupted_run_is_tried_again_if_it_asks_for_that(place: Place) -> None:
    server = place.start(*FAKE)
    api = Api(server.url)
    put_action(api, "long", OK | {"run_ms": 60_000}, retry={"attempts": 2, "backoff_ms": 1, "on": ["internal"]})
    first = invoke(api, "long")
    until(lambda: api.request("GET", "/activation/count").json)
    time.sleep(0.3)  # its line is out: nothing outside shows that
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE).url)
    ended = record(api, first)
    assert ended["response"]["status"] == "whisk internal error"
    until(lambda: api.request("GET", "/activation/count").json == 1)


def test_dead_letter_is_listed_shown_replayed_and_dropped(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "bad", BROKEN, retry={"attempts": 2, "backoff_ms": 1}, dead_letter=True)
    first = invoke(api, "bad", body={"n": 7})
    letters = until(lambda: api.request("GET", "deadletters").json)
    assert len(letters) == 1
    letter = letters[0]
    assert letter["first"] == first
    assert (letter["attempts"], letter["params"], letter["result"]) == (2, {"n": 7}, {"error": "broken"})
    assert api.request("GET", "deadletters?count=true").json == {"deadletters": 1}
    assert api.request("GET", f"deadletters/{letter['activationId']}").json == letter
    put_action(api, "bad", OK)
    replayed = api.request("POST", f"deadletters/{letter['activationId']}")
    assert replayed.status == 202
    assert record(api, replayed.json["activationId"])["response"]["success"]
    assert api.request("GET", "deadletters").json == []
    assert api.request("POST", f"deadletters/{letter['activationId']}").status == 404
    put_action(api, "worse", BROKEN, dead_letter=True)
    invoke(api, "worse")
    (letter,) = until(lambda: api.request("GET", "deadletters").json)
    assert letter["attempts"] == 1
    assert api.request("DELETE", f"deadletters/{letter['activationId']}").status == 200
    assert api.request("GET", "deadletters").json == []


def test_dead_letter_s_target_is_told(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "hears", OK)
    put_action(api, "bad", BROKEN, dead_letter="hears")
    api.request("PUT", "triggers/lost", {})
    put_action(api, "fired", OK)
    api.request("PUT", "rules/r", {"trigger": "/_/lost", "action": "/_/fired"})
    put_action(api, "worse", BROKEN, dead_letter="/_/lost")
    bad, worse = invoke(api, "bad", body={"n": 1}), invoke(api, "worse")
    assert len(records(api, "hears", 1)) == 1
    fired = records(api, "lost", 1)[0]
    assert fired["response"]["result"]["activationId"] == worse
    assert {letter["activationId"] for letter in api.request("GET", "deadletters").json} == {bad, worse}


def test_rule_s_policy_comes_before_the_action_s(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "bad", BROKEN, retry={"attempts": 2, "backoff_ms": 1})
    api.request("PUT", "triggers/t", {})
    rule = {
        "trigger": "/_/t",
        "action": "/_/bad",
        "annotations": [{"key": "retry", "value": {"attempts": 4, "backoff_ms": 1}}],
    }
    assert api.request("PUT", "rules/r", rule).status == 200
    assert api.request("POST", "triggers/t", {}).status == 202
    assert len(records(api, "bad", 4)) == 4


def test_delayed_invocation_waits_over_a_kill_and_can_be_cancelled(place: Place) -> None:
    server = place.start(*FAKE)
    api = Api(server.url)
    put_action(api, "ok", OK)
    soon, never = invoke(api, "ok", "?delay=1500ms"), invoke(api, "ok", "?delay=1d")
    assert [one["activationId"] for one in api.request("GET", "delayed").json] == [soon, never]
    assert api.request("GET", f"activations/{never}").status == 404
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE).url)
    assert record(api, soon)["response"]["success"]
    assert [one["activationId"] for one in api.request("GET", "delayed").json] == [never]
    assert api.request("DELETE", f"delayed/{never}").status == 200
    assert api.request("DELETE", f"delayed/{never}").status == 404
    ended = record(api, never)
    assert ended["response"]["result"] == {"error": "The activation was cancelled before it began."}
    for query in ("?delay=soon", "?at=yesterday", "?delay=400d", "?delay=1s&blocking=true"):
        assert api.request("POST", f"actions/ok{query}", {}).status == 400


def test_delayed_work_of_any_shard_is_listed_and_cancelled_over_any_connection(place: Place) -> None:
    server = place.start(*FAKE, workers=2)
    put_action(Api(server.url), "later", OK)
    ids = [invoke(Api(server.url), "later", f"?delay={1000 + number}") for number in range(12)]
    assert len({id[12:14] for id in ids}) == 2, "one shard took them all: this shows nothing"
    for _ in range(6):  # each request is a connection of its own
        assert [one["activationId"] for one in Api(server.url).get("delayed?limit=200").json] == ids
        assert [one["activationId"] for one in Api(server.url).get("delayed?skip=3&limit=4").json] == ids[3:7]
    for id in ids:
        cancelled = Api(server.url).delete(f"delayed/{id}")
        assert (cancelled.status, cancelled.json["activationId"]) == (200, id)
        assert Api(server.url).delete(f"delayed/{id}").status == 404
        assert "cancelled" in record(Api(server.url), id)["response"]["result"]["error"]
    assert Api(server.url).get("delayed").json == []


def test_delayed_fire_runs_its_rules_when_it_is_due(place: Place) -> None:
    server = place.start(*FAKE)
    api = Api(server.url)
    put_action(api, "ok", OK)
    api.request("PUT", "triggers/t", {})
    api.request("PUT", "rules/r", {"trigger": "/_/t", "action": "/_/ok"})
    answer = api.request("POST", "triggers/t?delay=1s", {"n": 1})
    assert answer.status == 202
    server.stop(signal.SIGKILL)
    server = place.start(*FAKE)
    api = Api(server.url)
    fired = record(api, answer.json["activationId"])
    assert fired["response"]["result"] == {"n": 1}
    assert len(records(api, "ok", 1)) == 1
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE).url)
    assert len(records(api, "t", 1)) == 1  # once


def test_same_key_same_answer_and_once(place: Place) -> None:
    server = place.start(*FAKE)
    api = Api(server.url)
    put_action(api, "ok", OK)
    key = {"Idempotency-Key": "order-1"}
    id = invoke(api, "ok", headers=key, body={"n": 1})
    assert invoke(api, "ok", headers=key, body={"n": 1}) == id
    record(api, id)
    assert invoke(api, "ok", headers=key, body={"n": 1}) == id
    assert api.request("POST", "actions/ok", {"n": 2}, key).status == 409
    blocking = api.request("POST", "actions/ok?blocking=true", {"n": 1}, key)
    assert blocking.status == 200  # another request: its own answer
    again = api.request("POST", "actions/ok?blocking=true", {"n": 1}, key)
    assert again.json["activationId"] == blocking.json["activationId"]
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE).url)
    assert invoke(api, "ok", headers=key, body={"n": 1}) == id
    assert len(records(api, "ok", 2)) == 2


def test_refusal_promises_nothing(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    key = {"Idempotency-Key": "k"}
    assert api.request("POST", "actions/none", {}, key).status == 404
    put_action(api, "none", OK)
    invoke(api, "none", headers=key)
    assert api.request("POST", "triggers/t", {}, key).status == 404
    assert api.request("POST", "actions/none", {}, {"Idempotency-Key": "x" * 300}).status == 400


def put_sequence(api: Api, name: str, *components: str) -> None:
    body = {"exec": {"kind": "sequence", "components": [f"/_/{component}" for component in components]}}
    answer = api.request("PUT", f"actions/{name}", body)
    assert answer.status == 200, answer


def test_sequence_goes_on_after_a_kill_with_the_part_that_had_not_begun(place: Place) -> None:
    server = place.start(*FAKE, pool__memory_mb=256, pool__stem_cells=0)
    api = Api(server.url)
    for name in ("one", "two"):
        put_action(api, name, OK)
    put_action(api, "hog", OK | {"run_ms": 60_000})
    put_sequence(api, "seq", "one", "two")
    hog = invoke(api, "hog")
    until(lambda: api.request("GET", "/activation/count").json == 1)
    sequence = invoke(api, "seq")
    until(lambda: api.request("GET", "/activation/count").json == 3)  # its first part waits for memory
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE, pool__memory_mb=256, pool__stem_cells=0).url)
    assert record(api, hog)["response"]["status"] == "whisk internal error"
    ended = record(api, sequence)
    assert ended["response"]["result"] == {"ok": True}
    ids = [records(api, name, 1)[0]["activationId"] for name in ("one", "two")]
    assert ended["logs"] == ids
    assert [len(records(api, name, 1)) for name in ("one", "two", "seq")] == [1, 1, 1]


def test_sequence_that_is_something_else_after_a_kill_ends(place: Place) -> None:
    server = place.start(*FAKE, pool__memory_mb=256, pool__stem_cells=0)
    api = Api(server.url)
    put_action(api, "one", OK)
    put_action(api, "hog", OK | {"run_ms": 60_000})
    put_sequence(api, "inner", "one")
    put_sequence(api, "outer", "inner", "one")
    put_sequence(api, "seq", "one", "one")
    invoke(api, "hog")
    until(lambda: api.request("GET", "/activation/count").json == 1)
    topmost, nesting = invoke(api, "seq"), invoke(api, "outer")
    until(lambda: api.request("GET", "/activation/count").json == 6)  # with the parts, which wait for memory
    for name in ("seq", "inner"):
        put_action(api, name, OK)
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE, pool__memory_mb=256, pool__stem_cells=0).url)
    for id in (topmost, nesting):
        assert "may have been deleted" in record(api, id)["response"]["result"]["error"]
    until(lambda: api.request("GET", "/activation/count").json == 0)


def test_sequence_ends_with_the_part_that_was_interrupted(place: Place) -> None:
    server = place.start(*FAKE)
    api = Api(server.url)
    put_action(api, "one", OK)
    put_action(api, "long", OK | {"run_ms": 60_000})
    put_action(api, "never", OK)
    put_sequence(api, "seq", "one", "long", "never")
    sequence = invoke(api, "seq")
    (one,) = records(api, "one", 1)
    until(lambda: api.request("GET", "/activation/count").json == 2)
    time.sleep(0.3)  # the second part's line is out: nothing outside shows that
    server.stop(signal.SIGKILL)
    api = Api(place.start(*FAKE).url)
    ended = record(api, sequence)
    assert ended["response"]["status"] == "whisk internal error"
    (long,) = records(api, "long", 1)
    assert ended["logs"] == [one["activationId"], long["activationId"]]
    assert api.request("GET", "activations?name=never").json == []


def test_part_of_a_sequence_is_tried_again_before_the_next(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "bad", BROKEN, retry={"attempts": 3, "backoff_ms": 1})
    put_action(api, "never", OK)
    put_sequence(api, "seq", "bad", "never")
    answer = api.request("POST", "actions/seq?blocking=true", {})
    assert answer.json["response"]["result"] == {"error": "broken"}
    attempts = records(api, "bad", 3)
    assert answer.json["logs"] == [one["activationId"] for one in attempts]
    assert [annotation(one, "attempt") for one in attempts] == [None, 2, 3]
    assert api.request("GET", "activations?name=never").json == []


def test_who_waits_for_the_first_attempt_is_given_the_last(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    put_action(api, "bad", BROKEN, retry={"attempts": 3, "backoff_ms": 200})
    first = invoke(api, "bad")
    waited = api.request("GET", f"activations/{first}?wait=20")
    assert (waited.status, annotation(waited.json, "attempt")) == (200, 3)
    assert api.request("GET", f"activations/{first}").json["activationId"] == first
