"""What the gateway's own management API says of APIs: its checks, and the first form of its documents. Pure.

That form has resources with their operations in place of a Swagger document; it is translated to one, so that there is
one form to read. Source: the management interfaces of OpenWhisk's gateway, `/v1` and `/v2`, in the order of their
checks.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from visp import wording
from visp.entity.api import METHODS, OWN_EXTENSION, UNSAID, configuration, operations_of, policies_for, target_of
from visp.entity.gateway import API_SCOPE, RATE_LIMIT, RESOURCE_SCOPE, ROUTING, SECURITY, TENANT_SCOPE
from visp.errors import VispError

if TYPE_CHECKING:
    from visp.entity.api import Api, Document

ID = "api-"
POLICIES = ("reqMapping", "rateLimit", "backendRouting")
SECURITY_SCOPES = (TENANT_SCOPE, API_SCOPE, RESOURCE_SCOPE)
MAPPING = "x-visp-mapping"


class Unfit(VispError):
    """A document that the gateway refuses; `sentence` goes to the caller."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def id_of(base_path: str) -> str:
    """Of an API: it says the base path, so it is the same as long as that is."""
    return ID + base64.urlsafe_b64encode(base_path.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def base_path_of(id: str) -> str | None:
    """None for what is no such id."""
    if not id.startswith(ID):
        return None
    text = id.removeprefix(ID)
    try:
        path = base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        return None
    return path if path.startswith("/") else None


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_swagger(document: Document) -> None:
    """Raises `Unfit`."""
    info, paths = document.get("info"), document.get("paths")
    _check_head(info.get("title") if isinstance(info, dict) else None, document.get("basePath"), paths)
    assert isinstance(paths, dict)
    for path, verbs in paths.items():
        if path.startswith("x-"):
            continue
        _check_path(path)
        if not isinstance(verbs, dict):
            raise Unfit(wording.PATHS_NOT_OBJECTS)
        for verb, operation in verbs.items():
            if verb.lower() in METHODS:
                if not isinstance(operation, dict):
                    raise Unfit(wording.PATHS_NOT_OBJECTS)
            elif verb not in UNSAID and not verb.startswith("x-"):
                raise Unfit(wording.verb_not_supported(verb.lower()))


def _check_head(name: Any, base_path: Any, resources: Any) -> None:
    _need("name", name, str)
    _need("basePath", base_path, str)
    if "'" in base_path:
        raise Unfit(wording.BASE_PATH_QUOTE)
    _need("resources", resources, dict)
    if not resources:
        raise Unfit(wording.RESOURCES_EMPTY)


def _need(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise Unfit(wording.gateway_field_missing(name))


def _check_path(path: str) -> None:
    if "'" in path:
        raise Unfit(wording.RESOURCE_PATH_QUOTE)
    if not path.startswith("/"):
        raise Unfit(wording.RESOURCE_PATH_SLASH)


def check_resources(body: Document) -> None:
    """The same of the first form; raises `Unfit`."""
    resources = body.get("resources")
    _check_head(body.get("name"), body.get("basePath"), resources)
    assert isinstance(resources, dict)
    for path, resource in resources.items():
        _check_path(path)
        operations = resource.get("operations") if isinstance(resource, dict) else None
        if not isinstance(operations, dict) or not operations:
            raise Unfit(wording.NO_OPERATIONS)
        for verb, operation in operations.items():
            _check_operation(verb, operation if isinstance(operation, dict) else {})


def _check_operation(verb: str, operation: Document) -> None:
    if verb.lower() not in METHODS:
        raise Unfit(wording.verb_not_supported(verb))
    for field in ("backendMethod", "backendUrl"):
        if not isinstance(operation.get(field), str):
            raise Unfit(wording.operation_lacks(field, verb))
    if operation["backendMethod"].lower() not in METHODS:
        raise Unfit(wording.backend_method_not_supported(operation["backendMethod"]))
    for told in _listed(operation.get("policies"), "policy", ("type", "value")):
        if told["type"] not in POLICIES:
            raise Unfit(wording.invalid_in("type", "policy", POLICIES))
    for told in _listed(operation.get("security"), "security", ("type", "scope")):
        if told["scope"] not in SECURITY_SCOPES:
            raise Unfit(wording.invalid_in("scope", "security", SECURITY_SCOPES))


def _listed(value: Any, name: str, fields: tuple[str, str]) -> list[Document]:
    """The objects of a list that may be missing; raises `Unfit` if one of them lacks a field."""
    listed = value or []
    if not isinstance(listed, list) or not all(
        isinstance(told, dict) and told.keys() >= set(fields) and None not in map(told.get, fields) for told in listed
    ):
        raise Unfit(wording.field_missing_in(name, fields))
    return listed


# ── the first form, and back ────────────────────────────────────────────────────────────────────────────────────


def to_swagger(body: Document) -> Document:
    """The document of an API in the first form that was checked. Raises `Unfit` for what Swagger has no words for."""
    paths: Document = {}
    cases: list[Document] = []
    allowed: set[str] = set()
    for path, resource in body["resources"].items():
        cors = resource.get("cors")
        origin = cors.get("origin") if isinstance(cors, dict) else None
        if origin is not None:
            allowed.add(str(origin).lower())
        for verb, told in resource["operations"].items():
            id = f"{verb.lower()}{path}"
            paths.setdefault(path, {})[verb.lower()] = _operation(id, told)
            method = told["backendMethod"].lower()
            invoke = {"target-url": told["backendUrl"], "verb": "keep" if method == verb.lower() else method.upper()}
            cases.append({"operations": [id], "execute": [{"invoke": invoke}]})
    if len(allowed) > 1 or not allowed <= {"true", "false"}:
        raise Unfit(wording.CORS_OF_RESOURCES)
    own: Document = {"assembly": {"execute": [{"operation-switch": {"case": cases}}]}}
    if allowed:
        own["cors"] = {"enabled": allowed == {"true"}}
    return {
        "swagger": "2.0",
        "info": {"title": body["name"], "version": "1.0.0"},
        "basePath": body["basePath"],
        "paths": paths,
        OWN_EXTENSION: own,
    }


def _operation(id: str, told: Document) -> Document:
    made: Document = {"operationId": id, "responses": {"default": {"description": "Default response"}}}
    for policy in told.get("policies") or ():
        value = policy["value"]
        if policy["type"] == "reqMapping":
            made[MAPPING] = [*made.get(MAPPING, ()), *(value if isinstance(value, list) else ())]
        elif policy["type"] == "rateLimit":
            made[RATE_LIMIT] = [*made.get(RATE_LIMIT, ()), value]
        else:
            made[ROUTING] = value
    if told.get("security"):
        made[SECURITY] = told["security"]
    return made


def render_resources(api: Api, tenant: Document, url: str) -> Document:
    """An API in the first form, wherever it comes from; `tenant` as it is shown."""
    document = api.document
    cors = configuration(document).get("cors")
    enabled = cors.get("enabled") if isinstance(cors, dict) else None
    resources: Document = {}
    for path, verb, operation in operations_of(document):
        id = str(operation.get("operationId"))
        shown: Document = {
            "backendMethod": _method(document, id, verb),
            "backendUrl": target_of(document, id) or "",
            "policies": [
                *({"type": "reqMapping", "value": value} for value in _some(operation.get(MAPPING))),
                *({"type": "rateLimit", "value": value} for value in operation.get(RATE_LIMIT) or ()),
                *({"type": "backendRouting", "value": value} for value in _some(operation.get(ROUTING))),
            ],
            "security": operation.get(SECURITY) or [],
        }
        resource = resources.setdefault(path, {"operations": {}})
        if isinstance(enabled, bool):
            resource["cors"] = {"origin": "true" if enabled else "false"}
        resource["operations"][verb] = shown
    return {
        "id": id_of(api.base_path),
        "name": api.title,
        "basePath": api.base_path,
        "tenantId": tenant["id"],
        "tenantNamespace": tenant["namespace"],
        "tenantInstance": tenant["instance"],
        "managedUrl": url,
        "resources": resources,
    }


def _method(document: Document, id: str, verb: str) -> str:
    """What the target is called with."""
    invokes = (policy["invoke"] for policy in policies_for(document, id) if isinstance(policy.get("invoke"), dict))
    method = next((invoke.get("verb") for invoke in invokes), None)
    return verb if not isinstance(method, str) or method.lower() == "keep" else method


def _some(value: Any) -> list[Any]:
    return [value] if value else []
