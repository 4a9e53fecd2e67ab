from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.unit.feed.watching import Loopback, Watching, running, turns

from visp.feed.base import FeedRefused, Received, Request
from visp.feed.hooks import SCHEMES, CloudEvents, GitHubHook, HttpHook, SlackCommand, SlackEvents, sign

NOW = 1_700_000_000_000
SIGNED = [scheme for scheme in SCHEMES if scheme != "none"]
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
BODY = b'{"id": "evt_1", "n": 1}'
JSON = {"content-type": "application/json"}


def request(
    body: bytes = BODY, headers: dict[str, str] | None = None, query: str = "", method: str = "POST"
) -> Request:
    return Request(method, {**JSON, **(headers or {})}, query, body)


def made(scheme: str, **more: Any) -> dict[str, Any]:
    return HttpHook().parse({"scheme": scheme, "secret": "" if scheme == "none" else SECRET, **more}, NOW)


def refused(call: Any) -> FeedRefused:
    with pytest.raises(FeedRefused) as caught:
        call()
    return caught.value


def bodies(received: Received) -> list[Any]:
    return [json.loads(event.body) for event in received.events]


def test_a_request_as_an_event() -> None:
    received = HttpHook().receive(made("none"), request(query="a=1&b=%20x&c="), NOW)
    assert bodies(received) == [
        {"method": "POST", "headers": JSON, "query": {"a": "1", "b": " x", "c": ""}, "body": json.loads(BODY)}
    ]
    again = HttpHook().receive(made("none"), request(), NOW)
    assert received.events[0].key != again.events[0].key


@pytest.mark.parametrize(
    ("body", "content_type", "meant"),
    [
        (b"[1]", "application/json", [1]),
        (b"[1]", "application/vnd.x+json; charset=utf-8", [1]),
        (b"[1", "application/json", "[1"),
        (b"a=1&a=2", "application/x-www-form-urlencoded", {"a": "2"}),
        (b"text", "text/plain", "text"),
        (b"\xff", "application/octet-stream", "/w=="),
        (b"", "", ""),
    ],
)
def test_bodies(body: bytes, content_type: str, meant: Any) -> None:
    received = HttpHook().receive(made("none"), request(body, {"content-type": content_type}), NOW)
    assert bodies(received)[0]["body"] == meant


@pytest.mark.parametrize("scheme", SIGNED)
def test_signatures(scheme: str) -> None:
    parameters = made(scheme)
    headers = sign(scheme, SECRET, BODY, NOW, "msg_1")
    received = HttpHook().receive(parameters, request(headers=headers), NOW)
    assert bodies(received)[0]["body"] == {"id": "evt_1", "n": 1}
    assert received.events[0].key == HttpHook().receive(parameters, request(headers=headers), NOW).events[0].key
    for wrong in (
        request(BODY + b" ", headers),
        request(headers=sign(scheme, "whsec_" + base64.b64encode(b"x" * 24).decode(), BODY, NOW, "msg_1")),
        request(),
        request(headers=dict.fromkeys(headers, "")),
        request(headers=dict.fromkeys(headers, "ä€")),
        request(headers={name: value[:-2] for name, value in headers.items()}),
    ):
        error = refused(lambda wrong=wrong: HttpHook().receive(parameters, wrong, NOW))
        assert error.status == 401
        assert SECRET not in error.sentence


@pytest.mark.parametrize("scheme", [scheme for scheme in SIGNED if scheme != "github"])
def test_times(scheme: str) -> None:
    parameters = made(scheme, tolerance_s=60)
    for moment, is_late in ((NOW - 60_000, False), (NOW - 61_000, True), (NOW + 61_000, True), (NOW + 60_000, False)):
        headers = sign(scheme, SECRET, BODY, moment, "msg_1")
        if is_late:
            error = refused(lambda headers=headers: HttpHook().receive(parameters, request(headers=headers), NOW))
            assert (error.status, "60 seconds" in error.sentence) == (401, True)
        else:
            assert HttpHook().receive(parameters, request(headers=headers), NOW).events


def test_a_second_signature_counts_too() -> None:
    good = sign("standard-webhooks", SECRET, BODY, NOW, "msg_1")
    both = {**good, "webhook-signature": "v1,AAAA v1a,xx " + good["webhook-signature"]}
    assert HttpHook().receive(made("standard-webhooks"), request(headers=both), NOW).events
    many = {**good, "webhook-signature": "v1,AAAA " * 50 + good["webhook-signature"]}
    assert refused(lambda: HttpHook().receive(made("standard-webhooks"), request(headers=many), NOW)).status == 401
    good = sign("stripe", SECRET, BODY, NOW)
    both = {"stripe-signature": good["stripe-signature"] + ",v1=00,v0=ff"}
    assert HttpHook().receive(made("stripe"), request(headers=both), NOW).events


