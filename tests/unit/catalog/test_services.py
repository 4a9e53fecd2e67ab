"""Calls of services over HTTP: which requests they make, and what they make of the answers."""

from __future__ import annotations

import base64
import json

import pytest


def test_slack_by_web_hook(run, standin) -> None:
    standin.answer = lambda _: (200, b"ok")
    assert run("slack/post", {"url": standin.url + "/hook", "text": "a & b", "channel": "#x"}) == {}
    heard = standin.one
    assert heard.headers["content-type"] == "application/x-www-form-urlencoded"
    assert json.loads(heard.form["payload"]) == {"text": "a & b", "channel": "#x", "username": "Simple Message Bot"}


def test_slack_by_token(run, standin) -> None:
    args = {"url": standin.url, "token": "xoxb", "attachments": [{"text": "t"}], "username": "me", "as_user": True}
    assert run("slack/post", args) == {}
    form = {"token": "xoxb", "attachments": '[{"text": "t"}]', "username": "me", "as_user": "true"}
    assert standin.one.form == form
    standin.answer = lambda _: (200, {"ok": False, "error": "invalid_auth"})
    assert run("slack/post", args) == {"error": "Slack refused the message: invalid_auth"}


def test_slack_without_what_it_needs(run, standin) -> None:
    assert run("slack/post", {"url": standin.url}) == {"error": "No text provided"}
    assert run("slack/post", {"text": "a"}) == {"error": "No Webhook URL provided"}
    standin.answer = lambda _: (404, b"no_service")
    assert run("slack/post", {"url": standin.url, "text": "a"}) == {"error": "Slack refused the message: no_service"}


GITHUB = [
    ("create-issue", {"title": "t", "labels": ["bug"]}, "POST", "/issues", {"title": "t", "labels": ["bug"]}),
    ("comment", {"issue_number": 7, "body": "b"}, "POST", "/issues/7/comments", {"body": "b"}),
    ("set-commit-status", {"sha": "abc", "state": "success"}, "POST", "/statuses/abc", {"state": "success"}),
    ("get-contents", {"path": "/docs/a b.md"}, "GET", "/contents/docs/a%20b.md", None),
    ("create-release", {"tag_name": "v1", "draft": False}, "POST", "/releases", {"tag_name": "v1", "draft": False}),
    (
        "dispatch",
        {"event_type": "go", "client_payload": {"a": 1}},
        "POST",
        "/dispatches",
        {"event_type": "go", "client_payload": {"a": 1}},
    ),
]


@pytest.mark.parametrize(("name", "args", "method", "path", "body"), GITHUB, ids=[one[0] for one in GITHUB])
def test_github(run, standin, name, args, method, path, body) -> None:
    given = {"repository": "octo/repo", "accessToken": "tok", "baseUrl": standin.url + "/"}
    assert run(f"github/{name}", given | args) == {"ok": True}
    heard = standin.one
    assert (heard.method, heard.path) == (method, "/repos/octo/repo" + path)
    assert heard.headers["authorization"] == "Bearer tok"
    assert heard.headers["x-github-api-version"] == "2022-11-28"
    assert (json.loads(heard.body) if heard.body else None) == body


def test_github_says_what_is_wrong(run, standin) -> None:
    args = {"repository": "repo", "accessToken": "tok", "baseUrl": standin.url, "title": "t"}
    assert run("github/create-issue", args) == {"error": "You must specify a username parameter."}
    standin.answer = lambda _: (404, {"message": "Not Found", "documentation_url": "…"})
    assert run("github/create-issue", args | {"username": "octo"}) == {"error": "404 from 127.0.0.1: Not Found"}
    standin.answer = lambda _: (204, b"")
    assert run("github/dispatch", args | {"username": "octo", "event_type": "e"}) == {}


HOOK = {"username": "octo", "repository": "repo", "accessToken": "tok", "triggerName": "/_/t", "authKey": "u:k"}
AT = "http://visp.example:80/hooks/0123"


def answering(standin, hooks: dict[str, list[object]]):
    """The platform, whose feed of the trigger is told at `AT`, and GitHub, with its hooks by page."""

    def answer(heard):
        if heard.path.startswith("/api/v1/"):
            return 200, {"url": AT} if heard.method == "PUT" else {"config": {"url": AT}}
        if heard.method == "GET":
            return 200, hooks.get(heard.query["page"], [])
        return 201, {"id": 3, "config": heard.json["config"]} if heard.method == "POST" else {}

    standin.answer = answer


