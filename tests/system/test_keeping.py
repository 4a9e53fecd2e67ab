"""Store policies: who still gets an answer, and what can be read afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.conftest import Api
from tests.system.places import Place, opened
from tests.system.test_retries import until

CODE = "def main(p):\n    return {'error': 'no'} if p.get('fails') else {'ok': True}\n"
FORCED = {"X-OW-EXTRA-LOGGING": "on"}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


@pytest.fixture(scope="module")
def api(place: Place) -> Api:
    api = Api(place.start().url)
    for policy in ("all", "errors", "none"):
        put(api, policy, policy)
    return api


def put(api: Api, name: str, policy: Any) -> Any:
    body = {
        "exec": {"kind": "python:3.11", "code": CODE},
        "annotations": [{"key": "store-activations", "value": policy}],
    }
    return api.request("PUT", f"actions/{name}?overwrite=true", body)


def is_there(api: Api, id: str) -> bool:
    return api.get(f"activations/{id}").status == 200


@pytest.mark.parametrize(
    ("policy", "fails", "kept"),
    [("all", 0, True), ("errors", 0, False), ("errors", 1, True), ("none", 0, False), ("none", 1, False)],
)
def test_a_blocking_caller_has_its_answer_and_the_record_is_kept_or_not(
    api: Api, policy: str, fails: int, kept: bool
) -> None:
    answer = api.request("POST", f"actions/{policy}?blocking=true", {"fails": fails})
    assert answer.json["response"]["success"] is not bool(fails)
    assert is_there(api, answer.json["activationId"]) is kept


def test_who_waits_for_a_record_that_is_not_kept_hears_that_it_is_over(api: Api) -> None:
    body = {
        "exec": {"kind": "python:3.11", "code": "import time\ndef main(p):\n    time.sleep(0.3)\n    return {}\n"},
        "annotations": [{"key": "store-activations", "value": "none"}],
    }
    api.request("PUT", "actions/slow", body)
    id = api.request("POST", "actions/slow", {}).json["activationId"]
    began_s = time.monotonic()
    assert api.get(f"activations/{id}?wait=60").status == 404
    assert time.monotonic() - began_s < 30


def test_a_request_can_ask_for_its_record(api: Api) -> None:
    answer = api.request("POST", "actions/none?blocking=true", {}, headers=FORCED)
    assert is_there(api, answer.json["activationId"])


def test_parts_of_a_sequence_are_kept_as_they_say_themselves(api: Api) -> None:
    sequence = {"exec": {"kind": "sequence", "components": ["/_/all", "/_/none"]}}
    api.request("PUT", "actions/line", sequence)
    record = api.request("POST", "actions/line?blocking=true", {}).json
    assert [is_there(api, id) for id in [record["activationId"], *record["logs"]]] == [True, True, False]


@pytest.mark.parametrize("policy", ["sometimes", True, None])
def test_a_policy_that_is_none_is_refused(api: Api, policy: Any) -> None:
    answer = put(api, "refused", policy)
    assert (answer.status, answer.json["error"]) == (
        400,
        "The annotation 'store-activations' must be one of all, errors, none.",
    )


def test_a_namespace_whose_records_are_not_stored(place: Place, api: Api) -> None:
    api.request("PUT", "triggers/t", {})
    api.request("PUT", "rules/r", {"trigger": "/_/t", "action": "/_/all"})
    place.told("limits", "set", "guest", "-l", "storeActivations", "false")
    try:
        until(lambda: api.get("limits").json.get("storeActivations") is False)
        answer = api.request("POST", "actions/all?blocking=true", {})
        assert answer.status == 200
        assert not is_there(api, answer.json["activationId"])
        forced = api.request("POST", "actions/all?blocking=true", {}, headers=FORCED)
        assert is_there(api, forced.json["activationId"])
        fired = api.request("POST", "triggers/t", {})
        assert fired.status == 202
        time.sleep(0.5)
        assert not is_there(api, fired.json["activationId"])
        fired = api.request("POST", "triggers/t", {}, headers=FORCED)
        entry = json.loads(until(lambda: api.get(f"activations/{fired.json['activationId']}").json.get("logs"))[0])
        until(lambda: is_there(api, entry["activationId"]))
    finally:
        place.told("limits", "delete", "guest")
