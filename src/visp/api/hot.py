"""What the head of a hot request asks for. Pure.

Hot is the POST of an action or of a trigger, and a request for a web action or to the gateway, plainly put. What is
not, or is malformed, is None here: the application says what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.api import queries, timing
from visp.api.auth import host_of
from visp.api.encoding import accepts_gzip
from visp.api.heads import URI_LIMIT_BYTES, check_head
from visp.api.origin import MARKS
from visp.controller import webaction
from visp.controller.webaction import Address
from visp.entity.gateway import Place, parse_place
from visp.entity.media import MediaType, parse_media_type
from visp.entity.names import is_name
from visp.entity.network import is_loopback
from visp.entity.payload import JsonObject
from visp.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTH_DIGITS = 12

COLD_HEADERS = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"idempotency-key", b"x-ow-extra-logging"})
EVENTS = b"text/event-stream"
LINES = b"application/x-ndjson"
COLD_FIELDS = frozenset({"delay", "at", "keyed", "batch"})
"""Of the query."""

WEB_METHODS = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"PATCH"})
"""What asks for a head alone, or what browsers ask first, is answered with more care."""
SYSTEM = "whisk.system"
"""Whose web actions may be the platform's own routes."""

_PREFIX = b"/api/v1/namespaces/"
_TIMED = timing.ASKED.encode()
_WEB = webaction.PREFIX.encode()


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


class WebTarget(msgspec.Struct):
    """What a hot request for a web action asks for, and what its head says to the action.

    `given` is the context but for who asks, `fields` are the query's. `made` is whoever answers's: what this head led
    to last.
    """

    address: Address
    query: str
    kind: MediaType | None
    accept: str | None
    headers: dict[str, str]
    given: JsonObject
    fields: JsonObject
    made: object = None

    @property
    def is_trigger(self) -> bool:
        return False


def parse_web_target(method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> WebTarget | None:
    """The target of a request for a web action; None for whatever is not plain."""
    path, _, raw_query = url.partition(b"?")
    address = webaction.parse_address(path.decode("latin-1"))
    if address is None or address.name.namespace == SYSTEM:
        return None
    query = raw_query.decode("latin-1")
    shown = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    try:
        fields = webaction.query_fields(query) if query else {}
    except RequestError:
        return None
    return WebTarget(
        address=address,
        query=query,
        kind=parse_media_type(shown.get("content-type", "")),
        accept=shown.get("accept"),
        headers=shown,
        given=webaction.context(method.decode("latin-1"), shown.items(), address.rest, None),
        fields=fields,
    )


class CallTarget(msgspec.Struct):
    """What a request for one of the gateway's endpoints asks for: headers by lower-case name, `path` as it came.

    At a `domain` of an API `place` is nobody's, and what follows is the whole path. `made` is whoever answers's: what
    was made of this head last, and of what.
    """

    place: Place
    method: str
    path: str
    query: str
    headers: dict[str, str]
    domain: str = ""
    made: object = None

    @property
    def is_trigger(self) -> bool:
        return False


def parse_call_target(
    method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]], domain: str = ""
) -> CallTarget | None:
    """The target of a request for an endpoint of the gateway; None for other paths, and for those of nobody."""
    path, _, query = url.decode("latin-1").partition("?")
    place = Place("", False, path) if domain else parse_place(path)
    if place is None or not (place.name or domain):
        return None
    shown = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return CallTarget(place, method.decode("latin-1"), path, query, shown, domain)


class Head(msgspec.Struct, frozen=True):
    """What a plain head asks for; what it may have depends on who presents it."""

    target: Target | WebTarget | CallTarget
    authorization: bytes
    request_id: bytes | None
    body_bytes: int
    is_from_here: bool
    """Its `Host` is loopback, no web page is its origin, and no proxy has brought it."""
    accepts_gzip: bool
    is_timed: bool
    """It asks where the time went."""
    shown: dict[str, str]
    """Of a fire: the headers, which the fired actions see."""


def parse_head(
    method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]], longest_wait_ms: int, domain: str = ""
) -> Head | None:
    """A head that asks for nothing but a hot route with a body of known length; None for every other one. At a `domain`
    of an API all paths are that API's.

    Raises `HeadRefused` for one that no server should take.
    """
    if len(url) > URI_LIMIT_BYTES:
        return None
    is_web = url.startswith(_WEB) and not domain
    is_open = is_web or bool(domain) or not url.startswith(_PREFIX)
    if method not in WEB_METHODS if is_open else method != b"POST":
        return None
    check_head(url, headers, "1.1")
    fields = dict(headers)
    if len(fields) != len(headers) or not fields.keys().isdisjoint(COLD_HEADERS):
        return None  # a header given twice is looked at with more care
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > LENGTH_DIGITS:
        return None
    target: Target | WebTarget | CallTarget | None
    if is_web:
        target = parse_web_target(method, url, headers)
    elif is_open:
        target = parse_call_target(method, url, headers, domain)
    elif EVENTS in fields.get(b"accept", b"").lower() or not _is_json(fields.get(b"content-type", b""), length):
        return None
    else:
        target = parse_target(url, longest_wait_ms)
    if target is None:
        return None
    return Head(
        target=target,
        authorization=fields.get(b"authorization", b""),
        request_id=fields.get(b"x-request-id"),
        body_bytes=int(length),
        is_from_here=b"origin" not in fields
        and fields.keys().isdisjoint(MARKS)
        and is_loopback(host_of(fields[b"host"].decode("latin-1"))),
        accepts_gzip=accepts_gzip(fields.get(b"accept-encoding", b"").decode("latin-1")),
        is_timed=not url.startswith(_WEB) and fields.get(_TIMED, b"").lower() == b"on",
        shown={name.decode("latin-1"): value.decode("latin-1") for name, value in headers} if target.is_trigger else {},
    )


def _is_json(content_type: bytes, length: bytes) -> bool:
    """What an empty body is does not matter, unless it is lines, of which there may be none."""
    kind = content_type.partition(b";")[0]
    return kind == b"application/json" or (length == b"0" and kind.strip().lower() != LINES)