@pytest.mark.parametrize(("repository", "owner"), [("repo", "octo"), ("org/repo", "org")])
def test_a_web_hook_of_github_is_made(run, standin, repository: str, owner: str) -> None:
    answering(standin, {})
    args = HOOK | {"lifecycleEvent": "CREATE", "events": "push, issues", "baseUrl": standin.url}
    made = run("github/webhook", args | {"repository": repository}, API_HOST=standin.url)
    assert made == {"id": 3, "config": {"url": AT, "content_type": "json", "insecure_ssl": "0"}}
    told = next(heard for heard in standin.heard if heard.method == "PUT")
    assert told.path == "/api/v1/namespaces/guest/feeds/t"
    kept = told.json["parameters"]
    assert kept == {"secret": kept["secret"], "repository": f"{owner}/repo", "events": "push,issues"}
    asked = next(heard for heard in standin.heard if heard.method == "POST")
    assert asked.path == f"/repos/{owner}/repo/hooks"
    config = {"url": AT, "content_type": "json", "secret": kept["secret"], "insecure_ssl": "0"}
    assert asked.json == {"name": "web", "active": True, "events": ["push", "issues"], "config": config}
    assert "u:k" not in asked.body.decode()


def test_a_web_hook_of_github_is_deleted(run, standin) -> None:
    other = [{"id": 1, "config": {"url": "http://other"}}]
    answering(standin, {"1": other, "2": [{"id": 2, "config": {"url": AT}}]})
    args = HOOK | {"lifecycleEvent": "DELETE", "baseUrl": standin.url}
    assert run("github/webhook", args, API_HOST=standin.url) == {"deleted": 2}
    deleted = [heard.path for heard in standin.heard if heard.method == "DELETE"]
    assert deleted == ["/repos/octo/repo/hooks/2", "/api/v1/namespaces/guest/feeds/t"]
    answering(standin, {"1": other})
    error = run("github/webhook", args, API_HOST=standin.url)["error"]
    assert error == f"Found no existing webhooks for trigger URL {AT}"


def test_a_web_hook_of_github_is_at_the_address_that_is_given(run, standin) -> None:
    answering(standin, {})
    args = HOOK | {"lifecycleEvent": "CREATE", "events": ["push"], "baseUrl": standin.url}
    made = run("github/webhook", args | {"apihost": "https://visp.example.com"}, API_HOST=standin.url)
    assert made["config"]["url"] == "https://visp.example.com/hooks/0123"
    count = len(standin.heard)
    wrong = {"error": "apihost must be a URL, such as https://visp.example.com"}
    assert run("github/webhook", args | {"apihost": "visp.example.com"}, API_HOST=standin.url) == wrong
    assert run("github/webhook", HOOK | {"lifecycleEvent": "READ"}) == {}
    assert run("github/webhook", HOOK | {"lifecycleEvent": "NAP"}) == {"error": "unsupported lifecycleEvent"}
    assert len(standin.heard) == count


