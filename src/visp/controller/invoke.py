"""The one door of every activation: check, charge, choose by kind of exec.

Order of the checks, as OpenWhisk makes them: throttle, rights, payload, the action's own. The caller has found the
action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.bus.messages import ResultAck
from visp.controller.primitive import Answer, Order, message_of
from visp.controller.resolver import Resolved
from visp.entitlement import rights
from visp.entity import follow
from visp.entity import payload as payloads
from visp.entity.action import Action
from visp.entity.composition import composes
from visp.entity.execs import CodeExec, SequenceExec
from visp.entity.follow import Follow
from visp.entity.keeping import keep_of
from visp.entity.locking import marks_of
from visp.entity.parameters import Parameters, is_true, values
from visp.entity.payload import JsonObject
from visp.entity.subject import Identity
from visp.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from visp.bus.messages import ActivationMessage
    from visp.clock import Clock
    from visp.controller.composites import Composites
    from visp.controller.primitive import Primitive
    from visp.entitlement.throttle import Throttle
    from visp.entity.names import FullyQualifiedName
    from visp.entity.runtime_manifest import Manifest


class Invocation(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A request to run an action. `body` is the payload as it was sent; `wait_s` None asks for no result.

    `resolved` says how it was found, if that was through a package: `action` has the parameters of both. `follow` is
    what a rule says of failures. `id` is given where it was promised before: then the ledger has the work before it
    runs, blocking or not. `is_forced`: its record is kept, whatever else is said. `on_result`: parts of the result are
    wanted as they come; it hears of the outcome, save that of a composite, which has no parts. `payload` is the body as
    an object, where that was read already. `is_streamed`: parts are wanted while the outcome is waited for.
    """

    identity: Identity
    action: Action
    body: bytes
    transid: str
    received_ms: int
    wait_s: float | None = None
    follow: Follow | None = None
    id: str | None = None
    resolved: Resolved | None = None
    is_forced: bool = False
    on_result: Callable[[ResultAck | None], None] | None = None
    payload: JsonObject | None = None
    is_streamed: bool = False


