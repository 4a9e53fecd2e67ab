"""`visp trigger`: the trigger, and the feed behind it."""

import json

import pytest

AUTH = "some-uuid:" + "k" * 64  # what the fixture `visp` configures
ID = "0123456789abcdef0123456789abcdef"
TRIGGER = {"namespace": "guest", "name": "t", "parameters": [{"key": "a", "value": 1}], "annotations": []}
FED = TRIGGER | {"annotations": [{"key": "feed", "value": "/whisk.system/alarms/alarm"}]}
FEED_ROUTE = "POST /namespaces/whisk.system/actions/alarms/alarm"
FEED_RECORD = {"activationId": ID, "response": {"success": True, "result": {}}}


def lifecycle(event: str) -> dict[str, str]:
    return {"lifecycleEvent": event, "triggerName": "/_/t", "authKey": AUTH}


def test_create(api, visp):
    api.answer("PUT /namespaces/_/triggers/t", body=TRIGGER)
    done = visp("trigger", "create", "t", "-p", "a", "1", "-a", "description", "d")
    assert (done.exit_code, done.stdout) == (0, "ok: created trigger t\n")
    [request] = api.requests
    assert request.query == {"overwrite": "false"}
    assert request.body == {
        "parameters": [{"key": "a", "value": 1}],
        "annotations": [{"key": "description", "value": "d"}],
    }


def test_create_with_a_feed_tells_the_feed(api, visp):
    api.answer("PUT /namespaces/_/triggers/t", body=TRIGGER)
    api.answer(FEED_ROUTE, body=FEED_RECORD)
    done = visp("trigger", "create", "t", "--feed", "/whisk.system/alarms/alarm", "-p", "cron", "* * * * *")
    assert done.exit_code == 0
    assert done.stdout.endswith("ok: created trigger t\n")
    put, feed = api.requests
    assert put.body == {"annotations": [{"key": "feed", "value": "/whisk.system/alarms/alarm"}]}
    assert feed.query == {"blocking": "true", "result": "false"}
    assert feed.body == {"cron": "* * * * *"} | lifecycle("CREATE")


