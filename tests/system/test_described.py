"""An API made of an OpenAPI 3.1 file is what the gateway's own document of it says, and no request breaks it.

Requests are drawn by schemathesis from a fixed seed, half of them right and half wrong: `VISP_EXAMPLES` of each for
each operation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.system.conftest import GUEST, Api, has_sandbox

from visp.client import running

EXAMPLES = int(os.environ.get("VISP_EXAMPLES", "10"))
CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
KEY = "reader"

BOOKS = r"""
import json, re

def refused(why):
    return {'statusCode': 400, 'headers': {'Content-Type': 'application/json'}, 'body': {'error': why}}

def is_book(book):
    pages = book.get('pages')
    return (isinstance(book.get('title'), str) and 0 < len(book['title']) <= 80
            and type(pages) in (int, float) and 1 <= pages <= 5000 and pages == int(pages)
            and (book.get('subtitle') is None or isinstance(book['subtitle'], str))
            and not set(book) - {'title', 'pages', 'subtitle'})

def main(args):
    verb, path = args['__ow_method'], args['__ow_path'].removeprefix('/library').strip('/').split('/')
    own = {name: value for name, value in args.items() if not name.startswith('__ow_')}
    if len(path) == 2 and not re.fullmatch('[0-9]{10,13}', path[1], re.ASCII):
        return refused('no isbn')
    if verb == 'get' and len(path) == 1:
        if not re.fullmatch('[1-9]|[1-4][0-9]|50', str(own.get('limit', '')), re.ASCII):
            return refused('limit is from 1 to 50')
        if args['__ow_headers'].get('x-reader') not in ('child', 'adult'):
            return refused('X-Reader is child or adult')
        books = [{'title': 'book %d' % n, 'pages': n + 1} for n in range(int(own['limit']))]
        return {'statusCode': 200, 'headers': {'X-Count': str(len(books))}, 'body': books}
    if verb == 'get' or verb == 'delete':
        if int(path[1]) % 5 == 0:
            return {'statusCode': 404, 'body': {'error': 'not here'}}
        return {'statusCode': 204} if verb == 'delete' else {'body': {'title': path[1], 'pages': 7, 'subtitle': None}}
    return {'statusCode': 201 if verb == 'post' else 200, 'body': own} if is_book(own) else refused('no book')
