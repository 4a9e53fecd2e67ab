"""What is compiled of an API's document, and which resource a path is for."""

from __future__ import annotations

from typing import Any

import pytest

from visp.entity.api import Api
from visp.entity.gateway import (
    SEGMENTS_LIMIT,
    Keeping,
    KeyCheck,
    Place,
    Quota,
    Routing,
    SecretCheck,
    Table,
    Target,
    compile_api,
    domain_of,
    parse_domains,
    parse_place,
    parse_target,
    routed,
    url_of,
)
from visp.entity.tokens import TokenRule

WEB = "http://H:3233/api/v1/web/guest/kit"


def api(paths: dict[str, Any], base: str = "/shop", **fields: Any) -> Api:
    document = {"swagger": "2.0", "info": {"title": "t", "version": "1"}, "basePath": base, "paths": paths} | fields
    return Api(namespace="guest", base_path=base, title="t", document=document)


def made(*cases: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"x-ibm-configuration": {"assembly": {"execute": [{"operation-switch": {"case": list(cases)}}]}} | fields}


def case(id: str, url: str, *steps: dict[str, Any], verb: str = "keep") -> dict[str, Any]:
    return {"operations": [id], "execute": [{"invoke": {"target-url": url, "verb": verb}}, *steps]}


def table(*paths: str, base: str = "/shop") -> Table:
    return Table([api({path: {"get": {"operationId": path}} for path in paths}, base)])


# ── documents ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_clients_create() -> None:
    url = f"{WEB}/put.http$(request.path)"
    secret = {"set-variable": {"actions": [{"set": "message.headers.X-Require-Whisk-Auth", "value": 42}]}}
    document = made(case("putItemsId", url, secret), cors={"enabled": True})
    plan, (resource,) = compile_api(api({"/items/{id}": {"put": {"operationId": "putItemsId"}}}, **document))
    assert plan.has_cors is True
    assert resource.path == "/shop/items/{id}"
    operation = resource.operations["PUT"]
    assert operation.target == Target("/api/v1/web/guest/kit/put.http", True)
    assert operation.backend_verb is None
    (change,) = operation.changes
    assert (change.place, change.name, change.value) == ("header", "x-require-whisk-auth", 42)


def test_one_policy_for_all_operations() -> None:
    execute = [
        {"set-variable": {"actions": [{"set": "message.query.a", "value": "1"}]}},
        {"invoke": {"target-url": f"{WEB}/one.json", "verb": "post"}},
        {"operation-switch": {"case": [case("x", f"{WEB}/two.json")]}},
    ]
    _, (resource,) = compile_api(
        api({"/x": {"get": {"operationId": "x"}}}, **{"x-ibm-configuration": {"assembly": {"execute": execute}}})
    )
    operation = resource.operations["GET"]
    assert operation.target == Target("/api/v1/web/guest/kit/one.json")
    assert operation.backend_verb == "POST"
    assert [change.name for change in operation.changes] == ["a"]


def test_the_gateways_own_names_come_first() -> None:
    document = made(case("x", f"{WEB}/old.json"))
    document["x-gateway-configuration"] = made(case("x", f"{WEB}/new.json"))["x-ibm-configuration"]
    document["x-gateway-rate-limit"] = [{"unit": "second", "units": 2, "rate": 4}]
    document["x-ibm-rate-limit"] = [{"unit": "hour", "units": 1, "rate": 1}]
    plan, (resource,) = compile_api(api({"/x": {"get": {"operationId": "x"}}}, **document))
    target = resource.operations["GET"].target
    assert target is not None
    assert target.path.endswith("new.json")
    assert plan.gap_ms == 500


def test_without_a_policy_the_operations_own_action_is_meant() -> None:
    told = {"operationId": "x", "x-openwhisk": {"url": f"{WEB}/act.http"}}
    _, (plain, templated) = compile_api(api({"/x": {"get": told}, "/y/{z}": {"get": told}}))
    assert plain.operations["GET"].target == Target("/api/v1/web/guest/kit/act.http")
    assert templated.operations["GET"].target == Target("/api/v1/web/guest/kit/act.http", True)


def test_an_operation_without_an_action_is_there() -> None:
    _, (resource,) = compile_api(api({"/x": {"get": {"operationId": ""}, "parameters": [], "x-own": {}}}))
    assert list(resource.operations) == ["GET"]
    assert resource.operations["GET"].target is None


@pytest.mark.parametrize(
    "fields",
    [
        {"x-ibm-configuration": 3},
        {"x-ibm-configuration": {"assembly": []}},
        {"x-ibm-configuration": {"assembly": {"execute": [None, {"operation-switch": []}, {"invoke": 1}]}}},
        {"x-ibm-configuration": {"assembly": {"execute": [{"operation-switch": {"case": [{"operations": [{}]}]}}]}}},
        {"x-ibm-rate-limit": [{"rate": "many"}]},
        {"x-ibm-rate-limit": [{"rate": 0}]},
        {"securityDefinitions": [1], "x-visp-quota": [1], "x-visp-cache": [], "x-visp-mapping": {"a": 1}},
    ],
)
def test_what_is_said_wrongly_is_not_said(fields: dict[str, Any]) -> None:
    plan, (resource, nothing) = compile_api(api({"/x": {"get": {"operationId": "x"}, "put": 7}, "/y": None}, **fields))
    assert nothing.operations == {}
    assert plan.gap_ms == 0
    assert plan.checks == ()
    assert resource.operations["GET"].target is None


