"""Errors become answers here and nowhere else; so do the headers that every answer shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.entity.activation import ActivationHead
from visp.errors import RequestError, ServiceError
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Sequence

JSON = "application/json"
TEXT = "text/plain; charset=UTF-8"

CORS: tuple[tuple[str, str], ...] = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Headers", "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"),
    ("Access-Control-Allow-Methods", "GET, DELETE, POST, PUT, HEAD"),
)
"""Set on what a route of the API produced itself, its own errors included."""

ACTIVATION_ID = "x-openwhisk-activation-id"

_encode = msgspec.json.Encoder().encode


class HttpAnswer(msgspec.Struct, frozen=True, gc=False):
    """Status, headers beside `X-Request-ID`, and body of one answer."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    is_routed: bool = True
    activation_id: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    ran: ActivationHead | None = None
    """The activation whose outcome this is."""

    def all_headers(self, transid: str) -> list[tuple[str, str]]:
        """Every header but `Content-Length`, which is whoever sends it's to add."""
        out = [("X-Request-ID", transid)]
        if self.is_routed:
            out += CORS
        if self.activation_id is not None:
            out.append((ACTIVATION_ID, self.activation_id))
        if self.content_type is not None:
            out.append(("Content-Type", self.content_type))
        out += self.headers
        return out


def json_answer(value: object, status: int = 200, *, is_routed: bool = True) -> HttpAnswer:
    return HttpAnswer(status, _encode(value), JSON, is_routed)


def error_answer(
    status: int, sentence: str, transid: str, *, is_routed: bool = True, headers: Sequence[tuple[str, str]] = ()
) -> HttpAnswer:
    """`{"error", "code"}`: `code` is what tells clients an error of the API from one of an action."""
    body = _encode({"code": transid, "error": sentence})
    return HttpAnswer(status, body, JSON, is_routed, headers=tuple(headers))


def render(error: Exception, transid: str) -> HttpAnswer:
    """The answer for whatever was raised; what nobody foresaw is logged and answered with 500."""
    if isinstance(error, RequestError):
        return error_answer(error.status, error.sentence, transid, is_routed=error.is_routed, headers=error.headers)
    if not isinstance(error, ServiceError):
        log.exception("api.failed", transid=transid, reason=repr(error))
        error = ServiceError()
    retry = () if error.retry_after_s is None else (("Retry-After", str(error.retry_after_s)),)
    return error_answer(error.status, error.sentence, transid, headers=retry)
