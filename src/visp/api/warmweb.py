"""Web actions, and the gateway's calls of them, that are answered from memory.

The checks are those of `web` and `managed`, in their order; what would be refused before the body is read is not
admitted here. An API's clients are counted once the body is there: so nothing is counted twice.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api import managed, web
from visp.api.errors import render
from visp.api.events import EventStream
from visp.api.hot import WEB_METHODS, CallTarget, WebTarget
from visp.api.warm import Warm, may_use
from visp.api.web import Entry
from visp.controller import webaction
from visp.controller.primitive import Finished
from visp.controller.webaction import Address
from visp.entity.gateway import Found, Operation, Table
from visp.entity.media import MediaType, parse_media_type
from visp.entity.payload import JsonObject, encode
from visp.errors import RequestError, ServiceError

WEB_VERBS = frozenset(method.decode() for method in WEB_METHODS)

if TYPE_CHECKING:
    from visp.api.errors import HttpAnswer
    from visp.api.hot import Head
    from visp.api.warm import Caller
    from visp.api.web import Headers
    from visp.controller.gateway import Denied
    from visp.controller.primitive import Answer
    from visp.entity.mapping import Parts
    from visp.entity.subject import Identity


class _Run(Warm):
    """A web action that is run for a request."""

    __slots__ = ("_extension", "accept", "asker", "cors", "entry")

    def __init__(
        self, caller: Caller, head: Head, entry: Entry, extension: str, asker: Identity | None, alive: bool
    ) -> None:
        super().__init__(caller, head, entry.owner.namespace, alive)
        self.entry = entry
        self.asker = asker
        self._extension = extension
        self.cors: Headers = ()
        """What each answer from here on says to browsers."""
        self.accept: str | None = None
        """What the client takes."""

    def start(self, payload: JsonObject) -> None:
        """Runs the action; raises what `Invoke.start` raises."""
        services = self.caller.gate.services
        is_heard = self.entry.has_parts and self._extension in web.STREAMED
        outcome = web.Outcome(services, self._extension, self.cors, self._hear)
        now_ms = services.clock.now_ms()
        invocation = self.entry.invocation(services, payload, self.transid, now_ms, is_streamed=is_heard)
        id = services.invoke.start(invocation, outcome.settle)
        if is_heard:
            outcome.hear(id)

    def _hear(self, made: Answer | EventStream) -> None:
        if isinstance(made, EventStream):
            self.pass_on(made)
        elif isinstance(made, Finished) and len(made.result) > web.PRETTY_AT_ONCE_BYTES:
            self.caller.go_on(self._finish_long(made))
        else:
            try:
                answer = web.web_answer(made, self._extension, self.accept, self.cors, self.transid)
            except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
                answer = render(error, self.transid)
            self.finish(answer)

    async def _finish_long(self, answer: Finished) -> None:
        try:
            made = await web.finished(answer, self._extension, self.accept, self.cors, self.transid)
        except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
            made = render(error, self.transid)
        self.finish(made)

    def finish(self, answer: HttpAnswer) -> None:
        """Sends the answer, with what else is said in every one."""
        self.caller.finish(self, answer)

    def pass_on(self, stream: EventStream) -> None:
        """The same of an answer in parts."""
        self.caller.pass_on(self, stream)

    def told(self, error: Exception) -> HttpAnswer:
        if not isinstance(error, (RequestError, ServiceError)):
            return render(error, self.transid)
        return web.told(error, self.transid, headers=self.cors)


class _Web(_Run):
    __slots__ = ("_target",)

    def __init__(
        self, caller: Caller, head: Head, target: WebTarget, entry: Entry, asker: Identity | None, alive: bool
    ) -> None:
        super().__init__(caller, head, entry, target.address.extension, asker, alive)
        self._target = target

    def run(self, body: bytes) -> None:
        target, entry = self._target, self.entry
        self.caller.gate.services.invoke.charge(entry.owner)
        self.cors, self.accept = entry.cors(target.headers), target.accept
        given = target.given
        if self.asker is not None:
            given = given | webaction.user_field(self.asker.namespace)
        self.start(
            webaction.argument(entry.action, given, target.query, target.fields, target.kind, body, is_raw=entry.is_raw)
        )


class _Made(msgspec.Struct):
    """What a head comes to by an API's table, for one peer; it holds as long as these are the same. `entry` is the web
    action that was found last.

    `shown` are the headers as the action is told them, as JSON that ends before the transaction's id. Without it, or
    where a part of the calls goes elsewhere, something depends on the request.
    """

    table: Table
    peer: str
    scheme: str
    found: Found
    operation: Operation
    rest: str
    """The path below the namespace's APIs."""
    address: Address | None
    shown: bytes = b""
    given: JsonObject = {}
    fields: JsonObject = {}
    kind: MediaType | None = None
    entry: Entry | None = None