"""
NAMES = "def main(args):\n    return {'body': {'names': sorted(n for n in args if n[:5] != '__ow_')}}"


def answer(schema: Any, description: str = "", **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}} | more


def body_field(name: str) -> dict[str, str]:
    return {"location": "body", "name": name}


def document() -> dict[str, Any]:
    """A library: parameters of each place, bodies that are looked at and one that is not, a key, a rate."""
    book = {"$ref": "#/components/schemas/Book"}
    error = {"$ref": "#/components/schemas/Error"}
    told = {"400": answer(error, "what is wrong"), "401": answer(error, "who is calling?")}
    isbn = {"name": "isbn", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]{10,13}$"}}
    body = {"required": True, "content": {"application/json": {"schema": book}}}
    missing = {"404": answer(error, "no such book")}

    def operation(id: str, action: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:
        called = {"namespace": "guest", "package": "library", "action": action}
        return {"operationId": id, "x-openwhisk": called, "responses": responses | told} | more

    listing = [
        {"name": "limit", "in": "query", "required": True, "schema": {"type": "integer", "minimum": 1, "maximum": 50}},
        {"name": "X-Reader", "in": "header", "required": True, "schema": {"enum": ["child", "adult"]}},
    ]
    names = {"type": "object", "required": ["names"]}
    anything = {"content": {"application/json": {"schema": {"type": "object"}}}}
    mapped: dict[str, Any] = {
        "parameters": [
            {"name": "kind", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[a-z]+$"}},
            {"name": "X-Moved", "in": "header", "schema": {"type": "string"}},
            {"name": "moved", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
        ],
        "x-visp-mapping": [
            {"action": "insert", "from": {"location": "path", "name": "kind"}, "to": body_field("kind")},
            {"action": "transform", "from": {"location": "header", "name": "X-Moved"}, "to": body_field("header")},
            {"action": "transform", "from": {"location": "query", "name": "moved"}, "to": body_field("query")},
            {"action": "default", "from": {"value": "x"}, "to": {"location": "header", "name": "X-Added"}},
        ],
    }
    count = {"X-Count": {"required": True, "schema": {"type": "integer"}}}
    books = answer({"type": "array", "items": book, "maxItems": 50}, headers=count)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Library", "version": "1"},
        "servers": [{"url": "https://library.example/library"}],
        "security": [{"key": []}],
        "x-ibm-rate-limit": [{"unit": "second", "units": 1, "rate": 100_000}],
        "paths": {
            "/books": {
                "get": operation("list", "books", {"200": books}, parameters=listing),
                "post": operation("add", "books", {"201": answer(book)}, requestBody=body),
            },
            "/books/{isbn}": {
                "parameters": [isbn],
                "get": operation("show", "books", {"200": answer(book)} | missing, **{"x-visp-cache": {"seconds": 30}}),
                "put": operation("change", "books", {"200": answer(book)}, requestBody=body),
                "delete": operation("remove", "books", {"204": {"description": "gone"}} | missing),
            },
            "/names/{kind}": {
                "post": operation("names", "names", {"200": answer(names)}, **mapped, requestBody=anything),
            },
        },
        "components": {
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
            "schemas": {
                "Book": {
                    "type": "object",
                    "required": ["title", "pages"],
                    "additionalProperties": False,
                    "properties": {
                        "title": {"type": "string", "minLength": 1, "maxLength": 80},
                        "pages": {"type": "integer", "minimum": 1, "maximum": 5000},
                        "subtitle": {"type": ["string", "null"]},
                    },
                },
                "Error": {"type": "object", "anyOf": [{"required": ["error"]}, {"required": ["message"]}]},
            },
        },
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an API answers that `visp api create --config-file` has made."""
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    file = tmp_path_factory.mktemp("described") / "library.json"
    file.write_text(json.dumps(document()))
    with running.running({"limits.invocations_per_minute": 100_000}) as server:
        api = Api(server.url)
        assert api.request("PUT", "packages/library", {}).status == 200
        for name, code in (("books", BOOKS), ("names", NAMES)):
            api.action(f"library/{name}", code, "python:3.11", annotations=[{"key": "web-export", "value": True}])
        words = ("api", "create", "--config-file", str(file), "--apihost", server.url, "--auth", GUEST)
        done = subprocess.run([sys.executable, "-m", "visp", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 12), done
        subscription = {"artifact_id": "/library", "client_id": KEY}
        assert api.request("POST", "/v2/_/subscriptions", subscription).status == 200
        yield f"{server.url}/gw/guest/library"


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture(scope="module")
def schema(base: str, session: requests.Session) -> Any:
    """What the gateway says of it."""
    shown = session.get(f"{base}/openapi.json", timeout=30)
    assert shown.status_code == 200
    assert "x-openwhisk" not in shown.text
    return schemathesis.openapi.from_dict(shown.json())


PLACES = {
    "list": ("/books", "get"),
    "add": ("/books", "post"),
    "show": ("/books/{isbn}", "get"),
    "change": ("/books/{isbn}", "put"),
    "remove": ("/books/{isbn}", "delete"),
    "names": ("/names/{kind}", "post"),
}


def test_the_document_is_of_what_was_given(schema: Any) -> None:
    given, shown = document(), schema.raw_schema
    assert {(path, verb) for path, verbs in shown["paths"].items() for verb in verbs if verb != "parameters"} == set(
        PLACES.values()
    )
    assert shown["components"]["schemas"] == given["components"]["schemas"]
    assert shown["components"]["securitySchemes"] == given["components"]["securitySchemes"]


def send(
    base: str, session: requests.Session, operation: Any, mode: GenerationMode, count: int, key: str = KEY
) -> Counter[int]:
    """Sends so many requests of an operation; how often each status was the answer."""
    seen: Counter[int] = Counter()
    checks = [*CHECKS, positive_data_acceptance] if mode is GenerationMode.POSITIVE and key == KEY else CHECKS

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        got = case.call(base_url=base, session=session, headers={"X-API-Key": key})
        seen[got.status_code] += 1
        assert got.status_code < 500, (got.status_code, got.text)
        case.validate_response(got, checks=checks)

    each()
    return seen


@pytest.mark.parametrize("id", PLACES)
def test_right_requests(base: str, session: requests.Session, schema: Any, id: str) -> None:
    path, verb = PLACES[id]
    seen = send(base, session, schema[path][verb.upper()], GenerationMode.POSITIVE, EXAMPLES)
    assert any(status < 300 for status in seen), seen


@pytest.mark.parametrize("id", PLACES)
def test_wrong_requests(base: str, session: requests.Session, schema: Any, id: str) -> None:
    path, verb = PLACES[id]
    send(base, session, schema[path][verb.upper()], GenerationMode.NEGATIVE, EXAMPLES)


@pytest.mark.parametrize("id", PLACES)
def test_requests_without_a_key(base: str, session: requests.Session, schema: Any, id: str) -> None:
    path, verb = PLACES[id]
    seen = send(base, session, schema[path][verb.upper()], GenerationMode.POSITIVE, 5, key="nobody's")
    assert seen.keys() == {401}