def test_published_examples() -> None:
    """Of GitHub's, Slack's and Standard Webhooks' documentation."""
    github = HttpHook().parse({"scheme": "github", "secret": "It's a Secret to Everybody"}, NOW)
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert HttpHook().receive(github, request(b"Hello, World!", {"x-hub-signature-256": signature}), NOW).events
    slack = SlackCommand().parse({"signing_secret": "8f742231b10e8888abcd99yyyzzz85a5"}, NOW)
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    received = SlackCommand().receive(slack, request(body, headers), 1_531_420_618_000)
    assert bodies(received)[0]["command"] == "/webhook-collect"
    standard = HttpHook().parse(
        {"scheme": "standard-webhooks", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, NOW
    )
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert HttpHook().receive(standard, request(b'{"test": 2432232314}', headers), 1_614_265_330_000).events


def test_origins() -> None:
    parameters = made("none", origins=["https://app.example/"])
    HttpHook().receive(parameters, request(headers={"origin": "https://APP.example"}), NOW)
    HttpHook().receive(parameters, request(), NOW)
    error = refused(lambda: HttpHook().receive(parameters, request(headers={"origin": "https://evil.example"}), NOW))
    assert error.status == 403


@pytest.mark.parametrize(
    "given",
    [
        *({"scheme": "md5"}, {"scheme": "github"}, {"secret": "x"}, {"scheme": "standard-webhooks", "secret": "short"}),
        *({"tolerance_s": 0}, {"origins": 5}, {"filter": []}),
    ],
)
def test_what_cannot_be(given: dict[str, Any]) -> None:
    assert refused(lambda: HttpHook().parse(given, NOW)).status == 400


async def test_it_is_there() -> None:
    feed, watch = HttpHook(), Watching()
    assert feed.created("token", made("none")) == {"status": "success"}
    async with running(feed.open(made("none"), Loopback()), watch) as task:
        await turns()
        assert not task.done()
    assert watch.lived == [(0, None)]
    changed = feed.changed(made("github"), {"secret": "another"}, NOW)
    assert changed["secret"] == "another"
    assert refused(lambda: feed.changed(changed, {}, NOW)).sentence == "no updatable parameters were specified"


def test_a_filter_lets_nothing_through_and_the_request_is_answered() -> None:
    parameters = made("none", filter={"path": "body.n", "above": 1})
    assert HttpHook().receive(parameters, request(), NOW) == Received([])


def slack(feed: Any, body: bytes, at: int = NOW) -> Received:
    parameters = feed.parse({"signing_secret": "s"}, NOW)
    result: Received = feed.receive(parameters, request(body, sign("slack", "s", body, at)), at)
    return result


def test_github_is_believed_by_its_signature() -> None:
    feed = GitHubHook()
    kept = feed.parse({"secret": "s", "repository": "octo/repo", "events": "push", "accessToken": "t"}, NOW)
    assert feed.shown(kept) == {"secret": "s", "repository": "octo/repo", "events": "push"}
    body = b'{"zen": "Keep it logically awesome."}'
    received = feed.receive(kept, request(body, sign("github", "s", body, NOW)), NOW)
    assert bodies(received) == [{"zen": "Keep it logically awesome."}]
    for headers in ({}, sign("github", "other", body, NOW)):
        assert refused(lambda headers=headers: feed.receive(kept, request(body, headers), NOW)).status == 401
    assert refused(lambda: feed.parse({"repository": "octo/repo"}, NOW)).status == 400


def test_slack_events() -> None:
    asked = slack(SlackEvents(), b'{"type": "url_verification", "challenge": "abc", "token": "t"}')
    assert (json.loads(asked.answer), list(asked.events)) == ({"challenge": "abc"}, [])
    body = b'{"type": "event_callback", "event_id": "Ev1", "event": {"type": "message"}}'
    first, again = slack(SlackEvents(), body), slack(SlackEvents(), body, NOW + 60_000)
    assert bodies(first) == [json.loads(body)]
    assert first.events[0].key == again.events[0].key
    parameters = SlackEvents().parse({"signing_secret": "s"}, NOW)
    assert refused(lambda: SlackEvents().receive(parameters, request(body), NOW)).status == 401
    assert refused(lambda: slack(SlackEvents(), b"[]")).status == 400
    assert "scheme" not in SlackEvents().shown(parameters)
    assert refused(lambda: SlackEvents().parse({}, NOW)).status == 400


def test_slack_commands() -> None:
    assert bodies(slack(SlackCommand(), b"command=%2Fgo&text=now")) == [{"command": "/go", "text": "now"}]
    assert slack(SlackCommand(), b"ssl_check=1&token=x") == Received()
    assert bodies(slack(SlackCommand(), b"payload=%7B%22type%22%3A%22block_actions%22%7D")) == [
        {"type": "block_actions"}
    ]


EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
BINARY = {f"ce-{name}": value for name, value in EVENT.items()}


def cloud(body: bytes, headers: dict[str, str], **given: Any) -> Received:
    feed = CloudEvents()
    return feed.receive(feed.parse(given, NOW), Request("POST", headers, "", body), NOW)


def test_cloud_events_in_their_three_forms() -> None:
    structured = {"content-type": "application/cloudevents+json; charset=UTF-8"}
    batched = {"content-type": "application/cloudevents-batch+json"}
    whole = {**EVENT, "datacontenttype": "application/json", "data": {"a": 1}}
    found = [
        cloud(b'{"a": 1}', {**BINARY, **JSON}),
        cloud(json.dumps(whole).encode(), structured),
        cloud(json.dumps([whole]).encode(), batched),
    ]
    assert [bodies(each) for each in found] == [[whole]] * 3
    assert len({each.events[0].key for each in found}) == 1
    assert cloud(b"[]", batched).events == []
    assert bodies(cloud(b"", {**BINARY, "ce-subject": "a%20b"})) == [{**EVENT, "subject": "a b"}]
    octets = {**BINARY, "content-type": "application/octet-stream"}
    assert bodies(cloud(b"\xff", octets))[0]["data_base64"] == "/w=="


def test_cloud_events_of_types_and_sources() -> None:
    assert cloud(b"", BINARY, type="t", source=["/s", "/r"]).events
    assert cloud(b"", BINARY, type=["u"]).events == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"", {**BINARY, "ce-specversion": "0.3"}, 400),
        (b"", {**BINARY, "ce-id": ""}, 400),
        (b"", {**BINARY, "ce-bad_name": "x"}, 400),
        (b"[]", {"content-type": "application/cloudevents+json"}, 400),
        (b"{}", {"content-type": "application/cloudevents-batch+json"}, 400),
        (b"[1]", {"content-type": "application/cloudevents-batch+json"}, 400),
        (b"[" + b"1," * 1001 + b"1]", {"content-type": "application/cloudevents-batch+json"}, 400),
        (b"[" * 100_000, {"content-type": "application/cloudevents-batch+json"}, 400),
        (b"<x/>", {"content-type": "application/cloudevents+xml"}, 415),
    ],
)
def test_what_is_no_cloud_event(body: bytes, headers: dict[str, str], status: int) -> None:
    assert refused(lambda: cloud(body, headers)).status == status


