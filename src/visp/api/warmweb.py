"""Web actions, and the gateway's calls of them, that are answered from memory.

The checks are those of `web` and `managed`, in their order; what would be refused before the body is read is not
admitted here. An API's clients are counted once the body is there: so nothing is counted twice.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

from visp import wording
from visp.api import managed, web
from visp.api.errors import render
from visp.api.events import EventStream
from visp.api.hot import WEB_METHODS, CallTarget, WebTarget
from visp.api.warm import Warm, may_use
from visp.controller import webaction
from visp.controller.primitive import Finished
from visp.entity.media import parse_media_type
from visp.errors import RequestError, ServiceError

WEB_VERBS = frozenset(method.decode() for method in WEB_METHODS)

if TYPE_CHECKING:
    from visp.api.errors import HttpAnswer
    from visp.api.hot import Head
    from visp.api.warm import Caller
    from visp.api.web import Entry, Headers
    from visp.controller.gateway import Denied
    from visp.controller.primitive import Answer
    from visp.controller.webaction import Address
    from visp.entity.gateway import Found, Operation
    from visp.entity.payload import JsonObject
    from visp.entity.subject import Identity


class _Run(Warm):
    """A web action that is run for a request."""

    __slots__ = ("_accept", "_cors", "_extension", "asker", "entry")

    def __init__(
        self, caller: Caller, head: Head, entry: Entry, extension: str, asker: Identity | None, alive: bool
    ) -> None:
        super().__init__(caller, head, entry.owner.namespace, alive)
        self.entry = entry
        self.asker = asker
        self._extension = extension
        self._accept: str | None = None
        self._cors: Headers = ()

    def charge(self) -> None:
        """Raises `Throttled`."""
        self.caller.gate.services.invoke.charge(self.entry.owner)

    def announce(self, cors: Headers, accept: str | None) -> None:
        """What each answer from here on says to browsers, and what the client takes."""
        self._cors = cors
        self._accept = accept

    def start(self, payload: JsonObject) -> None:
        """Runs the action; raises what `Invoke.start` raises."""
        services, action = self.caller.gate.services, self.entry.action
        is_heard = self._extension in web.STREAMED and services.invoke.has_parts(action)
        outcome = web.Outcome(services, self._extension, self._cors, self._hear)
        now_ms = services.clock.now_ms()
        invocation = self.entry.invocation(services, payload, self.transid, now_ms, is_streamed=is_heard)
        id = services.invoke.start(invocation, outcome.settle)
        if is_heard:
            outcome.hear(id)

    def _hear(self, made: Answer | EventStream) -> None:
        if isinstance(made, EventStream):
            stream = self.dressed(made)
            assert isinstance(stream, EventStream)
            self.caller.pass_on(self, stream)
        elif isinstance(made, Finished) and len(made.result) > web.PRETTY_AT_ONCE_BYTES:
            self.caller.go_on(self._finish_long(made))
        else:
            try:
                answer = web.web_answer(made, self._extension, self._accept, self._cors, self.transid)
            except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
                answer = render(error, self.transid)
            self.finish(answer)

    async def _finish_long(self, answer: Finished) -> None:
        try:
            made = await web.finished(answer, self._extension, self._accept, self._cors, self.transid)
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            made = render(error, self.transid)
        self.finish(made)

    def finish(self, answer: HttpAnswer) -> None:
        made = self.dressed(answer)
        assert not isinstance(made, EventStream)
        self.caller.finish(self, made)

    def dressed(self, made: HttpAnswer | EventStream) -> HttpAnswer | EventStream:
        """With what else is said in every answer."""
        return made

    def told(self, error: Exception) -> HttpAnswer:
        if not isinstance(error, (RequestError, ServiceError)):
            return render(error, self.transid)
        return web.told(error, self.transid, headers=self._cors)


class _Web(_Run):
    __slots__ = ("_target",)

    def __init__(
        self, caller: Caller, head: Head, target: WebTarget, entry: Entry, asker: Identity | None, alive: bool
    ) -> None:
        super().__init__(caller, head, entry, target.address.extension, asker, alive)
        self._target = target

    def run(self, body: bytes) -> None:
        target = self._target
        self.charge()
        self.announce(self.entry.cors(target.headers), target.accept)
        given = target.given
        if self.asker is not None:
            given = given | webaction.user_field(self.asker.namespace)
        self.start(webaction.argument(self.entry.action, given, target.query, target.fields, target.kind, body))


class _Call(_Run):
    """A call of an API's operation."""

    __slots__ = ("_address", "_begun_ns", "_client", "_found", "_operation", "_target")

    def __init__(
        self,
        caller: Caller,
        head: Head,
        target: CallTarget,
        entry: Entry,
        asker: Identity | None,
        alive: bool,
        *,
        found: Found,
        operation: Operation,
        address: Address,
        client: str | None,
    ) -> None:
        super().__init__(caller, head, entry, address.extension, asker, alive)
        self._begun_ns = perf_counter_ns()
        self._target = target
        self._found = found
        self._operation = operation
        self._address = address
        self._client = client

    def run(self, body: bytes) -> None:
        gateway = self.caller.gate.services.gateway

        def counted(denied: Denied | None) -> None:
            if denied is not None:
                self.finish(managed.denial(denied))
                return
            try:
                self._pass_on(body)
            except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
                self.caller.finish(self, self.told(error))

        gateway.count(self.entry.owner.namespace, self._found, self._operation, self._client, counted)

    def _pass_on(self, body: bytes) -> None:
        target, action = self._target, self.entry.action
        came = managed.Came(
            target.method,
            target.path,
            target.query,
            target.headers,
            self.caller.peer,
            self.caller.shown_scheme,
            self.transid,
        )
        parts = managed.passed_on(came, self._operation, self._found, {}, body)
        headers = parts.headers
        self.charge()
        self.caller.gate.services.invoke.check_size(self.entry.owner, len(parts.body))
        self.announce(self.entry.cors(headers), headers.get("accept"))
        if not webaction.may_enter(action, headers, self.asker):
            self.finish(web.refusal(401, wording.WEB_UNAUTHORIZED, self.transid, headers=self._cors))
            return
        method = self._operation.backend_verb or target.method
        asker = None if self.asker is None else self.asker.namespace
        given = webaction.context(method, headers.items(), self._address.rest, asker)
        fields = webaction.query_fields(parts.query) if parts.query else {}
        kind = parse_media_type(headers.get("content-type", ""))
        self.start(webaction.argument(action, given, parts.query, fields, kind, parts.body))

    def dressed(self, made: HttpAnswer | EventStream) -> HttpAnswer | EventStream:
        services, plan = self.caller.gate.services, self._found.resource.plan
        managed.count(services, self.entry.owner.namespace, plan, made, self._begun_ns)
        return managed.dressed(made, plan, self._target.headers)

    def told(self, error: Exception) -> HttpAnswer:
        made = self.dressed(super().told(error))
        assert not isinstance(made, EventStream)
        return made


