"""The feed protocol as clients speak it: the actions of the catalog, in the sandbox, over the server's own feeds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.conftest import GUEST, Answer, Api, has_sandbox
from tests.system.traces import until

from visp.client import running

ALARM = "/api/v1/namespaces/whisk.system/actions/alarms/alarm"
ECHO = "def main(args):\n    return args"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with running.running({"catalog.packages": "alarms http"}) as server:
        api = Api(server.url)
        until(lambda: api.get(ALARM).status == 200, 20.0)
        api.action("heard", ECHO, "python:3.11")
        yield api


def tell(api: Api, trigger: str, event: str, path: str = ALARM, **parameters: Any) -> Answer:
    """What a client invokes at each turn of a trigger's life."""
    told = {"lifecycleEvent": event, "triggerName": f"/_/{trigger}", "authKey": GUEST, **parameters}
    return api.request("POST", f"{path}?blocking=true", told)


def put(api: Api, trigger: str) -> None:
    annotation = {"annotations": [{"key": "feed", "value": "/whisk.system/alarms/alarm"}]}
    assert api.request("PUT", f"triggers/{trigger}", annotation).status == 200
    rule = {"trigger": f"/_/{trigger}", "action": "/_/heard"}
    assert api.request("PUT", f"rules/{trigger}-rule", rule).status == 200


def fired(api: Api, trigger: str) -> list[Any]:
    records = api.get(f"activations?name={trigger}&docs=true&limit=200").json
    return [record["response"]["result"] for record in records]


def test_the_life_of_an_alarm(api: Api) -> None:
    put(api, "tick")
    made = tell(api, "tick", "CREATE", cron="* * * * * *", trigger_payload={"n": 1})
    assert (made.status, made.json["response"]["result"]) == (200, {"status": "success"})
    until(lambda: len(fired(api, "tick")) >= 2, 20.0)
    assert fired(api, "tick")[0] == {"n": 1}
    told = tell(api, "tick", "READ").json["response"]["result"]
    assert (told["config"]["name"], told["config"]["namespace"], told["config"]["cron"]) == (
        "tick",
        "guest",
        "* * * * * *",
    )
    assert told["config"]["payload"] == {"n": 1}
    assert told["status"]["active"] is True
    changed = tell(api, "tick", "UPDATE", trigger_payload={"n": 2})
    assert changed.json["response"]["result"] == {"status": "success"}
    until(lambda: {"n": 2} in fired(api, "tick"), 20.0)
    assert tell(api, "tick", "DELETE").json["response"]["result"] == {"status": "success"}
    assert tell(api, "tick", "READ").status == 502


def test_what_is_wrong_is_the_actions_error(api: Api) -> None:
    put(api, "wrong")
    for event, parameters, sentence in (
        ("CREATE", {"cron": "x"}, "cron pattern 'x' is not valid"),
        ("CREATE", {}, "alarms trigger feed is missing the cron parameter"),
        ("READ", {}, "could not find trigger /guest/wrong in the database"),
        ("NEVER", {}, "unsupported lifecycleEvent"),
    ):
        answer = tell(api, "wrong", event, **parameters)
        assert answer.status == 502
        assert answer.json["response"]["result"]["error"] == sentence
    answer = tell(api, "absent", "CREATE", cron="* * * * *")
    assert answer.json["response"]["result"]["error"] == "Trigger authentication request failed."


def test_a_binding_brings_its_parameters(api: Api) -> None:
    binding = {"namespace": "whisk.system", "name": "alarms"}
    body = {"binding": binding, "parameters": [{"key": "trigger_payload", "value": {"bound": True}}]}
    assert api.request("PUT", "packages/mine", body).status == 200
    put(api, "bound")
    path = "/api/v1/namespaces/_/actions/mine/interval"
    soon = int(time.time() * 1000) + 1000
    made = tell(api, "bound", "CREATE", path, minutes=1, startDate=soon)
    assert made.json["response"]["result"] == {"status": "success"}, made
    until(lambda: fired(api, "bound") == [{"bound": True}], 20.0)


def test_an_operator_limits_alarms() -> None:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    settings = {"catalog.packages": "", "feeds.whole_minutes": True, "feeds.delay_limit_s": 59}
    with running.running(settings) as server:
        api = Api(server.url)

        def create(trigger: str, **parameters: Any) -> Answer:
            assert api.request("PUT", f"triggers/{trigger}", {}).status == 200
            body = {"feed": "alarms/alarm", "parameters": parameters}
            return api.request("PUT", f"feeds/{trigger}", body)

        def second(trigger: str) -> int:
            until(lambda: "nextFire" in api.get(f"feeds/{trigger}").json["status"], 20.0)
            return int(api.get(f"feeds/{trigger}").json["status"]["nextFire"] // 1000 % 60)

        refused = create("fine", cron="*/5 * * * * *")
        sentence = "cron pattern is limited to 5 fields with 1 minute as the finest granularity"
        assert (refused.status, refused.json["error"]) == (400, sentence)
        for number in range(5):
            assert create(f"t{number}", cron="* * * * *").status == 200
        assert create("strict", cron="* * * * *", strict=True).status == 200
        assert second("strict") == 0
        assert {second(f"t{number}") for number in range(5)} != {0}
