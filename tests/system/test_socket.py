"""WebSocket connections of web actions."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import Api
from tests.system.traces import until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from visp.client import running

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

    from visp.client.running import Server

ECHO = """
const main = p => {
  if (p.__ow_event === 'connect') return p.refuse ? {statusCode: 403, body: 'no'} : {headers: {'X-A': 'b'}}
  if (p.__ow_event === 'disconnect') { console.log('left', p.__ow_connection, p.__ow_code); return {} }
  if (p.__ow_body === 'fail') process.exit(1)
  if (p.__ow_body === 'id') return {body: p.__ow_connection}
  if (p.__ow_body === 'given') return {body: {name: p.name, own: p.own, event: p.__ow_event, path: p.__ow_path}}
  if (p.__ow_body === 'nothing') return {}
  if (p.__ow_binary) return {body: p.__ow_body, isBase64Encoded: true}
  return {body: 'you said ' + p.__ow_body}
}
"""


@pytest.fixture(scope="module")
def api(server: Server) -> Api:
    api = Api(server.url)
    deploy(api)
    return api


def deploy(api: Api) -> None:
    annotations = [{"key": "web-export", "value": True}, {"key": "web-socket", "value": True}]
    api.action("chat", ECHO, annotations=annotations, parameters=[{"key": "own", "value": 1}])
    secret = [*annotations, {"key": "require-whisk-auth", "value": "s3cret"}]
    api.action("guarded", ECHO, annotations=secret)
    api.action("plain", ECHO, annotations=annotations[:1])


def opened(api: Api, path: str = "chat", **more: Any) -> ClientConnection:
    url = api.url.replace("http", "ws", 1) + f"/api/v1/web/guest/default/{path}"
    return connect(url, compression=None, **more)


def test_text_and_bytes_are_answered(api: Api) -> None:
    with opened(api) as socket:
        assert socket.response is not None
        assert socket.response.headers["x-a"] == "b"
        socket.send("hello é")
        assert socket.recv(20) == "you said hello é"
        socket.send(b"\x00\xff")
        assert socket.recv(20) == b"\x00\xff"


def test_messages_are_run_one_after_the_other(api: Api) -> None:
    with opened(api) as socket:
        for n in range(20):
            socket.send(str(n))
        assert [socket.recv(20) for _ in range(20)] == [f"you said {n}" for n in range(20)]


def test_what_the_action_is_given(api: Api) -> None:
    with opened(api, "chat/room?name=Ada") as socket:
        socket.send("nothing")
        socket.send("given")
        assert json.loads(socket.recv(20)) == {"name": "Ada", "own": 1, "event": "message", "path": "/room"}


def test_it_is_told_by_its_id(api: Api) -> None:
    with opened(api) as socket:
        socket.send("id")
        id = socket.recv(20)
        assert socket.response is not None
        assert socket.response.headers["x-visp-connection"] == id
        told = api.request("POST", f"connections/{id}", b"from outside", {"Content-Type": "text/plain"})
        assert (told.status, told.json) == (200, {"connection": id})
        assert socket.recv(20) == "from outside"
        told = api.request("POST", f"connections/{id}", b"\x01", {"Content-Type": "application/octet-stream"})
        assert socket.recv(20) == b"\x01"
        assert api.delete(f"connections/{id}").status == 200
        with pytest.raises(ConnectionClosed):
            socket.recv(20)
    until(lambda: api.request("POST", f"connections/{id}", b"x").status == 404, 10.0)


def test_the_end_is_an_activation_too(api: Api) -> None:
    with opened(api) as socket:
        socket.send("id")
        id = socket.recv(20)
    until(lambda: f"left {id} 1000" in said(api), 20.0)  # another test's may come later still


def said(api: Api) -> str:
    """What the newest activations have printed."""
    newest = api.get("activations?name=chat&limit=10&docs=true").json
    return "\n".join(line for record in newest for line in record["logs"])


@pytest.mark.parametrize(
    ("path", "status"), [("chat?refuse=1", 403), ("plain", 404), ("nothing", 404), ("guarded", 401)]
)
def test_handshakes_that_are_refused(api: Api, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        opened(api, path)
    assert refused.value.response.status_code == status


def test_handshakes_with_a_secret(api: Api) -> None:
    with opened(api, "guarded", additional_headers={"X-Require-Whisk-Auth": "s3cret"}) as socket:
        socket.send("a")
        assert socket.recv(20) == "you said a"


def test_a_run_that_fails_ends_the_connection(api: Api) -> None:
    with opened(api) as socket:
        socket.send("fail")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011


def test_messages_that_are_too_large_end_the_connection(api: Api) -> None:
    with opened(api) as socket:
        socket.send("x" * (1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed):
            socket.recv(20)


def test_nobody_elses_connections(api: Api) -> None:
    with opened(api) as socket:
        socket.send("id")
        id = socket.recv(20)
        path = f"/api/v1/namespaces/guest/connections/{id}"
        assert Api(api.url, auth=None).request("POST", path, b"x").status == 401
        assert api.request("POST", "/api/v1/namespaces/other/connections/x", b"x").status == 400
        assert api.request("POST", f"connections/{'0' * 32}", b"x").status == 404


def test_a_request_that_only_asks_is_answered_as_it_stands(api: Api) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert api.request("GET", "/ping", headers=headers).body == b"pong"


@pytest.mark.slow  # it starts a server of two shards
def test_over_shards() -> None:
    with running.running({"workers": 2}) as server:
        api = Api(server.url)
        deploy(api)
        for n in range(6):
            with opened(api) as socket:
                socket.send("id")
                id = socket.recv(20)
                for _ in range(4):  # whichever shard takes the request
                    told = api.request("POST", f"connections/{id}", str(n).encode(), {"Content-Type": "text/plain"})
                    assert told.status == 200, told
                    assert socket.recv(20) == str(n)


@pytest.mark.slow  # it starts a server
def test_a_server_that_ends_says_so() -> None:
    with running.running() as server:
        api = Api(server.url)
        deploy(api)
        with opened(api) as socket:
            socket.send("a")
            assert socket.recv(20) == "you said a"
            began_s = time.monotonic()
            server.stop()
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(20)
            assert time.monotonic() - began_s < 15
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
