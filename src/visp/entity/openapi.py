"""Documents of APIs as OpenAPI 3.1, and back. Pure.

An OpenAPI 3 document is translated when it comes and kept as Swagger 2: so there is one form that is stored, and
OpenWhisk's clients and the gateway read every API alike. What Swagger 2 has no words for is simplified (the first of
several media types' schemas, the first flow of OAuth) or left out (cookies, callbacks, links); schemes of security that
it lacks are kept aside in an extension, and come back. Extensions pass as they are.

What such a document does not say to the gateway follows from `x-openwhisk` of its operations, which needs no more than
`namespace`, `package` and `action`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from visp import wording
from visp.entity.api import (
    ACTION,
    METHODS,
    OWN_EXTENSION,
    PATH_MARK,
    Document,
    case_of,
    check_shape,
    configuration,
    operation_id,
    operations_of,
    policies,
)
from visp.entity.names import DEFAULT_PACKAGE
from visp.errors import ApiRefused

JSON = "application/json"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
KEPT_SCHEMES = "x-openapi-security-schemes"
KEPT_BODY_NAME = "x-body-name"

_OPERATION = ("operationId", "tags", "summary", "description", "deprecated", "security", "externalDocs")
_TOP = ("tags", "security", "externalDocs")
_PARAMETER = ("name", "in", "description", "required", "allowEmptyValue")
_OF_SCHEMA = (
    *("type", "format", "items", "default", "enum", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    *("maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf"),
)
"""What a parameter of Swagger 2 says itself, and one of OpenAPI in its schema."""
_PLACES = {
    "#/components/schemas/": "#/definitions/",
    "#/components/parameters/": "#/parameters/",
    "#/components/responses/": "#/responses/",
}
_PLACES_BACK = {new: old for old, new in _PLACES.items()}
_FLOWS = {
    "implicit": "implicit",
    "password": "password",
    "clientCredentials": "application",
    "authorizationCode": "accessCode",
}
_FLOWS_BACK = {new: old for old, new in _FLOWS.items()}
_OWN_PREFIX = re.compile(r"/(?:gw/[^/]+|api/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=/|\Z)", re.IGNORECASE)
"""Of the addresses under which a gateway answers: what comes before the base path."""


def is_openapi(document: Document) -> bool:
    version = document.get("openapi")
    return isinstance(version, str) and version.startswith("3.")


# ── to Swagger 2 ────────────────────────────────────────────────────────────────────────────────────────────────


def to_swagger(document: Document, base_url: str) -> Document:
    """The Swagger 2 form; web actions whose URL is not given are looked for under `base_url`.

    Raises `ApiRefused` for what has no paths, or parts of the wrong type.
    """
    if not isinstance(document.get("info"), dict):
        raise ApiRefused(wording.bad_openapi("it has no info"))
    if not isinstance(document.get("paths"), dict):
        raise ApiRefused(wording.bad_openapi("it has no paths"))
    check_shape(document)
    source = _Source(document)
    try:
        made = source.swagger()
    except (AttributeError, TypeError, KeyError, ValueError, RecursionError):
        raise ApiRefused(wording.bad_openapi("a part of it has not the type that OpenAPI 3 asks for")) from None
    _say_to_gateway(made, base_url)
    return made


class _Source:
    """A document of OpenAPI 3 on its way; parts of the wrong type raise what Python raises."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._parts: Document = document.get("components") or {}

    def swagger(self) -> Document:
        given = self._document
        info = {name: value for name, value in given["info"].items() if name != "summary"}
        out: Document = {"swagger": "2.0", "info": info, "basePath": _base_path(given)}
        out |= {name: given[name] for name in _TOP if name in given}
        out |= _extensions(given)
        out["paths"] = {
            path: told if path.startswith("x-") else self._path(told) for path, told in given["paths"].items()
        }
        parts = self._parts
        if parts.get("schemas"):
            out["definitions"] = {name: _schema(told) for name, told in parts["schemas"].items()}
        shared = {name: self._parameter(told) for name, told in (parts.get("parameters") or {}).items()}
        if known := {name: told for name, told in shared.items() if told is not None}:
            out["parameters"] = known
        if parts.get("responses"):
            out["responses"] = {name: self._response(told)[0] for name, told in parts["responses"].items()}
        self._security(out)
        return out

    def _path(self, told: Document) -> Document:
        out = _extensions(told)
        if told.get("parameters"):
            out["parameters"] = self._parameters(told["parameters"])
        for verb, operation in told.items():
            if verb.lower() in METHODS:
                out[verb.lower()] = self._operation(operation)
        return out

    def _operation(self, told: Document) -> Document:
        out = {name: told[name] for name in _OPERATION if name in told} | _extensions(told)
        parameters = self._parameters(told.get("parameters") or [])
        if "requestBody" in told:
            kinds, body = self._body(self._found(told["requestBody"]))
            parameters += body
            if kinds:
                out["consumes"] = kinds
        if parameters:
            out["parameters"] = parameters
        produced: dict[str, None] = {}
        responses = {}
        for status, answer in (told.get("responses") or {}).items():
            responses[status], kinds = self._response(answer)
            produced |= dict.fromkeys(kinds)
        if produced:
            out["produces"] = list(produced)
        out["responses"] = responses or {"default": {"description": "Default response"}}
        return out

    def _parameters(self, told: list[Document]) -> list[Document]:
        made = (self._parameter(one) for one in told)
        return [one for one in made if one is not None]

    def _parameter(self, told: Document) -> Document | None:
        """None for a cookie."""
        if "$ref" in told:
            found = self._found(told)
            return None if found.get("in") == "cookie" else {"$ref": _moved(told["$ref"], _PLACES)}
        if told.get("in") == "cookie":
            return None
        out = {name: told[name] for name in _PARAMETER if name in told} | _extensions(told)
        content = told.get("content")
        schema = told.get("schema") or {}
        if content:
            schema = {"type": "string"}
        out |= self._flat(schema)
        if out["type"] == "array" and told.get("in") == "query" and told.get("explode", True):
            out["collectionFormat"] = "multi"
        return out

    def _flat(self, schema: Document) -> Document:
        """A schema as a parameter says it itself."""
        made = _schema(self._found(schema))
        out = {name: made[name] for name in _OF_SCHEMA if name in made}
        if out.get("type") not in ("string", "number", "integer", "boolean", "array"):
            out["type"] = "string"
        if out["type"] == "array":
            out["items"] = self._flat(schema.get("items") or {})
        return out

    def _body(self, told: Document) -> tuple[list[str], list[Document]]:
        """Media types of a body, and the parameters that it is in Swagger 2."""
        content: Document = told.get("content") or {}
        kinds = list(content)
        schema = next((told.get("schema") or {} for told in content.values()), {})
        if kinds and all(kind in FORMS for kind in kinds):
            found = self._found(schema)
            needed = found.get("required") or []
            fields = (found.get("properties") or {}).items()
            return kinds, [
                {"name": name, "in": "formData", "required": name in needed} | self._form_field(field)
                for name, field in fields
            ]
        body: Document = {"name": told.get(KEPT_BODY_NAME, "body"), "in": "body"}
        if "description" in told:
            body["description"] = told["description"]
        return kinds, [body | {"required": bool(told.get("required")), "schema": _schema(schema)}]

    def _form_field(self, schema: Document) -> Document:
        out = self._flat(schema)
        if out.get("format") == "binary":
            out = {"type": "file"}
        if "description" in schema:
            out["description"] = schema["description"]
        return out

    def _response(self, told: Document) -> tuple[Document, list[str]]:
        """A response, and the media types that it has."""
        if "$ref" in told:
            return {"$ref": _moved(told["$ref"], _PLACES)}, list(self._found(told).get("content") or {})
        out = {"description": told.get("description", "")} | _extensions(told)
        content: Document = told.get("content") or {}
        schema = next((kind["schema"] for kind in content.values() if "schema" in kind), None)
        if schema is not None:
            out["schema"] = _schema(schema)
        headers = {name: self._header(header) for name, header in (told.get("headers") or {}).items()}
        if headers:
            out["headers"] = headers
        return out, list(content)

    def _header(self, told: Document) -> Document:
        found = self._found(told)
        out = self._flat(found.get("schema") or {})
        if "description" in found:
            out["description"] = found["description"]
        return out

    def _security(self, out: Document) -> None:
        known: Document = {}
        kept: Document = {}
        for name, told in (self._parts.get("securitySchemes") or {}).items():
            scheme = _scheme(told)
            if scheme is None:
                kept[name] = told
            else:
                known[name] = scheme
        if known:
            out["securityDefinitions"] = known
        if kept:
            out[KEPT_SCHEMES] = kept

    def _found(self, told: Document) -> Document:
        """What a reference within the document leads to, through no more than a few others."""
        for _ in range(8):
            reference = told.get("$ref")
            if reference is None:
                return told
            if not reference.startswith("#/"):
                return {}
            at: Any = self._document
            for step in reference[2:].split("/"):
                at = at[unquote(step).replace("~1", "/").replace("~0", "~")]
            told = at
        return {}


