"""OpenAPI 3 in and out: what is the same, what is simplified, and that both forms are valid."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV31SpecValidator

from visp.entity import api as apis
from visp.entity import openapi
from visp.errors import ApiRefused

BASE = "http://here:3233"
URL = f"{BASE}/gw/guest/shop"
ACTION = {"namespace": "guest", "package": "kit", "action": "put"}
ITEM = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "examples": ["cup"]},
        "nullable": {"type": ["string", "null"]},
        "price": {"type": "number", "exclusiveMinimum": 0},
        "parent": {"$ref": "#/components/schemas/Item"},
    },
}
SHOP: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Shop", "version": "2.1", "license": {"name": "MIT"}},
    "servers": [{"url": URL}],
    "tags": [{"name": "items"}],
    "security": [{"key": []}],
    "paths": {
        "/items/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "getItem",
                "tags": ["items"],
                "parameters": [
                    {
                        "name": "q",
                        "in": "query",
                        "explode": True,
                        "schema": {"type": "array", "items": {"type": "integer"}},
                    }
                ],
                "x-openwhisk": ACTION | {"url": f"{BASE}/api/v1/web/guest/kit/put.http"},
                "responses": {
                    "200": {
                        "description": "It.",
                        "headers": {"X-Age": {"description": "old", "schema": {"type": "integer"}}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
                    },
                    "404": {"$ref": "#/components/responses/Absent"},
                },
            },
            "put": {
                "operationId": "putItem",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
                },
                "x-openwhisk": ACTION | {"url": f"{BASE}/api/v1/web/guest/kit/put.http"},
                "responses": {"default": {"description": "Done."}},
            },
            "post": {
                "operationId": "sendForm",
                "requestBody": {
                    "content": {
                        "multipart/form-data": {
                            "schema": {
                                "type": "object",
                                "properties": {
                                    "file": {"type": "string", "format": "binary"},
                                    "n": {"type": "integer"},
                                },
                                "required": ["n"],
                            }
                        }
                    }
                },
                "x-openwhisk": ACTION | {"url": f"{BASE}/api/v1/web/guest/kit/put.http"},
                "responses": {"default": {"description": "Done."}},
            },
        }
    },
    "components": {
        "schemas": {"Item": ITEM},
        "responses": {"Absent": {"description": "None."}},
        "securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            "basic": {"type": "http", "scheme": "basic"},
            "jwt": {"type": "http", "scheme": "bearer"},
            "google": {
                "type": "oauth2",
                "flows": {"clientCredentials": {"tokenUrl": "http://t/", "scopes": {"a": "all"}}},
            },
        },
    },
}


def swagger(**parts: Any) -> dict[str, Any]:
    return openapi.to_swagger(SHOP | parts, BASE)


def test_both_forms_are_valid() -> None:
    OpenAPIV31SpecValidator(SHOP).validate()
    made = swagger()
    OpenAPIV2SpecValidator(made).validate()
    OpenAPIV31SpecValidator(openapi.from_swagger(made, URL)).validate()


def test_what_comes_is_what_goes() -> None:
    made = swagger()
    apis.check_swagger(made)
    back = openapi.from_swagger(made, URL)
    assert back.pop("x-ibm-configuration") == made["x-ibm-configuration"]
    assert back == SHOP


def test_what_the_gateway_reads() -> None:
    made = swagger()
    assert made["basePath"] == "/shop"
    assert apis.target_of(made, "putItem") == f"{BASE}/api/v1/web/guest/kit/put.http$(request.path)"
    assert made["securityDefinitions"]["key"] == {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
    assert made["securityDefinitions"]["google"]["flow"] == "application"
    assert "jwt" not in made["securityDefinitions"]  # it is the action's to check


def test_the_words_of_swagger() -> None:
    item = swagger()["definitions"]["Item"]["properties"]
    assert item["nullable"] == {"type": "string", "x-nullable": True}
    assert item["price"] == {"type": "number", "minimum": 0, "exclusiveMinimum": True}
    assert item["parent"] == {"$ref": "#/definitions/Item"}
    form = swagger()["paths"]["/items/{id}"]["post"]
    assert form["consumes"] == ["multipart/form-data"]
    assert form["parameters"] == [
        {"name": "file", "in": "formData", "required": False, "type": "file"},
        {"name": "n", "in": "formData", "required": True, "type": "integer"},
    ]


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ({"url": "/"}, "/"),
        ({"url": "https://x.example/v1/"}, "/v1"),
        ({"url": "{host}/v1", "variables": {"host": {"default": "https://x"}}}, "/v1"),
        ({"url": "http://h/gw/guest"}, "/"),
        ({"url": "http://h/gw/guest/a%20b"}, "/a b"),
        ({"url": "http://h/api/23bc46b1-71f6-4ed5-8c54-816aa4f8c502/shop"}, "/shop"),
        ({"url": "http://h/api/shop"}, "/api/shop"),
    ],
)
def test_base_paths(server: dict[str, Any], path: str) -> None:
    assert swagger(servers=[server])["basePath"] == path


def test_an_action_is_enough() -> None:
    made = swagger(paths={"/a": {"get": {"x-openwhisk": {"namespace": "ns", "action": "b c"}}}}, components={})
    assert made["paths"]["/a"]["get"] == {
        "x-openwhisk": {
            "namespace": "ns",
            "package": "",
            "action": "b c",
            "url": f"{BASE}/api/v1/web/ns/default/b%20c.http",
        },
        "operationId": "getA",
        "responses": {"default": {"description": "Default response"}},
    }
    assert apis.target_of(made, "getA") == f"{BASE}/api/v1/web/ns/default/b%20c.http$(request.path)"


def test_what_it_says_to_the_gateway_itself_stays() -> None:
    own = {"assembly": {"execute": []}, "cors": {"enabled": False}}
    assert swagger(**{"x-gateway-configuration": own})["x-gateway-configuration"] == own
    assert swagger(**{"x-ibm-configuration": {"cors": {"enabled": False}}})["x-ibm-configuration"]["cors"] == {
        "enabled": False
    }


def test_cookies_are_left_out() -> None:
    cookie = {"name": "c", "in": "cookie", "schema": {"type": "string"}}
    made = swagger(paths={"/a": {"get": {"parameters": [cookie], "responses": {}}}})
    assert "parameters" not in made["paths"]["/a"]["get"]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"info": None}, "it has no info"),
        ({"paths": []}, "it has no paths"),
        ({"paths": {"/a": []}}, "must be objects"),
        ({"servers": [7]}, "has not the type"),
        ({"servers": ["x"]}, "has not the type"),
        ({"components": {"schemas": 7}}, "has not the type"),
        ({"paths": {"/a": {"get": {"parameters": [7]}}}}, "has not the type"),
        ({"paths": {"/a": {"get": {"x-openwhisk": {"action": "b"}}}}}, "no namespace or no action"),
        ({"paths": {"/a": {"get": {"operationId": "x"}, "put": {"operationId": "x"}}}}, "two operations have"),
    ],
)
def test_what_is_refused(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(ApiRefused, match=says):
        swagger(**parts)


@pytest.mark.parametrize(
    "parts",
    [
        {"info": 7},
        {"definitions": 7, "parameters": [], "responses": "x", "securityDefinitions": {"a": 7}},
        {"paths": {"/a": {"parameters": 7, "get": {"parameters": [7], "responses": 7}}}},
        {"paths": {"/a": {"get": {"parameters": [{"in": "body"}], "consumes": 7, "responses": {"200": 7}}}}},
    ],
)
def test_what_is_stored_is_shown_whatever_it_is(parts: dict[str, Any]) -> None:
    assert openapi.from_swagger(apis.empty_document("/a", None) | parts, URL)["openapi"] == "3.1.0"


def test_shared_bodies_stand_where_they_are_used() -> None:
    stored = apis.empty_document("/a", None) | {
        "parameters": {"item": {"name": "item", "in": "body", "schema": {"type": "object"}}},
        "paths": {"/a": {"put": {"parameters": [{"$ref": "#/parameters/item"}], "responses": {}}}},
    }
    shown = openapi.from_swagger(stored, URL)
    assert shown["paths"]["/a"]["put"]["requestBody"] == {
        "content": {"application/json": {"schema": {"type": "object"}}},
        "x-body-name": "item",
    }
    assert "components" not in shown
