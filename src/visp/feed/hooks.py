"""Feeds that are told by requests to an address of their own: `http/hook`, `github/webhook`, `slack/events`,
`slack/command`, `cloudevents/receive`.

Who calls is known by a signature, as the parameter `scheme` says (sources: each service's documentation; Standard
Webhooks 1.0; CloudEvents 1.0 and its HTTP binding). A request signed longer than `tolerance_s` ago, or that is to be
signed in the future, is refused where the scheme signs a time; one that comes again fires nothing, since its event has
the same key.

`hmac-sha256` is the plain form for senders of one's own: `X-Signature-256: sha256=<hex>` of the body or, if there is
`X-Timestamp: <seconds>`, of `<timestamp>.<body>`. Without a time equal bodies count once a day.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, unquote

import msgspec

from visp import wording
from visp.feed import given as asked
from visp.feed.base import EVENTS_MOST, Event, FeedRefused, Json, Received
from visp.feed.batching import key_of
from visp.feed.conditions import filter_of, parse_filter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from visp.feed.base import Reach, Request, Watch

SCHEMES = ("none", "hmac-sha256", "standard-webhooks", "github", "slack", "stripe")
TOLERANCE_S = 300
TOLERANCE_MOST_S = 86_400
FIELDS_MOST = 1000
SIGNATURES_MOST = 10
"""Of one request: senders name a second while a secret is changed."""
_WHSEC = "whsec_"
_NUMBER = re.compile(r"[0-9]{1,12}\Z")
_FORM = "application/x-www-form-urlencoded"


# ── who calls: pure ─────────────────────────────────────────────────────────────────────────────────────────────


def verify(scheme: str, secret: str, tolerance_s: int, request: Request, now_ms: int) -> str | None:
    """The key that the request has by its signature, None by none; raises `FeedRefused` for one that is not let in."""
    headers, body = request.headers, request.body
    match scheme:
        case "none":
            return None
        case "github":
            return _signed(secret.encode(), body, _hex(headers.get("x-hub-signature-256", ""), "sha256="))
        case "hmac-sha256":
            claims = _hex(headers.get("x-signature-256", ""), "sha256=")
            time = headers.get("x-timestamp")
            if time is None:
                return _signed(secret.encode(), body, claims)
            _check_time(time, tolerance_s, now_ms)
            return _signed(secret.encode(), f"{time}.".encode() + body, claims)
        case "slack":
            time = headers.get("x-slack-request-timestamp", "")
            _check_time(time, tolerance_s, now_ms)
            claims = _hex(headers.get("x-slack-signature", ""), "v0=")
            return _signed(secret.encode(), f"v0:{time}:".encode() + body, claims)
        case "stripe":
            parts = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
            time = next((value for name, _, value in parts if name == "t"), "")
            _check_time(time, tolerance_s, now_ms)
            claims = [found for name, _, value in parts if name == "v1" for found in _hex(value)]
            return _signed(secret.encode(), f"{time}.".encode() + body, claims)
        case "standard-webhooks":
            id, time = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
            _check_time(time, tolerance_s, now_ms)
            claims = [
                found
                for version, _, value in (part.partition(",") for part in headers.get("webhook-signature", "").split())
                if version == "v1"
                for found in _base64(value)
            ]
            if not id:
                raise FeedRefused(wording.HOOK_NOT_SIGNED, 401)
            _signed(_whsec(secret), f"{id}.{time}.".encode() + body, claims)
            return key_of("webhook", id)
    raise FeedRefused(wording.HOOK_NOT_SIGNED, 401)


def _signed(secret: bytes, content: bytes, claims: Iterable[bytes]) -> str:
    expected = hmac.digest(secret, content, "sha256")
    is_one = False
    for claim in list(claims)[:SIGNATURES_MOST]:
        is_one |= hmac.compare_digest(expected, claim)
    if not is_one:
        raise FeedRefused(wording.HOOK_NOT_SIGNED, 401)
    return expected.hex()


def _check_time(text: str, tolerance_s: int, now_ms: int) -> None:
    if not _NUMBER.match(text):
        raise FeedRefused(wording.HOOK_NOT_SIGNED, 401)
    if abs(int(text) * 1000 - now_ms) > tolerance_s * 1000:
        raise FeedRefused(wording.hook_out_of_time(tolerance_s), 401)


def _hex(text: str, prefix: str = "") -> list[bytes]:
    if not text.startswith(prefix) or len(text) > 200:
        return []
    try:
        return [bytes.fromhex(text[len(prefix) :])]
    except ValueError:
        return []


def _base64(text: str) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True)]
    except (binascii.Error, ValueError):
        return []


def _whsec(secret: str) -> bytes:
    found = _base64(secret.removeprefix(_WHSEC))
    return found[0] if found else b""


# ── what they say: pure ─────────────────────────────────────────────────────────────────────────────────────────


def content_of(body: bytes, content_type: str) -> Json:
    """JSON's value, a form's fields, a text; Base64 of what is none of them."""
    media = content_type.partition(";")[0].strip().lower()
    if media == _FORM:
        return fields_of(body)
    if media in ("", "application/json") or media.endswith("+json"):
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


def fields_of(text: bytes | str) -> dict[str, str]:
    """Of several fields with one name the last counts."""
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return dict(parse_qsl(decoded, keep_blank_values=True, max_num_fields=FIELDS_MOST))
    except ValueError:
        raise FeedRefused(wording.HOOK_UNREADABLE) from None


def object_of(body: bytes) -> dict[str, Json]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise FeedRefused(wording.HOOK_UNREADABLE) from None
    if not isinstance(found, dict):
        raise FeedRefused(wording.HOOK_UNREADABLE)
    return found


# ── feeds ───────────────────────────────────────────────────────────────────────────────────────────────────────


class HookSource:
    """Nothing is done but to be there."""

    async def run(self, watch: Watch, position: Json) -> None:
        watch.live(lag=0)
        await asyncio.get_running_loop().create_future()


class _HookFeed:
    name: ClassVar[str]
    secrets: ClassVar[frozenset[str]] = frozenset({"secret"})
    disables_when_throttled: ClassVar[bool] = False
    _updatable: ClassVar[tuple[str, ...]] = ("scheme", "secret", "tolerance_s", "origins", "filter")

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        kept: dict[str, Json] = {
            "scheme": asked.one_of(given, "scheme", SCHEMES, SCHEMES[0]),
            "tolerance_s": asked.integer(given, "tolerance_s", TOLERANCE_S, 1, TOLERANCE_MOST_S),
        }
        if kept["scheme"] != "none":
            kept["secret"] = asked.required(given, "secret")
            if kept["scheme"] == "standard-webhooks" and len(_whsec(kept["secret"])) < 16:
                raise FeedRefused(wording.HOOK_BAD_SECRET)
        elif asked.text(given, "secret"):
            raise FeedRefused(wording.HOOK_NEEDS_SCHEME)
        origins = asked.texts(given, "origins")
        if origins:
            kept["origins"] = [origin.rstrip("/").lower() for origin in origins]
        return kept | parse_filter(given)

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        asked_for = {name: given[name] for name in self._updatable if name in given}
        if not asked_for:
            raise FeedRefused(wording.NOTHING_UPDATABLE)
        return self.parse({**kept, **asked_for}, now_ms)

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        return None

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return dict(parameters)

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> HookSource:
        return HookSource()

    def _let_in(self, parameters: Mapping[str, Json], request: Request, now_ms: int) -> str:
        """A key of the request's own. Browsers say where they come from; others do not. A question is no event."""
        if request.method == "OPTIONS":
            raise FeedRefused(wording.HOOK_NO_OPTIONS, 405)
        origin = request.headers.get("origin")
        if origin is not None and "origins" in parameters and origin.lower() not in parameters["origins"]:
            raise FeedRefused(wording.HOOK_OTHER_ORIGIN, 403)
        secret = parameters.get("secret") or parameters.get("signing_secret", "")
        key = verify(parameters["scheme"], secret, parameters["tolerance_s"], request, now_ms)
        return key or secrets.token_hex(16)


