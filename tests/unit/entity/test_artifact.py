"""Ids of APIs, what the gateway refuses of documents, and their first form."""

from __future__ import annotations

from typing import Any

import pytest

from visp.entity.api import api_of
from visp.entity.artifact import (
    Unfit,
    base_path_of,
    check_resources,
    check_swagger,
    id_of,
    render_resources,
    to_swagger,
)
from visp.entity.gateway import KeyCheck, Routing, compile_api


@pytest.mark.parametrize("path", ["/", "/a/b c", "/é", "/" + "x" * 200])
def test_an_id_says_the_base_path(path: str) -> None:
    assert base_path_of(id_of(path)) == path


@pytest.mark.parametrize("id", ["", "/a", "api-", "api-%%", "api-YQ", "api-_w", "other-L2E", "api-L2E=====x"])
def test_what_is_no_id(id: str) -> None:
    assert base_path_of(id) is None


def first(**fields: Any) -> dict[str, Any]:
    operation = {"backendMethod": "POST", "backendUrl": "https://api.example/x"} | fields.pop("operation", {})
    resource = {"operations": {fields.pop("verb", "get"): operation}} | fields.pop("resource", {})
    body = {"name": "n", "basePath": "/b", "resources": {fields.pop("path", "/x"): resource}}
    return body | fields


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (first(name=None), "Missing field 'name' in request body."),
        (first(basePath=7), "Missing field 'basePath' in request body."),
        (first(resources=None), "Missing field 'resources' in request body."),
        (first(resources={}), "Empty resources object."),
        (first(basePath="/a'b"), 'basePath contains illegal character "\'".'),
        (first(path="x"), "Resource path must begin with '/'."),
        (first(path="/x'"), 'resource path contains illegal character "\'".'),
        (first(resource={"operations": {}}), "Missing or empty field 'operations' or in resource path object."),
        (first(verb="trace"), "Resource verb 'trace' not supported."),
        (first(operation={"backendMethod": None}), "Missing field 'backendMethod' for 'get' operation."),
        (first(operation={"backendUrl": None}), "Missing field 'backendUrl' for 'get' operation."),
        (first(operation={"backendMethod": "x"}), "backendMethod 'x' not supported."),
        (
            first(operation={"policies": [{"type": "rateLimit"}]}),
            'Missing field in policy object. Need "type" and "value".',
        ),
        (
            first(operation={"policies": [{"type": "x", "value": 1}]}),
            'Invalid type in policy object. Valid: ["reqMapping","rateLimit","backendRouting"]',
        ),
        (first(operation={"security": "x"}), 'Missing field in security object. Need "type" and "scope".'),
        (
            first(operation={"security": [{"type": "apiKey", "scope": "x"}]}),
            'Invalid scope in security object. Valid: ["tenant","api","resource"]',
        ),
    ],
)
def test_what_is_refused_of_the_first_form(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Unfit) as caught:
        check_resources(body)
    assert caught.value.sentence == sentence


def test_what_is_refused_of_a_document() -> None:
    good = {"info": {"title": "t"}, "basePath": "/b", "paths": {"/x": {"get": {}, "parameters": []}}}
    check_swagger(good)
    for wrong, sentence in (
        ({"info": {}}, "Missing field 'name' in request body."),
        ({"basePath": None}, "Missing field 'basePath' in request body."),
        ({"paths": None}, "Missing field 'resources' in request body."),
        ({"paths": {"x": {}}}, "Resource path must begin with '/'."),
    ):
        with pytest.raises(Unfit) as caught:
            check_swagger(good | wrong)
        assert caught.value.sentence == sentence


SECURITY = [{"type": "apiKey", "scope": "tenant", "name": "X-Key"}]
MAPPING = [{"action": "insert", "from": {"value": "v"}, "to": {"name": "X-A", "location": "header"}}]
POLICIES = [
    {"type": "reqMapping", "value": MAPPING},
    {"type": "rateLimit", "value": {"interval": 60, "rate": 120, "scope": "resource", "subscription": True}},
    {"type": "backendRouting", "value": {"whitelist": ["H.example"]}},
]


def test_the_first_form_there_and_back() -> None:
    told = {"policies": POLICIES, "security": SECURITY}
    body = first(resource={"cors": {"origin": "true", "methods": ""}}, operation=told)
    body["resources"]["/x"]["operations"] = {"get": {"backendMethod": "POST", "backendUrl": "https://h/x"} | told}
    check_resources(body)
    api = api_of("ns", to_swagger(body), 0)
    plan, (resource,) = compile_api(api)
    operation = resource.operations["GET"]
    assert plan.has_cors is True
    assert operation.target is not None
    assert (operation.target.origin, operation.backend_verb) == ("https://h", "POST")
    assert operation.checks == (KeyCheck("x-key", "tenant"),)
    assert operation.routing == Routing("x-cf-forwarded-url", frozenset({"h.example"}))
    assert (operation.gaps[0].gap_ms, operation.gaps[0].scope, operation.gaps[0].by_key) == (500, "resource", True)
    assert operation.changes[0].name == "x-a"
    shown = render_resources(api, {"id": "i", "namespace": "ns", "instance": ""}, "http://h/gw/ns/b")
    assert (shown["tenantId"], shown["tenantNamespace"], shown["managedUrl"]) == ("i", "ns", "http://h/gw/ns/b")
    assert shown["resources"]["/x"]["cors"] == {"origin": "true"}
    assert shown["resources"]["/x"]["operations"]["get"] == {
        "backendMethod": "POST",
        "backendUrl": "https://h/x",
        "policies": POLICIES,
        "security": SECURITY,
    }


def test_cors_that_a_document_has_no_words_for() -> None:
    with pytest.raises(Unfit):
        to_swagger(first(resource={"cors": {"origin": "http://page"}}))
