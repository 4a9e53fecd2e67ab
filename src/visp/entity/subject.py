"""Who calls: subjects, their keys, and what their namespace may do.

Source: OpenWhisk's identities: HTTP Basic with a uuid and a key of exactly 64 characters; the pair decides the
namespace.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import uuid

import msgspec

from visp import wording
from visp.entity.follow import Follow
from visp.entity.limits import (
    PARAMETERS_LIMIT_BYTES,
    PAYLOAD_LIMIT_BYTES,
    AnswerLimits,
    LimitRanges,
    render_byte_size,
)
from visp.entity.names import is_name
from visp.entity.network import INTERNET, Policy
from visp.errors import Refused, Unauthorized

KEY_LENGTH = 64
SUBJECT_LENGTH = 5
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)

GUEST = "guest"
GUEST_UUID = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502"
GUEST_KEY = "123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"
"""OpenWhisk's public development key; here it exists only while visp listens on loopback."""

SYSTEM = "whisk.system"


class AuthKey(msgspec.Struct, frozen=True):
    """A key pair; `str()` is the joined form that clients configure."""

    uuid: str
    key: str

    def __str__(self) -> str:
        return f"{self.uuid}:{self.key}"


class UserLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a namespace may do; the platform's defaults unless an operator set its own."""

    invocations_per_minute: int
    fires_per_minute: int
    concurrent_invocations: int
    ranges: LimitRanges = LimitRanges()
    parameters_bytes: int = PARAMETERS_LIMIT_BYTES
    payload_bytes: int = PAYLOAD_LIMIT_BYTES
    answers: AnswerLimits = AnswerLimits()
    are_narrowed: bool = False
    """Whether an action that was written before may be outside of them."""
    allowed_kinds: frozenset[str] = frozenset()
    is_storing: bool = True
    """Whether records of activations are kept."""
    retention_days: float | None = None
    """For how long, 0 whatever their age; None: as the platform does."""
    network: Policy = INTERNET
    """What its actions reach."""
    follow: Follow | None = None
    """What follows from a failure where neither rule nor action say so."""
    own: dict[str, object] = {}
    """Further limits as `GET …/limits` shows them: only where an operator set them."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever presented a valid key: one subject, one namespace."""

    subject: str
    namespace: str
    namespace_uuid: str
    limits: UserLimits
    is_loopback_only: bool = False
    """The key is the well-known one: good only from this machine, and not through a browser's foreign page."""


def new_key() -> AuthKey:
    """A random pair."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return AuthKey(str(uuid.uuid4()), "".join(secrets.choice(alphabet) for _ in range(KEY_LENGTH)))


def check_subject(subject: str, namespace: str) -> None:
    """Raises `Refused` for names that cannot be."""
    if len(subject) < SUBJECT_LENGTH:
        raise Refused(wording.SUBJECT_SHORT)
    if not namespace.strip():
        raise Refused(wording.NAMESPACE_EMPTY)
    if not is_name(namespace):
        raise Refused(wording.NAMESPACE_ILLEGAL)


def parse_pair(text: str) -> AuthKey:
    """`uuid:key`. Raises `Refused`."""
    uuid, _, key = text.partition(":")
    if not _UUID.match(uuid):
        raise Refused(wording.UUID_INVALID)
    if len(key) < KEY_LENGTH:
        raise Refused(wording.KEY_SHORT)
    if len(key) > KEY_LENGTH:
        raise Refused(wording.key_long(KEY_LENGTH))
    return AuthKey(uuid, key)


def parse_authorization(header: bytes | None) -> AuthKey:
    """The pair of a Basic `Authorization` header; raises `Unauthorized`.

    Another scheme counts as no credentials, as in OpenWhisk; what is Basic and malformed is invalid.
    """
    scheme, _, value = (header or b"").strip().partition(b" ")
    if scheme.lower() != b"basic":
        raise Unauthorized(wording.AUTH_MISSING)
    try:
        name, _, key = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthorized(wording.AUTH_INVALID) from None
    if not name or len(key) != KEY_LENGTH:
        raise Unauthorized(wording.AUTH_INVALID)
    return AuthKey(name, key)


def digest(auth: AuthKey, secret: bytes) -> bytes:
    """What is stored of a key for look-up: an HMAC under the server's secret."""
    return hmac.new(secret, f"key:{auth}".encode(), hashlib.sha256).digest()


def is_same(one: bytes, other: bytes) -> bool:
    """Compares digests in constant time."""
    return hmac.compare_digest(one, other)


def render_limits(limits: UserLimits) -> dict[str, object]:
    """`GET …/limits`."""
    ranges = limits.ranges
    out: dict[str, object] = {
        "invocationsPerMinute": limits.invocations_per_minute,
        "concurrentInvocations": limits.concurrent_invocations,
        "firesPerMinute": limits.fires_per_minute,
        "minActionMemory": ranges.memory_mb.low,
        "maxActionMemory": ranges.memory_mb.high,
        "minActionLogs": ranges.logs_mb.low,
        "maxActionLogs": ranges.logs_mb.high,
        "minActionTimeout": ranges.timeout_ms.low,
        "maxActionTimeout": ranges.timeout_ms.high,
        "minActionConcurrency": ranges.concurrency.low,
        "maxActionConcurrency": ranges.concurrency.high,
        "maxParameterSize": render_byte_size(limits.parameters_bytes),
        "maxActionInstances": limits.concurrent_invocations,
    }
    if limits.allowed_kinds:
        out["allowedKinds"] = sorted(limits.allowed_kinds)
    return out | limits.own
