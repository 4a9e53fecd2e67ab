"""What the gateway holds of namespaces, and whom it lets through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from visp.clock import ManualClock
from visp.controller import gateway as subject
from visp.controller.counts import Counts
from visp.controller.gateway import Denied, Gateway
from visp.controller.tokens import TokenRefused
from visp.entity.api import Api
from visp.entity.gateway import Found, Resource, compile_api
from visp.store.base import Subscription


class Documents:
    def __init__(self) -> None:
        self.held: dict[str, tuple[Api, ...]] = {}

    def peek(self, namespace: str) -> Sequence[Api] | None:
        return self.held.get(namespace)

    async def of(self, namespace: str) -> Sequence[Api]:
        return self.held.setdefault(namespace, ())


class Clients:
    """One client of every API."""

    def peek(self, namespace: str, base_path: str, client: str) -> Subscription | None:
        if client != "key":
            return None
        return Subscription(namespace=namespace, base_path=base_path, digest=b"", client=client, secret=b"secret")

    async def find(self, namespace: str, base_path: str, client: str) -> Subscription | None:
        return self.peek(namespace, base_path, client)

    def is_secret(self, held: Subscription | None, secret: str) -> bool:
        return held is not None and held.secret == secret.encode()


class Tokens:
    async def claims(self, rule: Any, token: str, headers: Any) -> dict[str, Any]:
        if token != "good":
            raise TokenRefused("no")
        return {"sub": "me", "email": "a\nb", "scope": 7}


def api(size: int = 10, **fields: Any) -> Api:
    document = {"swagger": "2.0", "info": {}, "paths": {"/x": {"get": {}}}} | fields
    return Api(namespace="ns", base_path="/a", title="", document=document, size_bytes=size)


def resource(own: Any = None, **definitions: Any) -> Resource:
    operation = {} if own is None else {"x-visp-security": own}
    (made,) = compile_api(api(securityDefinitions=definitions, paths={"/x": {"get": operation}}))[1]
    return made


@pytest.fixture
def documents() -> Documents:
    return Documents()


@pytest.fixture
def gateway(documents: Documents) -> Gateway:
    parts: Any = {"subscriptions": Clients(), "tokens": Tokens()}
    return Gateway(documents=documents, counts=Counts(ManualClock()), **parts)


async def test_a_table_lasts_until_its_documents_change(gateway: Gateway, documents: Documents) -> None:
    documents.held["ns"] = (api(),)
    table = await gateway.table("ns")
    assert await gateway.table("ns") is table
    assert gateway.peek("ns") is table
    documents.held["ns"] = (api(),)
    assert gateway.peek("ns") is None
    assert await gateway.table("ns") is not table
    assert (await gateway.table("none")).plans == {}


async def test_tables_are_bounded(gateway: Gateway, documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "TABLES_BYTES", 100)
    monkeypatch.setattr(subject, "COMPILED_AT_ONCE_BYTES", 30)
    for number in range(20):
        documents.held[str(number)] = (api(size=40),)
        await gateway.table(str(number))
    assert list(gateway._tables) == ["18", "19"]
    documents.held["large"] = (api(size=1000),)
    await gateway.table("large")
    assert list(gateway._tables) == ["large"]
    monkeypatch.setattr(subject, "TABLES_LIMIT", 3)
    for number in range(5):
        documents.held[str(number)] = (api(size=1),)
        await gateway.table(str(number))
    assert list(gateway._tables) == ["2", "3", "4"]


KEY = {"type": "apiKey", "name": "X-Key"}
BOTH = {"client_id": {"name": "X-Id"}, "client_secret": {"name": "X-Secret"}}


@pytest.mark.parametrize(
    ("definitions", "headers", "query", "client"),
    [
        ({}, {}, "", None),
        ({"k": KEY}, {"x-key": "key"}, "", "key"),
        ({"k": KEY}, {}, "a=1&X-KEY=key", "key"),
        (BOTH, {"x-id": "key", "x-secret": "secret"}, "", "key"),
        (BOTH, {"x-id": "key"}, "x-secret=secret", "key"),
    ],
)
async def test_who_is_let_in(
    gateway: Gateway, definitions: dict[str, Any], headers: dict[str, str], query: str, client: str | None
) -> None:
    asked = resource(**definitions)
    assert (await gateway.check("ns", asked, "GET", headers, query)).client == client
    assert gateway.peek_client("ns", asked, "GET", headers, query) == (True, client)


@pytest.mark.parametrize(
    ("definitions", "headers"),
    [
        ({"k": KEY}, {}),
        ({"k": KEY}, {"x-key": "other"}),
        ({"k": KEY, "other": {"type": "apiKey"}}, {"x-key": "key"}),
        ({"k": KEY, "o": {"type": "oauth2"}}, {"x-key": "key"}),
        (BOTH, {"x-id": "key", "x-secret": "other"}),
        ({"o": {"type": "oauth2"}}, {"authorization": "Bearer bad"}),
        ({"o": {"type": "oauth2"}}, {"authorization": "Basic good"}),
        ({"o": {"type": "oauth2"}}, {"authorization": "Bearer"}),
    ],
)
async def test_who_is_not(gateway: Gateway, definitions: dict[str, Any], headers: dict[str, str]) -> None:
    with pytest.raises(Denied) as caught:
        await gateway.check("ns", resource(**definitions), "GET", headers, "")
    assert caught.value.status == 401
    assert gateway.peek_client("ns", resource(**definitions), "GET", headers, "") == (False, None)


PLACES = {"api": "/a", "resource": "/a\n/a/x", "tenant": ""}


@pytest.mark.parametrize("scope", [*PLACES, "other", ""])
async def test_a_key_is_looked_for_where_its_scope_says(gateway: Gateway, scope: str) -> None:
    class Scoped(Clients):
        def peek(self, namespace: str, base_path: str, client: str) -> Subscription | None:
            return super().peek(namespace, base_path, client) if base_path == PLACES.get(scope) else None

    gateway.subscriptions = Scoped()  # type: ignore[assignment]
    for asking in (resource(k=KEY | {"x-visp-scope": scope}), resource([KEY | {"scope": scope}])):
        is_let_in = scope in PLACES
        assert gateway.peek_client("ns", asking, "GET", {"x-key": "key"}, "")[0] is is_let_in
        if is_let_in:
            assert (await gateway.check("ns", asking, "GET", {"x-key": "key"}, "")).client == "key"
        else:
            with pytest.raises(Denied):
                await gateway.check("ns", asking, "GET", {"x-key": "key"}, "")


async def test_an_operation_has_checks_of_its_own(gateway: Gateway) -> None:
    assert (await gateway.check("ns", resource([], k=KEY), "GET", {}, "")).client is None
    for own in ([KEY], [{"type": "other"}], "nonsense", [7]):
        with pytest.raises(Denied):
            await gateway.check("ns", resource(own), "GET", {}, "")
        assert gateway.peek_client("ns", resource(own), "GET", {}, "") == (False, None)
    with pytest.raises(Denied):
        await gateway.check("ns", resource([], k=KEY), "PUT", {}, "")


async def test_an_operation_has_a_pace_of_its_own(gateway: Gateway) -> None:
    limits = [{"rate": 1, "interval": 60, "scope": "resource", "subscription": True}]
    (asked,) = compile_api(api(paths={"/x": {"get": {"x-visp-rate-limit": limits}}}))[1]
    for client in ("one", "two"):
        await gateway.admit("ns", Found(asked), asked.operations["GET"], client)
        with pytest.raises(Denied) as caught:
            await gateway.admit("ns", Found(asked), asked.operations["GET"], client)
        assert (caught.value.status, caught.value.headers) == (429, (("Retry-After", "60"),))


async def test_what_is_told_of_a_bearer_is_one_line_each(gateway: Gateway) -> None:
    passed = await gateway.check("ns", resource(o={"type": "oauth2"}), "GET", {"authorization": "bearer  good"}, "")
    assert passed.headers == {"x-oidc-sub": "me", "x-oidc-email": "", "x-oidc-scope": ""}
