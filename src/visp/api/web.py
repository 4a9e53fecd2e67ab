"""The route of web actions: the order of its checks, and how each of them is told.

Nothing is told of an action that is not exported: what is not there, and what may not be seen, is one and the same 404.
A request runs as the namespace that the action is in, whoever sends it. Source: OpenWhisk's web path.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.api import auth
from visp.api.errors import JSON, HttpAnswer, error_answer
from visp.api.events import EventStream
from visp.controller import webaction
from visp.controller.invoke import Invocation
from visp.controller.primitive import Accepted, Answer, Finished, Refused
from visp.controller.streams import Reader
from visp.entity import media
from visp.entity.activation import Status
from visp.entity.media import parse_media_type
from visp.entity.payload import encode
from visp.entity.pretty import pretty
from visp.entity.subject import Identity
from visp.errors import BodyTooLarge, Malformed, RequestError, ServiceError, Unauthorized, VispError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from visp.api.context import Services
    from visp.api.inside import Inside
    from visp.controller.webaction import Address
    from visp.entity.activation import ActivationHead

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
    owner = await services.identities.owner_of(address.name.namespace)
    try:
        if owner is None:
            return refusal(404, wording.WEB_NOT_FOUND, id)
        resolved = await services.resolver.resolve(owner, address.name)
        await services.resolver.check_parts(owner, resolved.action)
    except VispError:
        return refusal(404, wording.WEB_NOT_FOUND, id)
    action = resolved.action
    if not webaction.is_exported(action):
        return refusal(404, wording.WEB_NOT_FOUND, id)
    received_ms = services.clock.now_ms()
    try:
        await services.invoke.obtain(owner)
        services.invoke.charge(owner)
        services.invoke.check_size(owner, int(headers.get("content-length", "0")))
    except (RequestError, ServiceError) as error:
        return told(error, id)
    is_custom = webaction.has_custom_options(action)
    is_question = asked.method == "OPTIONS"
    cors = () if is_custom else webaction.cors(headers.get("access-control-request-headers"))
    if is_question and not is_custom:
        return HttpAnswer(200, is_routed=False, headers=cors)
    if not is_question and not webaction.may_enter(action, headers, caller):
        return refusal(401, wording.WEB_UNAUTHORIZED, id, headers=cors)
    try:
        body = await asked.body(owner)
    except RequestError as error:
        return told(error, id)
    query = asked.query
    given = webaction.context(asked.method, asked.shown, address.rest, None if caller is None else caller.namespace)
    try:
        fields = webaction.query_fields(query) if query else {}
        kind = parse_media_type(headers.get("content-type", ""))
        payload = webaction.argument(action, given, query, fields, kind, body)
        invocation = Invocation(
            identity=owner,
            action=action,
            resolved=resolved,
            body=b"",
            payload=payload,
            transid=id,
            received_ms=received_ms,
            wait_s=services.settings.limits.blocking_wait_ms / 1000,
            is_streamed=address.extension in STREAMED and asked.method != "HEAD" and services.invoke.has_parts(action),
        )
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
    limit, chunks, size = services.settings.http.body_bytes, [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(None, limit)
        chunks.append(chunk)
    services.invoke.check_size(owner, size)
    return b"".join(chunks)


# ── the run ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _run(
    services: Services,
    invocation: Invocation,
    extension: str,
    accept: str | None,
    cors: tuple[tuple[str, str], ...],
    id: str,
) -> HttpAnswer | EventStream:
    """Raises what `Invoke.start` raises."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    reader = Reader()

    def settle(answer: Answer) -> None:
        if not answered.done():
            answered.set_result(answer)
        if not isinstance(answer, Accepted):
            reader.close()

    activation = services.invoke.start(invocation, settle)
    if not invocation.is_streamed:
        return await finished(await answered, extension, accept, cors, id)
    services.streams.enter(activation, reader)
    try:
        parts = asyncio.ensure_future(reader.next())
        either: tuple[asyncio.Future[Any], ...] = answered, parts
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        first = parts.result() if parts.done() else None
        parts.cancel()
        if first is None:
            services.streams.leave(activation, is_over=True)
            return await finished(await answered, extension, accept, cors, id)
    except BaseException:
        services.streams.leave(activation, is_over=answered.done())
        raise
    head, first = streamed_head(first, extension, cors, activation)

    async def close() -> None:
        services.streams.leave(activation, is_over=reader.is_over)

    async def chunks() -> AsyncGenerator[bytes, None]:
        taken: list[bytes] | None = first
        while taken is not None:
            if taken:
                yield b"".join(map(chunk, taken))
            services.streams.taken(activation, sum(map(len, taken)))
            taken = await reader.next()
        outcome = await answered
        if not isinstance(outcome, Finished) or outcome.head.status != Status.SUCCESS:
            raise BrokenOff()

    return EventStream(chunks(), close, head=head, greeting=b"")


class BrokenOff(ServiceError):
    """The action failed after a part of its answer was sent: the connection ends without an end of the answer."""


def streamed_head(
    parts: list[bytes], extension: str, cors: tuple[tuple[str, str], ...], activation: str
) -> tuple[HttpAnswer, list[bytes]]:
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


async def finished(
    answer: Answer, extension: str, accept: str | None, cors: tuple[tuple[str, str], ...], id: str
) -> HttpAnswer:
    """What an outcome is told as; a long one is made in another thread."""
    if isinstance(answer, Finished) and len(answer.result) > PRETTY_AT_ONCE_BYTES:
        return await asyncio.to_thread(web_answer, answer, extension, accept, cors, id)
    return web_answer(answer, extension, accept, cors, id)


def web_answer(
    answer: Answer, extension: str, accept: str | None, cors: tuple[tuple[str, str], ...], id: str
) -> HttpAnswer:
    """What an outcome is told as. Pure."""
    if isinstance(answer, Refused):
        return told(answer.error, id, headers=cors)
    if isinstance(answer, Accepted):
        return refusal(202, wording.WEB_NOT_READY, id, headers=cors, activation_id=answer.id)
    return shaped(Status(answer.head.status), answer.result, extension, accept, cors, id, answer.head)


def shaped(
    status: Status,
    result: bytes,
    extension: str,
    accept: str | None,
    cors: tuple[tuple[str, str], ...],
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
    headers: tuple[tuple[str, str], ...] = (),
    activation_id: str | None = None,
) -> HttpAnswer:
    """An error as web actions tell it: laid out, and without the API's headers."""
    body = pretty(encode({"code": id, "error": sentence}))
    return HttpAnswer(status, body, JSON, is_routed=False, activation_id=activation_id, headers=headers)


def told(error: Exception, id: str, *, headers: tuple[tuple[str, str], ...] = ()) -> HttpAnswer:
    """Raises what is no error of ours."""
    if isinstance(error, Malformed):
        return error_answer(400, error.sentence, id, is_routed=False)
    if isinstance(error, RequestError):
        return refusal(error.status, error.sentence, id, headers=(*headers, *error.headers))
    if isinstance(error, ServiceError):
        retry = () if error.retry_after_s is None else (("Retry-After", str(error.retry_after_s)),)
        return refusal(error.status, error.sentence, id, headers=(*headers, *retry))
    raise error
