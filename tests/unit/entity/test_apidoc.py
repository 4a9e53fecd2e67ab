"""What clients send to make an API: every text, in OpenWhisk's order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from visp.entity import apidoc
from visp.entity.api import Endpoint
from visp.errors import ApiRefused

ACTION = {
    "name": "kit/put",
    "namespace": "_",
    "backendMethod": "PUT",
    "backendUrl": "http://H:3233/api/v1/web/_/kit/put.http",
    "authkey": "U:K",
}
PLAIN = {
    "namespace": "_",
    "gatewayBasePath": "/shop",
    "gatewayPath": "/items",
    "gatewayMethod": "PUT",
    "id": "API:_:/shop",
    "action": ACTION,
}
SWAGGER: dict[str, Any] = {"basePath": "/shop", "paths": {}, "info": {"title": "Shop"}}


def parse(given: Any, response_type: str | None = None) -> apidoc.Given:
    return apidoc.parse(given, response_type, "guest", "http://here")


def endpoint(response_type: str | None = None, **fields: Any) -> Endpoint:
    found = parse(PLAIN | fields, response_type).endpoint
    assert found is not None
    return found


def lacking(name: str, of: dict[str, Any] | None = None) -> dict[str, Any]:
    return {key: value for key, value in (PLAIN if of is None else of).items() if key != name}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "apidoc is required."),
        ("", "apidoc is required."),
        ({}, "apidoc is required."),
        ("{", "apidoc field cannot be parsed. Ensure it is valid JSON."),
        (7, "apidoc field is of type number and should be a JSON object or a JSON string."),
        ([1], "apidoc is missing the namespace field"),
        (lacking("namespace"), "apidoc is missing the namespace field"),
        (lacking("gatewayBasePath"), "apidoc is missing the gatewayBasePath field"),
        (lacking("gatewayPath"), "apidoc is missing the gatewayPath field"),
        (lacking("gatewayMethod"), "apidoc is missing the gatewayMethod field"),
        (PLAIN | {"gatewayMethod": 7}, "apidoc is missing the gatewayMethod field"),
        (lacking("action"), "apidoc is missing the action field."),
        *(
            (PLAIN | {"action": lacking(name, ACTION)}, f"action is missing the {name} field.")
            for name in ("backendMethod", "backendUrl", "namespace", "name", "authkey")
        ),
        (
            PLAIN | {"swagger": SWAGGER},
            "swagger and gatewayBasePath are mutually exclusive and cannot be specified together.",
        ),
        ({"namespace": "_", "swagger": "{"}, "swagger field cannot be parsed. Ensure it is valid JSON."),
        ({"namespace": "_", "swagger": True}, "swagger field is boolean and should be an object or a JSON string."),
        ({"namespace": "_", "swagger": [1]}, "swagger is missing the basePath field."),
        *(
            ({"namespace": "_", "swagger": lacking(name, SWAGGER)}, f"swagger is missing the {name} field.")
            for name in ("basePath", "paths", "info")
        ),
        (
            PLAIN | {"action": ACTION | {"backendUrl": "ftp://x"}},
            "API creation failure: The backendUrl 'ftp://x' is no URL with http or https and a host.",
        ),
    ],
)
def test_what_is_missing_or_wrong(given: Any, says: str) -> None:
    with pytest.raises(ApiRefused) as caught:
        parse(given)
    assert caught.value.sentence == says


def test_an_operation() -> None:
    assert endpoint("http", apiName="Shop", pathParameters=[{"name": "x"}]) == Endpoint(
        base_path="/shop",
        title="Shop",
        path="/items",
        verb="put",
        url="http://H:3233/api/v1/web/guest/kit/put.http",
        namespace="guest",
        package="kit",
        action="put",
        is_http=True,
        parameters=[{"name": "x"}],
    )
    assert parse(json.dumps(PLAIN)) == parse(PLAIN)


@pytest.mark.parametrize("kind", [None, "json", "undefined"])
def test_json_is_the_usual_response(kind: str | None) -> None:
    found = endpoint(kind)
    assert (found.url, found.is_http) == ("http://H:3233/api/v1/web/guest/kit/put.json", False)


def test_an_unknown_response() -> None:
    with pytest.raises(ApiRefused, match=r"The response type 'exe' is none of html, http, json, svg, text\."):
        endpoint("exe")


@pytest.mark.parametrize(
    ("name", "namespace", "url"),
    [
        ("put", "_", "guest/default/put"),
        ("kit/put", "other", "other/kit/put"),
        ("/guest/kit/put", "_", "guest/kit/put"),
    ],
)
def test_the_action_is_named_anew(name: str, namespace: str, url: str) -> None:
    found = endpoint(action=ACTION | {"name": name, "namespace": namespace})
    assert found.url == f"http://H:3233/api/v1/web/{url}.json"


def test_a_scheme_that_comes_twice() -> None:
    found = endpoint(action=ACTION | {"backendUrl": "https://http://H:1/api/v1/web/_/kit/put.http"})
    assert found.url == "http://H:1/api/v1/web/guest/kit/put.json"


@pytest.mark.parametrize(("key", "secret"), [("s", "s"), (7, 7), (True, True), (False, None), ("", None), ([], None)])
def test_the_key_of_a_secured_action(key: Any, secret: Any) -> None:
    assert endpoint(action=ACTION | {"secureKey": key}).secret == secret


def test_a_document() -> None:
    for given in (SWAGGER, json.dumps(SWAGGER)):
        assert parse({"namespace": "_", "swagger": given}) == apidoc.Given(document=SWAGGER)