def _base_path(document: Document) -> str:
    """The path of the first server, without what a gateway has put before it."""
    servers = document.get("servers") or [{"url": "/"}]
    url: str = servers[0]["url"]
    for name, told in (servers[0].get("variables") or {}).items():
        url = url.replace("{" + name + "}", told["default"])
    path = unquote(urlsplit(url).path)
    return "/" + _OWN_PREFIX.sub("", "/" + path.strip("/"), count=1).strip("/")


def _scheme(told: Document) -> Document | None:
    """A scheme of security in Swagger 2; None where that has none."""
    about = {"description": told["description"]} if "description" in told else {}
    about |= _extensions(told)
    if told["type"] == "apiKey" and told.get("in") in ("header", "query"):
        return {"type": "apiKey", "name": told["name"], "in": told["in"]} | about
    if told["type"] == "http" and told.get("scheme", "").lower() == "basic":
        return {"type": "basic"} | about
    if told["type"] == "oauth2":
        name, flow = next(iter(told["flows"].items()))
        out = {"type": "oauth2", "flow": _FLOWS[name], "scopes": flow.get("scopes") or {}}
        out |= {field: flow[field] for field in ("authorizationUrl", "tokenUrl") if field in flow}
        return out | about
    return None


def _say_to_gateway(document: Document, base_url: str) -> None:
    """Adds what the document leaves to its operations to say; changes it."""
    taken: set[str] = set()
    for path, verb, operation in operations_of(document):
        id = operation.get("operationId")
        if not isinstance(id, str) or not id:
            id = operation["operationId"] = operation_id(verb, path)
        if id in taken:
            raise ApiRefused(wording.bad_openapi(f"two operations have the operationId {id!r}"))
        taken.add(id)
        if isinstance(operation.get(ACTION), dict):
            operation[ACTION] = _whole_action(operation[ACTION], base_url)
    if policies(document) is not None:
        return
    cases = []
    for _, _, operation in operations_of(document):
        action = operation.get(ACTION)
        if isinstance(action, dict):
            url = action["url"]
            cases.append(case_of(operation["operationId"], url + PATH_MARK if url.endswith(".http") else url))
    own = {"cors": {"enabled": True}} | configuration(document)
    document[OWN_EXTENSION] = own | {"assembly": {"execute": [{"operation-switch": {"case": cases}}]}}


