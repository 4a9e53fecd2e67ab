"""Requests that are answered from memory: who may ask this way, and what is run.

What cannot be decided at the head of a request without asking a store, or is to be refused, is not admitted here: the
application says what is wrong with it. Identity and entity are held from the head on: what is cached may change while
the body comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from visp.api.actions import http_answer
from visp.api.errors import HttpAnswer, render
from visp.api.hot import Target
from visp.controller.fire import Firing
from visp.controller.invoke import Invocation
from visp.controller.resolver import must_be_asked
from visp.entity.action import Action
from visp.entity.execs import SequenceExec
from visp.entity.names import CALLERS_NAMESPACE, FullyQualifiedName
from visp.entity.trigger import Trigger
from visp.errors import VispError
from visp.telemetry import transid

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from visp.api.events import EventStream
    from visp.api.gate import Gate
    from visp.api.hot import Head
    from visp.api.inside import Inside
    from visp.controller.primitive import Answer
    from visp.controller.resolver import Resolved
    from visp.entity.subject import Identity
    from visp.store.cache import Entity


class Caller(Protocol):
    """The connection on which a request came."""

    gate: Gate
    inside: Inside | None
    is_local_peer: bool

    @property
    def peer(self) -> str:
        """The client's address; empty where it is not known."""
        ...

    @property
    def shown_scheme(self) -> str:
        """How the client asked."""
        ...

    def finish(self, hot: Warm, answer: HttpAnswer) -> None:
        """Sends the answer, if the client is still there."""

    def pass_on(self, hot: Warm, stream: EventStream) -> None:
        """Sends an answer in parts, as they come."""

    def go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Work for a request that has to wait for something."""


class _Event:
    """An event nobody waits for."""

    def set(self) -> None:
        pass


_NEVER = _Event()


class Warm:
    """A request in flight. It stands where the server library expects its cycle, so that pipelined ones queue behind.

    `namespace` is whose turn it takes.
    """

    __slots__ = (
        "accepts_gzip",
        "body",
        "caller",
        "disconnected",
        "is_timed",
        "keep_alive",
        "message_event",
        "namespace",
        "response_complete",
        "response_started",
        "transid",
    )

    def __init__(self, caller: Caller, head: Head, namespace: str, keep_alive: bool) -> None:
        timing = caller.gate.timing
        self.caller = caller
        self.namespace = namespace
        self.transid = transid.of_request(head.request_id)
        self.keep_alive = keep_alive
        self.accepts_gzip = head.accepts_gzip
        self.is_timed = timing == "always" or (head.is_timed and timing == "asked")
        self.body: list[bytes] = []
        self.response_complete = False
        self.response_started = False
        self.disconnected = False
        self.message_event = _NEVER

    def run(self, body: bytes) -> None:
        """Hands a complete request to the controller, whose answer comes back once, later; or raises what `told`
        tells.
        """
        raise NotImplementedError

    def told(self, error: Exception) -> HttpAnswer:
        """How an error is answered."""
        return render(error, self.transid)


class _Invoke(Warm):
    __slots__ = ("action", "identity", "resolved", "target")

    def __init__(
        self, caller: Caller, head: Head, identity: Identity, action: Action, resolved: Resolved | None, alive: bool
    ) -> None:
        super().__init__(caller, head, identity.namespace, alive)
        assert isinstance(head.target, Target)
        self.target = head.target
        self.identity = identity
        self.action = action
        self.resolved = resolved

    def run(self, body: bytes) -> None:
        services, wait_ms = self.caller.gate.services, self.target.wait_ms
        invoke = services.invoke
        invoke.charge(self.identity)
        invoke.start(
            Invocation(
                identity=self.identity,
                action=self.action,
                resolved=self.resolved,
                body=body,
                transid=self.transid,
                received_ms=services.clock.now_ms(),
                wait_s=None if wait_ms is None else wait_ms / 1000,
            ),
            self._settle,
        )

    def _settle(self, answer: Answer) -> None:
        try:
            made = http_answer(answer, is_result=self.target.is_result)
        except VispError as error:
            made = self.told(error)
        self.caller.finish(self, made)


class _Fire(Warm):
    __slots__ = ("headers", "identity", "trigger")

    def __init__(self, caller: Caller, head: Head, identity: Identity, trigger: Trigger, alive: bool) -> None:
        super().__init__(caller, head, identity.namespace, alive)
        self.headers = head.shown
        self.identity = identity
        self.trigger = trigger

    def run(self, body: bytes) -> None:
        services = self.caller.gate.services
        services.fire.charge(self.identity)
        firing = Firing(
            identity=self.identity,
            trigger=self.trigger,
            body=body,
            headers=self.headers,
            transid=self.transid,
            received_ms=services.clock.now_ms(),
        )
        if services.fire.start(firing, self._settle) is not None:
            self.caller.finish(self, HttpAnswer(204))

    def _settle(self, answer: Answer) -> None:
        try:
            made = http_answer(answer, is_result=False)
        except VispError as error:
            made = self.told(error)
        self.caller.finish(self, made)


def admit(caller: Caller, head: Head, keep_alive: bool) -> Warm | None:
    """The invoke or fire, if its caller and entity are in memory and the caller may ask this way."""
    gate, target = caller.gate, head.target
    assert isinstance(target, Target)
    services = gate.services
    identity = services.identities.peek(head.authorization)
    if identity is None or head.body_bytes > identity.limits.payload_bytes:
        return None
    if not may_use(caller, identity, head):
        return None
    if target.namespace != CALLERS_NAMESPACE and target.namespace != identity.namespace:
        return None
    entity: Entity | None
    resolved = None
    if target.package is None:
        entity = services.entities.peek(f"{identity.namespace}/{target.name}")
    else:
        resolved = services.resolver.peek(identity, FullyQualifiedName(identity.namespace, target.package, target.name))
        if resolved is None:
            return None
        entity = resolved.action
    if target.is_trigger:
        if not isinstance(entity, Trigger) or not services.fire.has_all_in_memory(identity, entity):
            return None
        if gate.is_leased and not services.fire.reserve(identity, entity):
            return None
        return _Fire(caller, head, identity, entity, keep_alive)
    if not isinstance(entity, Action) or (isinstance(entity.exec, SequenceExec) and must_be_asked(entity.exec)):
        return None
    if gate.is_leased and not services.invoke.reserve(identity):
        return None
    return _Invoke(caller, head, identity, entity, resolved, keep_alive)


def may_use(caller: Caller, identity: Identity, head: Head) -> bool:
    """The well-known key is for callers on this machine."""
    if not identity.is_loopback_only:
        return True
    if caller.inside is not None:
        return caller.inside.may_use(identity)
    return caller.is_local_peer and head.is_from_here