def test_a_feed_that_fails_takes_the_trigger_with_it(api, visp):
    api.answer("PUT /namespaces/_/triggers/t", body=TRIGGER)
    api.answer("GET /namespaces/_/triggers/t", body=FED)
    api.answer("DELETE /namespaces/_/triggers/t", body=FED)
    api.answer(FEED_ROUTE, 502, {"error": "cron pattern '?' is not valid"})
    done = visp("trigger", "create", "t", "--feed", "/whisk.system/alarms/alarm", "-F", "cron", "?", "-T", "a", "1")
    assert done.exit_code == 246
    assert "Unable to configure feed '/whisk.system/alarms/alarm': cron pattern '?' is not valid" in done.stderr
    assert api.routes == [
        "PUT /namespaces/_/triggers/t",
        FEED_ROUTE,
        "GET /namespaces/_/triggers/t",
        FEED_ROUTE,
        "DELETE /namespaces/_/triggers/t",
    ]
    assert api.requests[0].body["parameters"] == [{"key": "a", "value": 1}]
    assert api.requests[3].body == lifecycle("DELETE")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-F", "a", "1"), "give --feed"),
        (("-p", "a", "1", "-T", "b", "2"), "cannot be mixed"),
    ],
)
def test_parameters_that_do_not_go_together(api, visp, arguments, sentence):
    done = visp("trigger", "create", "t", *arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert api.requests == []


def test_triggers_lie_in_no_package(visp):
    assert "triggers lie in no package" in visp("trigger", "fire", "pkg/t").stderr


def test_update_of_a_plain_trigger(api, visp):
    api.answer("GET /namespaces/_/triggers/t", body=TRIGGER)
    api.answer("PUT /namespaces/_/triggers/t", body=TRIGGER)
    assert visp("trigger", "update", "t", "-p", "a", "2").stdout == "ok: updated trigger t\n"
    assert api.requests[1].query == {"overwrite": "true"}
    assert api.requests[1].body == {"parameters": [{"key": "a", "value": 2}]}


def test_update_of_a_fed_trigger_goes_to_its_feed_alone(api, visp):
    api.answer("GET /namespaces/_/triggers/t", body=FED)
    api.answer(FEED_ROUTE, body=FEED_RECORD)
    assert visp("trigger", "update", "t", "-p", "cron", "0 * * * *").exit_code == 0
    assert api.routes == ["GET /namespaces/_/triggers/t", FEED_ROUTE]
    assert api.requests[1].body == {"cron": "0 * * * *"} | lifecycle("UPDATE")


def test_new_annotations_do_not_lose_the_feed(api, visp):
    api.answer("GET /namespaces/_/triggers/t", body=FED)
    api.answer("PUT /namespaces/_/triggers/t", body=FED)
    assert visp("trigger", "update", "t", "-a", "x", "1").exit_code == 0
    assert api.requests[1].body == {"annotations": [*FED["annotations"], {"key": "x", "value": 1}]}


def test_update_creates_what_is_not_there(api, visp):
    api.answer("PUT /namespaces/_/triggers/t", body=TRIGGER)
    assert visp("trigger", "update", "t").exit_code == 0
    assert api.requests[1].query == {"overwrite": "false"}


def test_get(api, visp):
    api.answer("GET /namespaces/_/triggers/t", body=TRIGGER)
    assert visp("trigger", "get", "t").stdout.startswith("ok: got trigger t\n{")
    assert json.loads(visp("trigger", "get", "t", "parameters", "--json").stdout) == TRIGGER["parameters"]
    assert visp("trigger", "get", "t", "-s").stdout == "trigger /guest/t\n   (parameters: *a)\n"


def test_get_of_a_fed_trigger_asks_the_feed(api, visp):
    api.answer("GET /namespaces/_/triggers/t", body=FED)
    api.answer(FEED_ROUTE, body=FEED_RECORD)
    done = visp("trigger", "get", "t")
    assert done.stdout.startswith(f"ok: invoked /whisk.system/alarms/alarm with id {ID}\n")
    assert api.requests[1].body == lifecycle("READ")
    api.answers[FEED_ROUTE] = [(502, b'{"error":"could not find trigger"}', {})]
    failed = visp("trigger", "get", "t")
    assert failed.exit_code == 0
    assert "could not find trigger" in failed.stderr


def test_delete_tells_the_feed_and_goes_on_when_it_fails(api, visp):
    api.answer("GET /namespaces/_/triggers/t", body=FED)
    api.answer(FEED_ROUTE, 502, {"error": "no"})
    api.answer("DELETE /namespaces/_/triggers/t", body=FED)
    done = visp("trigger", "delete", "t")
    assert (done.exit_code, done.stdout) == (0, "ok: deleted trigger t\n")
    assert "no" in done.stderr


def test_delete_of_what_is_not_there(api, visp):
    assert visp("trigger", "delete", "t").exit_code == 148
    assert api.routes == ["GET /namespaces/_/triggers/t"]


def test_list(api, visp):
    api.answer("GET /namespaces/_/triggers", body=[TRIGGER])
    assert visp("trigger", "list").stdout == f"triggers\n{'/guest/t':<70} private\n"


def test_fire(api, visp):
    api.answer("POST /namespaces/_/triggers/t", 202, {"activationId": ID})
    done = visp("trigger", "fire", "t", "-p", "a", "1")
    assert done.stdout == f"ok: triggered /_/t with id {ID}\n"
    assert api.requests[0].body == {"a": 1}


def test_fire_without_a_rule(api, visp):
    api.answer("POST /namespaces/_/triggers/t", 204)
    done = visp("trigger", "fire", "t")
    assert done.exit_code == 0
    assert "no active rule" in done.stdout
    assert visp("trigger", "fire", "t", "--json").stdout == "{}\n"
