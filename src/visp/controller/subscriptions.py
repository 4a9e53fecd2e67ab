"""Who may call which API of the gateway: clients by their id, some with a secret.

Ids are looked up by a keyed digest, secrets are kept as one alone; so the table tells nobody a secret, and how long a
look-up takes tells nobody an id.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from visp import wording
from visp.errors import BadRequest, Throttled
from visp.store.base import Subscription

if TYPE_CHECKING:
    from visp.store.base import SubscriptionStore

SUBSCRIPTIONS_LIMIT = 10_000
"""Of a namespace."""
LENGTH_LIMIT = 512
"""Of an id, and of a secret."""
_NO_SECRET = hashlib.sha256(b"").digest()


class Subscriptions:
    """`secret` is the server's own, under which digests are made."""

    def __init__(self, store: SubscriptionStore, secret: bytes) -> None:
        self._store = store
        self._secret = hashlib.sha256(b"subscriptions:" + secret).digest()

    async def add(self, namespace: str, base_path: str, client: str, client_secret: str | None) -> None:
        """Raises `BadRequest` for what is no id or secret, `Throttled` when the namespace has too many."""
        for text in (client, client_secret):
            if text is not None and not 0 < len(text) <= LENGTH_LIMIT:
                raise BadRequest(wording.bad_client(LENGTH_LIMIT))
        subscription = Subscription(
            namespace=namespace,
            base_path=base_path,
            digest=self._digest("id", namespace, base_path, client),
            client=client,
            secret=b"" if client_secret is None else self._of_secret(namespace, base_path, client, client_secret),
        )
        if not await self._store.put_subscription(subscription, SUBSCRIPTIONS_LIMIT):
            raise Throttled(wording.too_many_subscriptions(SUBSCRIPTIONS_LIMIT))

    async def clients(self, namespace: str, base_path: str) -> list[str]:
        """Ids, in their order."""
        return [held.client for held in await self._store.subscriptions(namespace, base_path)]

    async def drop(self, namespace: str, base_path: str, client: str) -> bool:
        """Whether there was one."""
        digest = self._digest("id", namespace, base_path, client)
        return await self._store.drop_subscription(namespace, base_path, digest)

    async def drop_all(self, namespace: str, base_path: str) -> None:
        """The API is gone: one that comes after it under the same path begins without clients."""
        await self._store.drop_subscription(namespace, base_path, None)

    async def has(self, namespace: str, base_path: str, client: str) -> bool:
        """Whether the client may call the API, by its id alone."""
        return await self._find(namespace, base_path, client) is not None

    async def knows(self, namespace: str, base_path: str, client: str, client_secret: str) -> bool:
        """The same by id and secret; a client that was given none has none that fits."""
        held = await self._find(namespace, base_path, client)
        given = self._of_secret(namespace, base_path, client, client_secret[:LENGTH_LIMIT])
        expected = held.secret if held is not None and held.secret else _NO_SECRET
        return hmac.compare_digest(given, expected) and len(client_secret) <= LENGTH_LIMIT

    async def _find(self, namespace: str, base_path: str, client: str) -> Subscription | None:
        if not 0 < len(client) <= LENGTH_LIMIT:
            return None
        digest = self._digest("id", namespace, base_path, client)
        return await self._store.subscription(namespace, base_path, digest)

    def _of_secret(self, namespace: str, base_path: str, client: str, client_secret: str) -> bytes:
        return self._digest("secret", namespace, base_path, client, client_secret)

    def _digest(self, *parts: str) -> bytes:
        """HMAC of the parts, each with its length before it: no two lists of parts have the same bytes."""
        made = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in parts:
            raw = part.encode("utf-8", "surrogateescape")
            made.update(len(raw).to_bytes(4, "big") + raw)
        return made.digest()
