"""WebSocket for web actions that declare it (`web-socket`): each event of a connection is an activation.

`connect` comes first, and may refuse; then `message` for each that comes, one after another; `disconnect` is the last.
What a run answers with is said to the client; anything else is said by the REST API, to a connection by its id. No
container is held for a connection.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.api import auth, web
from visp.api.errors import HttpAnswer, json_answer, render
from visp.api.inside import INSIDE
from visp.controller import webaction
from visp.controller.primitive import Answer, Finished, Refused
from visp.controller.sockets import BYTES, CLOSE, TEXT
from visp.entity.activation import Status
from visp.entity.names import parse_name
from visp.entity.parameters import is_true
from visp.entity.payload import JsonObject, encode
from visp.errors import BadRequest, RequestError, ServiceError, Unauthorized, VispError
from visp.telemetry import log, transid

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from visp.api.context import Call, Services
    from visp.entity.subject import Identity

ANNOTATION = "web-socket"
CONNECTION, EVENT, BINARY, CODE = "__ow_connection", "__ow_event", "__ow_binary", "__ow_code"
MESSAGE_BYTES = 1024 * 1024
"""A message that comes; one that goes is bounded by what a result, or a request, may be."""
WAITING = 64
"""What waits to be sent to a client that does not read; one more ends its connection."""
SEND_S = 30.0
NORMAL, TOO_SLOW, FAILED, AGAIN = 1000, 1008, 1011, 1013


async def serve(scope: Scope, receive: Receive, send: Send, services: Services) -> None:
    """One connection, from its handshake to its end."""
    id = transid.new()
    await receive()  # `websocket.connect`
    try:
        opened = await _open(scope, services, id)
    except VispError as error:
        opened = web.told(error, id)
    except Exception as error:  # the top of a connection: what nobody foresaw is a 500 with a log line
        opened = render(error, id)
    if isinstance(opened, HttpAnswer):
        await _refuse(opened, id, send)
        return
    connection, accepted = opened
    await send(accepted)
    await connection.run(receive, send)


async def _open(scope: Scope, services: Services, id: str) -> HttpAnswer | tuple[Connection, dict[str, Any]]:
    """The connection and how its handshake is answered, or why there is none."""
    path: str = scope["raw_path"].decode("latin-1")
    address = webaction.parse_address(path)
    entry = None if address is None else await web.find(services, address.name)
    if address is None or entry is None or not is_true(entry.action.annotations, ANNOTATION):
        return web.refusal(404, wording.WEB_NOT_FOUND, id)
    action = entry.action
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    caller = await _caller(scope, services, dict(headers))
    if not webaction.may_enter(action, dict(headers), caller):
        return web.refusal(401, wording.WEB_UNAUTHORIZED, id)
    query = scope["query_string"].decode("latin-1")
    given = webaction.context("GET", headers, address.rest, None if caller is None else caller.namespace)
    given = webaction.argument(
        action, given, query, webaction.query_fields(query) if query else {}, None, b"", is_raw=entry.is_raw
    )
    connection = Connection(services, entry, given)
    answer = await connection.tell("connect", {}, wait=True)
    if isinstance(answer, Refused):
        raise answer.error
    if not isinstance(answer, Finished):
        return web.refusal(503, wording.WEB_NOT_READY, id)
    try:
        said = webaction.response(Status(answer.head.status), answer.result, "http")
    except webaction.Unfit as unfit:
        return web.refusal(unfit.status, unfit.sentence, id, activation_id=answer.head.id)
    if said.status >= 300:
        return HttpAnswer(
            said.status, said.body, said.kind, is_routed=False, activation_id=answer.head.id, headers=said.headers
        )
    chosen = next((value for name, value in said.headers if name.lower() == "sec-websocket-protocol"), None)
    others = [pair for pair in said.headers if not pair[0].lower().startswith("sec-websocket-")]
    shown = [*others, ("X-Request-ID", id), ("x-visp-connection", connection.id)]
    accepted = {
        "type": "websocket.accept",
        "subprotocol": chosen if chosen in scope["subprotocols"] else None,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in shown],
    }
    connection.say_result(answer)
    return connection, accepted


async def _caller(scope: Scope, services: Services, headers: dict[str, str]) -> Identity | None:
    if "authorization" not in headers:
        return None
    peer = scope["client"][0] if scope.get("client") else None
    try:
        return await auth.identify(services.identities, headers, peer, scope.get("state", {}).get(INSIDE))
    except Unauthorized:
        return None


async def _refuse(answer: HttpAnswer, id: str, send: Send) -> None:
    """The handshake is answered like any request."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.all_headers(id)]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body, "more_body": False})


