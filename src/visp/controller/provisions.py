"""Tells the invoker of this process which actions that are at home here are to have containers ready, and how many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from visp.bus import base as topics
from visp.bus.messages import EntityChanged, Provide
from visp.controller.invoke import Invocation
from visp.entity.action import Action
from visp.entity.package import Package
from visp.entity.provision import PROVISION, parse
from visp.errors import BadRequest, Corrupt, RequestError, ServiceError
from visp.scheduler.placement import home_of
from visp.store.cache import from_document
from visp.telemetry import log, transid

if TYPE_CHECKING:
    from visp.bus.base import Bus
    from visp.bus.messages import Message
    from visp.clock import Clock
    from visp.controller.identities import Identities
    from visp.controller.invoke import Invoke
    from visp.controller.resolver import Resolver
    from visp.store.cache import EntityCache

PAGE = 200
AGAIN_S = 30.0


class Provisions:
    """Looks through all actions once, then at what is written. `run` it in a task."""

    def __init__(
        self,
        *,
        entities: EntityCache,
        identities: Identities,
        resolver: Resolver,
        invoke: Invoke,
        bus: Bus,
        clock: Clock,
        shard: int,
        shards: int,
    ) -> None:
        self._entities = entities
        self._identities = identities
        self._resolver = resolver
        self._invoke = invoke
        self._bus = bus
        self._clock = clock
        self._shard = shard
        self._shards = range(shards)
        self._told: set[str] = set()
        """Actions of which the invoker has been told."""
        self._changed: dict[str, None] = {}
        self._is_changed = asyncio.Event()
        bus.subscribe(topics.ENTITIES, self._heard)

    def _heard(self, message: Message) -> None:
        """Most that is written concerns nobody here."""
        assert isinstance(message, EntityChanged)
        entity = self._entities.peek(message.id)
        if message.id not in self._told and isinstance(entity, Action) and PROVISION not in entity.annotations:
            return
        self._changed[message.id] = None
        self._is_changed.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._look_through()
        while True:
            await self._is_changed.wait()
            self._is_changed.clear()
            changed, self._changed = self._changed, {}
            for id in changed:
                try:
                    await self._look_at(id)
                except ServiceError as error:
                    log.warning("provision.not_read", id=id, reason=str(error))
                    self._changed[id] = None
            if self._changed:
                await self._clock.sleep(AGAIN_S)
                self._is_changed.set()

    async def _look_through(self) -> None:
        after = ""
        while True:
            try:
                page = await self._entities.store.scan("actions", after, PAGE)
            except ServiceError as error:
                log.warning("provision.not_read", id="actions", reason=str(error))
                await self._clock.sleep(AGAIN_S)
                continue
            if not page:
                return
            for document in page:
                if PROVISION.encode() not in document.body:
                    continue
                try:
                    action = from_document(document)
                except Corrupt:
                    continue
                if isinstance(action, Action) and PROVISION in action.annotations:
                    self._changed[document.id] = None
                    self._is_changed.set()
            after = page[-1].id

    async def _look_at(self, id: str) -> None:
        entity = await self._entities.get(id)
        if isinstance(entity, Package):
            for action in [told for told in self._told if told.startswith(f"{id}/")]:
                self._changed[action] = None  # its parameters may be among those given at initialisation
                self._is_changed.set()
        elif isinstance(entity, Action) and home_of(self._shards, entity.name.namespace, id) == self._shard:
            await self._tell(entity)
        elif id in self._told:
            self._told.discard(id)
            self._bus.publish(topics.invoker_topic(self._shard), Provide(id, 0))

    async def _tell(self, action: Action) -> None:
        """What its own namespace would run."""
        id, count = action.name.id, 0
        identity = await self._identities.owner_of(action.name.namespace)
        try:
            count = parse(action.annotations, action.limits)
        except BadRequest:  # it was stored before the annotation meant anything
            log.warning("provision.not_meant", action=id)
        if count == 0 or identity is None:
            if id in self._told:
                self._told.discard(id)
                self._bus.publish(topics.invoker_topic(self._shard), Provide(id, 0))
            return
        try:
            resolved = await self._resolver.resolve(identity, action.name)
            message = self._invoke.message(
                Invocation(
                    identity=identity,
                    action=resolved.action,
                    body=b"{}",
                    transid=transid.new(),
                    received_ms=self._clock.now_ms(),
                    resolved=resolved,
                )
            )
        except RequestError as error:
            log.warning("provision.not_possible", action=id, reason=str(error))
            return
        self._told.add(id)
        self._bus.publish(topics.invoker_topic(self._shard), Provide(id, count, message))
