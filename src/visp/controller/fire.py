"""A trigger fires: its record, and one activation for each active rule, accepted together or not at all.

Source: OpenWhisk's trigger firing: 204 and no record without an active rule; each rule's action is invoked as the
caller, as by a POST, with trigger parameters < `__ow_headers` < event payload; the record's logs tell what each rule
came to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus.messages import FireMessage, encode_task
from visp.controller.invoke import Invocation
from visp.controller.primitive import Accepted, Answer, Order, Refused, message_of, refusal
from visp.entitlement import rights
from visp.entity import payload as payloads
from visp.entity.activation import ActivationHead, ActivationRecord, Status
from visp.entity.composition import composes
from visp.entity.parameters import values
from visp.entity.subject import Identity
from visp.entity.trigger import RuleStatus, Trigger
from visp.errors import RequestError, ServiceError, VispError
from visp.store.base import Work
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.clock import Clock
    from visp.controller.composites import Composites
    from visp.controller.invoke import Invoke
    from visp.controller.primitive import Primitive
    from visp.controller.resolver import Resolved, Resolver
    from visp.entitlement.throttle import Throttle
    from visp.entity.payload import JsonObject
    from visp.entity.trigger import RuleLink
    from visp.store.base import Ledger

# headers of the fire request that actions are not shown: the caller's key, and what describes the transport
WITHHELD_HEADERS = frozenset(
    {"authorization", "connection", "content-length", "cookie", "transfer-encoding", "x-ow-extra-logging"}
)


class NothingToDo(msgspec.Struct, frozen=True):
    """No active rule: 204, nothing is recorded."""


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """A request to fire a trigger. `headers` are those of the request, names in lower case."""

    identity: Identity
    trigger: Trigger
    body: bytes
    headers: Mapping[str, str]
    transid: str
    received_ms: int
    is_forced: bool = False
    """The records of all that follows are kept, whatever else is said."""
    is_recorded: bool = False
    """Its own record is kept, whatever else is said."""


class Prepared(msgspec.Struct, frozen=True):
    """A fire that is not accepted yet: its record, and what it will run. `is_held`: that counts as in flight."""

    record: ActivationRecord
    orders: list[Order]
    is_kept: bool
    is_held: bool


class Fire:
    """Fires triggers."""

    def __init__(
        self,
        *,
        throttle: Throttle,
        invoke: Invoke,
        primitive: Primitive,
        composites: Composites,
        resolver: Resolver,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self._throttle = throttle
        self._invoke = invoke
        self._primitive = primitive
        self._composites = composites
        self._resolver = resolver
        self._ledger = ledger
        self._clock = clock

    def reserve(self, identity: Identity, trigger: Trigger) -> bool:
        """Whether the fire and what it invokes can be counted at once; else `obtain` comes first."""
        return self._throttle.reserve(identity, _active(trigger), 1)

    async def obtain(self, identity: Identity, trigger: Trigger | None = None) -> None:
        """Brings here what is counted: of the fire, or when the trigger is known, of its rules.

        Raises `ServiceError`.
        """
        if trigger is None:
            await self._throttle.obtain(identity, 0, 1)
        else:
            await self._throttle.obtain(identity, _active(trigger))

    def charge(self, identity: Identity) -> None:
        """Counts one fire; raises `Throttled`."""
        self._throttle.charge_fire(identity)

    def check_rights(self, identity: Identity, namespace: str, id: str) -> None:
        """Raises `Forbidden`."""
        rights.check_owner(identity, namespace, id)

    def has_all_in_memory(self, identity: Identity, trigger: Trigger) -> bool:
        """Whether every action that would be invoked is cached, so that `start` need not read."""
        return all(
            self._resolver.peek(identity, link.action) is not None
            for link in (trigger.rules or {}).values()
            if link.status is RuleStatus.ACTIVE
        )

    async def load(self, identity: Identity, trigger: Trigger) -> None:
        """Brings the actions of active rules into the cache; those that are gone stay absent."""
        for link in (trigger.rules or {}).values():
            if link.status is RuleStatus.ACTIVE:
                try:
                    await self._resolver.resolve(identity, link.action)
                except RequestError:
                    pass  # the fire's record will say so
                except VispError as error:
                    log.warning("fire.action_unreadable", action=link.action.id, reason=str(error))

    def start(self, firing: Firing, then: Callable[[Answer], None], id: str | None = None) -> NothingToDo | None:
        """Fires; `then` hears `Accepted` once the ledger holds it all. Raises `RequestError` and `ServiceError`.

        `id` is given where it was promised before.
        """
        payload = payloads.parse_object(firing.body)
        if not _active(firing.trigger):
            return NothingToDo()
        self._primitive.check_room()
        self._begin(id or self._primitive.new_id(), firing, payload, then)
        return None

    def prepare(self, firing: Firing) -> Prepared | NothingToDo:
        """All of a fire but its acceptance: `accept`, or `release`, comes next. What it will run counts as in flight.

        Raises `RequestError` and `ServiceError`.
        """
        self._invoke.check_size(firing.identity, len(firing.body))
        payload = payloads.parse_object(firing.body)
        if not _active(firing.trigger):
            return NothingToDo()
        self._primitive.check_room()
        prepared = self._prepare(self._primitive.new_id(), firing, payload, is_held=True)
        for order in prepared.orders:
            self._primitive.hold(order)
        return prepared

    def release(self, prepared: Prepared) -> None:
        """It is not accepted after all."""
        for order in prepared.orders:
            self._primitive.refused(order)

    def accept(self, prepared: Prepared, then: Callable[[Answer], None]) -> None:
        """`then` hears once the ledger holds it; `publish` comes next. Fires of one turn of the loop are one sync."""
        record, orders = prepared.record, prepared.orders
        works = [Work(order.id, encode_task(message_of(order, is_accepted=True))) for order in orders]

        def accepted(error: Exception | None) -> None:
            if error is not None:
                self.release(prepared)
            then(Accepted(record.head.id) if error is None else Refused(refusal(error)))

        self._ledger.accept(works, record, accepted, is_kept=prepared.is_kept)

    def publish(self, prepared: Prepared) -> None:
        """What was accepted begins."""
        for order in prepared.orders:
            self._publish(order, is_held=prepared.is_held)

    def message(self, firing: Firing, id: str | None = None) -> FireMessage:
        """What will be fired, for one who lets it wait. Raises `RequestError` and `ServiceError`."""
        self._primitive.check_room()
        return FireMessage(
            id=id or self._primitive.new_id(),
            transid=firing.transid,
            namespace=firing.identity.namespace,
            namespace_uuid=firing.identity.namespace_uuid,
            subject=firing.identity.subject,
            trigger=firing.trigger.name.id,
            content=firing.body,
            headers={name: text for name, text in firing.headers.items() if name not in WITHHELD_HEADERS},
            received_ms=firing.received_ms,
            is_forced=firing.is_forced,
        )

    def start_delayed(self, id: str, firing: Firing, then: Callable[[Answer], None]) -> None:
        """Fires under an id that was given away before, once the time has come: with no active rule, too."""
        self._begin(id, firing, payloads.parse_object(firing.body), then)

    def tell(self, identity: Identity, target: Resolved | Trigger, body: bytes, transid: str) -> None:
        """Runs an action, or fires a trigger, for the platform itself; raises `RequestError` and `ServiceError`."""
        received_ms = self._clock.now_ms()
        if isinstance(target, Trigger):
            firing = Firing(
                identity=identity, trigger=target, body=body, headers={}, transid=transid, received_ms=received_ms
            )
            self.start(firing, _ignore)
        else:
            self._invoke.start(
                Invocation(
                    identity=identity,
                    action=target.action,
                    resolved=target,
                    body=body,
                    transid=transid,
                    received_ms=received_ms,
                ),
                _ignore,
            )

    def _begin(self, id: str, firing: Firing, payload: JsonObject, then: Callable[[Answer], None]) -> None:
        prepared = self._prepare(id, firing, payload, is_held=False)
        self.accept(prepared, then)
        self.publish(prepared)

    def _prepare(self, id: str, firing: Firing, payload: JsonObject, *, is_held: bool) -> Prepared:
        event = payloads.merge({}, payload)
        body = payloads.encode(_argument(firing, payload))
        orders: list[Order] = []
        rules = firing.trigger.rules or {}
        logs = tuple(self._activate(firing, rule, link, body, orders) for rule, link in rules.items())
        record = _record(id, firing, event, logs, self._clock.now_ms())
        is_kept = firing.is_forced or firing.is_recorded or firing.identity.limits.is_storing
        return Prepared(record, orders, is_kept, is_held)

    def _publish(self, order: Order, *, is_held: bool) -> None:
        """The ledger holds it already: what cannot be published now runs at the next start."""
        try:
            if composes(order.action):
                self._composites.resume(order, _ignore, is_held=is_held)  # refused, it was not accepted either
            else:
                self._primitive.publish_accepted(order, is_held=is_held)
        except ServiceError as error:
            log.error("fire.not_published", transid=order.transid, activation=order.id, reason=str(error))

    def _activate(self, firing: Firing, rule: str, link: RuleLink, body: bytes, orders: list[Order]) -> str:
        """Decides about one rule; an order is added if its action is to run. Returns the log entry."""
        if link.status is not RuleStatus.ACTIVE:
            return _entry(rule, link, error=wording.rule_inactive(rule, link.action.id))
        try:
            order = self._order(firing, link, body)
        except RequestError as error:
            return _entry(rule, link, error=error.sentence)
        except VispError:
            return _entry(rule, link, error=wording.INTERNAL, status=Status.INTERNAL_ERROR)
        orders.append(order)
        return _entry(rule, link, activation_id=order.id)

    def _order(self, firing: Firing, link: RuleLink, body: bytes) -> Order:
        """The same checks as a POST of the action by the caller."""
        identity = firing.identity
        self._invoke.charge(identity)
        resolved = self._resolver.peek_or_refuse(identity, link.action)
        self._invoke.check_size(identity, len(body))
        return self._invoke.order(
            Invocation(
                identity=identity,
                action=resolved.action,
                resolved=resolved,
                body=body,
                transid=firing.transid,
                received_ms=firing.received_ms,
                follow=link.follow,
                is_forced=firing.is_forced,
            ),
            is_here=True,
        )


def _ignore(_: Answer) -> None:
    """Nobody waits."""


def _active(trigger: Trigger) -> int:
    """How many rules are active."""
    return sum(link.status is RuleStatus.ACTIVE for link in (trigger.rules or {}).values())


def _argument(firing: Firing, payload: JsonObject) -> JsonObject:
    headers = {name: value for name, value in firing.headers.items() if name not in WITHHELD_HEADERS}
    return values(firing.trigger.parameters) | {"__ow_headers": msgspec.Raw(payloads.encode(headers))} | payload


def _record(id: str, firing: Firing, event: bytes, logs: tuple[str, ...], now_ms: int) -> ActivationRecord:
    trigger = firing.trigger
    head = ActivationHead(
        id=id,
        namespace=firing.identity.namespace,
        subject=firing.identity.subject,
        name=trigger.name.name,
        version=trigger.version,
        start_ms=now_ms,
    )
    return ActivationRecord(head=head, result=event, logs=logs)


def _entry(
    rule: str,
    link: RuleLink,
    *,
    activation_id: str | None = None,
    error: str | None = None,
    status: Status = Status.APPLICATION_ERROR,
) -> str:
    """One log entry of a trigger's record: compact JSON."""
    entry: dict[str, object] = {"statusCode": int(status if error else Status.SUCCESS), "success": error is None}
    if activation_id is not None:
        entry["activationId"] = activation_id
    entry |= {"rule": rule, "action": link.action.id}
    if error is not None:
        entry["error"] = error
    return payloads.encode(entry).decode()
