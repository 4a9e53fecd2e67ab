"""Idempotency keys: a request that comes again with its key gets the answer of the first, for a day.

What a key stands for is stored before the work is accepted. So of a request that was cut off by a crash the key knows
the id: if the ledger has heard of it, that is the answer, and if not, the work begins under it now.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.controller.primitive import Accepted, Answer, Finished
from visp.errors import Conflict, Overloaded, RequestError, ServiceError, Throttled
from visp.store.base import Promise
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from visp.clock import Clock
    from visp.entity.subject import Identity
    from visp.settings import Queue
    from visp.store.base import ActivationStore, PromiseStore

KEPT_MS = 86_400_000
KEY_LIMIT = 255
BEGINNING_MS = 5_000
"""How long after a promise its work is in a ledger, or its server was killed before that."""
SWEEP_S = 600.0


class Keyed(msgspec.Struct, frozen=True):
    """What a key is good for: `scope` is the hash of namespace, request and key, `body` that of the body."""

    scope: bytes
    body: bytes


def keyed(identity: Identity, request: str, key: str, body: bytes) -> Keyed:
    """`request` is the method, the path and whatever of the query shapes the answer. Raises `RequestError`."""
    if not 1 <= len(key) <= KEY_LIMIT or not key.isascii() or not key.isprintable():
        raise RequestError(wording.bad_idempotency_key(KEY_LIMIT))
    scope = hashlib.sha256("\0".join((identity.namespace_uuid, request, key)).encode()).digest()
    return Keyed(scope, hashlib.sha256(body).digest())


class Idempotency:
    """The one place that knows what was promised under which key."""

    def __init__(
        self,
        *,
        promises: PromiseStore,
        activations: ActivationStore,
        clock: Clock,
        limits: Queue,
    ) -> None:
        self._promises = promises
        self._activations = activations
        self._clock = clock
        self._limits = limits
        self._in_flight: dict[bytes, tuple[bytes, asyncio.Future[Answer]]] = {}

    async def answer(
        self, identity: Identity, asked: Keyed, new_id: Callable[[], str], begin: Callable[[str], Awaitable[Answer]]
    ) -> Answer:
        """The answer of the first request with this key; `begin` makes it, under the id that it is given.

        Raises `Conflict` for another body, `Throttled` when the namespace has too many keys, and what `begin` raises,
        which leaves nothing behind.
        """
        running = self._in_flight.get(asked.scope)
        if running is None:
            run = asyncio.ensure_future(self._answer(identity, asked, new_id, begin))
            running = self._in_flight[asked.scope] = asked.body, run
            run.add_done_callback(lambda done: self._over(asked, done))
        _check_body(running[0], asked)
        return await asyncio.shield(running[1])  # it goes on without its caller: another may wait

    def _over(self, asked: Keyed, done: asyncio.Future[Answer]) -> None:
        del self._in_flight[asked.scope]
        if not done.cancelled():
            done.exception()  # perhaps nobody waits any more

    async def _answer(
        self, identity: Identity, asked: Keyed, new_id: Callable[[], str], begin: Callable[[str], Awaitable[Answer]]
    ) -> Answer:
        now_ms = self._clock.now_ms()
        promise = await self._promises.promise(asked.scope, now_ms - KEPT_MS)
        own_id = None
        if promise is None:
            own_id, limit = new_id(), self._limits.idempotency_keys
            own = Promise(body=asked.body, id=own_id, at_ms=now_ms)
            promise = await self._promises.put_promise(asked.scope, identity.namespace, own, now_ms - KEPT_MS, limit)
            if promise is None:
                raise Throttled(wording.too_many_keys(limit))
        if promise.id != own_id:
            _check_body(promise.body, asked)
            if await self._activations.is_open(promise.id):
                return Accepted(promise.id)
            record = await self._activations.get(identity.namespace, promise.id)
            if record is not None:
                return Finished(record.head, record.result, record.logs if record.head.kind == "sequence" else ())
            if 0 <= now_ms - promise.at_ms < BEGINNING_MS:
                raise Overloaded(wording.KEY_IN_FLIGHT, 1)  # another shard has it, and has not begun yet
        try:
            return await begin(promise.id)
        except (RequestError, ServiceError):
            await self._promises.drop_promise(asked.scope)
            raise

    async def sweep(self) -> None:
        """Forgets old keys; runs as long as the server does."""
        while True:
            await self._clock.sleep(SWEEP_S)
            try:
                await self._promises.sweep_promises(self._clock.now_ms() - KEPT_MS)
            except ServiceError as error:
                log.warning("idempotency.not_swept", reason=str(error))


def _check_body(body: bytes, asked: Keyed) -> None:
    if body != asked.body:
        raise Conflict(wording.KEY_REUSED)
