"""From a presented key to an identity, and from a namespace back to its key.

Look-ups are cached by the raw header; the cache is dropped whole when a key or limit changes. The well-known guest key
is not stored: it exists only while the server listens on loopback, and then only for callers on loopback.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from visp import wording
from visp.entity import follow
from visp.entity.limits import (
    PARAMETERS_LIMIT_BYTES,
    PAYLOAD_LIMIT_BYTES,
    RESULT_LIMIT_BYTES,
    AnswerLimits,
    LimitRanges,
    Range,
    parse_byte_size,
    render_byte_size,
)
from visp.entity.network import INTERNET, Policy, parse_policy
from visp.entity.subject import (
    GUEST,
    GUEST_KEY,
    GUEST_UUID,
    AuthKey,
    Identity,
    UserLimits,
    digest,
    is_same,
    new_key,
    parse_authorization,
)
from visp.errors import ServiceError, StoreUnavailable, Unauthorized
from visp.store.base import KeyRecord
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.settings import Limits
    from visp.store.base import SubjectStore

CACHED_HEADERS = 10_000
WATCH_S = 0.5
NONCE_BYTES = 12
RETENTION_DAYS = b"retentionDays"


class NamespaceLimits(msgspec.Struct, frozen=True, rename="camel"):
    """What an operator may set for a namespace (OpenWhisk's names, and some of our own); None leaves the platform's."""

    invocations_per_minute: int | None = None
    fires_per_minute: int | None = None
    concurrent_invocations: int | None = None
    min_action_memory: int | None = None
    max_action_memory: int | None = None
    min_action_timeout: int | None = None
    max_action_timeout: int | None = None
    min_action_logs: int | None = None
    max_action_logs: int | None = None
    min_action_concurrency: int | None = None
    max_action_concurrency: int | None = None
    max_parameter_size: str | None = None
    max_payload_size: str | None = None
    truncation_size: str | None = None
    allowed_kinds: tuple[str, ...] | None = None
    store_activations: bool | None = None
    warmed_container_keeping_count: int | None = None
    warmed_container_keeping_timeout: str | None = None
    retry: follow.RetryPolicy | None = None
    dead_letter: bool | None = None
    retention_days: Annotated[float, Meta(ge=0)] | None = None
    network: str | None = None


class Identities:
    """The one place that knows keys."""

    def __init__(
        self,
        subjects: SubjectStore,
        secret: bytes,
        limits: Limits,
        *,
        is_loopback: bool,
        network: Policy = INTERNET,
    ) -> None:
        self._subjects = subjects
        self._secret = secret
        self._limits = limits
        self._network = network
        self.has_public_guest = is_loopback
        """Whether the well-known guest key is in force."""
        self._cache: dict[bytes, Identity] = {}
        self._by_uuid: dict[str, Identity] = {}
        self._policies: dict[str, Policy] = {}
        self._owners: dict[str, Identity] = {}

    def peek(self, header: bytes) -> Identity | None:
        """The identity behind a header that was seen before."""
        return self._cache.get(header)

    async def identify(self, header: bytes | None) -> Identity:
        """Raises `Unauthorized` for no, malformed, unknown and blocked credentials."""
        known = self._cache.get(header or b"")
        if known is not None:
            return known
        auth = parse_authorization(header)
        identity = await self._look_up(auth)
        if len(self._cache) >= CACHED_HEADERS:
            self._cache.clear()
        self._cache[header or b""] = identity
        return identity

    async def watch(self, clock: Clock) -> None:
        """Drops what is cached when another process has changed something, as `visp admin` does: within a moment."""
        seen: int | None = None
        while True:
            try:
                version = await self._subjects.version()
            except ServiceError as error:
                log.warning("identities.not_watched", reason=str(error))
            else:
                if seen is not None and version != seen:
                    self.forget()
                seen = version
            await clock.sleep(WATCH_S)

    def forget(self) -> None:
        """Drops what is cached: a key, a block or a limit changed."""
        self._cache.clear()
        self._by_uuid.clear()
        self._policies.clear()
        self._owners.clear()

    async def _look_up(self, auth: AuthKey) -> Identity:
        presented = digest(auth, self._secret)
        record = await self._subjects.key(auth.uuid)
        is_guest = auth.uuid == GUEST_UUID and self.has_public_guest
        expected = digest(AuthKey(GUEST_UUID, GUEST_KEY), self._secret) if is_guest else b"\0" * len(presented)
        if record is not None and not is_guest:
            expected = record.digest
        if not is_same(presented, expected) or (record is None and not is_guest):
            raise Unauthorized(wording.AUTH_INVALID)
        if is_guest:
            return Identity(
                subject=GUEST,
                namespace=GUEST,
                namespace_uuid=GUEST_UUID,
                limits=await self._limits_of(GUEST),
                is_loopback_only=True,
            )
        assert record is not None
        if record.is_blocked:
            raise Unauthorized(wording.AUTH_INVALID)
        return Identity(
            subject=record.subject,
            namespace=record.namespace,
            namespace_uuid=record.uuid,
            limits=await self._limits_of(record.namespace),
        )

    def peek_uuid(self, namespace_uuid: str) -> Identity | None:
        """The same where it was asked before."""
        return self._by_uuid.get(namespace_uuid)

    async def by_uuid(self, namespace_uuid: str) -> Identity | None:
        """The identity for accepted work, which carries no key."""
        known = self._by_uuid.get(namespace_uuid)
        if known is not None:
            return known
        identity = await self._look_up_unasked(namespace_uuid)
        if identity is not None:
            if len(self._by_uuid) >= CACHED_HEADERS:
                self._by_uuid.clear()
            self._by_uuid[namespace_uuid] = identity
        return identity

    async def _look_up_unasked(self, namespace_uuid: str) -> Identity | None:
        if namespace_uuid == GUEST_UUID and self.has_public_guest:
            return await self._look_up(AuthKey(GUEST_UUID, GUEST_KEY))
        record = await self._subjects.key(namespace_uuid)
        if record is None:
            return None
        return Identity(
            subject=record.subject,
            namespace=record.namespace,
            namespace_uuid=record.uuid,
            limits=await self._limits_of(record.namespace),
        )

    def peek_owner(self, namespace: str) -> Identity | None:
        """Who a namespace is, where that was asked before."""
        return self._owners.get(namespace)

    async def owner_of(self, namespace: str) -> Identity | None:
        """Who a namespace is, for what runs in it unasked; None where nobody may."""
        known = self._owners.get(namespace)
        if known is None:
            known = await self._look_up_owner(namespace)
            if known is not None:
                if len(self._owners) >= CACHED_HEADERS:
                    self._owners.clear()
                self._owners[namespace] = known
        return known

    async def _look_up_owner(self, namespace: str) -> Identity | None:
        if namespace == GUEST and self.has_public_guest:
            return await self.by_uuid(GUEST_UUID)
        for record in await self._subjects.keys_of(namespace):
            if not record.is_blocked:
                return await self.by_uuid(record.uuid)
        return None

    async def key_of(self, namespace_uuid: str) -> str | None:
        """The joined key pair of a namespace, for actions that are given it."""
        if namespace_uuid == GUEST_UUID and self.has_public_guest:
            return f"{GUEST_UUID}:{GUEST_KEY}"
        record = await self._subjects.key(namespace_uuid)
        return None if record is None else str(pair_of(record, self._secret))

    async def policy_of(self, namespace: str) -> Policy:
        """What a namespace's actions reach."""
        policy = self._policies.get(namespace)
        if policy is None:
            policy = (await self._limits_of(namespace)).network
            if len(self._policies) >= CACHED_HEADERS:
                self._policies.clear()
            self._policies[namespace] = policy
        return policy

    async def check_secret(self, namespace: str) -> None:
        """Raises `StoreUnavailable` with a sentence when a key of this namespace was sealed by another secret."""
        for record in await self._subjects.keys_of(namespace):
            if not opens(record.sealed, self._secret):
                raise StoreUnavailable(
                    "the secret is not the one that sealed the keys of this data folder: its file is damaged, or is "
                    "another; put the right one there"
                )

    async def ensure(self, namespace: str) -> AuthKey | None:
        """Makes a key for a built-in namespace that has none yet, and returns it; None when there was one."""
        if await self._subjects.keys_of(namespace):
            return None
        auth = new_key()
        await self._subjects.put_key(record_of(auth, self._secret, subject=namespace, namespace=namespace))
        return auth

    async def _limits_of(self, namespace: str) -> UserLimits:
        return _read_limits(await self._subjects.limits(namespace) or b"{}", self._limits, self._network)


async def own_days(subjects: SubjectStore, platform: Limits) -> dict[str, float]:
    """For how many days namespaces keep their records for which an operator has set it; raises `Corrupt`."""
    found = {
        namespace: _read_limits(stored, platform).retention_days
        for namespace, stored in await subjects.all_limits()
        if RETENTION_DAYS in stored  # most namespaces have none
    }
    return {namespace: days for namespace, days in found.items() if days is not None}


def _read_limits(stored: bytes, platform: Limits, network: Policy = INTERNET) -> UserLimits:
    try:
        return effective_limits(msgspec.json.decode(stored, type=NamespaceLimits), platform, network)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        # a malformed record as a whole falls back to the defaults, as in OpenWhisk
        return effective_limits(NamespaceLimits(), platform, network)


def effective_limits(own: NamespaceLimits, platform: Limits, network: Policy = INTERNET) -> UserLimits:
    """What a namespace may do: its own limits within the system's; raises `ValueError` for what cannot be meant."""
    system = LimitRanges(concurrency=Range(1, platform.concurrency, 1))
    payload_bytes = _at_most(own.max_payload_size, PAYLOAD_LIMIT_BYTES)
    shown_bytes = _at_most(own.truncation_size, RESULT_LIMIT_BYTES)
    narrowing = (
        own.min_action_memory,
        own.max_action_memory,
        own.min_action_timeout,
        own.max_action_timeout,
        own.min_action_logs,
        own.max_action_logs,
        own.min_action_concurrency,
        own.max_action_concurrency,
    )
    own_only = {
        "storeActivations": own.store_activations,
        "maxPayloadSize": None if own.max_payload_size is None else render_byte_size(payload_bytes),
        "truncationSize": None if own.truncation_size is None else render_byte_size(shown_bytes),
        "warmedContainerKeepingCount": own.warmed_container_keeping_count,
        "warmedContainerKeepingTimeout": own.warmed_container_keeping_timeout,
        "retentionDays": own.retention_days,
        "network": own.network,
    }
    return UserLimits(
        invocations_per_minute=_or(own.invocations_per_minute, platform.invocations_per_minute),
        fires_per_minute=_or(own.fires_per_minute, platform.fires_per_minute),
        concurrent_invocations=_or(own.concurrent_invocations, platform.concurrent_invocations),
        ranges=LimitRanges(
            timeout_ms=_narrow(system.timeout_ms, own.min_action_timeout, own.max_action_timeout),
            memory_mb=_narrow(system.memory_mb, own.min_action_memory, own.max_action_memory),
            logs_mb=_narrow(system.logs_mb, own.min_action_logs, own.max_action_logs),
            concurrency=_narrow(system.concurrency, own.min_action_concurrency, own.max_action_concurrency),
        ),
        parameters_bytes=_at_most(own.max_parameter_size, PARAMETERS_LIMIT_BYTES),
        payload_bytes=payload_bytes,
        answers=AnswerLimits(min(payload_bytes, RESULT_LIMIT_BYTES), shown_bytes),
        are_narrowed=any(field is not None for field in narrowing),
        allowed_kinds=frozenset(own.allowed_kinds or ()),
        is_storing=own.store_activations is not False,
        retention_days=own.retention_days,
        network=network if own.network is None else parse_policy(own.network),
        follow=follow.merged(follow.Follow(retry=own.retry, dead_letter="" if own.dead_letter else None)),
        own={name: value for name, value in own_only.items() if value is not None},
    )


def _or(own: int | None, default: int) -> int:
    return default if own is None else own


def _at_most(own: str | None, system_bytes: int) -> int:
    return system_bytes if own is None else min(parse_byte_size(own), system_bytes)


def _narrow(system: Range, low: int | None, high: int | None) -> Range:
    """A namespace's range lies within the system's."""
    return Range(max(system.low, _or(low, system.low)), min(system.high, _or(high, system.high)), system.default)


def record_of(auth: AuthKey, secret: bytes, *, subject: str, namespace: str) -> KeyRecord:
    """What is stored of a pair."""
    return KeyRecord(
        uuid=auth.uuid,
        digest=digest(auth, secret),
        sealed=seal(auth.key, secret),
        subject=subject,
        namespace=namespace,
    )


def pair_of(record: KeyRecord, secret: bytes) -> AuthKey:
    """The pair again."""
    return AuthKey(record.uuid, unseal(record.sealed, secret))


def seal(key: str, secret: bytes) -> bytes:
    """The key encrypted (AES-256-GCM) under the server's secret: nonce, then ciphertext and tag."""
    import secrets

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(_sealing_key(secret)).encrypt(nonce, key.encode(), b"visp-key")


def unseal(sealed: bytes, secret: bytes) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_sealing_key(secret)).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], b"visp-key").decode()


def opens(sealed: bytes, secret: bytes) -> bool:
    """Whether this is the secret under which a key was sealed."""
    from cryptography.exceptions import InvalidTag

    try:
        unseal(sealed, secret)
    except (InvalidTag, ValueError):
        return False
    return True


def _sealing_key(secret: bytes) -> bytes:
    return hashlib.sha256(b"seal:" + secret).digest()
