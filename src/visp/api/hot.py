"""What the head of a hot request asks for. Pure.

Hot is the POST of an action or of a trigger, plainly put. What is not, or is malformed, is None
here: the application says what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.api import queries
from visp.api.auth import host_of
from visp.api.heads import check_head
from visp.entity.names import is_name
from visp.entity.network import is_loopback
from visp.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTH_DIGITS = 12

COLD_HEADERS = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"idempotency-key", b"x-ow-extra-logging"})
EVENTS = b"text/event-stream"
COLD_FIELDS = frozenset({"delay", "at"})
"""Of the query."""

_PREFIX = b"/api/v1/namespaces/"


class Target(msgspec.Struct, frozen=True):
    """What a hot URL asks for. `wait_ms` is None where no result is waited for."""

    namespace: str
    is_trigger: bool
    name: str
    wait_ms: int | None
    is_result: bool
    package: str | None = None


def parse_target(url: bytes, longest_wait_ms: int) -> Target | None:
    """The target of a POST to an action or to a trigger; None for whatever is not plain.

    What is malformed is None too: the application says what is wrong with it.
    """
    path, _, raw_query = url.partition(b"?")
    if not path.startswith(_PREFIX) or b"%" in path or b"%" in raw_query or b"+" in raw_query:
        return None
    segments = path[len(_PREFIX) :].decode("latin-1").split("/")
    if len(segments) not in (3, 4) or segments[1] not in ("actions", "triggers"):
        return None
    namespace, collection, *packages, name = segments
    if not is_name(namespace) or not is_name(name):
        return None
    package = packages[0] if packages else None
    if package is not None and (collection == "triggers" or not is_name(package)):
        return None
    try:
        query = queries.parse_query(raw_query)
        is_blocking = queries.boolean(query, "blocking")
        is_result = queries.boolean(query, "result")
        wait_ms = queries.wait_ms(query, longest_wait_ms)
    except RequestError:
        return None
    if not query.keys().isdisjoint(COLD_FIELDS):
        return None
    is_trigger = collection == "triggers"
    return Target(namespace, is_trigger, name, wait_ms if is_blocking else None, is_result, package)


class Head(msgspec.Struct, frozen=True):
    """What a plain head asks for; what it may have depends on who presents it."""

    target: Target
    authorization: bytes
    request_id: bytes | None
    body_bytes: int
    is_from_here: bool
    """Its `Host` is loopback, and no web page is its origin."""
    shown: dict[str, str]
    """Of a fire: the headers, which the fired actions see."""


def parse_head(url: bytes, headers: Sequence[tuple[bytes, bytes]], longest_wait_ms: int) -> Head | None:
    """A head that asks for nothing but a hot route with a JSON body of known length; None for every other one.

    Raises `HeadRefused` for one that no server should take.
    """
    check_head(url, headers, "1.1")
    target = parse_target(url, longest_wait_ms)
    fields = dict(headers)
    if target is None or len(fields) != len(headers):
        return None  # a header given twice is looked at with more care
    if not fields.keys().isdisjoint(COLD_HEADERS) or EVENTS in fields.get(b"accept", b"").lower():
        return None
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > LENGTH_DIGITS:
        return None
    if length != b"0" and fields.get(b"content-type", b"").partition(b";")[0] != b"application/json":
        return None
    return Head(
        target=target,
        authorization=fields.get(b"authorization", b""),
        request_id=fields.get(b"x-request-id"),
        body_bytes=int(length),
        is_from_here=b"origin" not in fields and is_loopback(host_of(fields[b"host"].decode("latin-1"))),
        shown={name.decode("latin-1"): value.decode("latin-1") for name, value in headers} if target.is_trigger else {},
    )