class Connection:
    """One client. What it is to be told waits here, in order."""

    def __init__(self, services: Services, entry: web.Entry, given: JsonObject) -> None:
        self.id = services.invoke.new_id()
        self.namespace = entry.owner.namespace
        self._services = services
        self._entry = entry
        self._given = given | {CONNECTION: msgspec.Raw(encode(self.id))}
        self._outgoing: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(WAITING)

    def say(self, kind: str, data: bytes) -> None:
        """In its turn; a client that does not read is sent away."""
        try:
            self._outgoing.put_nowait((kind, data))
        except asyncio.QueueFull:
            while not self._outgoing.empty():
                self._outgoing.get_nowait()
            self._outgoing.put_nowait((CLOSE, str(TOO_SLOW).encode()))

    async def tell(self, event: str, more: dict[str, Any], *, wait: bool) -> Answer:
        """Runs the action for an event. Raises `VispError` for what was not begun."""
        invoke, clock = self._services.invoke, self._services.clock
        await invoke.obtain(self._entry.owner)
        invoke.charge(self._entry.owner)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        fields = {name: msgspec.Raw(encode(value)) for name, value in ({EVENT: event} | more).items()}
        invoke.start(
            self._entry.invocation(
                self._services, self._given | fields, transid.new(), clock.now_ms(), is_awaited=wait
            ),
            lambda answer: None if answered.done() else answered.set_result(answer),
        )
        return await answered

    def say_result(self, answer: Finished) -> None:
        """What a run answered with, if it did: text as it is, bytes where it says so, any other value as JSON."""
        said = said_by(answer)
        if said is not None:
            self.say(*said)

    async def run(self, receive: Receive, send: Send) -> None:
        """Until either side ends it."""
        sockets = self._services.sockets
        try:
            sockets.add(self.id, self)
        except RequestError as error:
            await send({"type": "websocket.close", "code": AGAIN, "reason": error.sentence[:100]})
            return
        sending = asyncio.ensure_future(self._send_all(send))
        hearing = asyncio.ensure_future(self._hear(receive))
        code = NORMAL
        try:
            await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
            code = hearing.result() if hearing.done() and not hearing.cancelled() else NORMAL
        except Exception as error:  # the top of a connection: what nobody foresaw ends it
            log.error("socket.failed", connection=self.id, reason=repr(error))
        finally:
            sockets.drop(self.id)
            for task in (sending, hearing):
                task.cancel()
            await asyncio.gather(sending, hearing, return_exceptions=True)
        try:
            await self.tell("disconnect", {CODE: code}, wait=False)
        except VispError as error:
            log.info("socket.not_told", connection=self.id, reason=str(error))

    async def _hear(self, receive: Receive) -> int:
        """Runs the action for each message, one after the other; the code with which the client has ended it."""
        while True:
            got = await receive()
            if got["type"] == "websocket.disconnect":
                return int(got.get("code") or NORMAL)
            text = got.get("text")
            message = (
                {webaction.BODY: text}
                if text is not None
                else {
                    webaction.BODY: base64.b64encode(got.get("bytes") or b"").decode(),
                    BINARY: True,
                }
            )
            try:
                answer = await self.tell("message", message, wait=True)
            except RequestError as error:
                self.say(CLOSE, f"{AGAIN if error.status == 429 else FAILED}".encode())
                continue
            except ServiceError:
                self.say(CLOSE, str(AGAIN).encode())
                continue
            if isinstance(answer, Refused) or (
                isinstance(answer, Finished) and answer.head.status > Status.APPLICATION_ERROR
            ):
                self.say(CLOSE, str(FAILED).encode())
            elif isinstance(answer, Finished):
                self.say_result(answer)

    async def _send_all(self, send: Send) -> None:
        while True:
            kind, data = await self._outgoing.get()
            async with asyncio.timeout(SEND_S):
                if kind == CLOSE:
                    await send({"type": "websocket.close", "code": int(data or str(NORMAL))})
                    return
                if kind == TEXT:
                    await send({"type": "websocket.send", "text": data.decode("utf-8", "replace")})
                else:
                    await send({"type": "websocket.send", "bytes": data})


def said_by(answer: Finished) -> tuple[str, bytes] | None:
    """What a run's outcome says to the client: its `body`. Nothing: a body that is absent, null or empty."""
    raw = answer.result
    fields: JsonObject = msgspec.json.decode(raw, type=JsonObject) if raw[:1] == b"{" else {}
    if answer.head.status == Status.APPLICATION_ERROR:
        raw = bytes(fields.get("error", b"null"))
        fields = msgspec.json.decode(raw, type=JsonObject) if raw[:1] == b"{" else {}
    body = bytes(fields["body"]) if "body" in fields else b"null"
    if body in (b"null", b'""'):
        return None
    if body[:1] != b'"':
        return TEXT, body
    text = webaction.text_of(body)
    if bytes(fields.get("isBase64Encoded", b"")) == b"true":
        try:
            return BYTES, base64.b64decode(text, validate=True)
        except ValueError:
            return TEXT, text
    return TEXT, text


# ── the REST API ────────────────────────────────────────────────────────────────────────────────────────────────


async def say_to_connection(call: Call) -> HttpAnswer:
    """Says the body to a connection: bytes where it is `application/octet-stream`, else text."""
    kind = BYTES if call.request.headers.get("content-type", "").startswith("application/octet-stream") else TEXT
    return await _said(call, kind, await call.bytes())


async def close_connection(call: Call) -> HttpAnswer:
    """Ends a connection."""
    return await _said(call, CLOSE, b"")


async def _said(call: Call, kind: str, data: bytes) -> HttpAnswer:
    id = parse_name(call.segment("id"))
    if call.namespace != call.identity.namespace:
        raise BadRequest(wording.SOCKET_OF_OTHERS)
    call.services.invoke.check_size(call.identity, len(data))
    await call.services.sockets.say(call.namespace, id, kind, data)
    return json_answer({"connection": id})