# ── who is admitted ─────────────────────────────────────────────────────────────────────────────────────────────


def admit(caller: Caller, head: Head, keep_alive: bool) -> Warm | None:
    """The request for a web action, if all that it needs is in memory and nothing is to be refused."""
    target, services = head.target, caller.gate.services
    assert isinstance(target, WebTarget)
    entry = web.peek(services, target.address.name)
    if entry is None or head.body_bytes > entry.owner.limits.payload_bytes:
        return None
    is_known, asker = _asker(caller, head)
    if not is_known or not webaction.may_enter(entry.action, target.headers, asker):
        return None
    if caller.gate.is_leased and not services.invoke.reserve(entry.owner):
        return None
    return _Web(caller, head, target, entry, asker, keep_alive)


def admit_call(caller: Caller, head: Head, keep_alive: bool) -> Warm | None:
    """The same for an API's operation over a web action: no token is to be checked, and no answer is kept of it."""
    target, services = head.target, caller.gate.services
    assert isinstance(target, CallTarget)
    place, identities, gateway = target.place, services.identities, services.gateway
    owner = identities.peek_uuid(place.name) if place.is_uuid else identities.peek_owner(place.name)
    table = None if owner is None else gateway.peek(owner.namespace)
    found = None if table is None else table.find(place.rest)
    if owner is None or found is None or place.rest.endswith(tuple(managed.SHOWN)):
        return None
    operation = found.resource.operations.get(target.method)
    if operation is None or operation.keeping is not None or not operation.is_inside:
        return None
    if (operation.backend_verb or target.method) not in WEB_VERBS:
        return None
    is_let_in, client = gateway.peek_client(
        owner.namespace, found.resource, target.method, target.headers, target.query
    )
    address = managed.address_of(operation, found, place.rest)
    entry = None if address is None else web.peek(services, address.name)
    if not is_let_in or address is None or entry is None:
        return None
    if head.body_bytes > min(managed.BODY_BYTES, entry.owner.limits.payload_bytes):
        return None
    is_known, asker = _asker(caller, head)
    if not is_known or (caller.gate.is_leased and not services.invoke.reserve(entry.owner)):
        return None
    return _Call(
        caller,
        head,
        target,
        entry,
        asker,
        keep_alive,
        found=found,
        operation=operation,
        address=address,
        client=client,
    )


def _asker(caller: Caller, head: Head) -> tuple[bool, Identity | None]:
    """Whether it is known who asks, and who does."""
    if not head.authorization:
        return True, None
    asker = caller.gate.services.identities.peek(head.authorization)
    return asker is not None and may_use(caller, asker, head), asker