class HttpHook(_HookFeed):
    name = "http/hook"

    def receive(self, parameters: Mapping[str, Json], request: Request, now_ms: int) -> Received:
        key = self._let_in(parameters, request, now_ms)
        body = content_of(request.body, request.headers.get("content-type", ""))
        if parameters["scheme"] == "stripe" and isinstance(body, dict) and isinstance(body.get("id"), str):
            key = key_of("stripe", body["id"])  # who tries again signs anew
        event = {
            "method": request.method,
            "headers": dict(request.headers),
            "query": fields_of(request.query),
            "body": body,
        }
        return _received(parameters, [(key, event)])


class GitHubHook(_HookFeed):
    """What the catalog's action of this name asks for, which tells GitHub of the address. An event is GitHub's body."""

    name = "github/webhook"
    _updatable: ClassVar[tuple[str, ...]] = ("secret", "filter")

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        kept: dict[str, Json] = {
            "scheme": "github",
            "secret": asked.required(given, "secret"),
            "tolerance_s": TOLERANCE_S,
        }
        kept |= {name: asked.text(given, name) for name in ("repository", "events") if asked.text(given, name)}
        return kept | parse_filter(given)

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {name: value for name, value in parameters.items() if name not in ("scheme", "tolerance_s")}

    def receive(self, parameters: Mapping[str, Json], request: Request, now_ms: int) -> Received:
        key = self._let_in(parameters, request, now_ms)
        return _received(parameters, [(key, object_of(request.body))])


