"""The API as an OpenAPI 3.1 document, made from the table of routes.

The table owns paths and methods, `operations` says what each handler takes and answers, `schemas` the shapes. Nothing
of this is imported before the document is asked for.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from visp import __version__
from visp.api import page, routes, schemas, swagger
from visp.api.errors import ACTIVATION_ID, JSON
from visp.api.operations import OPERATIONS, REFUSALS, TAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from visp.api.operations import Content, Operation, Parameter

    Schema = dict[str, Any]
    Table = Iterable[tuple[str, str, Callable[..., Any]]]

DESCRIPTION = """\
What Apache OpenWhisk's REST API is, and what visp has beyond it: delays, idempotency keys, waiting for records, dead
letters. A slash at the end of a collection's path changes nothing. Fields that are not known are ignored, and so are
parameters. Every answer has an `X-Request-ID`. Requests that are no proper HTTP are refused with 400, heads that are
too large with 431, bodies that come too slowly with 408."""

_HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Request-ID": ("The transaction's id: the one that was sent, or a new one.", {"type": "string"}),
    ACTIVATION_ID: ("The activation's id.", {"type": "string", "pattern": schemas.ID}),
    "Retry-After": ("Seconds until it is worth asking again.", {"type": "string", "pattern": "^[0-9]+$"}),
    "WWW-Authenticate": ("How to authenticate.", {"type": "string"}),
    "Location": ("Where it is.", {"type": "string"}),
}
_REQUEST_ID = "X-Request-ID"
_REFUSAL_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",), 507: ("Retry-After",)}
_IN_PATH: dict[str, tuple[str, Schema]] = {
    "namespace": ("a namespace; `_` is the key's own", {"type": "string", "pattern": schemas.NAME, "examples": ["_"]}),
    "package": ("a package or binding", {"type": "string", "pattern": schemas.NAME}),
    "name": ("the entity's name", {"type": "string", "pattern": schemas.NAME}),
    "tenant": ("the key's namespace, by name or uuid, or `_`", {"type": "string", "examples": ["_"]}),
    "api": ("an API's id", {"type": "string", "pattern": schemas.NAME}),
    "client": ("a client's id", {"type": "string", "minLength": 1}),
    "id": ("an activation's id", {"type": "string", "pattern": schemas.ID}),
}


@cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1 of every route; made once, and not to be changed."""
    shapes = _Shapes()
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler, is_guarded in _rows():
        paths.setdefault(path, {})[method.lower()] = _operation(path, handler, shapes, is_guarded=is_guarded)
    refusals = {f"Error{status}": _refusal(status, shapes) for status in REFUSALS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenWhisk REST API",
            "version": "1.0.0",
            "summary": f"As visp {__version__} speaks it",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basicAuth": []}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": shapes.components(),
            "responses": refusals,
            "headers": {name: _header(name, *told) for name, told in _HEADERS.items()},
            "securitySchemes": {
                "basicAuth": {"type": "http", "scheme": "basic", "description": "The two parts of a key: `uuid:key`."}
            },
        },
    }


@cache
def _openapi() -> bytes:
    return msgspec.json.encode(document())


@cache
def _swagger() -> bytes:
    return msgspec.json.encode(swagger.from_openapi(document(), routes.API))


@cache
def _page() -> bytes:
    return page.render(document()).encode()


FORMS = {"openapi": _openapi, "swagger": _swagger, "page": _page}
"""The document as OpenAPI 3.1, as Swagger 2.0 for old clients, and as HTML; each is made once."""


def _rows() -> Iterator[tuple[str, str, Callable[..., Any], bool]]:
    """The table, and whether a row takes a key; without the twins that only have a slash or an extension more."""
    known: dict[tuple[str, str], Any] = {
        (method, path): handler for method, path, handler in (*routes.OPEN, *routes.GUARDED, *routes.WEB)
    }
    tables: tuple[tuple[Table, bool], ...] = ((routes.OPEN, False), (routes.GUARDED, True), (routes.WEB, True))
    for table, is_guarded in tables:
        for method, path, handler in table:
            plain = re.sub(r"(/|\.http)$", "", path)
            if plain == path or known.get((method, plain)) is not handler:
                yield method, path, handler, is_guarded


def _operation(path: str, handler: Callable[..., Any], shapes: _Shapes, *, is_guarded: bool) -> dict[str, Any]:
    told = OPERATIONS[handler]
    names = re.findall(r"{(\w+)}", path)
    in_package = names[-2:] == ["package", "name"]
    out: dict[str, Any] = {
        "operationId": handler.__name__ + ("_in_package" if in_package else ""),
        "tags": [told.tag],
        "summary": told.summary + (", in a package" if in_package else ""),
    }
    if told.description:
        out["description"] = told.description
    if names or told.parameters:
        out["parameters"] = [_path_parameter(name) for name in names] + [_parameter(part) for part in told.parameters]
    if told.body_type is not None:
        content = {told.body_type: {"schema": {"type": "string", "format": "binary"}}}
        out["requestBody"] = {"required": True, "content": content}
    elif told.body is not None:
        kinds = {JSON: told.body} | told.body_types
        content = {kind: {"schema": shapes.schema(shape)} for kind, shape in kinds.items()}
        out["requestBody"] = {"required": told.is_body_required, "content": content}
    out["responses"] = _responses(told, shapes)
    if not is_guarded:
        out["security"] = []
    return out


def _path_parameter(name: str) -> dict[str, Any]:
    description, schema = _IN_PATH[name]
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _parameter(told: Parameter) -> dict[str, Any]:
    return {"name": told.name, "in": told.where, "description": told.description, "schema": told.schema}


def _responses(told: Operation, shapes: _Shapes) -> dict[str, Any]:
    answers: dict[int, Any] = {status: _response(content, shapes) for status, content in told.answers.items()}
    answers |= {status: {"$ref": f"#/components/responses/Error{status}"} for status in told.refusals}
    return {str(status): answers[status] for status in sorted(answers)}


def _response(told: Content, shapes: _Shapes) -> dict[str, Any]:
    out: dict[str, Any] = {"description": told.description, "headers": _headers(told.headers)}
    if told.shapes:
        out["content"] = {kind: {"schema": shapes.any_of(given)} for kind, given in told.shapes.items()}
    return out


def _refusal(status: int, shapes: _Shapes) -> dict[str, Any]:
    content = {JSON: {"schema": shapes.schema(schemas.Error)}}
    headers = _headers(_REFUSAL_HEADERS.get(status, ()))
    return {"description": REFUSALS[status], "headers": headers, "content": content}


def _headers(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (_REQUEST_ID, *names)}


def _header(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "schema": schema} | ({"required": True} if name == _REQUEST_ID else {})


class _Shapes:
    """Types as schemas; those with a name are collected."""

    def __init__(self) -> None:
        self._found: dict[str, Schema] = {}

    def schema(self, shape: Any) -> Schema:
        (schema,), found = msgspec.json.schema_components([shape], ref_template="#/components/schemas/{name}")
        self._found |= found
        return schema

    def any_of(self, shapes: tuple[Any, ...]) -> Schema:
        given = [self.schema(shape) for shape in shapes]
        return given[0] if len(given) == 1 else {"anyOf": given}

    def components(self) -> dict[str, Schema]:
        return {name: self._found[name] for name in sorted(self._found)}
