"""Completion web hooks: what an annotation asks for, and how a call is signed. Pure.

The annotation `completion-hook` of a rule or an action is `{"url": "https://…", "secret": "whsec_…", "on": […]}`.
Headers, signature and the form of the body follow the Standard Webhooks specification 1.0, so that its libraries can
verify a call.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from visp import wording
from visp.entity.activation import Status, render
from visp.errors import BadRequest

if TYPE_CHECKING:
    from visp.entity.activation import ActivationRecord

COMPLETION_HOOK = "completion-hook"
URL_LIMIT = 2_000
_PREFIX = "whsec_"

_STATUS = {
    "success": Status.SUCCESS,
    "application": Status.APPLICATION_ERROR,
    "developer": Status.DEVELOPER_ERROR,
    "internal": Status.INTERNAL_ERROR,
}
_Heard = Literal["success", "application", "developer", "internal"]


class Hook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told of which outcomes. `secret` is `whsec_` and 24 to 64 bytes in Base64."""

    url: str
    secret: str
    on: Annotated[tuple[_Heard, ...], msgspec.Meta(min_length=1)] = ("success", "application", "developer", "internal")

    def __repr__(self) -> str:
        return f"Hook(url={self.url!r})"  # never the secret: this may come to stand in a log

    def hears_of(self, status: int) -> bool:
        """Whether it is told of this outcome."""
        return any(_STATUS[name] == status for name in self.on)


def parse_hook(value: bytes) -> Hook | None:
    """JSON's `null` and `false` ask for none; raises `BadRequest` for what cannot be called or signed."""
    if value in (b"null", b"false"):
        return None
    try:
        hook = msgspec.json.decode(value, type=Hook)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(wording.bad_hook(str(error))) from None
    _check_url(hook.url)
    _key(hook.secret)
    return hook


def _check_url(url: str) -> None:
    is_plain = len(url) <= URL_LIMIT and url.isascii() and url.isprintable() and " " not in url
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_plain or not is_whole or "@" in parts.netloc or parts.fragment:
        raise BadRequest(wording.bad_hook(wording.BAD_HOOK_URL))


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise BadRequest(wording.bad_hook(wording.BAD_HOOK_SECRET))
    return key


def body_of(record: ActivationRecord, at: str) -> bytes:
    """What a hook is told: the record as a blocking caller is given it, and when it ended (ISO 8601)."""
    data = msgspec.Raw(render(record.head, record.result))
    return msgspec.json.encode({"type": "activation.completed", "timestamp": at, "data": data})


def headers_of(hook: Hook, id: str, now_s: int, body: bytes) -> dict[str, str]:
    """The headers of one call: `id` is the same each time it is tried, `now_s` the time of this try."""
    signed = hmac.digest(_key(hook.secret), b"%b.%d.%b" % (id.encode(), now_s, body), "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }
