"""Whether the gateway lets a request through, in the order of OpenWhisk's: security, then how often.

It holds what is compiled of namespaces' APIs, and the counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl

import msgspec

from visp import wording
from visp.controller.calls import KEY, QUOTA, RATE, TOKEN, Calls
from visp.controller.counts import Rule
from visp.controller.subscriptions import place_of
from visp.controller.tokens import TokenRefused
from visp.entity.api import Api
from visp.entity.gateway import API_SCOPE, RESOURCE_SCOPE, KeyCheck, SecretCheck, Table
from visp.entity.tokens import TokenRule
from visp.errors import VispError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from visp.controller.counts import Counts
    from visp.controller.subscriptions import Subscriptions
    from visp.controller.tokens import Tokens
    from visp.entitlement.quota import Key
    from visp.entity.gateway import Found, Operation, Resource

TABLES_LIMIT = 1000
"""Namespaces whose APIs are held compiled; the one compiled first goes."""
TABLES_BYTES = 64 * 1024 * 1024
"""Of their documents, which are held with them; one namespace is held whatever its size."""
COMPILED_AT_ONCE_BYTES = 256 * 1024
"""What is larger is compiled in another thread."""
FIELDS_LIMIT = 1000
CLAIMS = {"x-oidc-sub": "sub", "x-oidc-email": "email", "x-oidc-scope": "scope"}
"""Which header tells which claim."""


class Documents(Protocol):
    """APIs by namespace, as they are now: the very same list until one of them changes."""

    def peek(self, namespace: str) -> Sequence[Api] | None:
        """What is in memory."""
        ...

    async def of(self, namespace: str) -> Sequence[Api]:
        """All of a namespace."""
        ...


class Denied(VispError):
    """The gateway refuses; `sentence` goes to the caller."""

    def __init__(self, status: int, sentence: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers


class Passed(msgspec.Struct, frozen=True):
    """Who calls: a client that was given a key, and headers that tell of the bearer of a token."""

    client: str | None = None
    headers: dict[str, str] = {}


class _Held(msgspec.Struct, frozen=True):
    apis: Sequence[Api]
    table: Table
    size: int


class Gateway:
    """One for a server."""

    def __init__(self, *, documents: Documents, subscriptions: Subscriptions, tokens: Tokens, counts: Counts) -> None:
        self._documents = documents
        self._tokens = tokens
        self.subscriptions = subscriptions
        self._counts = counts
        self.calls = Calls()
        self._tables: dict[str, _Held] = {}
        self._bytes = 0

    async def table(self, namespace: str) -> Table:
        """What the namespace's APIs come to."""
        apis = self._documents.peek(namespace)
        if apis is None:
            apis = await self._documents.of(namespace)
        held = self._tables.get(namespace)
        if held is not None and held.apis is apis:
            return held.table
        size = sum(api.size_bytes for api in apis)
        table = Table(apis) if size <= COMPILED_AT_ONCE_BYTES else await asyncio.to_thread(Table, apis)
        self._drop(namespace)
        while self._tables and (len(self._tables) >= TABLES_LIMIT or self._bytes + size > TABLES_BYTES):
            self._drop(next(iter(self._tables)))
        self._tables[namespace] = _Held(apis, table, size)
        self._bytes += size
        return table

    def _drop(self, namespace: str) -> None:
        held = self._tables.pop(namespace, None)
        if held is not None:
            self._bytes -= held.size

    def peek(self, namespace: str) -> Table | None:
        """The same where it is in memory."""
        held = self._tables.get(namespace)
        return held.table if held is not None and held.apis is self._documents.peek(namespace) else None

    def peek_client(
        self, namespace: str, resource: Resource, verb: str, headers: Mapping[str, str], query: str
    ) -> tuple[bool, str | None]:
        """Whether what is in memory lets a request in, and as which client; else `check` says what is wrong."""
        client: str | None = None
        checks = resource.checks(verb)
        fields = _fields(query) if checks and query else {}
        for check in checks:
            if isinstance(check, TokenRule):
                return False, None
            try:
                client, secret = _presented(check, headers, fields)
            except Denied:
                return False, None
            place = place_of(check.scope, resource.plan.base_path, resource.path)
            held = None if place is None else self.subscriptions.peek(namespace, place, client)
            if held is None or (secret is not None and not self.subscriptions.is_secret(held, secret)):
                return False, None
        return True, client

    async def check(
        self, namespace: str, resource: Resource, verb: str, headers: Mapping[str, str], query: str
    ) -> Passed:
        """Who calls, as far as the API asks; `headers` by lower-case name. Raises `Denied`."""
        client: str | None = None
        told: dict[str, str] = {}
        checks = resource.checks(verb)
        fields = _fields(query) if checks else {}
        for check in checks:
            try:
                if isinstance(check, TokenRule):
                    told |= await self._borne(check, headers)
                else:
                    client = await self._subscribed(namespace, resource, check, headers, fields)
            except Denied:
                self.calls.refuse(TOKEN if isinstance(check, TokenRule) else KEY)
                raise
        return Passed(client, told)

    async def _subscribed(
        self,
        namespace: str,
        resource: Resource,
        check: KeyCheck | SecretCheck,
        headers: Mapping[str, str],
        fields: Mapping[str, str],
    ) -> str:
        client, secret = _presented(check, headers, fields)
        place = place_of(check.scope, resource.plan.base_path, resource.path)
        held = None if place is None else await self.subscriptions.find(namespace, place, client)
        if secret is None:
            if held is None:
                raise Denied(401, wording.GATEWAY_UNAUTHORIZED)
        elif not self.subscriptions.is_secret(held, secret):
            raise Denied(401, wording.SECRET_MISMATCH)
        return client

    async def _borne(self, rule: TokenRule, headers: Mapping[str, str]) -> dict[str, str]:
        """What the web action is told of the bearer; what the caller says of that itself is overruled."""
        given = headers.get("authorization")
        if given is None:
            raise Denied(401, wording.NO_BEARER)
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer":
            raise Denied(401, wording.TOKEN_REFUSED)
        try:
            claims = await self._tokens.claims(rule, token.strip(), headers)
        except TokenRefused as refused:
            raise Denied(401, refused.sentence) from None
        return {header: _line(claims.get(name)) for header, name in CLAIMS.items()}

    async def admit(self, namespace: str, found: Found, operation: Operation, client: str | None) -> None:
        """Counts a call that may be made; raises `Denied`."""
        counted: asyncio.Future[Denied | None] = asyncio.get_running_loop().create_future()
        self.count(namespace, found, operation, client, lambda no: None if counted.done() else counted.set_result(no))
        denied = await counted
        if denied is not None:
            raise denied

    def count(
        self,
        namespace: str,
        found: Found,
        operation: Operation,
        client: str | None,
        then: Callable[[Denied | None], None],
    ) -> None:
        """Counts a call; `then` hears whether it is denied: at once, unless another shard has to be asked."""
        self._count_next(_rules(namespace, found, operation, client), then)

    def _count_next(self, rules: Iterator[Rule], then: Callable[[Denied | None], None]) -> None:
        rule = next(rules, None)
        if rule is None:
            then(None)
            return

        def counted(wait_s: int) -> None:
            if wait_s:
                self.calls.refuse(RATE if rule.gap_ms else QUOTA)
                then(Denied(429, wording.RATE_EXCEEDED, (("Retry-After", str(wait_s)),)))
            else:
                self._count_next(rules, then)

        self._counts.count(rule, counted)


