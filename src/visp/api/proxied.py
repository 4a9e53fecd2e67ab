"""Operations of an API whose target is elsewhere: the request goes on to it, and its answer comes back as it comes.

What belongs to one connection stays on it, in both directions (RFC 9110, 7.6.1), and so does the platform's own: a key
of the platform that a caller sends is not passed on. Source of what an answer's headers keep: nginx, which OpenWhisk's
gateway is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from visp import wording
from visp.api.errors import HttpAnswer
from visp.api.events import EventStream
from visp.controller.backends import Unanswered
from visp.errors import ServiceError
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from visp.api.context import Services
    from visp.controller.backends import Reply

LOOP, OWN_NAME = "cdn-loop", "visp"
LOOPS_LIMIT = 3
"""A request that came through the gateway so often goes nowhere: it is an API that calls itself (RFC 8586)."""
WHOLE_BYTES = 64 * 1024
"""An answer that says that it is no longer than this is read whole: it may be kept, and compressed."""

_OF_A_CONNECTION = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade", "http2-settings", "expect"),
    }
)
_OF_A_REQUEST = frozenset({"host", "content-length"})
_OF_AN_ANSWER = frozenset({"date", "server", "x-request-id", "content-length", "alt-svc"})
_NGINX = "x-accel-"


def passed_on(headers: Mapping[str, Any], *, is_key_ours: bool) -> dict[str, Any]:
    """A caller's headers without what was meant for this server; by lower-case name. Pure."""
    gone = _OF_A_CONNECTION | _named(headers.get("connection", "")) | {"x-require-whisk-auth"}
    if is_key_ours:
        gone |= {"authorization"}
    return {name: value for name, value in headers.items() if name not in gone}


def sent(headers: Mapping[str, Any]) -> dict[str, str]:
    """Headers as they go out, after everything that changes them. Pure."""
    gone = _OF_A_CONNECTION | _OF_A_REQUEST
    loops = headers.get(LOOP)
    out = {name: _as_sent(str(value)) for name, value in headers.items() if name not in gone}
    out[LOOP] = OWN_NAME if not loops else f"{loops}, {OWN_NAME}"
    return out


def is_loop(headers: Mapping[str, Any]) -> bool:
    """Whether the request has been here too often. Pure."""
    names = (part.partition(";")[0].strip().lower() for part in str(headers.get(LOOP, "")).split(","))
    return sum(name == OWN_NAME for name in names) >= LOOPS_LIMIT


def answered(headers: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What of a target's headers the caller is told. Pure."""
    gone = _OF_A_CONNECTION | _OF_AN_ANSWER
    for name, value in headers:
        if name.lower() == "connection":
            gone |= _named(value)
    return tuple(
        (name, value) for name, value in headers if name.lower() not in gone and not name.lower().startswith(_NGINX)
    )


def _named(connection: object) -> frozenset[str]:
    """Headers that `Connection` says are of this connection alone; not those that tell of the body."""
    names = frozenset(name.strip().lower() for name in str(connection).split(","))
    return names - {"content-type", "content-encoding", "authorization", "set-cookie", "cookie"}


def _as_sent(value: str) -> str:
    """The client writes UTF-8: so that the bytes are those that came."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


async def run(
    services: Services, namespace: str, method: str, url: str, headers: Mapping[str, Any], body: bytes
) -> HttpAnswer | EventStream:
    """The target's answer; raises `Unanswered`."""
    if is_loop(headers):
        raise Unanswered(500, wording.CALLS_ITSELF)
    try:
        reply = await services.backends.ask(namespace, method, url, sent(headers), body)
    except Unanswered as failure:
        log.info("gateway.target_failed", namespace=namespace, host=urlsplit(url).hostname, reason=str(failure))
        raise
    try:
        length = _length(reply)
        told = answered(reply.headers)
        if method != "HEAD" and (reply.status in (204, 304) or (length is not None and length <= WHOLE_BYTES)):
            whole = b"".join([chunk async for chunk in reply.chunks()])
            reply.close()
            return HttpAnswer(reply.status, whole, is_routed=False, headers=told)
    except BaseException:
        reply.close()
        raise
    if length is not None:
        told = (*told, ("Content-Length", str(length)))
    head = HttpAnswer(reply.status, is_routed=False, headers=told)

    async def close() -> None:
        reply.close()

    return EventStream(_chunks(reply), close, head=head, greeting=b"")


def _length(reply: Reply) -> int | None:
    lengths = {value for name, value in reply.headers if name.lower() == "content-length"}
    (length,) = lengths if len(lengths) == 1 else ("",)
    return int(length) if length.isascii() and length.isdigit() else None


class BrokenOff(ServiceError):
    """The target failed after a part of its answer was sent: the connection ends without an end of the answer."""


async def _chunks(reply: Reply) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in reply.chunks():
            yield chunk
    except Unanswered:
        raise BrokenOff() from None
