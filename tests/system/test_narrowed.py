"""A namespace whose limits an operator narrowed: what was written before, answers, and a trigger with many rules."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.system.conftest import Api
from tests.system.places import Place, opened
from tests.system.test_retries import until

ECHO = {"exec": {"kind": "python:3.11", "code": "def main(p):\n    return {'text': 'x' * p.get('size', 1)}\n"}}
RULES = 100


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


@pytest.fixture(scope="module")
def api(place: Place) -> Api:
    return Api(place.start().url)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_an_action_beyond_limits_that_were_lowered_is_not_run(place: Place, api: Api, is_blocking: bool) -> None:
    api.request("PUT", "actions/large?overwrite=true", ECHO | {"limits": {"memory": 512}})
    api.request("PUT", "actions/line?overwrite=true", {"exec": {"kind": "sequence", "components": ["/_/large"]}})
    place.told("limits", "set", "guest", "-l", "maxActionMemory", "256")
    try:
        until(lambda: api.get("limits").json["maxActionMemory"] == 256)
        sentence = "memory size 512 MB exceeds allowed threshold of 256 MB"
        for name in ("large", "line"):
            answer = api.request("POST", f"actions/{name}?blocking={str(is_blocking).lower()}", {})
            assert answer.status == (502 if is_blocking else 202)
            id = answer.json["activationId"]
            record = until(lambda id=id: (got := api.get(f"activations/{id}")).status == 200 and got.json)
            assert record["response"]["status"] == "application error"
            assert record["response"]["result"] == {"error": sentence}
    finally:
        place.told("limits", "delete", "guest")
        until(lambda: api.get("limits").json["maxActionMemory"] == 512)
    assert api.request("POST", "actions/large?blocking=true", {}).status == 200


def test_an_answer_is_bounded_by_its_namespace(place: Place, api: Api) -> None:
    api.request("PUT", "actions/echo?overwrite=true", ECHO)
    place.told("limits", "set", "guest", "-l", "maxPayloadSize", "1 KB", "-l", "truncationSize", "100 B")
    try:
        until(lambda: api.get("limits").json.get("truncationSize") == "100 B")
        assert api.request("POST", "actions/echo?blocking=true", {"size": 900}).status == 200
        answer = api.request("POST", "actions/echo?blocking=true", {"size": 2000})
        error = answer.json["response"]["result"]["error"]
        assert error.startswith("The action produced a response that exceeded the allowed length: 2011 > 1024 bytes.")
        assert error.count("x") < 110
        assert answer.json["response"]["status"] == "application error"
    finally:
        place.told("limits", "delete", "guest")
        until(lambda: "truncationSize" not in api.get("limits").json)


def test_a_trigger_with_a_hundred_rules(api: Api) -> None:
    api.request("PUT", "actions/echo?overwrite=true", ECHO)
    api.request("PUT", "triggers/many", {})
    for number in range(RULES):
        assert api.request("PUT", f"rules/r{number}", {"trigger": "/_/many", "action": "/_/echo"}).status == 200
    api.request("POST", "rules/r0", {"status": "inactive"})
    assert len(api.get("triggers/many").json["rules"]) == RULES
    id = api.request("POST", "triggers/many", {}).json["activationId"]
    logs = [json.loads(entry) for entry in until(lambda: api.get(f"activations/{id}").json.get("logs"))]
    assert len(logs) == RULES
    assert sum(entry["success"] for entry in logs) == RULES - 1
    for entry in logs:
        if entry["success"]:
            until(lambda id=entry["activationId"]: api.get(f"activations/{id}").status == 200)