@pytest.mark.parametrize(
    ("period", "path"),
    [
        (None, "/v1/geocode/1.5/2/forecast/daily/10day.json"),
        ("48hour", "/v1/geocode/1.5/2/forecast/hourly/48hour.json"),
        ("current", "/v1/geocode/1.5/2/observations.json"),
        ("timeseries", "/v1/geocode/1.5/2/observations/timeseries.json"),
    ],
)
def test_forecast(run, standin, period: str | None, path: str) -> None:
    args = {"host": standin.url, "username": "u", "password": "p", "latitude": 1.5, "longitude": "2"}
    assert run("weather/forecast", args | ({"timePeriod": period} if period else {})) == {"ok": True}
    assert standin.one.path == path
    assert {"language": "en-US", "units": "m"}.items() <= standin.one.query.items()
    assert standin.one.headers["authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


def test_forecast_needs_to_know_who_asks(run) -> None:
    assert "credentials" in run("weather/forecast", {"latitude": 1})["error"]
    assert "timePeriod" in run("weather/forecast", {"timePeriod": "ever"})["error"]


def test_open_weather(run, standin) -> None:
    args = {"baseUrl": standin.url, "latitude": 52.5, "longitude": 13.4, "units": "e", "days": 3}
    assert run("weather/open", args) == {"ok": True}
    heard = standin.one
    assert heard.path == "/v1/forecast"
    wanted = {"latitude": "52.5", "longitude": "13.4", "temperature_unit": "fahrenheit", "forecast_days": "3"}
    assert wanted.items() <= heard.query.items()
    assert run("weather/open", {"latitude": 0}) == {"error": "You must specify a longitude parameter."}


def test_requests(run, standin) -> None:
    args = {"url": standin.url + "/a?b=c", "headers": {"X-A": "1"}, "body": {"v": 1}}
    result = run("http/request", args)
    assert (result["status"], result["body"]) == (200, {"ok": True})
    heard = standin.one
    assert (heard.method, heard.path, heard.query, heard.headers["x-a"]) == ("POST", "/a", {"b": "c"}, "1")
    assert heard.json == {"v": 1}
    standin.headers = {"Content-Type": "image/png", "Location": "/elsewhere"}
    standin.answer = lambda _: (302, b"\xff")
    result = run("http/request", {"url": standin.url})
    assert (result["status"], result["body"], result["encoding"]) == (302, "/w==", "base64")
    assert len(standin.heard) == 2
    assert "is no http or https URL" in run("http/request", {"url": "file:///etc/passwd"})["error"]
    assert "secret" not in run("http/request", {"url": "ftp://u:secret@h/"})["error"]


def test_cloud_events(run, standin) -> None:
    args = {
        "url": standin.url,
        "type": "t",
        "source": "/s",
        "id": "1",
        "time": "2024-01-01T00:00:00Z",
        "data": {"a": 1},
    }
    assert run("cloudevents/send", args) == {"id": "1", "answer": {"ok": True}}
    event = {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "time": "2024-01-01T00:00:00Z"}
    heard = standin.heard[0]
    assert heard.headers["content-type"] == "application/cloudevents+json"
    assert heard.json == event | {"datacontenttype": "application/json", "data": {"a": 1}}
    run("cloudevents/send", args | {"mode": "binary", "subject": "ü", "extensions": {"traced": "x"}})
    heard = standin.heard[1]
    assert heard.json == {"a": 1}
    assert heard.headers["ce-specversion"] == "1.0"
    assert (heard.headers["ce-subject"], heard.headers["ce-traced"]) == ("%C3%BC", "x")
    assert run("cloudevents/send", {"url": "u", "type": "t"}) == {"error": "You must specify a source parameter."}


@pytest.mark.parametrize(
    "name",
    [
        "watson-translator/translator",
        "watson-translator/languageId",
        "watson-speechToText/speechToText",
        "watson-textToSpeech/textToSpeech",
        "pushnotifications/sendMessage",
    ],
)
def test_who_needs_credentials_says_so(run, name: str) -> None:
    assert "credentials: the parameters" in run(name, {"payload": "x", "text": "x"})["error"]


def test_translations(run, standin) -> None:
    standin.answer = lambda heard: (200, {"translations": [{"translation": f"<{one}>"} for one in heard.json["text"]]})
    args = {"url": standin.url, "username": "u", "password": "p", "payload": {"a": "x", "b": ["y", 1]}}
    assert run("watson-translator/translator", args) == {"payload": {"a": "<x>", "b": ["<y>", 1]}}
    assert standin.one.json == {"text": ["x", "y"], "source": "en", "target": "fr"}
    standin.answer = lambda _: (200, {"languages": [{"language": "de", "confidence": 0.9}]})
    result = run("watson-translator/languageId", args | {"payload": "ja"})
    assert result == {"language": "de", "payload": "ja", "confidence": 0.9}


def test_speech(run, standin) -> None:
    who = {"url": standin.url, "apiKey": "k"}
    found = {"results": [{"alternatives": [{"transcript": "hello "}], "final": True}]}
    standin.answer = lambda _: (200, found)
    audio = {"payload": "AAE=", "content_type": "audio/wav", "timestamps": True}
    assert run("watson-speechToText/speechToText", who | audio) == {"data": "hello ", "results": found["results"]}
    heard = standin.heard[0]
    assert (heard.body, heard.headers["content-type"], heard.query) == (b"\0\1", "audio/wav", {"timestamps": "true"})
    standin.answer = lambda _: (200, b"\0\1")
    result = run("watson-textToSpeech/textToSpeech", who | {"payload": "hi", "accept": "audio/wav"})
    assert result == {"payload": "AAE=", "encoding": "base64", "mimetype": "audio/wav"}
    assert standin.heard[1].json == {"text": "hi"}


WHERE = "http://u:k@visp.example:80/api/v1/namespaces/guest/triggers/t"
ENV = {"API_HOST": "http://visp.example:80", "API_KEY": "u:k"}


def test_push_notifications(run, standin) -> None:
    standin.answer = lambda _: (202, {"messageId": "m"})
    args = {"appGuid": "g", "appSecret": "s", "apiHost": standin.url, "text": "t", "deviceIds": "a, b", "gcmSound": "x"}
    assert run("pushnotifications/sendMessage", args) == {"pushResponse": {"messageId": "m"}}
    heard = standin.one
    assert (heard.path, heard.headers["appsecret"]) == ("/imfpush/v1/apps/g/messages", "s")
    settings = {"gcm": {"sound": "x"}}
    assert heard.json == {"message": {"alert": "t"}, "target": {"deviceIds": ["a", "b"]}, "settings": settings}
    turn = {"lifecycleEvent": "CREATE", "triggerName": "/_/t", "events": "onDeviceRegister"}
    run("pushnotifications/webhook", args | turn, **ENV)
    assert standin.heard[1].json == {"name": "guest_t", "url": WHERE, "eventTypes": ["onDeviceRegister"]}


# ── the platform's own API ──────────────────────────────────────────────────────────────────────────────────────────


def platform(standin, **results: tuple[bool, object]):
    """Answers invocations by the action's name: whether it succeeds, and its result."""

    def answer(heard):
        good, result = results[heard.path.rpartition("/")[2]]
        record = {"activationId": "1" * 32, "response": {"success": good, "result": result}}
        return (200 if good else 502), record

    standin.answer = answer
    return {"API_HOST": standin.url, "API_KEY": "u:k"}


def test_eca(run, standin) -> None:
    names = {"$conditionName": "/_/c", "$actionName": "pkg/a"}
    env = platform(standin, c=(True, {}), a=(True, {"done": 1}))
    assert run("combinators/eca", names | {"x": 1}, **env) == {"done": 1}
    paths = ["/api/v1/namespaces/_/actions/c", "/api/v1/namespaces/_/actions/pkg/a"]
    assert [heard.path for heard in standin.heard] == paths
    assert [heard.json for heard in standin.heard] == [{"x": 1}, {"x": 1}]
    env = platform(standin, c=(False, {"error": "no"}))
    assert run("combinators/eca", names, **env) == {"$eca": "Condition was false."}


def test_forwarder(run, standin) -> None:
    env = platform(standin, a=(True, {"y": 2, "z": 3}))
    args = {"$actionName": "a", "$actionArgs": ["x"], "$forward": ["y", "w"], "x": 1, "y": 0, "w": 4}
    assert run("combinators/forwarder", args, **env) == {"y": 2, "z": 3, "w": 4}
    assert standin.one.json == {"x": 1}


def test_retry(run, standin) -> None:
    env = platform(standin, a=(False, {"error": "no"}))
    args = {"$actionName": "a", "$attempts": 3}
    assert run("combinators/retry", args, **env) == {"error": "Invocation failed. No retries left."}
    assert len(standin.heard) == 3
    env = platform(standin, a=(True, {"ok": 1}))
    assert run("combinators/retry", args, **env) == {"ok": 1}
    assert "at least 1" in run("combinators/retry", args | {"$attempts": 0}, **env)["error"]


def test_trycatch(run, standin) -> None:
    args = {"$tryName": "a", "$catchName": "/ann/b", "x": 1}
    env = platform(standin, a=(False, {"error": "no"}), b=(True, {"caught": True}))
    assert run("combinators/trycatch", args, **env) == {"caught": True}
    assert standin.heard[1].path == "/api/v1/namespaces/ann/actions/b"
    assert standin.heard[1].json == {"error": "no"}
    env = platform(standin, a=(True, {"ok": 1}))
    assert run("combinators/trycatch", args, **env) == {"ok": 1}


@pytest.mark.parametrize(
    ("name", "missing"), [("eca", "$conditionName"), ("forwarder", "$actionName"), ("trycatch", "$tryName")]
)
def test_combinators_name_what_they_miss(run, name: str, missing: str) -> None:
    assert run(f"combinators/{name}", {}) == {"error": f"Expected an argument '{missing}' of type 'string'."}


def test_an_action_that_cannot_be_called(run, standin) -> None:
    standin.answer = lambda _: (404, {"error": "The requested resource does not exist.", "code": "1"})
    env = {"API_HOST": standin.url, "API_KEY": "u:k"}
    error = run("combinators/retry", {"$actionName": "a", "$attempts": 1}, **env)["error"]
    assert error == "a was not run: The requested resource does not exist."
    assert "provide-api-key" in run("samples/invoke", {}, API_HOST=standin.url, API_KEY="")["error"]


def test_curl(run, standin) -> None:
    standin.answer = lambda _: (200, b"hello")
    assert run("samples/curl", {"payload": standin.url.removeprefix("http://")}) == {"msg": "hello"}
