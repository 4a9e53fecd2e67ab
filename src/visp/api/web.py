"""The route of web actions: the order of its checks, and how each of them is told.

Nothing is told of an action that is not exported: what is not there, and what may not be seen, is one and the same 404.
A request runs as the namespace that the action is in, whoever sends it. Source: OpenWhisk's web path.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api import auth
from visp.api.context import collected
from visp.api.errors import JSON, HttpAnswer, error_answer
from visp.api.events import EventStream
from visp.controller import webaction
from visp.controller.invoke import Invocation
from visp.controller.primitive import Accepted, Answer, Finished, Refused
from visp.controller.resolver import Resolved, must_be_asked
from visp.controller.streams import Reader
from visp.entity import media
from visp.entity.action import Action
from visp.entity.activation import Status
from visp.entity.execs import SequenceExec
from visp.entity.media import parse_media_type
from visp.entity.payload import encode
from visp.entity.pretty import pretty
from visp.entity.subject import Identity
from visp.errors import Malformed, RequestError, ServiceError, Unauthorized, VispError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from visp.api.context import Services
    from visp.api.inside import Inside
    from visp.controller.webaction import Address
    from visp.entity.activation import ActivationHead
    from visp.entity.names import FullyQualifiedName
    from visp.entity.payload import JsonObject

Headers = tuple[tuple[str, str], ...]

_STATUSES = tuple(Status)

STREAMED = {"http": None, "html": "text/html; charset=UTF-8", "text": "text/plain; charset=UTF-8"}
"""Extensions whose answers are passed on as they come, and the type that they have of themselves."""
BASE64 = b":"
PRETTY_AT_ONCE_BYTES = 64 * 1024
"""What is longer is laid out in another thread."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a web action, whoever took it in: headers by lower-case name, and as the action is shown them.

    `body` raises `TooLarge`; it is called once, when everything else is allowed.
    """

    method: str
    headers: Mapping[str, str]
    shown: Sequence[tuple[str, str]]
    query: str
    caller: Identity | None
    body: Callable[[Identity], Awaitable[bytes]]


class Entry(msgspec.Struct, frozen=True):
    """A web action that everybody may see, and the namespace that it runs for."""

    owner: Identity
    resolved: Resolved
    action: Action
    is_raw: bool
    has_own_cors: bool
    """It says to browsers what they may do, and the platform does not."""
    has_parts: bool
    """Parts of its result can be heard of."""

    def cors(self, headers: Mapping[str, str]) -> Headers:
        """What the platform says to browsers; nothing for an action that does so itself."""
        return () if self.has_own_cors else webaction.cors(headers.get("access-control-request-headers"))

    def invocation(
        self,
        services: Services,
        payload: JsonObject,
        id: str,
        received_ms: int,
        *,
        is_streamed: bool = False,
        is_awaited: bool = True,
    ) -> Invocation:
        """A run of it, under the transaction `id`."""
        return Invocation(
            identity=self.owner,
            action=self.action,
            resolved=self.resolved,
            body=b"",
            payload=payload,
            transid=id,
            received_ms=received_ms,
            wait_s=services.settings.limits.blocking_wait_ms / 1000 if is_awaited else None,
            is_streamed=is_streamed,
        )


async def find(services: Services, name: FullyQualifiedName) -> Entry | None:
    """None for what is not there, or not for everybody to see."""
    owner = await services.identities.owner_of(name.namespace)
    if owner is None:
        return None
    try:
        resolved = await services.resolver.resolve(owner, name)
        await services.resolver.check_parts(owner, resolved.action)
    except VispError:
        return None
    return _entry(services, owner, resolved)


def _entry(services: Services, owner: Identity, resolved: Resolved) -> Entry | None:
    action = resolved.action
    if not webaction.is_exported(action):
        return None
    return Entry(
        owner=owner,
        resolved=resolved,
        action=action,
        is_raw=webaction.is_raw(action),
        has_own_cors=webaction.has_custom_options(action),
        has_parts=services.invoke.has_parts(action),
    )


def peek(services: Services, name: FullyQualifiedName, known: Entry | None = None) -> Entry | None:
    """The same from memory; None also where a store would have to be asked. `known` is what was found last, if it was:
    it is found again as long as owner and action are the same.
    """
    owner = services.identities.peek_owner(name.namespace)
    resolved = None if owner is None else services.resolver.peek(owner, name)
    if owner is None or resolved is None:
        return None
    if known is not None and known.owner is owner and known.action is resolved.action:
        return known
    exec = resolved.action.exec
    return None if isinstance(exec, SequenceExec) and must_be_asked(exec) else _entry(services, owner, resolved)


async def answer(
    request: Request, services: Services, id: str, inside: Inside | None, address: Address
) -> HttpAnswer | EventStream:
    """What a request for a web action is sent."""
    if request.method not in webaction.METHODS:
        return refusal(405, wording.WEB_METHODS, id, headers=(("Allow", ", ".join(sorted(webaction.METHODS))),))
    asked = Asked(
        method=request.method,
        headers=request.headers,
        shown=_shown(request),
        query=request.scope["query_string"].decode("latin-1"),
        caller=await caller_of(request, services, inside),
        body=partial(body_of, request, services),
    )
    return await run(asked, services, id, address)


async def run(asked: Asked, services: Services, id: str, address: Address) -> HttpAnswer | EventStream:
    """Runs the web action at an address with a request, and gives its response."""
    headers, caller = asked.headers, asked.caller
    entry = await find(services, address.name)
    if entry is None:
        return refusal(404, wording.WEB_NOT_FOUND, id)
    owner, action = entry.owner, entry.action
    received_ms = services.clock.now_ms()
    try:
        await services.invoke.obtain(owner)
        services.invoke.charge(owner)
        services.invoke.check_size(owner, int(headers.get("content-length", "0")))
    except (RequestError, ServiceError) as error:
        return told(error, id)
    cors = entry.cors(headers)
    is_question = asked.method == "OPTIONS"
    if is_question and cors:
        return HttpAnswer(200, is_routed=False, headers=cors)
    if not is_question and not webaction.may_enter(action, headers, caller):
        return refusal(401, wording.WEB_UNAUTHORIZED, id, headers=cors)
    try:
        body = await asked.body(owner)
    except RequestError as error:
        return told(error, id)
    query = asked.query
    given = webaction.context(asked.method, asked.shown, address.rest, None if caller is None else caller.namespace)
    is_streamed = address.extension in STREAMED and asked.method != "HEAD" and entry.has_parts
    try:
        fields = webaction.query_fields(query) if query else {}
        kind = parse_media_type(headers.get("content-type", ""))
        payload = webaction.argument(action, given, query, fields, kind, body, is_raw=entry.is_raw)
        invocation = entry.invocation(services, payload, id, received_ms, is_streamed=is_streamed)
        return await _run(services, invocation, address.extension, headers.get("accept"), cors, id)
    except (RequestError, ServiceError) as error:
        return told(error, id, headers=cors)


async def caller_of(request: Request, services: Services, inside: Inside | None) -> Identity | None:
    """Who asks, where that is told and true."""
    if "authorization" not in request.headers:
        return None
    peer = request.client.host if request.client else None
    try:
        return await auth.identify(services.identities, request.headers, peer, inside)
    except Unauthorized:
        return None


def _shown(request: Request) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]


async def body_of(request: Request, services: Services, owner: Identity) -> bytes:
    """The whole body; raises `TooLarge`."""
    body = await collected(request, services.settings.http.body_bytes)
    services.invoke.check_size(owner, len(body))
    return body


# ── the run ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _run(
    services: Services,
    invocation: Invocation,
    extension: str,
    accept: str | None,
    cors: Headers,
    id: str,
) -> HttpAnswer | EventStream:
    """Raises what `Invoke.start` raises."""
    made: asyncio.Future[Answer | EventStream] = asyncio.get_running_loop().create_future()
    outcome = Outcome(services, extension, cors, lambda each: None if made.done() else made.set_result(each))
    activation = services.invoke.start(invocation, outcome.settle)
    if invocation.is_streamed:
        outcome.hear(activation)
    try:
        first = await made
    except BaseException:
        outcome.leave()
        raise
    return first if isinstance(first, EventStream) else await finished(first, extension, accept, cors, id)


class Outcome:
    """What comes of a run: `then` hears it once. A part that comes before the end makes it a stream."""

    __slots__ = ("_answered", "_cors", "_extension", "_id", "_is_told", "_reader", "_services", "_then")

    def __init__(
        self, services: Services, extension: str, cors: Headers, then: Callable[[Answer | EventStream], None]
    ) -> None:
        self._services = services
        self._extension = extension
        self._cors = cors
        self._then = then
        self._id = ""
        self._is_told = False
        self._reader: Reader | None = None
        self._answered: asyncio.Future[Answer]

    def hear(self, id: str) -> None:
        """Parts of this activation are wanted, unless it has ended already."""
        if not self._is_told:
            self._id = id
            self._services.streams.enter(id, self)

    def offer(self, part: bytes) -> None:
        if self._reader is not None:
            self._reader.offer(part)
            return
        self._is_told = True
        self._reader = Reader()
        self._answered = asyncio.get_running_loop().create_future()
        head, left = streamed_head([part], self._extension, self._cors, self._id)
        self._then(EventStream(self._chunks(len(part), left), self._close, head=head, greeting=b""))

    def close(self) -> None:
        """Nothing more will be told."""
        if self._reader is not None:
            self._reader.close()

    def settle(self, answer: Answer) -> None:
        """The run is over, or is not waited for any longer: a stream goes on until its end."""
        if self._reader is not None:
            if not isinstance(answer, Accepted):
                if not self._answered.done():
                    self._answered.set_result(answer)
                self._reader.close()
        elif not self._is_told:
            self._is_told = True
            if self._id:
                self._services.streams.leave(self._id, is_over=True)
            self._then(answer)

    def leave(self) -> None:
        """Nobody wants it any more."""
        if self._id:
            self._services.streams.leave(self._id, is_over=self._is_told and self._reader is None)

    async def _close(self) -> None:
        assert self._reader is not None
        self._services.streams.leave(self._id, is_over=self._reader.is_over)

    async def _chunks(self, taken_bytes: int, left: list[bytes]) -> AsyncGenerator[bytes, None]:
        assert self._reader is not None
        while True:
            if left:
                yield b"".join(map(chunk, left))
            self._services.streams.taken(self._id, taken_bytes)
            parts = await self._reader.next()
            if parts is None:
                break
            left, taken_bytes = parts, sum(map(len, parts))
        outcome = await self._answered
        if not isinstance(outcome, Finished) or outcome.head.status != Status.SUCCESS:
            raise BrokenOff()


class BrokenOff(ServiceError):
    """The action failed after a part of its answer was sent: the connection ends without an end of the answer."""


def streamed_head(parts: list[bytes], extension: str, cors: Headers, activation: str) -> tuple[HttpAnswer, list[bytes]]:
    """The head of an answer that is passed on as it comes, and the parts that are left."""
    made, left = _head(parts, extension)
    headers = (*cors, *made.headers)
    return HttpAnswer(made.status, b"", made.kind, is_routed=False, activation_id=activation, headers=headers), left


def _head(parts: list[bytes], extension: str) -> tuple[webaction.Response, list[bytes]]:
    """What the first part says of the answer, if it does, and the parts that are left."""
    kind = STREAMED[extension]
    fields = _object(parts[0])
    if fields is None or fields.keys().isdisjoint(("statusCode", "headers")):
        return webaction.Response(200, kind or "text/html; charset=UTF-8"), parts
    if kind is not None:
        return webaction.Response(200, kind), parts[1:]
    given = {name: value for name, value in fields.items() if name in ("statusCode", "headers")}
    given["body"] = msgspec.Raw(b'"."')
    try:
        head = webaction.response(Status.SUCCESS, encode(given), extension)
    except webaction.Unfit:
        head = webaction.Response(200, "application/octet-stream")
    return head, parts[1:]


def _object(part: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(part, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return None


def chunk(part: bytes) -> bytes:
    """A part as it is sent: text and bytes as they are, another value as a line of JSON."""
    if part[:1] == BASE64:
        return binascii.a2b_base64(part[1:])
    if part[:1] == b'"':
        return webaction.text_of(part)
    return part + b"\n"


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def finished(answer: Answer, extension: str, accept: str | None, cors: Headers, id: str) -> HttpAnswer:
    """What an outcome is told as; a long one is made in another thread."""
    if isinstance(answer, Finished) and len(answer.result) > PRETTY_AT_ONCE_BYTES:
        return await asyncio.to_thread(web_answer, answer, extension, accept, cors, id)
    return web_answer(answer, extension, accept, cors, id)


def web_answer(answer: Answer, extension: str, accept: str | None, cors: Headers, id: str) -> HttpAnswer:
    """What an outcome is told as. Pure."""
    if isinstance(answer, Refused):
        return told(answer.error, id, headers=cors)
    if isinstance(answer, Accepted):
        return refusal(202, wording.WEB_NOT_READY, id, headers=cors, activation_id=answer.id)
    return shaped(_STATUSES[answer.head.status], answer.result, extension, accept, cors, id, answer.head)


def shaped(
    status: Status,
    result: bytes,
    extension: str,
    accept: str | None,
    cors: Headers,
    id: str,
    ran: ActivationHead | None = None,
) -> HttpAnswer:
    """What the result of a web action is told as; `ran` says which run it is of. Pure."""
    activation_id = None if ran is None else ran.id
    try:
        made = webaction.response(status, result, extension)
    except webaction.Unfit as unfit:
        return refusal(unfit.status, unfit.sentence, id, headers=cors, activation_id=activation_id)
    except RecursionError:
        return refusal(400, wording.WEB_FAILED, id, headers=cors, activation_id=activation_id)
    kind = made.kind
    if kind is not None and 200 <= made.status < 300 and not media.accepts(accept, kind.partition(";")[0]):
        return error_answer(406, wording.not_acceptable(kind), id, is_routed=False)
    headers = (*cors, *made.headers) if made.headers else cors
    return HttpAnswer(
        made.status, made.body, kind, is_routed=False, activation_id=activation_id, headers=headers, ran=ran
    )


def refusal(
    status: int,
    sentence: str,
    id: str,
    *,
    headers: Headers = (),
    activation_id: str | None = None,
) -> HttpAnswer:
    """An error as web actions tell it: laid out, and without the API's headers."""
    body = pretty(encode({"code": id, "error": sentence}))
    return HttpAnswer(status, body, JSON, is_routed=False, activation_id=activation_id, headers=headers)


def told(error: Exception, id: str, *, headers: Headers = ()) -> HttpAnswer:
    """Raises what is no error of ours."""
    if isinstance(error, Malformed):
        return error_answer(400, error.sentence, id, is_routed=False)
    if isinstance(error, RequestError):
        return refusal(error.status, error.sentence, id, headers=(*headers, *error.headers))
    if isinstance(error, ServiceError):
        retry = () if error.retry_after_s is None else (("Retry-After", str(error.retry_after_s)),)
        return refusal(error.status, error.sentence, id, headers=(*headers, *retry))
    raise error