class Invoke:
    """Every way to activate something ends here."""

    def __init__(
        self, *, throttle: Throttle, primitive: Primitive, composites: Composites, manifest: Manifest, clock: Clock
    ) -> None:
        self._throttle = throttle
        self._primitive = primitive
        self._composites = composites
        self._deprecated = frozenset(kind.kind for kind in manifest.kinds() if kind.deprecated)
        self._clock = clock

    @property
    def is_leased(self) -> bool:
        """Whether `reserve` may say no: where several shards share the counts."""
        return self._throttle.is_shared

    def reserve(self, identity: Identity) -> bool:
        """Whether one invocation can be counted at once; else `obtain` comes first."""
        return self._throttle.reserve(identity, 1)

    async def obtain(self, identity: Identity) -> None:
        """Brings here what `charge` counts with; raises `ServiceError`."""
        await self._throttle.obtain(identity, 1)

    def charge(self, identity: Identity) -> None:
        """Counts one invocation; raises `Throttled`. Before anything is known of the action."""
        self._throttle.charge_invocation(identity)

    def check_rights(self, identity: Identity, name: FullyQualifiedName) -> None:
        """Raises `Forbidden`, whether or not the action exists."""
        rights.check_owner(identity, name.namespace, name.id)

    def check_size(self, identity: Identity, size: int) -> None:
        """Raises `TooLarge` for a payload over the namespace's limit, by its announced length."""
        limit = identity.limits.payload_bytes
        if size > limit:
            raise TooLarge(wording.too_large("Request", size, limit))

    def start(self, invocation: Invocation, then: Callable[[Answer], None]) -> str:
        """Begins the activation and returns its id; `then` hears once, later, what the caller is told.

        Raises `RequestError` and `ServiceError` for what is refused before anything was begun.
        """
        order = self.order(invocation)
        wait_s, is_promised = invocation.wait_s, invocation.id is not None
        if composes(order.action):
            self._composites.start(order, wait_s, then, is_promised=is_promised)
        elif wait_s is None:
            self._primitive.run_accepted(order, then, invocation.on_result)
        elif is_promised:
            self._primitive.run_promised(order, wait_s, then)
        else:
            self._primitive.run_blocking(order, wait_s, then, is_streamed=invocation.is_streamed)
        return order.id

    def has_parts(self, action: Action) -> bool:
        """Whether parts of its result can be heard of: not of what composes others."""
        return not composes(action)

    def new_id(self) -> str:
        """For what is promised before it is begun: it will lie in this shard's ledger."""
        return self._primitive.new_id()

    def message(self, invocation: Invocation) -> ActivationMessage:
        """What will be run, for one who lets it wait; raises `RequestError` and `ServiceError`."""
        return message_of(self.order(invocation, is_here=True), is_accepted=True)

    def replay(
        self,
        identity: Identity,
        action: Action,
        message: ActivationMessage,
        transid: str,
        then: Callable[[Answer], None],
    ) -> bool:
        """Accepts the same run again, as a first attempt: with its argument as it was merged then."""
        self._primitive.check_room()
        follow = message.follow
        order = Order(
            id=self._primitive.new_id(),
            identity=identity,
            action=action,
            content=message.content,
            transid=transid,
            received_ms=self._clock.now_ms(),
            binding=message.binding,
            init=message.init,
            locked=message.locked,
            keep=message.keep,
            follow=None if follow is None else msgspec.structs.replace(follow, attempt=1, first=None),
        )
        if composes(action):
            self._composites.start(order, None, then)
        else:
            self._primitive.run_accepted(order, then)
        return True

    def order(self, invocation: Invocation, *, is_here: bool = False) -> Order:
        """The checks that need the action and the payload; raises `RequestError` and `ServiceError`.

        `is_here`: it lies in this shard's ledger, with what caused it.
        """
        identity, action = invocation.identity, invocation.action
        payload = invocation.payload
        if payload is None:
            payload = payloads.parse_object(invocation.body)
        self.check_action(identity, action, payload)
        self._primitive.check_room()
        is_composite = composes(action)
        is_here = is_here or is_composite  # whose controller this is
        order = Order(
            id=invocation.id or (self._primitive.new_id() if is_here else self._primitive.place(identity, action)),
            identity=identity,
            action=action,
            content=argument(action, payload),
            locked=marks_of(action.parameters, payload) if action.parameters and not is_composite else (),
            transid=invocation.transid,
            received_ms=invocation.received_ms,
            follow=follow_of(identity, action, invocation.follow),
            keep=keep_of(action.annotations, is_storing=identity.limits.is_storing, is_forced=invocation.is_forced),
        )
        resolved = invocation.resolved
        if resolved is None:
            return order
        return msgspec.structs.replace(order, binding=resolved.binding, init=resolved.init)

    def check_action(self, identity: Identity, action: Action, payload: JsonObject) -> None:
        """Deprecated kinds, final parameters, rights to a sequence's components."""
        exec = action.exec
        if isinstance(exec, CodeExec):
            if exec.kind in self._deprecated:
                raise BadRequest(wording.deprecated_kind(exec.kind))
        elif isinstance(exec, SequenceExec):
            rights.check_references(identity, tuple(name for name in exec.components if name.package is None))
        if payload and action.parameters and overrides_final(action, payload):
            raise BadRequest(wording.RESERVED_PARAMETERS)


def overrides_final(action: Action, payload: JsonObject) -> bool:
    """Whether the payload sets a parameter that the action declares final and has a value for."""
    if not is_true(action.annotations, "final"):
        return False
    return any(is_defined(action.parameters, key) for key in payload)


def follow_of(identity: Identity, action: Action, of_rule: Follow | None) -> Follow | None:
    """What follows from an outcome, for which the action was checked when it was stored.

    A hook of another namespace's action hears of nothing: it would be told what its caller's run came to.
    """
    annotations, of_namespace = action.annotations, identity.limits.follow
    if follow.ANNOTATIONS.isdisjoint(annotations):
        return follow.merged(of_rule, of_namespace) if of_rule is not None else of_namespace
    of_action = follow.parse(annotations, action.name.namespace)
    if of_action is not None and action.name.namespace != identity.namespace:
        of_action = msgspec.structs.replace(of_action, hook=None)
    return follow.merged(of_rule, of_action, of_namespace)


def is_defined(parameters: Parameters, key: str) -> bool:
    parameter = parameters.get(key)
    return parameter is not None and bytes(parameter.value).strip() != b"null"


def argument(action: Action, payload: JsonObject) -> bytes:
    """The action's argument: its parameters under the payload.

    A composite is given the payload alone: a sequence's parameters are fed to nothing, a conductor's to its own runs.
    """
    if not action.parameters or composes(action):
        return payloads.merge({}, payload)
    return payloads.merge(values(action.parameters), payload)