class _SlackFeed(_HookFeed):
    secrets: ClassVar[frozenset[str]] = frozenset({"signing_secret"})
    _updatable: ClassVar[tuple[str, ...]] = ("signing_secret", "tolerance_s", "filter")

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        return {
            "scheme": "slack",
            "signing_secret": asked.required(given, "signing_secret"),
            "tolerance_s": asked.integer(given, "tolerance_s", TOLERANCE_S, 1, TOLERANCE_MOST_S),
        } | parse_filter(given)

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {name: value for name, value in parameters.items() if name != "scheme"}


class SlackEvents(_SlackFeed):
    name = "slack/events"

    def receive(self, parameters: Mapping[str, Json], request: Request, now_ms: int) -> Received:
        key = self._let_in(parameters, request, now_ms)
        body = object_of(request.body)
        if body.get("type") == "url_verification":
            return Received(answer=msgspec.json.encode({"challenge": str(body.get("challenge", ""))}))
        id = body.get("event_id")
        return _received(parameters, [(key_of("slack", id) if isinstance(id, str) and id else key, body)])


class SlackCommand(_SlackFeed):
    name = "slack/command"

    def receive(self, parameters: Mapping[str, Json], request: Request, now_ms: int) -> Received:
        key = self._let_in(parameters, request, now_ms)
        fields: dict[str, Json] = dict(fields_of(request.body))
        if fields.get("ssl_check") == "1":
            return Received()
        if "payload" in fields:  # a button or a dialog, not a command
            fields = object_of(str(fields["payload"]).encode())
        return _received(parameters, [(key, fields)])


def _received(parameters: Mapping[str, Json], events: Iterable[tuple[str, Json]]) -> Received:
    holds = filter_of(parameters)
    return Received([Event(key, msgspec.json.encode(event)) for key, event in events if holds(event)])


# ── CloudEvents ─────────────────────────────────────────────────────────────────────────────────────────────────

_ATTRIBUTE = re.compile(r"[a-z0-9]{1,40}\Z")
_ORIGIN = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}\Z")
_WHO_ASKS = "webhook-request-origin"
_STRUCTURED = "application/cloudevents"
_BATCHED = "application/cloudevents-batch"


class CloudEvents(_HookFeed):
    name = "cloudevents/receive"
    _updatable = ("type", "source", *_HookFeed._updatable)

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        wishes = {name: asked.texts(given, name) for name in ("type", "source")}
        return super().parse(given, now_ms) | {name: wish for name, wish in wishes.items() if wish}

    def receive(self, parameters: Mapping[str, Json], request: Request, now_ms: int) -> Received:
        if request.method == "OPTIONS" and _WHO_ASKS in request.headers:
            return Received(headers=(("Allow", "POST"), *granted(request, parameters.get("origins"))))
        self._let_in(parameters, request, now_ms)
        events = [
            (key_of("event", event["source"], event["id"]), event)
            for event in cloud_events(request)
            if all(event[name] in parameters[name] for name in ("type", "source") if name in parameters)
        ]
        return _received(parameters, events)


