"""An OpenAPI 3.1 document as Swagger 2.0, for clients that are older than it. Pure.

What 2.0 cannot say is said more simply: of alternatives the first, which is the usual one; no `null`; no headers that
must be there; and only what lies below one base path.
"""

from __future__ import annotations

from typing import Any

JSON = "application/json"

_PLACES = {
    "#/components/schemas/": "#/definitions/",
    "#/components/responses/": "#/responses/",
}
_KEPT = ("operationId", "tags", "summary", "description", "security")
_OF_PARAMETERS = ("type", "format", "enum", "default", "minimum", "maximum", "minLength", "maxLength", "pattern")


def from_openapi(document: dict[str, Any], base_path: str) -> dict[str, Any]:
    """The Swagger 2.0 form of what lies below `base_path`."""
    parts, about = document["components"], document["info"]
    headers = parts["headers"]
    paths = {
        path.removeprefix(base_path) or "/": {verb: _operation(told, headers) for verb, told in methods.items()}
        for path, methods in document["paths"].items()
        if path == base_path or path.startswith(base_path + "/")
    }
    return {
        "swagger": "2.0",
        "info": {name: about[name] for name in ("title", "version", "description")}
        | {"license": {"name": about["license"]["name"]}},
        "basePath": base_path,
        "schemes": ["http", "https"],
        "consumes": [JSON],
        "produces": [JSON],
        "securityDefinitions": {"basicAuth": {"type": "basic"}},
        "security": document["security"],
        "tags": document["tags"],
        "paths": paths,
        "definitions": {name: _schema(schema) for name, schema in parts["schemas"].items()},
        "responses": {name: _response(told, headers) for name, told in parts["responses"].items()},
    }


def _operation(told: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    out = {name: told[name] for name in _KEPT if name in told}
    parameters = [_parameter(parameter) for parameter in told.get("parameters", ())]
    if "requestBody" in told:
        body = told["requestBody"]
        kind, content = next(iter(body["content"].items()))
        schema = _schema(content["schema"])
        if kind != JSON:
            out["consumes"] = [kind]
        parameters.append({"name": "body", "in": "body", "required": body["required"], "schema": schema})
    if parameters:
        out["parameters"] = parameters
    kinds = {kind: None for answer in told["responses"].values() for kind in answer.get("content", ())} | {JSON: None}
    if list(kinds) != [JSON]:
        out["produces"] = list(kinds)
    out["responses"] = {status: _response(answer, headers) for status, answer in told["responses"].items()}
    return out


def _parameter(told: dict[str, Any]) -> dict[str, Any]:
    schema = told["schema"]
    plain = {name: told[name] for name in ("name", "in", "required", "description") if name in told}
    return plain | {name: schema[name] for name in _OF_PARAMETERS if name in schema}


def _response(told: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in told:
        return {"$ref": _moved(told["$ref"])}
    out: dict[str, Any] = {"description": told["description"]}
    content = told.get("content")
    if content:
        out["schema"] = _schema(content[JSON if JSON in content else next(iter(content))]["schema"])
    shown = {name: headers[name] for name in told.get("headers", ())}
    if shown:
        out["headers"] = {
            name: {"description": header["description"]} | header["schema"] for name, header in shown.items()
        }
    return out


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": _moved(schema["$ref"])}
    if "anyOf" in schema:
        usual = next(part for part in schema["anyOf"] if part.get("type") != "null")
        return _schema({name: value for name, value in schema.items() if name != "anyOf"} | usual)
    out = {name: value for name, value in schema.items() if name != "examples" and (name, value) != ("required", [])}
    if "examples" in schema:
        out["example"] = schema["examples"][0]
    if isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = _schema(out["additionalProperties"])
    if out.get("type") == "array":
        out["items"] = _schema(out.get("items", {}))
    if "properties" in out:
        out["properties"] = {name: _schema(part) for name, part in out["properties"].items()}
    return out


def _moved(ref: str) -> str:
    for place, moved in _PLACES.items():
        if ref.startswith(place):
            return moved + ref.removeprefix(place)
    raise AssertionError(ref)
