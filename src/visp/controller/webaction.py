"""Web actions: what of a request becomes the action's argument, and what of its outcome becomes the response. Pure.

Source: the web path of OpenWhisk's controller. What is not said here of order of checks is of `api/web.py`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote_plus, unquote

import msgspec

from visp import wording
from visp.entity import media
from visp.entity.activation import Status
from visp.entity.media import FORM, JSON, parse_media_type
from visp.entity.names import DEFAULT_PACKAGE, FullyQualifiedName, is_name
from visp.entity.parameters import is_true
from visp.entity.payload import JsonObject, check_text, encode, parse_object
from visp.entity.pretty import pretty
from visp.errors import BadRequest, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from visp.entity.action import Action
    from visp.entity.media import MediaType
    from visp.entity.parameters import Parameters
    from visp.entity.subject import Identity

PREFIX = "/api/v1/web/"
METHODS = frozenset({"GET", "DELETE", "POST", "PUT", "HEAD", "OPTIONS", "PATCH"})
FIELDS_LIMIT = 1000
USUAL_LENGTH = 100
"""Of a content type: how shorter ones are written is remembered."""
UTF8 = "UTF-8"

METHOD, HEADERS, PATH, USER, QUERY, BODY = (
    "__ow_method",
    "__ow_headers",
    "__ow_path",
    "__ow_user",
    "__ow_query",
    "__ow_body",
)
RESERVED = frozenset({METHOD, HEADERS, PATH, USER, QUERY, BODY})
EXPORT, RAW, SECRET, CUSTOM_OPTIONS = "web-export", "raw-http", "require-whisk-auth", "web-custom-options"
SECRET_HEADER = "x-require-whisk-auth"

CORS: tuple[tuple[str, str], ...] = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH"),
)
ALLOWED_HEADERS = "Access-Control-Allow-Headers"
USUAL_HEADERS = "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"

_UNSEEN = frozenset({"content-length", "transfer-encoding"})
"""Headers that the action is not shown: they are about how the body came."""
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"})
"""Headers that are not the action's to set."""
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*\Z")
_NO_ENTITY = frozenset({204, 205, 304})
_KEPT_IN_QUERY = "!$'()*,:;@/?-._~"

_decode = msgspec.json.Decoder().decode
_fields = msgspec.json.Decoder(JsonObject).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Address(msgspec.Struct, frozen=True):
    """What a path names. `rest` is what follows the action, as it was sent."""

    name: FullyQualifiedName
    extension: str
    rest: str


def parse_address(path: str) -> Address | None:
    """The address of a raw path; None for what is no web action's."""
    if not path.startswith(PREFIX):
        return None
    parts = path[len(PREFIX) :].split("/", 3)
    if len(parts) < 3:
        return None
    namespace, package, segment = (unquote(part, errors="surrogateescape") for part in parts[:3])
    name, extension = segment, "http"
    for known in TRANSCODERS:
        if segment.endswith(f".{known}"):
            name, extension = segment[: -len(known) - 1], known
            break
    if not (is_name(namespace) and is_name(package) and is_name(name)):
        return None
    rest = f"/{parts[3]}" if len(parts) == 4 else ""
    found = FullyQualifiedName(namespace, None if package == DEFAULT_PACKAGE else package, name)
    return Address(found, extension, rest)


# ── what an action says of itself ───────────────────────────────────────────────────────────────────────────────


def is_exported(action: Action) -> bool:
    return is_true(action.annotations, EXPORT)


def is_raw(action: Action) -> bool:
    return is_true(action.annotations, RAW)


def has_custom_options(action: Action) -> bool:
    return is_true(action.annotations, CUSTOM_OPTIONS)


def may_enter(action: Action, headers: Mapping[str, str], caller: Identity | None) -> bool:
    """Whether a request brings what `require-whisk-auth` demands."""
    wanted = action.annotations.get(SECRET)
    if wanted is None:
        return True
    value = _decode(wanted.value)
    if isinstance(value, bool):
        return not value or caller is not None
    if isinstance(value, str):
        secret = value
    elif isinstance(value, (int, float)):
        secret = bytes(wanted.value).decode().strip()
    else:
        return False
    return hmac.compare_digest(secret.encode("utf-8", "replace"), headers.get(SECRET_HEADER, "").encode("latin-1"))


# ── from request to argument ────────────────────────────────────────────────────────────────────────────────────


def context(method: str, headers: Iterable[tuple[str, str]], rest: str, user: str | None) -> JsonObject:
    """What every web action is given; header names in lower case, the last of each."""
    seen = {name: value for name, value in headers if name not in _UNSEEN}
    kind = seen.get("content-type")
    if kind is not None:
        seen["content-type"] = _usual(kind) if len(kind) <= USUAL_LENGTH else _rendered(kind)
    out = {
        METHOD: msgspec.Raw(encode(method.lower())),
        HEADERS: msgspec.Raw(encode(seen)),
        PATH: msgspec.Raw(encode(rest)),
    }
    if user is not None:
        out |= user_field(user)
    return out


