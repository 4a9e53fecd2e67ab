"""The page of an API: whatever its document says is text there, and nothing of how it is made is shown."""

from __future__ import annotations

import re
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from visp.api import portal
from visp.entity.gateway import Plan

EVIL = '"><script>alert(1)</script>'
DOCUMENT = {
    "swagger": "2.0",
    "info": {"title": EVIL, "version": "1", "description": EVIL, "x-hidden": "hidden"},
    "basePath": "/shop",
    "securityDefinitions": {
        "k": {"type": "apiKey", "in": "header", "name": "X-Key"},
        "o": {
            "type": "oauth2",
            "flow": "implicit",
            "authorizationUrl": "http://a",
            "scopes": {},
            "x-visp-token": {"introspection": {"url": "http://i", "clientSecret": "hidden"}},
        },
    },
    "paths": {
        "/items/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "type": "string", "description": EVIL}],
            "put": {
                "operationId": "put",
                "summary": EVIL,
                "x-openwhisk": {"url": "http://hidden"},
                "parameters": [
                    {"name": "body", "in": "body", "schema": {"properties": {"x-field": {"x-own": "hidden"}}}}
                ],
                "responses": {"200": {"description": EVIL, "headers": {"x-rate": {"type": "string"}}}},
            },
        }
    },
    "x-ibm-configuration": {"assembly": {"execute": [{"hidden": 1}]}},
}


def plan(document: dict[str, Any] = DOCUMENT) -> Plan:
    return Plan(base_path="/shop", title="t", document=document)


def test_the_document_is_one_and_says_nothing_of_how() -> None:
    document = portal.document("a b", plan())
    OpenAPIV31SpecValidator(document).validate()
    assert "hidden" not in str(document)
    assert document["servers"] == [{"url": "/gw/a%20b/shop"}]
    told = document["paths"]["/items/{id}"]["put"]
    assert "x-rate" in told["responses"]["200"]["headers"]
    assert "x-field" in str(told["requestBody"])


def test_the_page_runs_its_own_script_alone() -> None:
    page = portal.page("guest", plan()).decode()
    assert page.count("<script>") == 1
    assert EVIL not in page
    assert "hidden" not in page
    assert 'data-path="/items/{id}"' in page
    assert {'data-in="path"', 'data-in="body"', 'data-in="header"', 'data-in="bearer"'} <= set(
        re.findall(r'data-in="\w+"', page)
    )
    assert portal.POLICY.count("'sha256-") == 2


def test_documents_that_say_little() -> None:
    for paths in ({}, {"/x": {"get": {}}}, {"/x": {"get": {"parameters": 7, "responses": []}}}):
        page = portal.page("guest", plan({"swagger": "2.0", "info": 3, "basePath": "/shop", "paths": paths}))
        assert page.startswith(b"<!DOCTYPE html>")
