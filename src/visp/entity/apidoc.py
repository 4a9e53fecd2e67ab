"""What clients send to make an API: the path form, which adds one operation, or a whole document. Pure.

Source: the checks of OpenWhisk's `createApi`, in its order; what JavaScript takes for false counts as missing.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from visp import wording
from visp.entity import openapi
from visp.entity.api import RESPONSE_TYPES, Document, Endpoint
from visp.entity.names import CALLERS_NAMESPACE, DEFAULT_PACKAGE
from visp.errors import ApiRefused

_ORIGIN = re.compile(r"(?:https?://)*(https?)://([^/?#\s]+)", re.IGNORECASE)
"""Deployment tools put a scheme before an address that has one."""
_KINDS = {bool: "boolean", int: "number", float: "number", str: "string", dict: "object", list: "object"}

_decode = msgspec.json.Decoder().decode


class Given(msgspec.Struct, frozen=True):
    """What was asked for: `endpoint` to be added, or else `document` in place of what is there.

    `is_gateways`: the gateway itself was asked, which does not check what `createApi` does.
    """

    endpoint: Endpoint | None = None
    document: Document | None = None
    is_gateways: bool = False


def parse(apidoc: Any, response_type: str | None, namespace: str, base_url: str) -> Given:
    """What a caller in `namespace` asks for; `base_url` is where the server answers.

    Raises `ApiRefused` with the bare text of what is missing or wrong.
    """
    if not apidoc:
        raise ApiRefused(wording.APIDOC_REQUIRED)
    fields = _object(apidoc, "apidoc", wording.apidoc_of_type)
    if not fields.get("namespace"):
        raise ApiRefused(wording.apidoc_lacks("namespace"))
    if fields.get("swagger"):
        if fields.get("gatewayBasePath"):
            raise ApiRefused(wording.SWAGGER_AND_BASE_PATH)
        document = _object(fields["swagger"], "swagger", wording.swagger_of_type)
        return Given(document=_whole(document, base_url))
    return Given(endpoint=_endpoint(fields, response_type, namespace))


def _object(value: Any, name: str, of_type: Any) -> Document:
    """The value, or what it says as JSON; what is neither object nor text has no fields or is refused."""
    if isinstance(value, str):
        try:
            value = _decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            raise ApiRefused(wording.api_field_unparsable(name)) from None
    elif not isinstance(value, (dict, list)):
        raise ApiRefused(of_type(_KINDS.get(type(value), "undefined")))
    return value if isinstance(value, dict) else {}


def _whole(document: Document, base_url: str) -> Document:
    if openapi.is_openapi(document):
        document = openapi.to_swagger(document, base_url)
    if not isinstance(document.get("basePath"), str) or not document["basePath"]:
        raise ApiRefused(wording.swagger_lacks("basePath"))
    for field in ("paths", "info"):
        if not isinstance(document.get(field), dict):
            raise ApiRefused(wording.swagger_lacks(field))
    return document


def _text(fields: Document, name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _endpoint(fields: Document, response_type: str | None, namespace: str) -> Endpoint:
    base_path, path, verb = (_need(fields, name) for name in ("gatewayBasePath", "gatewayPath", "gatewayMethod"))
    action = fields.get("action")
    if not isinstance(action, dict):
        raise ApiRefused(wording.APIDOC_LACKS_ACTION)
    given = {}
    for name in ("backendMethod", "backendUrl", "namespace", "name", "authkey"):
        value = _text(action, name)
        if value is None:
            raise ApiRefused(wording.action_lacks(name))
        given[name] = value
    kind = response_type or "json"
    if kind == "undefined":
        kind = "json"
    if kind not in RESPONSE_TYPES:
        raise ApiRefused(wording.api_not_created(wording.bad_response_type(kind[:40], RESPONSE_TYPES)))
    owner = namespace if given["namespace"] == CALLERS_NAMESPACE else given["namespace"]
    package, name = _split(given["name"])
    origin = _ORIGIN.match(given["backendUrl"])
    if origin is None:
        raise ApiRefused(wording.api_not_created(wording.bad_backend_url(given["backendUrl"][:200])))
    url = f"{origin[1].lower()}://{origin[2]}/api/v1/web/{owner}/{package or DEFAULT_PACKAGE}/{name}.{kind}"
    secret = action.get("secureKey")
    return Endpoint(
        base_path=base_path,
        title=_text(fields, "apiName"),
        path=path,
        verb=verb.lower(),
        url=url,
        namespace=owner,
        package=package,
        action=name,
        is_http=kind == "http",
        parameters=fields.get("pathParameters"),
        secret=secret if isinstance(secret, (str, int, float)) and secret not in ("", False) else None,
    )


def _need(fields: Document, name: str) -> str:
    value = _text(fields, name)
    if value is None:
        raise ApiRefused(wording.apidoc_lacks(name))
    return value


def _split(name: str) -> tuple[str, str]:
    """Package, empty for the default one, and name of `[/ns/][package/]name`."""
    segments = name.split("/")
    if not segments[0] and len(segments) > 2:
        segments = segments[2:]
    return ("/".join(segments[:-1]), segments[-1])
