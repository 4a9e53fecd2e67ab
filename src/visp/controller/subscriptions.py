"""Who may call which API of the gateway: clients by their id, some with a secret.

Ids are looked up by a keyed digest, secrets are kept as one alone; so the table tells nobody a secret, and how long a
look-up takes tells nobody an id. The digest of a secret moves to another server with the key that it was made under,
which is sealed there.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.controller.identities import opens, seal, unseal
from visp.entity.gateway import API_SCOPE, RESOURCE_SCOPE, TENANT_SCOPE
from visp.entity.portable import ClientDocument
from visp.errors import BadRequest, Refused, Throttled
from visp.store.base import WITHIN, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.controller.abroad import Links
    from visp.store.base import SubscriptionStore

SUBSCRIPTIONS_LIMIT = 10_000
"""Of a namespace."""
CACHED_LIMIT = 10_000
"""Of all namespaces; when it is full it is emptied."""
CHANGED = "gateway.clients"
LENGTH_LIMIT = 512
"""Of an id, and of a secret."""
DIGEST_BYTES = 32
NO_KEY = b""
"""Under which nothing was made: of what another secret has sealed."""
ORIGINS = 100
"""Other servers' keys that are kept open; when there are more all are opened anew."""
_NO_SECRET = hashlib.sha256(b"").digest()

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str]).decode


def place_of(scope: str, base_path: str, path: str) -> str | None:
    """Where the clients of a scope are kept, in the place of an API's base path; None for a scope that there is not.

    Nothing that begins otherwise than with a slash is a base path. Those of a resource go with its API.
    """
    if scope == TENANT_SCOPE:
        return ""
    if scope == RESOURCE_SCOPE:
        return base_path + WITHIN + path
    return base_path if scope == API_SCOPE else None


class Subscriptions:
    """`secret` is the server's own, under which digests are made. Made before the links open, if there are any."""

    def __init__(self, store: SubscriptionStore, secret: bytes, links: Links | None = None) -> None:
        self._store = store
        self._links = links
        self._held: dict[tuple[str, str, str], Subscription] = {}
        """By namespace, base path and id."""
        self._changes = 0
        if links is not None:
            links.answer(CHANGED, self._heard)
            for hear in (links.when_up, links.when_down):
                hear(lambda _: self.clear())
        self._secret = secret
        self._key = key_of(secret)
        self._origins: dict[bytes, bytes] = {}
        """Keys of other servers, by how they are sealed."""

    async def add(self, namespace: str, base_path: str, client: str, client_secret: str | None) -> None:
        """Raises `BadRequest` for what is no id or secret, `Throttled` when the namespace has too many."""
        for text in (client, client_secret):
            if text is not None and not 0 < len(text) <= LENGTH_LIMIT:
                raise BadRequest(wording.bad_client(LENGTH_LIMIT))
        subscription = Subscription(
            namespace=namespace,
            base_path=base_path,
            digest=_of_id(self._key, namespace, base_path, client),
            client=client,
            secret=b"" if client_secret is None else _of_secret(self._key, namespace, base_path, client, client_secret),
        )
        if not await self._store.put_subscription(subscription, SUBSCRIPTIONS_LIMIT):
            raise Throttled(wording.too_many_subscriptions(SUBSCRIPTIONS_LIMIT))
        await self._changed(namespace, base_path)

    async def clients(self, namespace: str, base_path: str) -> list[str]:
        """Ids, in their order."""
        return [held.client for held in await self._store.subscriptions(namespace, base_path)]

    async def drop(self, namespace: str, base_path: str, client: str) -> bool:
        """Whether there was one."""
        digest = _of_id(self._key, namespace, base_path, client)
        is_gone = await self._store.drop_subscription(namespace, base_path, digest)
        await self._changed(namespace, base_path)
        return is_gone

    async def drop_all(self, namespace: str, base_path: str) -> None:
        """The API is gone: one that comes after it under the same path begins without clients."""
        await self._store.drop_subscription(namespace, base_path, None)
        await self._changed(namespace, base_path)

    def peek(self, namespace: str, base_path: str, client: str) -> Subscription | None:
        """What is in memory of a client."""
        return self._held.get((namespace, base_path, client))

    async def find(self, namespace: str, base_path: str, client: str) -> Subscription | None:
        """A client that may call the API, by its id alone."""
        if not 0 < len(client) <= LENGTH_LIMIT:
            return None
        key = (namespace, base_path, client)
        held = self._held.get(key)
        if held is not None:
            return held
        changes = self._changes
        found = await self._store.subscription(namespace, base_path, _of_id(self._key, *key))
        if found is not None and changes == self._changes:  # else it may have been dropped while it was read
            if len(self._held) >= CACHED_LIMIT:
                self._held.clear()
            self._held[key] = found
        return found

    def is_secret(self, held: Subscription | None, client_secret: str) -> bool:
        """Whether it is the client's secret; a client that was given none, or is none, has none that fits."""
        api = ("", "", "") if held is None else (held.namespace, held.base_path, held.client)
        key = self._key if held is None else self._key_of(held)
        given = _of_secret(key, *api, client_secret[:LENGTH_LIMIT])
        expected = held.secret[:DIGEST_BYTES] if held is not None and held.secret else _NO_SECRET
        return hmac.compare_digest(given, expected) and len(client_secret) <= LENGTH_LIMIT

    # ── what is held ────────────────────────────────────────────────────────────────────────────────────────────

    async def _changed(self, namespace: str, base_path: str) -> None:
        """Nothing that is held of an API, or of its paths, is believed any more, on whichever shard."""
        self._forget(namespace, base_path)
        if self._links is not None:
            await self._links.tell_all(CHANGED, _encode((namespace, base_path)))

    def _forget(self, namespace: str, base_path: str) -> None:
        self._changes += 1
        self._held = {
            key: held
            for key, held in self._held.items()
            if held.namespace != namespace or not (held.base_path + WITHIN).startswith(base_path + WITHIN)
        }

    def _heard(self, _: int, body: bytes, reply: Callable[[bytes | None], None]) -> None:
        self._forget(*_decode(body))
        reply(b"")

    def clear(self) -> None:
        """Drops all that is held: changes may have been missed."""
        self._changes += 1
        self._held.clear()

    def _key_of(self, held: Subscription) -> bytes:
        """The key under which its secret's digest was made."""
        sealed = held.secret[DIGEST_BYTES:]
        if not sealed:
            return self._key
        key = self._origins.get(sealed)
        if key is None:
            key = bytes.fromhex(unseal(sealed, self._secret)) if opens(sealed, self._secret) else NO_KEY
            if len(self._origins) >= ORIGINS:
                self._origins.clear()
            self._origins[sealed] = key
        return key