def granted(request: Request, origins: Collection[str] | None) -> list[tuple[str, str]]:
    """What a sender is granted that asks whether it may send events here, and how many a minute.

    Source: HTTP Web Hooks for Event Delivery 1.0, section 4. `origins` are names, or URLs of them; None: anybody.
    Without a grant the headers are withheld: senders go by them, not by the status. No sender's callback is called.
    """
    origin = request.headers[_WHO_ASKS]
    known = None if origins is None else {each.rpartition("://")[2] for each in origins}
    if not _ORIGIN.match(origin) or not (known is None or origin.lower() in known) or request.rate <= 0:
        return []
    wish = request.headers.get("webhook-request-rate", "")
    rate = min(int(wish), request.rate) if _NUMBER.match(wish) and int(wish) else request.rate
    return [("WebHook-Allowed-Origin", origin), ("WebHook-Allowed-Rate", str(rate))]


def cloud_events(request: Request) -> list[dict[str, Json]]:
    """Those of a request, in any of its three forms; raises `FeedRefused`."""
    media, _, form = request.headers.get("content-type", "").partition(";")[0].strip().lower().partition("+")
    if media in (_STRUCTURED, _BATCHED) and form not in ("json", ""):
        raise FeedRefused(wording.cloud_event_refused(f"the format {form} is not understood"), 415)
    if media == _STRUCTURED:
        return [_checked(object_of(request.body))]
    if media == _BATCHED:
        try:
            found = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise FeedRefused(wording.HOOK_UNREADABLE) from None
        if not isinstance(found, list) or len(found) > EVENTS_MOST:
            raise FeedRefused(wording.cloud_event_refused(f"a batch is a list of at most {EVENTS_MOST} events"))
        return [_checked(event) for event in found]
    return [_checked(_binary(request))]


def _binary(request: Request) -> dict[str, Json]:
    event: dict[str, Json] = {
        name.removeprefix("ce-"): unquote(value)
        for name, value in request.headers.items()
        if name.startswith("ce-") and name not in ("ce-data", "ce-datacontenttype")
    }
    content_type = request.headers.get("content-type", "")
    if content_type:
        event["datacontenttype"] = content_type
    if request.body:
        event["data"] = content_of(request.body, content_type)
        if isinstance(event["data"], str) and not _is_text(request.body):
            event["data_base64"] = event.pop("data")
    return event


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _checked(event: Json) -> dict[str, Json]:
    if not isinstance(event, dict):
        raise FeedRefused(wording.cloud_event_refused("an event is an object"))
    if event.get("specversion") != "1.0":
        raise FeedRefused(wording.cloud_event_refused("its specversion is not 1.0"))
    for name in ("id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise FeedRefused(wording.cloud_event_refused(f"it has no {name}"))
    if not all(name == "data_base64" or _ATTRIBUTE.match(name) for name in event):
        raise FeedRefused(wording.cloud_event_refused("its attributes have names of small letters and digits"))
    return event


def sign(scheme: str, secret: str, body: bytes, now_ms: int, id: str = "") -> dict[str, str]:
    """The headers by which a request is let in: what senders do, for tests and those who write one."""
    time, key = str(now_ms // 1000), secret.encode()

    def digest(content: bytes, secret: bytes = key) -> bytes:
        return hmac.digest(secret, content, hashlib.sha256)

    match scheme:
        case "github":
            return {"x-hub-signature-256": f"sha256={digest(body).hex()}"}
        case "hmac-sha256":
            signature = digest(f"{time}.".encode() + body).hex()
            return {"x-timestamp": time, "x-signature-256": f"sha256={signature}"}
        case "slack":
            signature = digest(f"v0:{time}:".encode() + body).hex()
            return {"x-slack-request-timestamp": time, "x-slack-signature": f"v0={signature}"}
        case "stripe":
            return {"stripe-signature": f"t={time},v1={digest(f'{time}.'.encode() + body).hex()}"}
        case "standard-webhooks":
            signed = base64.b64encode(digest(f"{id}.{time}.".encode() + body, _whsec(secret))).decode()
            return {"webhook-id": id, "webhook-timestamp": time, "webhook-signature": f"v1,{signed}"}
    return {}