def _rules(namespace: str, found: Found, operation: Operation, client: str | None) -> Iterator[Rule]:
    """All that a call is counted under."""
    plan = found.resource.plan
    api = (namespace, plan.base_path)
    if plan.gap_ms:
        yield Rule(_key(api, client), gap_ms=plan.gap_ms)
    for gap in operation.gaps:
        where = {API_SCOPE: plan.base_path, RESOURCE_SCOPE: found.resource.path}.get(gap.scope, "")
        yield Rule(_key((namespace, gap.scope, where), client if gap.by_key else None), gap_ms=gap.gap_ms)
    for what, quotas in ((api, plan.quotas), ((namespace, operation.verb, found.resource.path), operation.quotas)):
        for quota in quotas:
            yield Rule(_key(what, client if quota.by_key else None), quota.rate, quota.window_s)


def _key(what: Key, client: str | None) -> Key:
    return what if client is None else (*what, client)


def _presented(
    check: KeyCheck | SecretCheck, headers: Mapping[str, str], fields: Mapping[str, str]
) -> tuple[str, str | None]:
    """The client that a request names, and its secret where one is asked for. Raises `Denied`."""
    if isinstance(check, KeyCheck):
        key = _given(check.header, headers, fields)
        if key is None:
            raise Denied(401, wording.GATEWAY_UNAUTHORIZED)
        return key, None
    client, secret = (_given(name, headers, fields) for name in (check.id_header, check.secret_header))
    if client is None:
        raise Denied(401, wording.is_required(check.id_header))
    if secret is None:
        raise Denied(401, wording.is_required(check.secret_header))
    return client, secret


def _line(value: object) -> str:
    """A claim as the value of a header: printable text, or nothing."""
    return value if isinstance(value, str) and value.isprintable() else ""


def _given(name: str, headers: Mapping[str, str], fields: Mapping[str, str]) -> str | None:
    return headers.get(name) or fields.get(name) or None


def _fields(query: str) -> dict[str, str]:
    """By lower-case name; of a query of too many fields none."""
    try:
        pairs = parse_qsl(query, max_num_fields=FIELDS_LIMIT)
    except ValueError:
        return {}
    return {name.lower(): value for name, value in pairs}