def _rendered(kind: str) -> str:
    parsed = parse_media_type(kind)
    return kind if parsed is None else parsed.render()


_usual = lru_cache(maxsize=1000)(_rendered)


def user_field(user: str) -> JsonObject:
    return {USER: msgspec.Raw(encode(user))}


def query_fields(query: str) -> JsonObject:
    """Fields of a query or form, the last of each; raises `BadRequest` for too many."""
    return {name: msgspec.Raw(encode(value)) for name, value in _pairs(query)}


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_LIMIT)
    except ValueError:
        raise BadRequest(wording.too_many_fields(FIELDS_LIMIT)) from None


def rendered_query(query: str) -> str:
    """As OpenWhisk gives it to raw actions: written anew."""
    out = []
    for item in query.split("&") if query else ():
        name, equals, value = item.partition("=")
        out.append(_written(name) + equals + _written(value))
    return "&".join(out)


def _written(text: str) -> str:
    return quote_plus(unquote(text.replace("+", " ")), safe=_KEPT_IN_QUERY)


def argument(
    action: Action,
    given: JsonObject,
    query: str,
    fields: JsonObject,
    kind: MediaType | None,
    body: bytes,
    *,
    is_raw: bool,
) -> JsonObject:
    """The context and what the request adds to it; `fields` are the query's.

    Raises `Malformed` for JSON that is none, `BadRequest` for what is not the request's to set.
    """
    if is_raw:
        entity = msgspec.Raw(encode(_shown(kind, body, is_raw=True)))
        return given | {QUERY: msgspec.Raw(encode(rendered_query(query))), BODY: entity}
    if not body and not fields:
        return given
    said = sent(kind, body) if body else {}
    if isinstance(said, dict):
        own = fields | said
        check_fields(action.parameters, action.annotations, own)
        return given | own
    check_fields(action.parameters, action.annotations, fields)
    return given | fields | {BODY: said}


def sent(kind: MediaType | None, body: bytes) -> JsonObject | msgspec.Raw:
    """The fields of a body that has some, else its value. Raises `Malformed`, `BadRequest`."""
    if kind is None:
        return msgspec.Raw(encode(_base64(body)))
    if kind.is_json:
        if body.lstrip()[:1] == b"{":
            return parse_object(body)
        try:
            value = msgspec.json.decode(body, type=msgspec.Raw)
            _decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Malformed(wording.unexpected_json(str(error))) from None
        check_text(body)
        return msgspec.Raw(bytes(value))
    if kind.kind == FORM:
        return query_fields(body.decode("utf-8", "replace"))
    return msgspec.Raw(encode(_shown(kind, body, is_raw=False)))


def _shown(kind: MediaType | None, body: bytes, *, is_raw: bool) -> str:
    if kind is not None and kind.is_textual and not (is_raw and kind.kind == JSON):
        return body.decode("utf-8", "replace")
    return _base64(body)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def check_fields(parameters: Parameters, annotations: Parameters, names: Iterable[str]) -> None:
    """Raises `BadRequest` where a request sets what is not its to set."""
    is_final = is_true(annotations, "final")
    for name in names:
        if name in RESERVED:
            raise BadRequest(wording.RESERVED_PARAMETERS)
        if is_final and name in parameters and bytes(parameters[name].value).strip() != b"null":
            raise BadRequest(wording.RESERVED_PARAMETERS)


USUAL_CORS = (*CORS, (ALLOWED_HEADERS, USUAL_HEADERS))


def cors(asked_headers: str | None) -> tuple[tuple[str, str], ...]:
    """What the platform says of a web action to browsers."""
    return (*CORS, (ALLOWED_HEADERS, asked_headers)) if asked_headers else USUAL_CORS


# ── from outcome to response ────────────────────────────────────────────────────────────────────────────────────