class _Call(_Run):
    """A call of an API's operation."""

    __slots__ = ("_address", "_begun_ns", "_client", "_made", "_namespace", "_target")

    def __init__(
        self,
        caller: Caller,
        head: Head,
        target: CallTarget,
        entry: Entry,
        asker: Identity | None,
        alive: bool,
        *,
        namespace: str,
        made: _Made,
        address: Address,
        client: str | None,
    ) -> None:
        super().__init__(caller, head, entry, address.extension, asker, alive)
        self._begun_ns = perf_counter_ns()
        self._target = target
        self._namespace = namespace
        self._made = made
        self._address = address
        self._client = client

    def run(self, body: bytes) -> None:
        gateway, made = self.caller.gate.services.gateway, self._made

        def counted(denied: Denied | None) -> None:
            if denied is not None:
                self.finish(managed.denial(denied))
                return
            try:
                self._pass_on(body)
            except Exception as error:  # the top of a request: what nobody foresaw is a 500 with a log line
                self.caller.finish(self, self.told(error))

        gateway.count(self._namespace, made.found, made.operation, self._client, counted)

    def _pass_on(self, body: bytes) -> None:
        made, target, entry, invoke = self._made, self._target, self.entry, self.caller.gate.services.invoke
        query, headers, given, fields, kind = target.query, target.headers, made.given, made.fields, made.kind
        if made.shown:
            told = made.shown + encode(self.transid) + b"}"
            given = given | {webaction.HEADERS: msgspec.Raw(told)}
        else:
            parts = managed.passed_on(_came(self.caller, target, self.transid), made.operation, made.found, {}, body)
            query, headers, body = parts.query, parts.headers, parts.body
            given, fields, kind = _read(target, made.operation, parts, self._address)
        invoke.charge(entry.owner)
        invoke.check_size(entry.owner, len(body))
        self.cors, self.accept = entry.cors(headers), headers.get("accept")
        if not webaction.may_enter(entry.action, headers, self.asker):
            self.finish(web.refusal(401, wording.WEB_UNAUTHORIZED, self.transid, headers=self.cors))
            return
        if self.asker is not None:
            given = given | webaction.user_field(self.asker.namespace)
        self.start(webaction.argument(entry.action, given, query, fields, kind, body, is_raw=entry.is_raw))

    def finish(self, answer: HttpAnswer) -> None:
        made = self._dressed(answer)
        assert not isinstance(made, EventStream)
        self.caller.finish(self, made)

    def pass_on(self, stream: EventStream) -> None:
        made = self._dressed(stream)
        assert isinstance(made, EventStream)
        self.caller.pass_on(self, made)

    def _dressed(self, made: HttpAnswer | EventStream) -> HttpAnswer | EventStream:
        services, plan = self.caller.gate.services, self._made.found.resource.plan
        managed.count(services, self._namespace, plan, made, self._begun_ns)
        return managed.dressed(made, plan, self._target.headers)

    def told(self, error: Exception) -> HttpAnswer:
        made = self._dressed(super().told(error))
        assert not isinstance(made, EventStream)
        return made