@pytest.mark.parametrize(
    ("given", "gap_ms"),
    [({"rate": 100}, 600), ({"unit": "second", "units": 1, "rate": 1}, 1000), ({"unit": "day", "rate": 86_400}, 1000)],
)
def test_rate_limits(given: dict[str, Any], gap_ms: int) -> None:
    assert compile_api(api({}, **{"x-ibm-rate-limit": [given]}))[0].gap_ms == gap_ms


@pytest.mark.parametrize(
    ("definitions", "checks"),
    [
        (
            {"client_id": {"type": "apiKey", "name": "X-Id"}, "client_secret": {"type": "apiKey", "name": "X-Secret"}},
            (SecretCheck("x-id", "x-secret"),),
        ),
        ({"client_id": {}, "client_secret": {}}, (SecretCheck(),)),
        ({"client_id": {"type": "apiKey", "name": "X-Id"}}, (KeyCheck("x-id"),)),
        ({"key": {"type": "apiKey"}, "none": {"type": "basic"}}, (KeyCheck(),)),
        ({"google": {"type": "oauth2"}}, (TokenRule(name="google"),)),
    ],
)
def test_security(definitions: dict[str, Any], checks: tuple[Any, ...]) -> None:
    assert compile_api(api({}, securityDefinitions=definitions))[0].checks == checks


def test_our_own_extensions() -> None:
    told = {
        "operationId": "x",
        "x-visp-quota": {"rate": 5, "unit": "hour", "by": "key"},
        "x-visp-cache": {"seconds": 30, "vary": ["Accept-Language"]},
        "x-visp-split": {"target-url": f"{WEB}/new.json", "percent": 10},
    }
    fields = {"x-visp-quota": [{"rate": 10, "unit": "second"}], "x-visp-docs": False}
    plan, (resource,) = compile_api(api({"/x": {"get": told}}, **fields))
    operation = resource.operations["GET"]
    assert plan.quotas == (Quota(10, 1),)
    assert not plan.is_shown
    assert operation.quotas == (Quota(5, 3600, by_key=True),)
    assert operation.keeping == Keeping(30, vary=("accept-language",))
    assert operation.split is not None
    assert operation.split.target.path.endswith("new.json")


def test_targets() -> None:
    assert parse_target("https://elsewhere/api/v1/web/ns/default/a.json?x=1") == Target("/api/v1/web/ns/default/a.json")
    assert parse_target("") is None


def test_targets_elsewhere() -> None:
    target = parse_target("https://api.example:8443/v 1?key=k$(request.path)")
    assert target == Target("/v%201", True, "https://api.example:8443", "key=k")
    assert url_of(target, "/base/x%20y", "a=1&b=%20") == "https://api.example:8443/v%201/base/x%20y?key=k&a=1&b=%20"
    bare = parse_target("http://[2001:db8::1]")
    assert bare is not None
    assert url_of(bare, "", "") == "http://[2001:db8::1]/"
    assert url_of(bare, "/\xc3\xa9 \r\nX: 1", "") == "http://[2001:db8::1]/%C3%A9%20%0D%0AX:%201"


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "https://u:p@h/x", "//h/x", "/x", "https:///x", "http://h:70000/", "http://[x/", "h/x"]
)
def test_what_is_no_target(url: str) -> None:
    assert parse_target(url) is None


@pytest.mark.parametrize("follows", ["/../admin", "/a/..", "/%2e%2e/a", "/..%2fa", "/.%5C..%5Ca", "/./a"])
def test_what_follows_does_not_lead_out_of_the_target(follows: str) -> None:
    assert url_of(Target("/v1", origin="https://h"), follows, "") is None
    assert parse_target("http://[") is None


# ── paths ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "resource", "rest"),
    [
        ("/shop/items", "/shop/items", ""),
        ("/shop/items/", "/shop/items", "/"),
        ("/shop/items/7/x", "/shop/items", "/7/x"),
        ("/shop/it%65ms", "/shop/items", ""),
        ("/shop/items%2F7", None, ""),
        ("/shop", None, ""),
        ("/other/items", None, ""),
        ("", None, ""),
    ],
)
def test_exact_paths_and_prefixes(path: str, resource: str | None, rest: str) -> None:
    found = table("/items").find(path)
    assert (None if found is None else found.resource.path) == resource
    assert found is None or found.rest == rest


def test_a_prefix_may_lack_the_slash_of_its_resource() -> None:
    held = table("/")
    for path, rest in (("/shop", ""), ("/shop/", ""), ("/shop/a/b", "/a/b")):
        found = held.find(path)
        assert found is not None
        assert found.rest == rest