# ── what moves ──────────────────────────────────────────────────────────────────────────────────────────────────


def key_of(secret: bytes) -> bytes:
    """The key of digests, of a server's own secret, which it does not tell."""
    return hashlib.sha256(b"subscriptions:" + secret).digest()


def leaving(held: Subscription, secret: bytes | None) -> ClientDocument:
    """A client as it travels, of the server with this secret; None leaves the digest behind. Raises `Refused`."""
    if secret is None or not held.secret:
        return ClientDocument(held.namespace, held.base_path, held.client)
    sealed = held.secret[DIGEST_BYTES:]
    if sealed and not opens(sealed, secret):
        raise Refused(f"the secret does not open what is kept of the client {held.client}")
    key = unseal(sealed, secret) if sealed else key_of(secret).hex()
    return ClientDocument(held.namespace, held.base_path, held.client, held.secret[:DIGEST_BYTES].hex(), key)


def arriving(found: ClientDocument, secret: bytes) -> Subscription:
    """What the server with this secret keeps of a client that came. Raises `Refused`."""
    if not 0 < len(found.client) <= LENGTH_LIMIT:
        raise Refused(wording.bad_client(LENGTH_LIMIT))
    digest, own = bytes.fromhex(found.secret), key_of(secret)
    if digest and not hmac.compare_digest(found.key, own.hex()):
        digest += seal(found.key, secret)
    return Subscription(
        namespace=found.namespace,
        base_path=found.base_path,
        digest=_of_id(own, found.namespace, found.base_path, found.client),
        client=found.client,
        secret=digest,
    )


# ── digests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_id(key: bytes, namespace: str, base_path: str, client: str) -> bytes:
    return _digest(key, "id", namespace, base_path, client)


def _of_secret(key: bytes, namespace: str, base_path: str, client: str, client_secret: str) -> bytes:
    return _digest(key, "secret", namespace, base_path, client, client_secret)


def _digest(key: bytes, *parts: str) -> bytes:
    """HMAC of the parts, each with its length before it: no two lists of parts have the same bytes."""
    raw = [part.encode("utf-8", "surrogateescape") for part in parts]
    return hmac.digest(key, b"".join(len(part).to_bytes(4, "big") + part for part in raw), "sha256")
