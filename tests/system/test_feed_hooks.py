"""Web hooks over the wire: signed requests to a feed's own address become fires, each once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.system.conftest import Api, has_sandbox
from tests.system.traces import until

from visp.client import running
from visp.feed.hooks import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"id": "evt_1", "n": 1}'


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with running.running() as server:
        api = Api(server.url)
        api.action("heard", "def main(args):\n    return args", "python:3.11")
        yield api


def make(api: Api, trigger: str, feed: str, **parameters: Any) -> str:
    """The address of a hook, whose trigger has a rule."""
    assert api.request("PUT", f"triggers/{trigger}", {}).status == 200
    rule = {"trigger": f"/_/{trigger}", "action": "/_/heard"}
    assert api.request("PUT", f"rules/{trigger}-rule", rule).status == 200
    answer = api.request("PUT", f"feeds/{trigger}", {"feed": feed, "parameters": parameters})
    assert answer.status == 200, answer
    url: str = answer.json["url"]
    return url


def send(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    try:
        with urlopen(Request(url, body, {"Content-Type": "application/json", **headers}), timeout=20) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def fired(api: Api, trigger: str) -> list[Any]:
    records = api.get(f"activations?name={trigger}&docs=true&limit=200").json
    return [record["response"]["result"] for record in records]


@pytest.mark.parametrize("scheme", ["hmac-sha256", "standard-webhooks", "github", "slack", "stripe"])
def test_a_signed_request_fires_once(api: Api, scheme: str) -> None:
    trigger = f"hook-{scheme}"
    url = make(api, trigger, "http/hook", scheme=scheme, secret=SECRET)
    headers = sign(scheme, SECRET, BODY, time.time_ns() // 1_000_000, "msg_1")
    assert send(url, BODY, headers)[0] == 200
    assert send(url, BODY, headers)[0] == 200
    assert send(url, BODY + b" ", headers)[0] == 401
    assert send(url, BODY, {})[0] == 401
    until(lambda: len(fired(api, trigger)) >= 1, 20.0)
    (event,) = fired(api, trigger)
    assert (event["method"], event["body"]) == ("POST", {"id": "evt_1", "n": 1})


def test_slack_is_answered(api: Api) -> None:
    url = make(api, "slack", "slack/events", signing_secret="s")
    body = b'{"type": "url_verification", "challenge": "abc"}'
    assert send(url, body, sign("slack", "s", body, time.time_ns() // 1_000_000)) == (200, b'{"challenge":"abc"}')


def test_a_batch_of_cloud_events(api: Api) -> None:
    url = make(api, "cloud", "cloudevents/receive", type="t")
    one = '{"specversion": "1.0", "id": "%s", "source": "/s", "type": "%s"}'
    body = f"[{one % ('1', 't')}, {one % ('2', 'u')}, {one % ('3', 't')}]".encode()
    assert send(url, body, {"Content-Type": "application/cloudevents-batch+json"})[0] == 200
    until(lambda: len(fired(api, "cloud")) >= 2, 20.0)
    assert sorted(event["id"] for event in fired(api, "cloud")) == ["1", "3"]


def test_a_sender_of_cloud_events_asks_first(api: Api) -> None:
    url = make(api, "asked", "cloudevents/receive", origins="events.example.com")
    question = {"WebHook-Request-Origin": "events.example.com", "WebHook-Request-Rate": "120"}
    with urlopen(Request(url, None, question, method="OPTIONS"), timeout=20) as answer:
        told = [answer.headers[name] for name in ("Allow", "WebHook-Allowed-Origin", "WebHook-Allowed-Rate")]
        assert (answer.status, answer.read(), told) == (200, b"", ["POST", "events.example.com", "120"])
    with urlopen(Request(url, None, {"WebHook-Request-Origin": "other"}, method="OPTIONS"), timeout=20) as answer:
        assert answer.headers["WebHook-Allowed-Origin"] is None
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(url, None, {}, method="OPTIONS"), timeout=20)
    with refused.value as error:
        assert (error.code, error.headers["Allow"]) == (405, "POST")
    assert fired(api, "asked") == []
