"""Completion web hooks: whoever asked is told, signed, until it has heard."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import Api
from tests.system.places import Place, opened
from tests.system.test_retries import BROKEN, FAKE, OK, annotation, invoke, put_action, record, until

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
ANY = {"hooks__reach": "any"}


class Hearer:
    """A receiver that answers with `statuses` in turn (the last one for ever) and keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        left = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = handler.rfile.read(int(handler.headers["content-length"]))
                self.heard.append(({name.lower(): value for name, value in handler.headers.items()}, body))
                handler.send_response(left.pop(0) if len(left) > 1 else left[0])
                handler.send_header("location", self.url)
                handler.send_header("content-length", "0")
                handler.end_headers()

            def log_message(handler, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/done"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Hearer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def hook(hearer: Hearer, **more: Any) -> dict[str, Any]:
    return {"url": hearer.url, "secret": SECRET} | more


def told(call: tuple[dict[str, str], bytes]) -> Any:
    """What a call says, once its signature was found right."""
    headers, body = call
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    return json.loads(body)["data"]


@pytest.fixture
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


def test_every_way_to_run_an_action_is_told_of(place: Place) -> None:
    api = Api(place.start(*FAKE, **ANY).url)
    with Hearer(200) as hearer:
        put_action(api, "done", OK, completion_hook=hook(hearer))
        ids = {invoke(api, "done")}
        ids.add(api.request("POST", "actions/done?blocking=true", {}).json["activationId"])
        api.request("PUT", "triggers/t", {})
        api.request("PUT", "rules/r", {"trigger": "/_/t", "action": "/_/done"})
        fired = api.request("POST", "triggers/t", {}).json["activationId"]
        until(lambda: len(hearer.heard) == 3)
        heard = [told(call) for call in hearer.heard]
        assert ids < {one["activationId"] for one in heard}
        assert {one["response"]["result"]["ok"] for one in heard} == {True}
        assert [one["cause"] for one in heard if "cause" in one] in ([], [fired])
        assert heard[0] == record(api, heard[0]["activationId"]) | {"logs": []}


def test_sequence_is_told_of_by_its_own_annotation(place: Place) -> None:
    api = Api(place.start(*FAKE, **ANY).url)
    with Hearer(204) as hearer:
        put_action(api, "part", OK, completion_hook=hook(hearer))
        body = {
            "exec": {"kind": "sequence", "components": ["/_/part", "/_/part"]},
            "annotations": [{"key": "completion-hook", "value": hook(hearer)}],
        }
        assert api.request("PUT", "actions/whole", body).status == 200
        id = invoke(api, "whole")
        until(lambda: hearer.heard)
        time.sleep(0.2)
        assert [told(call)["activationId"] for call in hearer.heard] == [id]


def test_what_was_not_heard_is_said_again_with_the_same_id(place: Place) -> None:
    api = Api(place.start(*FAKE, **ANY).url)
    with Hearer(500, 302, 200) as hearer:
        put_action(api, "done", OK, completion_hook=hook(hearer))
        invoke(api, "done")
        until(lambda: len(hearer.heard) == 3)
        time.sleep(0.5)
        assert len({call[0]["webhook-id"] for call in hearer.heard}) == 1
        assert len({json.dumps(told(call)) for call in hearer.heard}) == 1
        assert len(hearer.heard) == 3


def test_who_is_gone_is_not_called_again(place: Place) -> None:
    api = Api(place.start(*FAKE, **ANY).url)
    with Hearer(410) as hearer:
        put_action(api, "done", OK, completion_hook=hook(hearer))
        invoke(api, "done")
        until(lambda: hearer.heard)
        time.sleep(1.5)
        assert len(hearer.heard) == 1


def test_a_call_survives_a_kill(place: Place) -> None:
    server = place.start(*FAKE, **ANY)
    api = Api(server.url)
    with Hearer(503, 503, 200) as hearer:
        put_action(api, "done", OK, completion_hook=hook(hearer))
        id = invoke(api, "done")
        until(lambda: len(hearer.heard) == 2)
        server.stop(signal.SIGKILL)
        place.start(*FAKE, **ANY)
        until(lambda: len(hearer.heard) == 3)
        assert told(hearer.heard[2])["activationId"] == id


def test_the_last_attempt_alone_is_told_of_and_only_outcomes_that_were_named(place: Place) -> None:
    api = Api(place.start(*FAKE, **ANY).url)
    with Hearer(200) as hearer:
        put_action(api, "good", OK, completion_hook=hook(hearer, on=["application"]))
        put_action(
            api,
            "bad",
            BROKEN,
            completion_hook=hook(hearer, on=["application"]),
            retry={"attempts": 3, "backoff_ms": 1},
        )
        invoke(api, "good")
        first = invoke(api, "bad")
        until(lambda: hearer.heard)
        time.sleep(0.3)
        assert len(hearer.heard) == 1
        heard = told(hearer.heard[0])
        assert (annotation(heard, "retryOf"), annotation(heard, "attempt")) == (first, 3)


def test_this_machine_is_closed_to_hooks_unless_the_operator_opens_it(place: Place) -> None:
    server = place.start(*FAKE)
    api = Api(server.url)
    with Hearer(200) as hearer:
        put_action(api, "done", OK, completion_hook=hook(hearer))
        record(api, invoke(api, "done"))
        until(lambda: 'visp_hook_calls_total{outcome="failed"' in api.request("GET", "/metrics").body.decode())
        assert hearer.heard == []


def test_hook_that_cannot_be_called_is_refused_when_it_is_stored(place: Place) -> None:
    api = Api(place.start(*FAKE).url)
    body: dict[str, Any] = {"exec": {"kind": "nodejs:20", "code": "{}"}}
    value = {"url": "gopher://example.com", "secret": SECRET}
    body["annotations"] = [{"key": "completion-hook", "value": value}]
    answer = api.request("PUT", "actions/bad", body)
    assert answer.status == 400
    assert "completion-hook" in answer.json["error"]
    assert SECRET not in answer.body.decode()
