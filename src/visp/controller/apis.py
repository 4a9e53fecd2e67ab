"""APIs of the gateway: made, changed and deleted over their store, and held in memory by namespace.

What is held is dropped when any of the namespace's APIs changes, on whichever shard. Bounded: beyond the limits those
of the namespace that was read first go first.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from visp import wording
from visp.entity import api as apis
from visp.entity.api import APIS_LIMIT, NAMESPACE_BYTES, Api
from visp.errors import ApiRefused, Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from visp.clock import Clock
    from visp.entity.apidoc import Given
    from visp.store.base import ApiStore

CACHED_NAMESPACES = 10_000
CACHED_BYTES = 4 * NAMESPACE_BYTES
TRIES = 10
"""Of a change that other shards come before."""


class Apis:
    """The APIs of all namespaces; `peek` is what the hot path uses."""

    def __init__(self, store: ApiStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[str, tuple[Api, ...]] = {}
        self._held_bytes = 0
        self._changes = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._renewed: Callable[[str, str], Awaitable[None]] | None = None

    def when_renewed(self, then: Callable[[str, str], Awaitable[None]]) -> None:
        """`then` is given namespace and base path of each API that is gone, and of each that is new there."""
        self._renewed = then

    def peek(self, namespace: str) -> tuple[Api, ...] | None:
        """What is in memory of a namespace."""
        return self._held.get(namespace)

    async def of(self, namespace: str) -> tuple[Api, ...]:
        """All APIs of a namespace, by base path."""
        held = self._held.get(namespace)
        if held is not None:
            return held
        changes = self._changes
        found = tuple(await self._store.of(namespace))
        if changes == self._changes:  # else a change that we did not read may have ended meanwhile
            self._keep(namespace, found)
        return found

    def heard(self, id: str) -> None:
        """Something of this id was written, by whichever shard: an entity, or an API."""
        namespace = apis.namespace_of(id)
        if namespace is not None:
            self._forget(namespace)

    def clear(self) -> None:
        """Drops all that is held: changes may have been missed."""
        self._changes += 1
        self._held.clear()
        self._held_bytes = 0

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, namespace: str, given: Given) -> Api:
        """The API that came of it: what was there with the endpoint, or the document alone. Raises `ApiRefused`."""
        async with self._lock(namespace):
            for _ in range(TRIES):
                found = await self.of(namespace)
                try:
                    api, replaced = await asyncio.to_thread(made, found, namespace, given, self._clock.now_ms())
                except ApiRefused as error:
                    raise ApiRefused(wording.api_not_created(error.sentence)) from None
                if await self._put(api, replaced):
                    if replaced is None:
                        await self._tell(api)
                    return api
        raise ApiRefused(wording.api_not_created(wording.API_CHANGED))

    async def delete(self, namespace: str, name: str, path: str | None, verb: str | None) -> None:
        """An API by base path or title, a path of it, or one operation of that. Raises `ApiRefused`."""
        async with self._lock(namespace):
            for _ in range(TRIES):
                found = apis.named(await self.of(namespace), name)
                try:
                    if not found:
                        raise ApiRefused(wording.no_such_api(name))
                    left = None if path is None else await asyncio.to_thread(_without, found[0], path, verb)
                except ApiRefused as error:
                    raise ApiRefused(wording.api_not_deleted(error.sentence)) from None
                if left is None:
                    is_done = await self._delete(found[0])
                    if is_done:
                        await self._tell(found[0])
                else:
                    api = apis.api_of(namespace, left, self._clock.now_ms())
                    is_done = await self._put(api, found[0])
                if is_done:
                    return
        raise ApiRefused(wording.api_not_deleted(wording.API_CHANGED))

    def _lock(self, namespace: str) -> asyncio.Lock:
        """Changes of one namespace come one after another: it is other shards alone that can be in the way."""
        return self._locks.setdefault(namespace, asyncio.Lock())

    async def _put(self, api: Api, replaced: Api | None) -> bool:
        return await self._changed(api, self._store.put(api, None if replaced is None else replaced.revision))

    async def _tell(self, api: Api) -> None:
        if self._renewed is not None:
            await self._renewed(api.namespace, api.base_path)

    async def _delete(self, api: Api) -> bool:
        return await self._changed(api, self._store.delete(api))

    async def _changed(self, api: Api, write: Coroutine[Any, Any, object]) -> bool:
        """Whether nobody else came before.

        A caller that is cancelled leaves it to end by itself: what was committed must not be hidden by what is held.
        """

        async def end() -> bool:
            try:
                await write
            except Conflict:
                return False
            finally:
                self._forget(api.namespace)
            return True

        return await asyncio.shield(asyncio.ensure_future(end()))

    # ── what is held ────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self, namespace: str, found: tuple[Api, ...]) -> None:
        self._drop(namespace)
        self._held[namespace] = found
        self._held_bytes += _bytes(found)
        while len(self._held) > CACHED_NAMESPACES or (self._held_bytes > CACHED_BYTES and len(self._held) > 1):
            self._drop(next(iter(self._held)))

    def _forget(self, namespace: str) -> None:
        self._changes += 1
        self._drop(namespace)

    def _drop(self, namespace: str) -> None:
        gone = self._held.pop(namespace, None)
        if gone is not None:
            self._held_bytes -= _bytes(gone)


def _bytes(found: Sequence[Api]) -> int:
    return sum(api.size_bytes for api in found)


# ── decisions ───────────────────────────────────────────────────────────────────────────────────────────────────


def made(found: Sequence[Api], namespace: str, given: Given, now_ms: int) -> tuple[Api, Api | None]:
    """The API that is asked for, and the one of `found` that it replaces. Pure; raises `ApiRefused`."""
    if given.endpoint is not None:
        name = given.endpoint.base_path
        same = apis.named(found, name) or apis.named(found, apis.normal_base_path(name))
        document = apis.with_endpoint(same[0].document if same else None, given.endpoint)
    else:
        assert given.document is not None
        document = given.document
    if not given.is_gateways:
        apis.check_swagger(document)
    api = apis.api_of(namespace, document, now_ms)
    replaced = next((one for one in found if one.base_path == api.base_path), None)
    if replaced is None and len(found) >= APIS_LIMIT:
        raise ApiRefused(wording.too_many_apis(APIS_LIMIT))
    others = _bytes(found) - (0 if replaced is None else replaced.size_bytes)
    if others + api.size_bytes > NAMESPACE_BYTES:
        raise ApiRefused(wording.apis_too_large(NAMESPACE_BYTES))
    return api, replaced


def _without(api: Api, path: str, verb: str | None) -> apis.Document | None:
    return apis.without(api.document, path, verb)