class Response(msgspec.Struct, frozen=True):
    """`kind` is the media type, None for an empty one."""

    status: int
    kind: str | None = None
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Unfit(Exception):
    """The outcome makes no response: what is answered instead."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def response(status: Status, result: bytes, extension: str) -> Response:
    """Raises `Unfit`. `result` is JSON that was read."""
    if status is Status.APPLICATION_ERROR:
        fields = _fields(result) if result[:1] == b"{" else {}
        result = bytes(fields.get("error", b"null"))
    elif status is not Status.SUCCESS:
        raise Unfit(400, wording.WEB_FAILED)
    return TRANSCODERS[extension](result.strip())


def _as_json(result: bytes) -> Response:
    if result[:1] not in (b"{", b"["):
        raise Unfit(400, wording.not_of_type(JSON))
    return Response(200, JSON, pretty(result))


def _as_html(result: bytes) -> Response:
    return _as_text_of(result, "html", "text/html", f"text/html; charset={UTF8}")


def _as_svg(result: bytes) -> Response:
    return _as_text_of(result, "svg", "image/svg+xml", "image/svg+xml")


def _as_text_of(result: bytes, field: str, kind: str, shown: str) -> Response:
    value = _projected(result, field)
    if value is None or value[:1] != b'"':
        raise Unfit(400, wording.not_of_type(kind))
    return Response(200, shown, text_of(value))


def _as_text(result: bytes) -> Response:
    value = _projected(result, "text")
    if value is None:
        raise Unfit(404, wording.NO_SUCH_PROPERTY)
    return Response(200, f"text/plain; charset={UTF8}", text_of(value) if value[:1] == b'"' else pretty(value))


def _projected(result: bytes, field: str) -> bytes | None:
    """`body` of an object, else the field; what is no object itself."""
    if result[:1] != b"{":
        return result
    fields = _fields(result)
    value = fields.get("body", fields.get(field))
    return None if value is None else bytes(value)


def text_of(value: bytes) -> bytes:
    """A JSON string as UTF-8; halves of surrogate pairs, which runtimes write, become question marks."""
    try:
        text: str = _decode(value)
    except msgspec.DecodeError:
        text = json.loads(value)
    return text.encode("utf-8", "replace")


def _as_http(result: bytes) -> Response:
    if result[:1] != b"{":
        raise Unfit(400, wording.not_of_type(HTTP))
    fields = _fields(result)
    body = bytes(fields["body"]) if "body" in fields else b"null"
    is_empty = body in (b"null", b'""')
    told = fields.get("statusCode")
    status = (204 if is_empty else 200) if told is None else _status(told)
    headers, given = _headers(fields["headers"]) if "headers" in fields else ((), None)
    kind = None
    if given is not None and not is_empty:
        kind = parse_media_type(given)
        if kind is None:
            raise Unfit(400, wording.UNKNOWN_CONTENT_TYPE)
    if is_empty or status in _NO_ENTITY:
        return Response(status, headers=headers)
    if body[:1] == b'"':
        shown, content = _entity_of_text(kind, text_of(body))
    else:
        shown, content = _entity_of_json(kind, body)
    return Response(status, shown, content, headers)


def _entity_of_text(kind: MediaType | None, text: bytes) -> tuple[str, bytes]:
    if kind is None:
        return f"text/html; charset={UTF8}", text
    if kind.is_json:
        decoded = _decoded(text)
        if decoded is not None:
            return kind.render(), decoded
        if kind.is_textual or kind.kind == JSON:
            return _with_charset(kind), text
        raise Unfit(400, wording.TYPE_MISMATCH)
    if kind.is_textual:
        return _with_charset(kind), text
    decoded = _decoded(text)
    if decoded is None:
        raise Unfit(400, wording.TYPE_MISMATCH)
    return kind.render(), decoded


def _entity_of_json(kind: MediaType | None, body: bytes) -> tuple[str, bytes]:
    if kind is None:
        return JSON, pretty(body)
    if not kind.is_json:
        raise Unfit(400, wording.TYPE_MISMATCH)
    return _with_charset(kind), pretty(body)


def _with_charset(kind: MediaType) -> str:
    if kind.kind in media.FIXED_CHARSET:
        return msgspec.structs.replace(kind, parameters=()).render()
    return kind.render(charset=UTF8)


def _decoded(text: bytes) -> bytes | None:
    """The bytes, if it looks like base64."""
    if not text or len(text) % 4 or not _BASE64.match(text):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _status(raw: msgspec.Raw) -> int:
    value = _decode(raw)
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value < 600:  # 1xx is never the answer
        raise Unfit(400, wording.not_of_type(HTTP))
    return value


def _headers(raw: msgspec.Raw) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """The headers that the action sets, one by one, and the content type among them."""
    try:
        fields = _fields(raw)
    except msgspec.ValidationError:
        raise Unfit(400, wording.not_of_type(HTTP)) from None
    out: list[tuple[str, str]] = []
    kind = None
    for name, value in fields.items():
        lines = list(_lines(bytes(value)))
        lowered = name.lower()
        if lowered == "content-type":
            kind = lines[-1] if lines else None
            continue
        if not _HEADER_NAME.match(name) or not all(map(_HEADER_VALUE.match, lines)):
            raise Unfit(400, wording.not_of_type(HTTP))
        if lowered not in _FRAMING:
            out += ((name, line.encode("latin-1", "replace").decode("latin-1")) for line in lines)
    return tuple(out), kind


def _lines(raw: bytes) -> Sequence[str]:
    head = raw[:1]
    if head == b"[":
        return [line for item in _items(raw) for line in _lines(bytes(item))]
    if head == b'"':
        return (str(_decode(raw)),)
    if head == b"{" or raw == b"null":
        raise Unfit(400, wording.not_of_type(HTTP))
    return (raw.decode(),)


HTTP = "message/http"
TRANSCODERS = {"json": _as_json, "html": _as_html, "http": _as_http, "svg": _as_svg, "text": _as_text}
"""By extension."""