def test_the_longest_prefix_wins() -> None:
    held = table("/", "/a", "/a/b")
    assert [found and found.resource.path for found in map(held.find, ("/shop/x", "/shop/a/c", "/shop/a/b/c"))] == [
        "/shop/",
        "/shop/a",
        "/shop/a/b",
    ]


@pytest.mark.parametrize(
    ("path", "resource", "values"),
    [
        ("/shop/books/978", "/shop/books/{isbn}", {"isbn": "978"}),
        ("/shop/books/a%20b", "/shop/books/{isbn}", {"isbn": "a b"}),
        ("/shop/books/1/2", "/shop/books/{isbn}", {"isbn": "1/2"}),
        ("/shop/books/best", "/shop/books/best", {}),
        ("/shop/books/7/pages/3", "/shop/books/{isbn}/pages/{page}", {"isbn": "7", "page": "3"}),
        ("/shop/books/", None, {}),
        ("/shop/x-1-y-2", "/shop/x-{a}-y-{b}", {"a": "1", "b": "2"}),
        ("/shop/{my-id}", "/shop/{my-id}", {}),
    ],
)
def test_parameters(path: str, resource: str | None, values: dict[str, str]) -> None:
    held = table("/books/{isbn}", "/books/{isbn}/pages/{page}", "/books/best", "/x-{a}-y-{b}", "/{my-id}")
    found = held.find(path)
    assert (None if found is None else found.resource.path) == resource
    assert found is None or found.values == values


def test_what_follows_a_path_with_parameters() -> None:
    found = table("/{id}/view").find("/shop/7/view/more")
    assert found is not None
    assert (found.values, found.rest) == ({"id": "7"}, "/more")


def test_only_the_whole_path() -> None:
    held = table("/", "/a/{x}")
    assert held.find("/shop/b", is_whole=True) is None
    assert held.find("/shop/a/b", is_whole=True) is not None


def test_the_longer_base_path_wins() -> None:
    one, other = api({"/b/c": {"get": {}}}, "/a"), api({"/c": {"get": {}}}, "/a/b")
    for apis in ([one, other], [other, one]):
        found = Table(apis).find("/a/b/c")
        assert found is not None
        assert found.resource.plan.base_path == "/a/b"


def test_the_root_as_base_path() -> None:
    found = table("/x", base="/").find("/x/y")
    assert found is not None
    assert (found.resource.path, found.rest) == ("/x", "/y")


def test_a_path_of_too_many_segments_is_none() -> None:
    assert table("/{all}").find("/shop" + "/x" * (SEGMENTS_LIMIT - 1)) is not None
    assert table("/{all}").find("/shop" + "/x" * SEGMENTS_LIMIT) is None


# ── where a path leads ──────────────────────────────────────────────────────────────────────────────────────────

UUID = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/gw/guest/x%2Fy", Place("guest", False, "/x%2Fy")),
        ("/gw/a%20b", Place("a b", False, "")),
        ("/gw/", Place("", False, "")),
        ("/gw/%2F/x", Place("", False, "/x")),
        ("/gw", None),
        (f"/api/{UUID}/x", Place(UUID, True, "/x")),
        (f"/api/{UUID}", Place(UUID, True, "")),
        (f"/api/{UUID}x/y", None),
        ("/api/v1", None),
        ("/api/v2/x", None),
    ],
)
def test_paths_of_the_gateway(path: str, place: Place | None) -> None:
    assert parse_place(path) == place


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://A.example/x?y=1", "https://a.example/x?y=1"),
        ("a.example:8080/x", "http://a.example:8080/x"),
        ("http://b.example:81", "http://b.example:81/"),
        ("http://[2001:db8::1]:8/", "http://[2001:db8::1]:8/"),
        ("https://a.example/api/v1/web/other/default/a.json", "https://a.example/api/v1/web/other/default/a.json"),
        ("http://b.example/", None),
        ("http://other/", None),
        ("http://a.example@other/", None),
        ("http://other/?a.example", None),
        ("ftp://a.example/", None),
        ("//a.example/", None),
        ("http://a.example/$(request.path)", None),
    ],
)
def test_a_request_names_a_target_among_those_that_it_may(given: str, url: str | None) -> None:
    routing = Routing("x-to", frozenset({"a.example", "b.example:81", "[2001:db8::1]"}))
    target = routed(routing, given)
    assert (None if target is None else url_of(target, "", "")) == url


def test_domains_of_namespaces() -> None:
    assert parse_domains("") == {}
    assert parse_domains("a.example x; b.example y;") == {"a.example": "x", "b.example": "y"}
    for wrong in (
        "a.example",
        "A.example x",
        "*.example x",
        "a.example x; a.example y",
        "a.example x y",
        "a.example /",
    ):
        with pytest.raises(ValueError, match=r"example"):
            parse_domains(wrong)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("A.example", "a.example"),
        ("a.example:80", "a.example"),
        ("a.example.", "a.example"),
        ("", ""),
        ("[::1]:8", "[::1]"),
    ],
)
def test_the_domain_of_a_host(host: str, name: str) -> None:
    assert domain_of(host) == name