def _whole_action(told: Document, base_url: str) -> Document:
    namespace, package, name = (told.get(field) or "" for field in ("namespace", "package", "action"))
    if not all(isinstance(part, str) for part in (namespace, package, name)) or not namespace or not name:
        raise ApiRefused(wording.bad_openapi(f"{ACTION} has no namespace or no action"))
    url = told.get("url")
    if not isinstance(url, str) or not url:
        parts = (quote(part) for part in (namespace, package or DEFAULT_PACKAGE, name))
        url = f"{base_url}/api/v1/web/{'/'.join(parts)}.http"
    return told | {"url": url, "namespace": namespace, "package": package, "action": name}


# ── to OpenAPI 3.1 ──────────────────────────────────────────────────────────────────────────────────────────────


def from_swagger(document: Document, url: str) -> Document:
    """The OpenAPI 3.1 form of a stored document; `url` is where the API answers. What has a wrong type is left out."""
    out: Document = {"openapi": "3.1.0", "info": {"title": "", "version": ""} | _dict(document.get("info"))}
    out["servers"] = [{"url": url}]
    out |= {name: document[name] for name in _TOP if name in document}
    out |= {name: value for name, value in _extensions(document).items() if name != KEPT_SCHEMES}
    stored = _Stored(document)
    out["paths"] = {
        path: told if path.startswith("x-") else stored.path(told) for path, told in document["paths"].items()
    }
    if parts := stored.components():
        out["components"] = parts
    return out


