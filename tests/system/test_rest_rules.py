"""Triggers, rules and activations over REST: how they are stored, linked, fired, listed and read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.system.answers import MALFORMED, NAME_INCOMPLETE, bad_query, is_routed, keys, prepare, put, refused
from tests.system.conftest import Api

from visp.client import running


@pytest.fixture(scope="module", autouse=True)
def entities(server: running.Server) -> None:
    prepare(Api(server.url))


# ── triggers and rules ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_trigger_and_its_defaults(api: Api) -> None:
    stored = api.request("PUT", "triggers/rest-t", {"limits": {"x": 1}}).json
    assert isinstance(stored.pop("updated"), int)
    assert stored == {
        "namespace": "guest",
        "name": "rest-t",
        "parameters": [],
        "limits": {},
        "version": "0.0.1",
        "publish": False,
        "annotations": [],
    }
    listed = api.get("triggers?limit=1").json[0]
    assert set(listed) == {"namespace", "name", "version", "publish", "annotations", "updated"}
    updated = put(api, "triggers/rest-t", {"annotations": [{"key": "a", "value": 1}], "publish": True})
    again = put(api, "triggers/rest-t", {"annotations": [{"key": "b", "value": 2}], "version": "7"})
    assert (updated["version"], again["version"]) == ("0.0.2", "7.0.0")
    assert (keys(again["annotations"]), again["publish"]) == ({"b": 2}, True)
    api.delete("triggers/rest-t")


@pytest.mark.parametrize("feed", ["/whisk.system/alarms/alarm", "a", "a/b", "/_/x"])
def test_feeds_that_are_paths(api: Api, feed: str) -> None:
    put(api, "triggers/rest-feed", {"annotations": [{"key": "feed", "value": feed}]})
    api.delete("triggers/rest-feed")


@pytest.mark.parametrize("feed", ["", "/", "a/$", 5, None, {}, " a"])
def test_feeds_that_are_none(api: Api, feed: Any) -> None:
    body = {"annotations": [{"key": "feed", "value": feed}]}
    refused(api.request("PUT", "triggers/rest-feed", body), 400, "Feed name is not valid", routed=True)
    put(api, "triggers/rest-feed", {})
    assert put(api, "triggers/rest-feed", body)["annotations"] == body["annotations"]
    api.delete("triggers/rest-feed")


def test_a_rules_life(api: Api) -> None:
    put(api, "triggers/rest-t1", {})
    put(api, "triggers/rest-t2", {})
    rule = {"trigger": "/_/rest-t1", "action": {"path": "_", "name": "rest-echo"}}
    before = api.get("triggers/rest-t1").json
    assert "rules" not in before
    made = api.request("PUT", "rules/rest-r", rule).json
    assert made["status"] == "active"
    assert (made["trigger"], made["action"]) == (
        {"path": "guest", "name": "rest-t1"},
        {"path": "guest", "name": "rest-echo"},
    )
    link = {"guest/rest-r": {"action": {"path": "guest", "name": "rest-echo"}, "status": "active"}}
    assert api.get("triggers/rest-t1").json == before | {"rules": link}
    listed = api.get("rules?limit=1").json[0]
    assert listed == {key: value for key, value in made.items() if key != "status"}

    for status in ("inactive", "inactive", "active", "inactive"):
        answer = api.request("POST", "rules/rest-r", {"status": status, "name": "x"})
        assert (answer.status, answer.body) == (200, b"OK")
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert api.get("rules/rest-r").json == made | {"status": status}
    assert api.request("POST", "triggers/rest-t1", {}).status == 204

    moved = put(api, "rules/rest-r", {"trigger": "/_/rest-t2"})
    assert (moved["status"], moved["version"], moved["action"]) == ("inactive", "0.0.2", made["action"])
    assert api.get("triggers/rest-t1").json["rules"] == {}
    assert list(api.get("triggers/rest-t2").json["rules"]) == ["guest/rest-r"]

    assert api.delete("triggers/rest-t2").json["rules"]["guest/rest-r"]["status"] == "inactive"
    assert api.get("rules/rest-r").json["status"] == "inactive"
    assert api.request("POST", "rules/rest-r", {"status": "inactive"}).status == 200
    gone = "Only rules with existing triggers can be activated"
    refused(api.request("POST", "rules/rest-r", {"status": "active"}), 404, gone, routed=True)
    put(api, "triggers/rest-t2", {})
    assert api.request("POST", "rules/rest-r", {"status": "inactive"}).status == 200
    assert "rules" not in api.get("triggers/rest-t2").json
    assert api.request("POST", "rules/rest-r", {"status": "active"}).status == 200
    assert api.get("triggers/rest-t2").json["rules"]["guest/rest-r"]["status"] == "active"
    assert api.delete("rules/rest-r").json == moved | {"status": "inactive"}
    assert api.get("triggers/rest-t2").json["rules"] == {}
    for name in ("rest-t1", "rest-t2"):
        api.delete(f"triggers/{name}")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "rule requires a valid trigger and a valid action"),
        ({"trigger": "/_/rest-trigger"}, "rule requires a valid trigger and a valid action"),
        ({"action": "/_/rest-echo"}, "rule requires a valid trigger and a valid action"),
        ({"trigger": "/_/no", "action": "/_/no"}, "trigger /guest/no does not exist"),
        ({"trigger": "/_/rest-trigger", "action": "/_/no"}, "action /guest/no does not exist"),
        ({"trigger": "/_/rest-echo", "action": "/_/rest-echo"}, "trigger /guest/rest-echo does not exist"),
    ],
)
def test_rules_that_cannot_be(api: Api, body: Any, sentence: str) -> None:
    refused(api.request("PUT", "rules/rest-none", body), 400, sentence, routed=True)


@pytest.mark.parametrize("name", ["a", "/a", "", 5, [], {"path": "guest"}, {"name": "a"}])
@pytest.mark.parametrize("field", ["trigger", "action"])
def test_references_that_are_no_names(api: Api, field: str, name: Any) -> None:
    refused(api.request("PUT", "rules/rest-none", {field: name}), 400, NAME_INCOMPLETE, routed=False)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "key not found: status"),
        ({"status": "sleeping"}, "requirement failed: sleeping is not a recognized rule state"),
        ({"status": "Active"}, "requirement failed: Active is not a recognized rule state"),
        ({"status": None}, "requirement failed: null is not a recognized rule state"),
    ],
)
def test_states_that_are_none(api: Api, body: Any, reason: str) -> None:
    for rule in ("rest-rule", "rest-none"):
        refused(api.request("POST", f"rules/{rule}", body), 400, MALFORMED + reason, routed=False)


def test_rules_that_are_absent(api: Api) -> None:
    for method, body in (("GET", None), ("DELETE", None), ("POST", {"status": "active"})):
        answer = api.request(method, "rules/rest-none", body)
        refused(answer, 404, "The requested resource does not exist.", routed=True)


def test_a_trigger_fires(api: Api) -> None:
    answer = api.request("POST", "triggers/rest-trigger", {"x": 1})
    assert answer.status == 202
    assert set(answer.json) == {"activationId"}
    assert answer.headers["x-openwhisk-activation-id"] == answer.json["activationId"]
    record = api.record(answer.json["activationId"])
    assert (record["annotations"], record["response"]["result"]) == ([], {"x": 1})
    assert not {"end", "duration", "cause"} & set(record)
    [entry] = map(json.loads, record["logs"])
    assert entry.pop("activationId")
    assert entry == {"rule": "guest/rest-rule", "action": "guest/rest-echo", "statusCode": 0, "success": True}


def test_a_trigger_without_a_rule_does_not_fire(api: Api) -> None:
    put(api, "triggers/rest-alone", {})
    for body in ({}, None):
        answer = api.request("POST", "triggers/rest-alone", body)
        assert (answer.status, answer.body, is_routed(answer)) == (204, b"", True)
        assert not {"content-type", "content-length", "x-openwhisk-activation-id"} & set(answer.headers)
    assert api.get("activations?name=rest-alone").json == []
    api.delete("triggers/rest-alone")


# ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def record(server: running.Server) -> Any:
    """The record of a run whose logs are complete."""
    api = Api(server.url)
    put(
        api,
        "actions/rest-logs",
        {"exec": {"kind": "nodejs:20", "code": "function main() { console.log('a'); return {n: 1} }"}},
    )
    id = api.invoke("rest-logs").json["activationId"]
    return api.record(id)


def test_a_record_and_its_parts(api: Api, record: Any) -> None:
    path = f"activations/{record['activationId']}"
    assert api.get(path + "/").json == record
    assert api.get(path + "/result").json == record["response"]
    assert api.get(path + "/logs").json == {"logs": record["logs"]}
    assert record["response"] == {"result": {"n": 1}, "size": 7, "status": "success", "success": True}
    assert record["publish"] is False
    assert not {"updated", "entityType", "cause"} & set(record)


def test_a_list_of_activations(api: Api, record: Any) -> None:
    [summary] = api.get("activations?name=rest-logs").json
    common = {"namespace", "name", "version", "publish", "annotations", "activationId", "start"}
    assert set(summary) == common | {"end", "duration", "statusCode"}
    assert (summary["statusCode"], summary["duration"]) == (0, record["end"] - record["start"])
    assert api.get("activations?name=rest-logs&docs=true").json == [record]
    start = record["start"]
    assert len(api.get(f"activations?name=rest-logs&since={start}&upto={start}").json) == 1
    assert api.get(f"activations?name=rest-logs&since={start + 1}").json == []
    assert api.get(f"activations?name=rest-logs&upto={start - 1}").json == []
    assert api.get("activations?name=rest-logs&count=true").json == {"activations": 1}
    assert api.get("activations?name=rest-logs&count=true&skip=5").json == {"activations": 0}
    assert api.get("activations?name=rest-logs&skip=1").json == []
    assert api.get("activations?name=/rest-logs").json == [summary]
    assert api.get("activations?name=pkg/rest-logs").json == []
    assert api.get("activations?since=-9223372036854775808&upto=9223372036854775807&limit=1").status == 200


def test_docs_and_count_do_not_go_together(api: Api) -> None:
    sentence = "The parameter 'docs' is not permitted with 'count'."
    refused(api.get("activations?docs=true&count=true"), 400, sentence, routed=True)
    reason = "Parameter is not a valid value for epoch seconds: x"
    refused(api.get("activations?docs=true&count=true&since=x"), 400, bad_query("since", reason), routed=False)


@pytest.mark.parametrize("tail", ["", "/", "/logs", "/result", "/other"])
@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("abc", "Activation id length is 3 but must be 32."),
        ("a" * 33, "Activation id length is 33 but must be 32."),
        ("z" * 32, "The activation id is not valid."),
        ("A" * 32, "The activation id is not valid."),
    ],
)
def test_ids_that_are_none(api: Api, id: str, sentence: str, tail: str) -> None:
    refused(api.get(f"activations/{id}{tail}"), 400, sentence, routed=False)


@pytest.mark.parametrize("tail", ["", "/", "/logs", "/result"])
def test_activations_that_are_absent(api: Api, tail: str) -> None:
    refused(api.get(f"activations/{'0' * 32}{tail}"), 404, "The requested resource does not exist.", routed=True)


def test_nothing_of_all_this_was_unforeseen(server: running.Server) -> None:
    assert "Traceback" not in server.read_log()
    assert "api.failed" not in server.read_log()