def test_cloud_events_can_be_signed() -> None:
    feed = CloudEvents()
    parameters = feed.parse({"scheme": "github", "secret": "s"}, NOW)
    assert refused(lambda: feed.receive(parameters, request(b"", BINARY), NOW)).status == 401
    assert feed.receive(parameters, request(b"", {**BINARY, **sign("github", "s", b"", NOW)}), NOW).events


ASKS = {"webhook-request-origin": "events.example.com"}
ALLOWED = ("WebHook-Allowed-Origin", "events.example.com")


@pytest.mark.parametrize(
    ("given", "headers", "rate", "granted"),
    [
        ({}, {}, 600, [ALLOWED, ("WebHook-Allowed-Rate", "600")]),
        ({}, {"webhook-request-rate": "120"}, 600, [ALLOWED, ("WebHook-Allowed-Rate", "120")]),
        ({}, {"webhook-request-rate": "1200"}, 600, [ALLOWED, ("WebHook-Allowed-Rate", "600")]),
        ({}, {"webhook-request-rate": "0"}, 600, [ALLOWED, ("WebHook-Allowed-Rate", "600")]),
        ({}, {}, 0, []),
        ({"origins": "events.example.com"}, {}, 600, [ALLOWED, ("WebHook-Allowed-Rate", "600")]),
        ({"origins": "https://Events.example.com/"}, {}, 600, [ALLOWED, ("WebHook-Allowed-Rate", "600")]),
        ({"origins": "other.example.com"}, {}, 600, []),
        ({}, {"webhook-request-origin": "a b"}, 600, []),
    ],
)
def test_a_sender_of_cloud_events_asks_first(
    given: dict[str, Any], headers: dict[str, str], rate: int, granted: list[tuple[str, str]]
) -> None:
    feed = CloudEvents()
    asked = Request("OPTIONS", {**ASKS, **headers}, "", b"", rate)
    received = feed.receive(feed.parse({**given, "scheme": "github", "secret": "s"}, NOW), asked, NOW)
    assert (received.events, received.answer) == ((), b"")
    assert list(received.headers) == [("Allow", "POST"), *granted]


def test_a_question_is_no_event() -> None:
    for feed, given in ((CloudEvents(), {}), (HttpHook(), {}), (SlackEvents(), {"signing_secret": "s"})):
        kept = feed.parse(given, NOW)
        assert (
            refused(lambda feed=feed, kept=kept: feed.receive(kept, request(b"", method="OPTIONS"), NOW)).status == 405
        )