class _Stored:
    """A stored document on its way out."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._shared = {name: _dict(told) for name, told in _dict(document.get("parameters")).items()}

    def components(self) -> Document:
        document = self._document
        plain = {name: told for name, told in self._shared.items() if told.get("in") not in ("body", "formData")}
        schemes = {name: _scheme_back(_dict(told)) for name, told in _dict(document.get("securityDefinitions")).items()}
        parts: Document = {
            "schemas": {name: _schema(told, back=True) for name, told in _dict(document.get("definitions")).items()},
            "parameters": {name: _parameter_back(told) for name, told in plain.items()},
            "responses": {
                name: self._response(told, _texts(document.get("produces")))
                for name, told in _dict(document.get("responses")).items()
            },
            "securitySchemes": schemes | _dict(document.get(KEPT_SCHEMES)),
        }
        return {name: found for name, found in parts.items() if found}

    def path(self, told: Document) -> Document:
        out = _extensions(told)
        shared = [self._told(one) for one in _objects(told.get("parameters"))]
        inputs = [one for one in shared if one.get("in") in ("body", "formData")]
        if plain := [_parameter_back(one) for one in shared if one not in inputs]:
            out["parameters"] = plain
        for verb, operation in told.items():
            if verb.lower() in METHODS:
                out[verb.lower()] = self._operation(operation, inputs)
        return out

    def _operation(self, told: Document, inputs: list[Document]) -> Document:
        """`inputs` are parameters of the path that make a body."""
        out = {name: told[name] for name in _OPERATION if name in told} | _extensions(told)
        given = [self._told(one) for one in _objects(told.get("parameters"))]
        own = [one for one in given if one.get("in") in ("body", "formData")]
        if plain := [_parameter_back(one) for one in given if one not in own]:
            out["parameters"] = plain
        if own or inputs:
            kinds = _texts(told.get("consumes")) or _texts(self._document.get("consumes"))
            out["requestBody"] = _body_back(own or inputs, kinds)
        kinds = _texts(told.get("produces")) or _texts(self._document.get("produces"))
        responses = {status: self._response(answer, kinds) for status, answer in _dict(told.get("responses")).items()}
        out["responses"] = responses or {"default": {"description": "Default response"}}
        return out

    def _told(self, parameter: Document) -> Document:
        """What a reference to a body leads to, since that is none to a parameter any more; all else as it is."""
        reference = parameter.get("$ref")
        if isinstance(reference, str):
            found = self._shared.get(reference.removeprefix("#/parameters/"), {})
            if found.get("in") in ("body", "formData"):
                return found
        return parameter

    def _response(self, told: Any, kinds: list[str]) -> Document:
        given = _dict(told)
        if "$ref" in given:
            return {"$ref": _moved(str(given["$ref"]), _PLACES_BACK)}
        out = {"description": given.get("description", "")} | _extensions(given)
        if "schema" in given:
            schema = _schema(given["schema"], back=True)
            out["content"] = {kind: {"schema": schema} for kind in kinds or [JSON]}
        if headers := _dict(given.get("headers")):
            out["headers"] = {
                name: {field: value for field, value in _dict(header).items() if field == "description"}
                | {"schema": _of_schema(_dict(header))}
                for name, header in headers.items()
            }
        return out


def _parameter_back(told: Document) -> Document:
    if "$ref" in told:
        return {"$ref": _moved(str(told["$ref"]), _PLACES_BACK)}
    out = {name: told[name] for name in _PARAMETER if name in told} | _extensions(told)
    if told.get("in") == "path":
        out["required"] = True
    out["schema"] = _of_schema(told)
    if told.get("type") == "array" and told.get("in") == "query":
        out["explode"] = told.get("collectionFormat") == "multi"
    return out


def _of_schema(told: Document) -> Document:
    """The schema of what says itself what it is."""
    return _dict(_schema({name: told[name] for name in _OF_SCHEMA if name in told}, back=True))


def _body_back(inputs: list[Document], kinds: list[str]) -> Document:
    body = next((one for one in inputs if one.get("in") == "body"), None)
    if body is not None:
        schema = _schema(body.get("schema", {}), back=True)
        out: Document = {"content": {kind: {"schema": schema} for kind in kinds or [JSON]}}
        if "description" in body:
            out["description"] = body["description"]
        if body.get("required"):
            out["required"] = True
        if body.get("name", "body") != "body":
            out[KEPT_BODY_NAME] = body["name"]
        return out
    has_file = any(one.get("type") == "file" for one in inputs)
    fields = {
        str(one.get("name", "")): ({"description": one["description"]} if "description" in one else {})
        | ({"type": "string", "format": "binary"} if one.get("type") == "file" else _of_schema(one))
        for one in inputs
    }
    schema = {"type": "object", "properties": fields}
    needed = [str(one.get("name", "")) for one in inputs if one.get("required") is True]
    if needed:
        schema["required"] = needed
    usual = [kind for kind in kinds if kind in FORMS] or [FORMS[1] if has_file else FORMS[0]]
    return {"content": {kind: {"schema": schema} for kind in usual}}


def _scheme_back(told: Document) -> Document:
    about = {"description": told["description"]} if "description" in told else {}
    about |= _extensions(told)
    if told.get("type") == "basic":
        return {"type": "http", "scheme": "basic"} | about
    if told.get("type") == "oauth2":
        flow: Document = {name: told[name] for name in ("authorizationUrl", "tokenUrl") if name in told}
        flow["scopes"] = _dict(told.get("scopes"))
        return {"type": "oauth2", "flows": {_FLOWS_BACK.get(str(told.get("flow")), "implicit"): flow}} | about
    return {name: told[name] for name in ("type", "name", "in") if name in told} | about


# ── both ways ───────────────────────────────────────────────────────────────────────────────────────────────────


def _schema(given: Any, *, back: bool = False) -> Any:
    """A schema in the other form; what is no object stays. Names of properties are never taken for words of schemas."""
    if isinstance(given, list):
        return [_schema(one, back=back) for one in given]
    if not isinstance(given, dict):
        return given
    out: Document = {}
    for name, value in given.items():
        if name == "$ref" and isinstance(value, str):
            out[name] = _moved(value, _PLACES_BACK if back else _PLACES)
        elif name in ("properties", "patternProperties", "definitions", "$defs") and isinstance(value, dict):
            out[name] = {key: _schema(one, back=back) for key, one in value.items()}
        elif name in ("enum", "const", "default", "example", "examples") or name.startswith("x-"):
            out[name] = value
        else:
            out[name] = _schema(value, back=back)
    return _words_back(out) if back else _words(out)


def _words(out: Document) -> Document:
    """Words of JSON Schema as of 3.1, and of 3.0, which Swagger 2 has others for."""
    kinds = out.get("type")
    if isinstance(kinds, list):
        plain = [kind for kind in kinds if kind != "null"]
        out["type"] = plain[0] if plain else "string"
        if len(plain) < len(kinds):
            out["x-nullable"] = True
    if "nullable" in out:
        out["x-nullable"] = out.pop("nullable")
    if "const" in out:
        out["enum"] = [out.pop("const")]
    examples = out.pop("examples", None)
    if isinstance(examples, list) and examples:
        out.setdefault("example", examples[0])
    for bound, other in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in out and not isinstance(out[bound], bool):
            out[other], out[bound] = out[bound], True
    return out


def _words_back(out: Document) -> Document:
    if out.pop("x-nullable", False) is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    if "example" in out:
        out["examples"] = [out.pop("example")]
    for bound, other in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if out.get(bound) is True and other in out:
            out[bound] = out.pop(other)
        elif isinstance(out.get(bound), bool):
            del out[bound]
    return out


def _moved(reference: str, places: dict[str, str]) -> str:
    for old, new in places.items():
        if reference.startswith(old):
            return new + reference.removeprefix(old)
    return reference


def _extensions(told: Document) -> Document:
    return {name: value for name, value in told.items() if name.startswith("x-")}


def _dict(value: Any) -> Document:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Document]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
