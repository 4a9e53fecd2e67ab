"""Actions and sequences over REST: what is stored, merged, shown and refused, and how they are invoked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.system.answers import (
    ACTION,
    CODE,
    MALFORMED,
    NAME_INCOMPLETE,
    UNEXPECTED,
    bad_query,
    is_routed,
    keys,
    prepare,
    put,
    refused,
)
from tests.system.conftest import Api

from visp.client import running


@pytest.fixture(scope="module", autouse=True)
def entities(server: running.Server) -> None:
    prepare(Api(server.url))


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_action_and_its_defaults(api: Api) -> None:
    answer = api.request("PUT", "actions/rest-new", ACTION)
    assert answer.status == 200
    stored = answer.json
    assert isinstance(stored.pop("updated"), int)
    assert keys(stored.pop("annotations")) == {"provide-api-key": False, "exec": "nodejs:20"}
    assert stored == {
        "namespace": "guest",
        "name": "rest-new",
        "exec": {"kind": "nodejs:20", "code": CODE, "binary": False},
        "parameters": [],
        "limits": {"timeout": 60000, "memory": 256, "logs": 10, "concurrency": 1},
        "version": "0.0.1",
        "publish": False,
    }
    assert api.get("actions/rest-new").json == answer.json
    without = api.get("actions/rest-new?code=false").json
    assert without == answer.json | {"exec": {"kind": "nodejs:20", "binary": False}}
    assert api.delete("actions/rest-new").json == answer.json
    refused(api.get("actions/rest-new"), 404, "The requested resource does not exist.", routed=True)


def test_an_update_of_an_action(api: Api) -> None:
    first = put(
        api,
        "actions/rest-update",
        ACTION
        | {
            "parameters": [{"key": "a", "value": 1}, {"key": "a", "value": 2}, {"key": "b", "value": 3, "init": True}],
            "annotations": [{"key": "x", "value": 1}, {"key": "y", "value": 2}, {"key": "exec", "value": "mine"}],
            "limits": {"timeout": 1000, "memory": 128},
            "version": "1.2",
            "publish": True,
        },
    )
    assert keys(first["parameters"]) == {"a": 2, "b": 3}
    assert [entry for entry in first["parameters"] if entry.get("init")] == [{"key": "b", "value": 3, "init": True}]
    assert keys(first["annotations"]) == {"x": 1, "y": 2, "provide-api-key": False, "exec": "nodejs:20"}
    assert first["version"] == "1.2.0"
    second = put(
        api,
        "actions/rest-update",
        {"annotations": [{"key": "y", "value": 9}], "delAnnotations": ["x"], "limits": {"memory": 256, "logs": 1}},
    )
    assert second["exec"] == first["exec"]
    assert second["parameters"] == first["parameters"]
    assert keys(second["annotations"]) == {"y": 9, "provide-api-key": False, "exec": "nodejs:20"}
    assert second["limits"] == {"timeout": 1000, "memory": 256, "logs": 1, "concurrency": 1}
    assert (second["version"], second["publish"]) == ("1.2.1", True)
    assert put(api, "actions/rest-update", {"parameters": [{"key": "c", "value": None}]})["parameters"] == [
        {"key": "c", "value": None}
    ]
    api.delete("actions/rest-update")


def test_a_clients_own_provide_api_key_is_kept(api: Api) -> None:
    given = [{"key": "provide-api-key", "value": True}]
    assert keys(put(api, "actions/rest-key", ACTION | {"annotations": given})["annotations"])["provide-api-key"] is True
    removed = put(api, "actions/rest-key", {"delAnnotations": ["provide-api-key"]})
    assert "provide-api-key" not in keys(removed["annotations"])
    api.delete("actions/rest-key")


@pytest.mark.parametrize(
    ("exec", "shown"),
    [
        ({"kind": " NodeJS:20 ", "code": ""}, {"kind": "nodejs:20", "code": "", "binary": False}),
        ({"kind": "nodejs:default", "code": "x"}, {"kind": "nodejs:20", "code": "x", "binary": False}),
        ({"kind": "nodejs:20", "code": "abcd", "binary": False}, {"kind": "nodejs:20", "code": "abcd", "binary": True}),
        ({"kind": "nodejs:20", "code": "abc", "binary": True}, {"kind": "nodejs:20", "code": "abc", "binary": False}),
        (
            {"kind": "nodejs:20", "code": "x", "main": "foo"},
            {"kind": "nodejs:20", "code": "x", "binary": False, "main": "foo"},
        ),
        ({"kind": "nodejs:20", "code": "x", "main": None}, {"kind": "nodejs:20", "code": "x", "binary": False}),
        ({"kind": "nodejs:20", "jar": "x"}, {"kind": "nodejs:20", "code": "x", "binary": False}),
        ({"kind": "blackbox", "image": "me/it:1"}, {"kind": "blackbox", "image": "me/it:1", "binary": False}),
        ({"kind": "blackbox", "image": "it", "code": " "}, {"kind": "blackbox", "image": "it", "binary": False}),
        (
            {"kind": "sequence", "components": ["/_/rest-echo", "guest/rest-echo", {"path": "_", "name": "rest-echo"}]},
            {"kind": "sequence", "components": ["/guest/rest-echo"] * 3},
        ),
    ],
)
def test_what_can_be_executed(api: Api, exec: dict[str, Any], shown: dict[str, Any]) -> None:
    stored = put(api, "actions/rest-exec", {"exec": exec})
    assert stored["exec"] == shown
    assert keys(stored["annotations"])["exec"] == shown["kind"]
    assert api.get("actions?limit=1").json[0]["exec"] == {"binary": shown.get("binary", False)}
    api.delete("actions/rest-exec")


@pytest.mark.parametrize(
    ("exec", "reason"),
    [
        (5, "JSON object expected"),
        ({"code": "x"}, "'kind' must be a string defined in 'exec'"),
        ({"kind": 5}, "'kind' must be a string defined in 'exec'"),
        (
            {"kind": "nodejs:default"},
            "'code' must be a string or attachment object defined in 'exec' for 'nodejs:default' actions",
        ),
        ({"kind": "nodejs:20", "code": 5}, "Could not deserialize as attachment record: 5"),
        ({"kind": "nodejs:20", "code": None}, "Could not deserialize as attachment record: null"),
        (
            {"kind": "nodejs:20", "code": "", "main": 1},
            "if defined, 'main' be a string in 'exec' for 'nodejs:20' actions",
        ),
        ({"kind": "sequence"}, "'components' must be defined for sequence kind"),
        ({"kind": "sequence", "components": "a"}, "'components' must be an array"),
        ({"kind": "sequence", "components": ["a"]}, NAME_INCOMPLETE.removeprefix(MALFORMED)),
        ({"kind": "blackbox"}, "'image' must be a string defined in 'exec' for 'blackbox' actions"),
        ({"kind": "blackbox", "image": 5}, "'image' must be a string defined in 'exec' for 'blackbox' actions"),
        ({"kind": "blackbox", "image": "A B"}, "could not parse image name"),
    ],
)
def test_what_cannot_be_executed(api: Api, exec: Any, reason: str) -> None:
    refused(api.request("PUT", "actions/rest-exec", {"exec": exec}), 400, MALFORMED + reason, routed=False)


def test_kinds_that_are_not_known(api: Api) -> None:
    answer = api.request("PUT", "actions/rest-exec", {"exec": {"kind": "cobol:1", "code": ""}})
    sentence, _, known = answer.json["error"].partition(" Valid values are: ")
    assert sentence == MALFORMED + "The specified runtime 'cobol:1' is not supported by this platform."
    assert {"'nodejs:20'", "'python:3.11'", "'blackbox'", "'sequence'"} <= set(known.removesuffix(".").split(", "))


@pytest.mark.parametrize("query", ["", "?overwrite=true"])
def test_no_action_without_an_exec(api: Api, query: str) -> None:
    for body in ({}, {"exec": None}, {"parameters": []}):
        refused(api.request("PUT", f"actions/rest-exec{query}", body), 400, "exec undefined", routed=True)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"memory": 64}, "memory size 64 MB below allowed threshold of 128 MB"),
        ({"memory": 513}, "memory size 513 MB exceeds allowed threshold of 512 MB"),
        ({"timeout": 99}, "duration 99 milliseconds below allowed threshold of 100 milliseconds"),
        ({"timeout": 300001}, "duration 300001 milliseconds exceeds allowed threshold of 300000 milliseconds"),
        ({"logs": -1}, "log size -1 MB below allowed threshold of 0 MB"),
        ({"logs": 11}, "log size 11 MB exceeds allowed threshold of 10 MB"),
        ({"concurrency": 2}, "concurrency 2 exceeds allowed threshold of 1"),
        ({"concurrency": 0}, "concurrency 0 below allowed threshold of 1"),
        (
            {"concurrency": 0, "logs": 11, "timeout": 1, "memory": 1},
            "memory size 1 MB below allowed threshold of 128 MB",
        ),
        (
            {"concurrency": 0, "logs": 11, "timeout": 99},
            "duration 99 milliseconds below allowed threshold of 100 milliseconds",
        ),
    ],
)
def test_limits_out_of_range(api: Api, limits: dict[str, int], sentence: str) -> None:
    answer = api.request("PUT", "actions/rest-echo", ACTION | {"limits": limits})
    refused(answer, 400, f"requirement failed: {sentence}", routed=True)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"timeout": "1"}, "time limit malformed"),
        ({"memory": True}, "memory limit malformed"),
        ({"logs": []}, "log limit malformed"),
        ({"concurrency": {}}, "concurrency limit malformed"),
        ({"instances": "1"}, "instance concurrency limit malformed"),
        ({"timeout": 1.5}, "requirement failed: time limit must be whole number"),
        ({"memory": 128.5}, "requirement failed: memory limit must be whole number"),
        ({"logs": 0.1}, "requirement failed: log limit must be whole number"),
        ({"concurrency": 1.5}, "requirement failed: intra concurrency limit must be whole number"),
        ({"instances": 1.5}, "requirement failed: instance concurrency limit must be whole number"),
        ({"instances": -1}, "requirement failed: Action container concurrency must be greater than or equal to 0."),
        (5, "Object expected in field 'timeout'"),
    ],
)
def test_limits_that_are_malformed(api: Api, limits: Any, reason: str) -> None:
    answer = api.request("PUT", "actions/rest-limits", ACTION | {"limits": limits})
    refused(answer, 400, MALFORMED + reason, routed=False)


def test_instances(api: Api) -> None:
    assert put(api, "actions/rest-limits", ACTION | {"limits": {"instances": 3.0}})["limits"]["instances"] == 3
    assert put(api, "actions/rest-limits", {"limits": {"memory": 128}})["limits"]["instances"] == 3
    answer = api.request("PUT", "actions/rest-limits?overwrite=true", ACTION | {"limits": {"instances": 100_001}})
    sentence = "Max action instance concurrency must not exceed your namespace concurrency of 100000."
    refused(answer, 400, sentence, routed=True)
    api.delete("actions/rest-limits")


LARGE = [{"key": "k", "value": "x" * (1024 * 1024 - 2)}]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("actions/rest-echo", "parameters"),
        ("actions/rest-echo", "annotations"),
        ("triggers/rest-trigger", "parameters"),
        ("triggers/rest-trigger", "annotations"),
        ("rules/rest-rule", "annotations"),
    ],
)
def test_entities_that_are_too_large(api: Api, path: str, field: str) -> None:
    answer = api.request("PUT", path, {field: LARGE, "limits": {"memory": 1}})
    refused(answer, 413, f"{field} larger than allowed: 1048577 > 1048576 bytes.", routed=True)


def test_entities_that_just_fit(api: Api) -> None:
    fits = [{"key": "k", "value": "x" * (1024 * 1024 - 3)}]
    assert put(api, "triggers/rest-large", {"parameters": fits, "annotations": fits})["parameters"] == fits
    api.delete("triggers/rest-large")


def test_a_body_over_the_bound_of_the_server(api: Api) -> None:
    answer = api.request("PUT", "triggers/rest-large", b" " * (50 * 1024 * 1024 + 1))
    assert answer.status == 413
    assert "(52428801) exceeded size limit (52428800 bytes)" in answer.json["error"]
    assert not is_routed(answer)


def test_names_taken_by_another_collection(api: Api) -> None:
    other = "Resource by this name exists but is not in this collection."
    for query in ("", "?overwrite=true"):
        refused(api.request("PUT", f"triggers/rest-echo{query}", {}), 409, other, routed=True)
        refused(api.request("PUT", f"actions/rest-trigger{query}", ACTION), 409, other, routed=True)
    for method in ("GET", "DELETE"):
        refused(api.request(method, "actions/rest-trigger"), 409, other, routed=True)
    refused(api.request("POST", "actions/rest-trigger", {}), 409, other, routed=True)
    refused(api.request("POST", "triggers/rest-echo", {}), 409, other, routed=True)
    refused(api.request("POST", "rules/rest-echo", {"status": "active"}), 409, other, routed=True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("actions/rest-echo", ACTION),
        ("actions/rest-echo", {}),
        ("triggers/rest-trigger", {}),
        ("rules/rest-rule", {"trigger": "/_/no", "action": "/_/no"}),
        ("rules/rest-rule", {}),
    ],
)
def test_what_exists_is_only_overwritten_when_asked(api: Api, path: str, body: Any) -> None:
    for query in ("", "?overwrite=false"):
        refused(api.request("PUT", path + query, body), 409, "resource already exists", routed=True)


def test_a_list_of_actions(api: Api) -> None:
    names = [f"rest-list-{number}" for number in range(3)]
    for name in names:
        put(api, f"actions/{name}", ACTION | {"parameters": [{"key": "a", "value": 1}]})
    listed = api.get("actions?limit=3").json
    assert [entry["name"] for entry in listed] == names[::-1]
    assert set(listed[0]) == {
        "namespace", "name", "version", "publish", "annotations", "updated", "limits", "exec",
    }  # fmt: skip
    assert api.get("actions/?limit=2&skip=1").json == listed[1:]
    total = api.get("actions?count=true").json["actions"]
    assert api.get("actions?count=true&limit=1").json == {"actions": total}
    assert api.get("actions?count=true&skip=2").json == {"actions": total - 2}
    assert api.get("actions?count=true&skip=1000").json == {"actions": 0}
    assert len(api.get("actions?limit=0").json) == total
    for name in names:
        api.delete(f"actions/{name}")


# ── sequences ───────────────────────────────────────────────────────────────────────────────────────────────────


def sequence(*components: str) -> dict[str, Any]:
    return {"exec": {"kind": "sequence", "components": list(components)}}


def test_parameters_of_a_sequence(api: Api) -> None:
    actions = [{"key": "_actions", "value": ["/guest/rest-echo"]}]
    stored = put(api, "actions/rest-seq", sequence("/_/rest-echo") | {"parameters": [{"key": "mine", "value": 1}]})
    assert stored["parameters"] == actions
    assert stored["exec"] == {"kind": "sequence", "components": ["/guest/rest-echo"]}
    assert put(api, "actions/rest-seq", {"parameters": [{"key": "mine", "value": 1}]})["parameters"] == actions
    assert put(api, "actions/rest-seq", ACTION)["parameters"] == []
    api.delete("actions/rest-seq")


def test_a_sequence_exec_keeps_annotations_that_it_should_delete(api: Api) -> None:
    put(api, "actions/rest-seq", ACTION | {"annotations": [{"key": "x", "value": 1}]})
    stored = put(api, "actions/rest-seq", sequence("/_/rest-echo") | {"delAnnotations": ["x"]})
    assert keys(stored["annotations"])["x"] == 1
    api.delete("actions/rest-seq")


def test_sequences_that_cannot_be(api: Api) -> None:
    for components, sentence in (
        ([], "No component specified for the sequence."),
        (["/_/rest-echo"] * 51, "Too many actions in the sequence."),
        (["/_/rest-echo", "/_/rest-nothing"], "Sequence component does not exist."),
        (["/_/rest-trigger"], "Sequence component does not exist."),
        (["/_/rest-new-seq"], "Sequence may not refer to itself."),
    ):
        refused(api.request("PUT", "actions/rest-new-seq", sequence(*components)), 400, sentence, routed=True)


def test_sequences_of_sequences(api: Api) -> None:
    put(api, "actions/rest-ten", sequence(*["/_/rest-echo"] * 10))
    put(api, "actions/rest-fifty", sequence(*["/_/rest-ten"] * 5))
    answer = api.request("PUT", "actions/rest-more", sequence("/_/rest-fifty", "/_/rest-echo"))
    refused(answer, 400, "Too many actions in the sequence.", routed=True)
    answer = api.request("PUT", "actions/rest-ten?overwrite=true", sequence("/_/rest-echo", "/_/rest-fifty"))
    refused(answer, 400, "Sequence may not refer to itself.", routed=True)
    for name in ("rest-ten", "rest-fifty"):
        api.delete(f"actions/{name}")


# ── invoking ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("query", ["", "?result=true", "?blocking=false&result=true", "?timeout=1"])
def test_an_invocation_without_waiting(api: Api, query: str) -> None:
    answer = api.request("POST", f"actions/rest-echo{query}", {})
    assert answer.status == 202
    assert set(answer.json) == {"activationId"}
    assert answer.headers["x-openwhisk-activation-id"] == answer.json["activationId"]
    assert is_routed(answer)


@pytest.mark.parametrize("body", [None, b"", b"{}"])
def test_an_invocation_that_waits(api: Api, body: bytes | None) -> None:
    answer = api.request("POST", "actions/rest-echo?blocking=true", body)
    assert answer.status == 200
    record = answer.json
    assert record["response"]["result"] == {}
    assert (record["response"]["status"], record["response"]["success"]) == ("success", True)
    assert record["logs"] == []
    assert (record["namespace"], record["name"], record["subject"]) == ("guest", "rest-echo", "guest")
    assert answer.headers["x-openwhisk-activation-id"] == record["activationId"]
    assert "statusCode" not in record["response"]
    assert "cause" not in record


def test_the_result_alone(api: Api) -> None:
    answer = api.request("POST", "actions/rest-echo?blocking=true&result=true", {"a": [1, None, "é"]})
    assert (answer.status, answer.json) == (200, {"a": [1, None, "é"]})
    assert answer.headers["x-openwhisk-activation-id"]


def test_duplicate_keys_the_last_wins(api: Api) -> None:
    answer = api.request("POST", "actions/rest-echo?blocking=true&result=true", b'{"a":1,"a":2}')
    assert answer.json == {"a": 2}


def test_a_payload_that_is_too_large(api: Api) -> None:
    body = json.dumps({"a": "x" * (1024 * 1024)}).encode()
    sentence = f"Request larger than allowed: {len(body)} > 1048576 bytes."
    for path in ("actions/rest-echo?blocking=maybe", "actions/rest-nothing", "triggers/rest-trigger"):
        refused(api.request("POST", path, body), 413, sentence, routed=True)


def test_an_invocation_of_what_is_absent(api: Api) -> None:
    for path in ("actions/rest-nothing", "triggers/rest-nothing"):
        answer = api.request("POST", path, {})
        refused(answer, 404, "The requested resource does not exist.", routed=True)
        assert "x-openwhisk-activation-id" not in answer.headers
    refused(
        api.request("POST", "actions/rest-nothing?blocking=maybe", {}),
        400,
        bad_query("blocking", "'maybe' is not a valid Boolean value"),
        routed=False,
    )
    answer = api.request("POST", "actions/rest-nothing", b"{bad")
    assert answer.json["error"].startswith(UNEXPECTED)


def test_final_parameters(api: Api) -> None:
    fixed = {"parameters": [{"key": "a", "value": 1}, {"key": "open", "value": None}]}
    put(api, "actions/rest-final", ACTION | fixed | {"annotations": [{"key": "final", "value": True}]})
    answer = api.request("POST", "actions/rest-final?blocking=true&result=true", {"a": 2})
    sentence = "Request defines parameters that are not allowed (e.g., reserved properties)."
    refused(answer, 400, sentence, routed=True)
    answer = api.request("POST", "actions/rest-final?blocking=true&result=true", {"open": 2, "b": 3})
    assert answer.json == {"a": 1, "open": 2, "b": 3}
    api.delete("actions/rest-final")


def test_nothing_of_all_this_was_unforeseen(server: running.Server) -> None:
    assert "Traceback" not in server.read_log()
    assert "api.failed" not in server.read_log()
