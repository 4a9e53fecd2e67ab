"""The action of all feeds: what it makes of a turn in a trigger's life."""

from __future__ import annotations

import base64

import pytest

TURN = {"triggerName": "/ann/my t", "authKey": "u:k", "cron": "* * * * *"}
METHODS = [("CREATE", "PUT"), ("READ", "GET"), ("UPDATE", "POST"), ("DELETE", "DELETE")]


@pytest.mark.parametrize(("event", "method"), METHODS)
def test_each_turn_is_told_to_the_platform(run, standin, event: str, method: str) -> None:
    standin.answer = lambda _: (200, {"status": "success"})
    result = run("alarms/alarm", TURN | {"lifecycleEvent": event}, API_HOST=standin.url)
    assert result == {"status": "success"}
    heard = standin.one
    assert (heard.method, heard.path) == (method, "/api/v1/namespaces/ann/feeds/my%20t")
    assert heard.headers["authorization"] == "Basic " + base64.b64encode(b"u:k").decode()
    assert heard.json == {"feed": "alarms/alarm", "parameters": {"cron": "* * * * *"}}


@pytest.mark.parametrize("name", ["/_/t", "t", "/t", "_/t"])
def test_a_trigger_without_a_namespace_is_of_who_asks(run, standin, name: str) -> None:
    turn = TURN | {"lifecycleEvent": "READ", "triggerName": name}
    run("mqtt/feed", turn, API_HOST=standin.url, NAMESPACE="bob")
    assert standin.one.path == "/api/v1/namespaces/bob/feeds/t"
    assert standin.one.json["feed"] == "mqtt/feed"


def test_an_error_of_the_platform_is_the_actions(run, standin) -> None:
    standin.answer = lambda _: (400, {"error": "cron pattern 'x' is not valid", "code": "1"})
    args = TURN | {"lifecycleEvent": "CREATE"}
    assert run("alarms/alarm", args, API_HOST=standin.url) == {"error": "cron pattern 'x' is not valid"}
    standin.answer = lambda _: (503, b"busy")
    assert run("alarms/alarm", args, API_HOST=standin.url) == {"error": "the platform answered 503"}


def test_what_is_no_turn(run) -> None:
    assert run("alarms/alarm", TURN) == {"error": "unsupported lifecycleEvent"}
    assert run("alarms/alarm", TURN | {"lifecycleEvent": "PAUSE"}) == {"error": "unsupported lifecycleEvent"}
    missing = {"error": "no trigger name parameter was provided"}
    assert run("alarms/alarm", {"lifecycleEvent": "CREATE", "authKey": "u:k"}) == missing
    assert run("alarms/alarm", {"lifecycleEvent": "CREATE", "triggerName": ""}) == missing


def test_a_platform_that_is_not_there(run) -> None:
    result = run("alarms/alarm", TURN | {"lifecycleEvent": "CREATE"}, API_HOST="http://127.0.0.1:1")
    assert "cannot reach 127.0.0.1" in result["error"]
