"""Put, get, delete and list of entities: one generic flow, and what is particular to each collection.

Every write is conditional on the revision that was read; who loses the race gets 409 and may try again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from visp import wording
from visp.controller.resolver import package_of
from visp.entitlement import rights
from visp.entity import action as actions
from visp.entity import execs, follow, keeping, network, provision
from visp.entity import rule as rules
from visp.entity import trigger as triggers
from visp.entity.action import Action, ActionPut
from visp.entity.execs import INLINE_CODE_BYTES, Code, CodeExec, Exec, SequenceExec
from visp.entity.limits import CODE_LIMIT_BYTES, SEQUENCE_LIMIT, check_ranges, merge_limits
from visp.entity.package import Package
from visp.entity.parameters import check_size
from visp.entity.rule import Rule
from visp.entity.trigger import RuleLink, RuleStatus, Trigger
from visp.errors import BadRequest, Conflict, Corrupt, Forbidden, NotFound
from visp.store.cache import Remove, Write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from visp.clock import Clock
    from visp.controller.resolver import Resolver
    from visp.entity.locking import Locks
    from visp.entity.names import FullyQualifiedName
    from visp.entity.parameters import Parameters
    from visp.entity.runtime_manifest import Manifest
    from visp.entity.subject import Identity
    from visp.store.base import BlobStore, EntityQuery
    from visp.store.cache import Entity, EntityCache

E = TypeVar("E", Action, Trigger, Rule, Package)


class Crud:
    """What requests about entities mean. Rights to the entity itself were checked by the caller."""

    def __init__(
        self,
        *,
        entities: EntityCache,
        resolver: Resolver,
        blobs: BlobStore,
        manifest: Manifest,
        locks: Locks,
        clock: Clock,
    ) -> None:
        self._entities = entities
        self._resolver = resolver
        self._blobs = blobs
        self._manifest = manifest
        self._locks = locks
        self._clock = clock

    # ── the generic flow ────────────────────────────────────────────────────────────────────────────────────────

    async def get(self, kind: type[E], name: FullyQualifiedName) -> E:
        """The entity; raises `NotFound`, or `Conflict` when something of another collection has the id."""
        found = await self.find(kind, name)
        if found is None:
            raise NotFound()
        return found

    async def find(self, kind: type[E], name: FullyQualifiedName) -> E | None:
        found = await self._entities.get(name.id)
        if found is not None and not isinstance(found, kind):
            raise Conflict(wording.WRONG_COLLECTION)
        return found

    async def find_for_put(self, kind: type[E], name: FullyQualifiedName, *, overwrite: bool) -> E | None:
        """The entity that a PUT would replace; raises `Conflict` when it may not."""
        found = await self.find(kind, name)
        if found is not None and not overwrite:
            raise Conflict(wording.ALREADY_EXISTS)
        return found

    async def list(self, kind: type[E], query: EntityQuery) -> list[E]:
        return [entity for entity in await self._entities.list(query) if isinstance(entity, kind)]

    async def count(self, query: EntityQuery) -> int:
        """How many there are after the query's `skip`."""
        return max(0, await self._entities.store.count(query) - query.skip)

    # ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def read_action(self, identity: Identity, body: bytes) -> ActionPut:
        """What a body asks for; raises `RequestError`. It is not needed any more, which is worth something: it may be
        long, and most of it is code.
        """
        execs.check_sent_size(body, CODE_LIMIT_BYTES)
        put = actions.parse_put(body, self._manifest, identity.namespace)
        if put.exec is not None:
            execs.check_size(put.exec, CODE_LIMIT_BYTES)
        check_sizes(identity, put.parameters, put.annotations)
        check_ranges(merge_limits(None, put.limits), identity.limits.ranges)
        return put

    async def put_action(
        self,
        identity: Identity,
        name: FullyQualifiedName,
        put: ActionPut,
        *,
        overwrite: bool,
        build: Callable[[Exec], Awaitable[None]] | None = None,
    ) -> Action:
        """Creates or updates; the stored action. `build` comes before it is stored, if there is code. Raises
        `RequestError`, and what `build` raises.
        """
        if isinstance(put.exec, SequenceExec):
            await self._check_references(identity, *put.exec.components)
        if put.exec is not None:
            rights.check_kind(identity, put.exec.kind)
        if put.parameters:
            put = msgspec.structs.replace(put, parameters=self._locks.lock(put.parameters))
        old = await self.find_for_put(Action, name, overwrite=overwrite)
        now_ms = self._clock.now_ms()
        new = actions.create(name, put, now_ms) if old is None else actions.update(old, put, now_ms)
        keeping.parse(new.annotations)
        provision.parse(new.annotations, new.limits)
        follow.parse(new.annotations, name.namespace)  # what cannot be meant is refused now, not when it fails
        network.check_annotation(new.annotations, identity.limits.network)
        self._check_kind_is_offered(new.exec)
        if isinstance(put.exec, SequenceExec):
            await self._check_sequence(identity, name, put.exec)
        instances = new.limits.instances
        if instances is not None and instances > identity.limits.concurrent_invocations:
            raise BadRequest(wording.too_many_instances(identity.limits.concurrent_invocations))
        new = msgspec.structs.replace(new, exec=await self._store_code(new.exec))
        if put.exec is not None and build is not None:
            await build(new.exec)
        await self._entities.write(Write(new, None if old is None else old.revision))
        return new

    def _check_kind_is_offered(self, exec: Exec) -> None:
        entry = self._manifest.find(exec.kind) if isinstance(exec, CodeExec) else None
        if entry is not None and entry.deprecated:
            raise BadRequest(wording.deprecated_kind(entry.kind))

    async def _store_code(self, exec: Exec) -> Exec:
        """Large code becomes a blob, small code stays in the document."""
        code = exec.code
        if isinstance(exec, SequenceExec) or code is None or code.inline is None:
            return exec
        try:
            content = code.inline.encode()
        except UnicodeEncodeError:
            raise BadRequest(wording.malformed_content("code holds characters that are no text")) from None
        if len(content) <= INLINE_CODE_BYTES:
            return exec
        stored = Code(code.is_binary, blob=await self._blobs.put(content))
        return msgspec.structs.replace(exec, code=stored)

    async def _check_sequence(self, identity: Identity, name: FullyQualifiedName, exec: SequenceExec) -> None:
        """Components exist, do not lead back to the sequence, and are not too many once nested sequences are
        unfolded.
        """
        if not exec.components:
            raise BadRequest(wording.SEQUENCE_EMPTY)
        if len(exec.components) > SEQUENCE_LIMIT:
            raise BadRequest(wording.SEQUENCE_TOO_LONG)
        parts: dict[FullyQualifiedName, tuple[FullyQualifiedName, ...]] = {name: exec.components}
        waiting = list(exec.components)
        while waiting:
            component = waiting.pop()
            if component == name:
                raise BadRequest(wording.SEQUENCE_CYCLIC)
            if component not in parts:
                parts[component] = await self._parts_of(identity, component, name)
                waiting += parts[component]
        if has_more_atomic(parts, name, SEQUENCE_LIMIT):
            raise BadRequest(wording.SEQUENCE_TOO_LONG)

    async def _parts_of(
        self, identity: Identity, component: FullyQualifiedName, whole: FullyQualifiedName
    ) -> tuple[FullyQualifiedName, ...]:
        """What a component is made of: nothing, unless it is a sequence.

        Raises `BadRequest` when it does not exist, and when it is the whole by another name.
        """
        try:
            action = (await self._resolver.resolve(identity, component)).action
        except (NotFound, Conflict):
            raise BadRequest(wording.SEQUENCE_COMPONENT_MISSING) from None
        if action.name == whole:
            raise BadRequest(wording.SEQUENCE_CYCLIC)
        return action.exec.components if isinstance(action.exec, SequenceExec) else ()

    async def delete_action(self, name: FullyQualifiedName) -> Action:
        """Rules and sequences that use the action are left as they are."""
        action = await self.get(Action, name)
        await self._entities.write(Remove(action))
        return action

    async def code_of(self, action: Action) -> str | None:
        """The code's text as the wire shows it; None for what has none. Raises `Corrupt`."""
        exec = action.exec
        if isinstance(exec, SequenceExec) or exec.code is None:
            return None
        return await self._entities.code(exec.code)

    # ── triggers ────────────────────────────────────────────────────────────────────────────────────────────────

    async def put_trigger(
        self, identity: Identity, name: FullyQualifiedName, body: bytes, *, overwrite: bool
    ) -> Trigger:
        """Creates or updates; the stored trigger. Raises `RequestError`."""
        put = triggers.parse_put(body)
        check_sizes(identity, put.parameters, put.annotations)
        old = await self.find_for_put(Trigger, name, overwrite=overwrite)
        now_ms = self._clock.now_ms()
        new = triggers.create(name, put, now_ms) if old is None else triggers.update(old, put, now_ms)
        await self._entities.write(Write(new, None if old is None else old.revision))
        return new

    async def delete_trigger(self, name: FullyQualifiedName) -> Trigger:
        """Its rules are left behind; their status then reads inactive."""
        trigger = await self.get(Trigger, name)
        await self._entities.write(Remove(trigger))
        return trigger

    # ── rules ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def status_of(self, rule: Rule) -> RuleStatus:
        """The status lives in the trigger; inactive when trigger or link are gone."""
        trigger = await self._linked_trigger(rule.trigger)
        link = None if trigger is None else (trigger.rules or {}).get(rule.name.id)
        return RuleStatus.INACTIVE if link is None else link.status

    async def put_rule(
        self, identity: Identity, name: FullyQualifiedName, body: bytes, *, overwrite: bool
    ) -> tuple[Rule, RuleStatus]:
        """Creates (active) or updates (keeping its status); rule, old and new trigger are written together."""
        put = rules.parse_put(body, identity.namespace)
        check_sizes(identity, None, put.annotations)
        await self._check_references(identity, *(name for name in (put.trigger, put.action) if name is not None))
        old = await self.find_for_put(Rule, name, overwrite=overwrite)
        now_ms = self._clock.now_ms()
        new = rules.create(name, put, now_ms) if old is None else rules.update(old, put, now_ms)
        trigger = await self._required_trigger(new.trigger)
        await self._require_action(identity, new.action)
        status = RuleStatus.ACTIVE if old is None else await self.status_of(old)
        changes: list[Write | Remove] = [Write(new, None if old is None else old.revision)]
        if old is not None and old.trigger != new.trigger:
            previous = await self._linked_trigger(old.trigger)
            if previous is not None:
                changes.append(Write(triggers.unlink(previous, name.id), previous.revision))
        linked = triggers.link(
            trigger, name.id, RuleLink(new.action, status, follow.parse(new.annotations, name.namespace))
        )
        changes.append(Write(linked, trigger.revision))
        await self._entities.write(*changes)
        return new, status

    async def set_rule_status(self, name: FullyQualifiedName, status: RuleStatus) -> None:
        """Neither `version` nor `updated` of rule and trigger move.

        Raises `NotFound` when the rule is gone, or its trigger and the status would change.
        """
        rule = await self.get(Rule, name)
        if await self.status_of(rule) is status:
            return
        trigger = await self._linked_trigger(rule.trigger)
        if trigger is None:
            raise NotFound(wording.RULE_TRIGGER_GONE)
        linked = triggers.link(
            trigger, name.id, RuleLink(rule.action, status, follow.parse(rule.annotations, name.namespace))
        )
        await self._entities.write(Write(linked, trigger.revision))

    async def delete_rule(self, name: FullyQualifiedName) -> Rule:
        """Allowed while active; unlinks from the trigger."""
        rule = await self.get(Rule, name)
        changes: list[Write | Remove] = [Remove(rule)]
        trigger = await self._linked_trigger(rule.trigger)
        if trigger is not None and name.id in (trigger.rules or {}):
            changes.append(Write(triggers.unlink(trigger, name.id), trigger.revision))
        await self._entities.write(*changes)
        return rule

    async def _linked_trigger(self, name: FullyQualifiedName) -> Trigger | None:
        """The trigger under a name; one that cannot be read counts as none: the rule must stay manageable."""
        try:
            found: Entity | None = await self._entities.get(name.id)
        except Corrupt:
            return None
        return found if isinstance(found, Trigger) else None

    async def _required_trigger(self, name: FullyQualifiedName) -> Trigger:
        try:
            found = await self._entities.get(name.id)
        except Corrupt:
            raise BadRequest(wording.CORRUPT) from None
        if not isinstance(found, Trigger):
            raise BadRequest(wording.trigger_missing(name.id))
        return found

    async def _require_action(self, identity: Identity, name: FullyQualifiedName) -> None:
        try:
            await self._resolver.resolve(identity, name)
        except Corrupt:
            raise BadRequest(wording.CORRUPT) from None
        except (NotFound, Conflict):
            raise BadRequest(wording.action_missing(name.id)) from None

    async def _check_references(self, identity: Identity, *names: FullyQualifiedName) -> None:
        """Raises `Forbidden` for what the caller may not read, `NotFound` where a package of its own is not there."""
        denied = {name.id for name in names if name.package is None and name.namespace != identity.namespace}
        for name in names:
            if name.package is not None:
                try:
                    await self._resolver.package(identity, package_of(name), name.id)
                except Forbidden:
                    denied.add(name.id)
        if denied:
            raise Forbidden(wording.not_authorized(denied))


def has_more_atomic(
    parts: Mapping[FullyQualifiedName, tuple[FullyQualifiedName, ...]], root: FullyQualifiedName, limit: int
) -> bool:
    """Whether `root` unfolds to more than `limit` actions that are no sequences; `parts` holds all below it.

    A walk without an end, below a cycle that leaves the root out, counts as too many.
    """
    waiting, atomic, steps = list(parts[root]), 0, 0
    while waiting:
        nested = parts[waiting.pop()]
        waiting += nested
        atomic += not nested
        steps += 1
        if atomic > limit or steps > limit * (len(parts) + 1):
            return True
    return False


def check_sizes(identity: Identity, parameters: Parameters | None, annotations: Parameters | None) -> None:
    """Raises `TooLarge`."""
    limit = identity.limits.parameters_bytes
    check_size("parameters", parameters or {}, limit)
    check_size("annotations", annotations or {}, limit)