# ── who is admitted ─────────────────────────────────────────────────────────────────────────────────────────────


def admit(caller: Caller, head: Head, keep_alive: bool) -> Warm | None:
    """The request for a web action, if all that it needs is in memory and nothing is to be refused."""
    target, services = head.target, caller.gate.services
    assert isinstance(target, WebTarget)
    known = target.made
    entry = target.made = web.peek(services, target.address.name, known if isinstance(known, Entry) else None)
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
    if target.domain and caller.inside is not None:
        return None
    name = services.domains[target.domain] if target.domain else place.name
    owner = identities.peek_uuid(name) if place.is_uuid else identities.peek_owner(name)
    table = None if owner is None else gateway.peek(owner.namespace)
    if owner is None or table is None:
        return None
    made = target.made
    sender = caller.peer, caller.shown_scheme
    if not isinstance(made, _Made) or made.table is not table or (made.peer, made.scheme) != sender:
        made = target.made = _make(caller, target, table)
    if made is None:
        return None
    is_let_in, client = gateway.peek_client(
        owner.namespace, made.found.resource, target.method, target.headers, target.query
    )
    address = made.address or managed.address_of(made.operation, made.found, made.rest)
    entry = made.entry = None if address is None else web.peek(services, address.name, made.entry)
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
        namespace=owner.namespace,
        made=made,
        address=address,
        client=client,
    )


def _make(caller: Caller, target: CallTarget, table: Table) -> _Made | None:
    """None for what is the application's to answer. Raises `BadRequest`."""
    rest = target.place.rest
    if target.domain:
        base_path = table.domains.get(target.domain)
        if base_path is None:
            return None
        rest = managed.below(base_path, rest)
    found = table.find(rest)
    operation = None if found is None else found.resource.operations.get(target.method)
    if found is None or operation is None or rest.endswith(tuple(managed.SHOWN)):
        return None
    if target.domain and found.resource.plan.base_path != base_path:
        return None
    if operation.keeping is not None or not operation.is_inside:
        return None
    if (operation.backend_verb or target.method) not in WEB_VERBS:
        return None
    address = None if operation.split is not None else managed.address_of(operation, found, rest)
    made = _Made(table, caller.peer, caller.shown_scheme, found, operation, rest, address)
    if address is None or operation.changes:
        return made
    parts = managed.passed_on(_came(caller, target, ""), operation, found, {}, b"")
    parts.headers.pop("x-request-id")
    try:
        given, fields, kind = _read(target, operation, parts, address)
    except RequestError:  # it is told with the request
        return made
    shown = bytes(given[webaction.HEADERS])[:-1] + b',"x-request-id":'
    return msgspec.structs.replace(made, shown=shown, given=given, fields=fields, kind=kind)


def _came(caller: Caller, target: CallTarget, id: str) -> managed.Came:
    return managed.Came(target.method, target.path, target.query, target.headers, caller.peer, caller.shown_scheme, id)


def _read(
    target: CallTarget, operation: Operation, parts: Parts, address: Address
) -> tuple[JsonObject, JsonObject, MediaType | None]:
    """What the action is told of a request but for its body: the context, the fields of the query, the body's type."""
    given = webaction.context(operation.backend_verb or target.method, parts.headers.items(), address.rest, None)
    fields = webaction.query_fields(parts.query) if parts.query else {}
    return given, fields, parse_media_type(parts.headers.get("content-type", ""))


def _asker(caller: Caller, head: Head) -> tuple[bool, Identity | None]:
    """Whether it is known who asks, and who does."""
    if not head.authorization:
        return True, None
    asker = caller.gate.services.identities.peek(head.authorization)
    return asker is not None and may_use(caller, asker, head), asker
