"""APIs of the gateway: one document for a base path of a namespace, and what changes it. Pure.

The document is Swagger 2 with OpenWhisk's extensions: an operation says in `x-openwhisk` which web action answers it,
and `x-ibm-configuration.assembly.execute` what is called for which `operationId`. Nothing here changes a document that
it is given. Source: OpenWhisk's route management actions and its gateway.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from visp import wording
from visp.entity.limits import MIB
from visp.errors import ApiRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Document = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
RESPONSE_TYPES = frozenset({"html", "http", "json", "svg", "text"})
EXTENSIONS = ("x-gateway-configuration", "x-ibm-configuration")
"""Names of the gateway's part of a document, in the order in which they are looked for."""
OWN_EXTENSION = EXTENSIONS[1]
ACTION = "x-openwhisk"
PATH_MARK = "$(request.path)"
SECRET_HEADER = "message.headers.X-Require-Whisk-Auth"

APIS_LIMIT = 1000
"""APIs of a namespace."""
DOCUMENT_BYTES = 1 * MIB
NAMESPACE_BYTES = 16 * MIB
"""All documents of a namespace together: they are held in memory while they are in use."""
DEPTH_LIMIT = 100

_PARAMETER = re.compile(r"\{([^{}/]*)\}")
_SEPARATORS = re.compile(r"[^0-9A-Za-z_-]+")
_KEPT_IN_URL = "/:@!$&()*+,;=~{}%"
UNSAID = frozenset({"parameters", "summary", "description", "servers", "$ref"})
"""What a path has beside its operations."""
UNUSED = "Not Used"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """One API.

    `base_path` begins with a slash and, but for `/` itself, does not end with one. `document` is Swagger 2, and shared
    by all who hold the API: it is never changed, only replaced. `size_bytes` is its length as JSON.
    """

    namespace: str
    base_path: str
    title: str
    document: Document
    size_bytes: int = 0
    updated_ms: int = 0
    revision: int = 0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of an API and the web action behind it, as `wsk api create` tells them.

    `base_path` may be the title of an API that is there. `url` is the web action's. `secret` is what the action asks
    for in `X-Require-Whisk-Auth`, None for nothing.
    """

    base_path: str
    title: str | None
    path: str
    verb: str
    url: str
    namespace: str
    package: str
    action: str
    is_http: bool
    parameters: Any = None
    secret: Any = None


def normal_base_path(given: str) -> str:
    """With a slash at the beginning, and none at the end but for `/` itself."""
    return "/" + given.strip("/")


def id_of(namespace: str, base_path: str) -> str:
    """`guest//shop`, which no name of an entity can be."""
    return f"{namespace}/{base_path}"


def namespace_of(id: str) -> str | None:
    """The namespace of an API by its id; None for an entity's."""
    namespace, is_api, _ = id.partition("//")
    return namespace if is_api else None


def api_of(namespace: str, document: Document, now_ms: int) -> Api:
    """The API that a document is. Raises `ApiRefused` for one that cannot be kept, or that the gateway refuses."""
    _check_depth(document)
    check_gateway(document)
    try:
        size = len(_encode(document))
    except (OverflowError, TypeError, ValueError, RecursionError):
        raise ApiRefused(wording.NUMBER_TOO_LARGE) from None
    if size > DOCUMENT_BYTES:
        raise ApiRefused(wording.api_too_large(size, DOCUMENT_BYTES))
    return Api(
        namespace=namespace,
        base_path=normal_base_path(document["basePath"]),
        title=title_of(document),
        document=document,
        size_bytes=size,
        updated_ms=now_ms,
    )


def title_of(document: Document) -> str:
    info = document.get("info")
    title = info.get("title") if isinstance(info, dict) else None
    return title if isinstance(title, str) else ""


def _check_depth(document: Document) -> None:
    level: list[Any] = [document]
    for _ in range(DEPTH_LIMIT):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise ApiRefused(wording.api_too_deep(DEPTH_LIMIT))


def _inside(value: Any) -> Iterable[Any]:
    """What is in an object or array, but for what has nothing in it."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (part for part in parts if isinstance(part, (dict, list)))


# ── which APIs are meant ────────────────────────────────────────────────────────────────────────────────────────


def named(apis: Iterable[Api], name: str) -> list[Api]:
    """Those with this base path or, where it has no slash at its beginning, with this title."""
    if name.startswith("/"):
        path = normal_base_path(name)
        return [api for api in apis if api.base_path == path]
    return [api for api in apis if api.title == name]


def page(apis: Sequence[Api], skip: str | None, limit: str | None) -> list[Api]:
    """A part of a list; what is no number (older clients send `undefined`) asks for nothing."""
    first, most = _number(skip), _number(limit)
    left = apis[max(first or 0, 0) :]
    return list(left if most is None else left[: max(most, 0)])


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text[:20])
    except ValueError:
        return None


# ── one operation ───────────────────────────────────────────────────────────────────────────────────────────────


def empty_document(base_path: str, title: str | None) -> Document:
    return {
        "swagger": "2.0",
        "info": {"title": title or base_path, "version": "1.0.0"},
        "basePath": normal_base_path(base_path),
        "paths": {},
        OWN_EXTENSION: {"cors": {"enabled": True}, "assembly": {}},
    }


def with_endpoint(document: Document | None, endpoint: Endpoint) -> Document:
    """The document (None: a new one) with this operation, in place of one with the same path and verb.

    Raises `ApiRefused`.
    """
    if not endpoint.path.startswith("/"):
        raise _refused(wording.RESOURCE_PATH_SLASH)
    if endpoint.verb not in METHODS:
        raise _refused(wording.verb_not_supported(endpoint.verb))
    made = empty_document(endpoint.base_path, endpoint.title) if document is None else _copy(document)
    paths = made["paths"]
    _drop_case(made, _id_at(paths, endpoint.path, endpoint.verb))
    operations = paths.setdefault(endpoint.path, {})
    operations.pop(endpoint.verb, None)
    id = _free_id(made, operation_id(endpoint.verb, endpoint.path))
    operation: Document = {"operationId": id}
    if endpoint.parameters:
        operation["parameters"] = endpoint.parameters
    operation[ACTION] = {
        "url": endpoint.url,
        "namespace": endpoint.namespace,
        "package": endpoint.package,
        "action": endpoint.action,
    }
    operation["responses"] = {"default": {"description": "Default response"}}
    operations[endpoint.verb] = operation
    target = endpoint.url + (PATH_MARK if endpoint.is_http else "")
    _cases(made, id).append(case_of(id, target, endpoint.secret))
    return made


def _copy(document: Document) -> Document:
    copy: Document = _decode(_encode(document))
    return copy


def operation_id(verb: str, path: str) -> str:
    """`get` and `/path/with/sub_paths/in/it` make `getPathWithSub_pathsInIt`."""
    pieces = _SEPARATORS.split(path)
    return verb.lower() + "".join(piece[:1].upper() + piece[1:].lower() for piece in pieces)


def _free_id(document: Document, id: str) -> str:
    """`id`, with a number behind it where another operation has it: `/a/b` and `/a.b` make the same."""
    taken = {str(operation.get("operationId")) for _, _, operation in operations_of(document)}
    numbers = (f"{id}{number}" for number in range(2, len(taken) + 3))
    return id if id not in taken else next(one for one in numbers if one not in taken)


def case_of(id: str, target: str, secret: Any = None) -> Document:
    """What the gateway does for one operation."""
    execute: list[Document] = [{"invoke": {"target-url": target, "verb": "keep"}}]
    if secret is not None:
        execute.append({"set-variable": {"actions": [{"set": SECRET_HEADER, "value": secret}]}})
    return {"operations": [id], "execute": execute}


def without(document: Document, path: str, verb: str | None) -> Document | None:
    """The document without a path, or without one operation of it; None when no path is left.

    Raises `ApiRefused` when it is not there.
    """
    made = _copy(document)
    paths = made["paths"]
    if path not in paths:
        raise ApiRefused(wording.no_such_api_path(path))
    if verb is not None and verb not in paths[path]:
        raise ApiRefused(wording.no_such_api_operation(path, verb))
    for one in METHODS if verb is None else (verb,):
        _drop_case(made, _id_at(paths, path, one))
        paths[path].pop(one, None)
    if not any(one in METHODS for one in paths[path]):
        del paths[path]
    return made if any(True for _ in operations_of(made)) else None


def _id_at(paths: Document, path: str, verb: str) -> str | None:
    operation = paths.get(path, {}).get(verb)
    id = operation.get("operationId") if isinstance(operation, dict) else None
    return id if isinstance(id, str) else None


def operations_of(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Path, verb in lower case and operation of each."""
    for path, operations in document["paths"].items():
        if path.startswith("x-"):
            continue
        for verb, operation in operations.items():
            if verb.lower() in METHODS:
                yield path, verb.lower(), operation


# ── the gateway's part of a document ────────────────────────────────────────────────────────────────────────────


def configuration(document: Document) -> Document:
    """What the document says to the gateway; empty where it says nothing."""
    for name in EXTENSIONS:
        found = document.get(name)
        if isinstance(found, dict):
            return found
    return {}


def policies(document: Document) -> list[Document] | None:
    """What the gateway does for a request, in order; None where the document does not say."""
    assembly = configuration(document).get("assembly")
    execute = assembly.get("execute") if isinstance(assembly, dict) else None
    return [policy for policy in execute if isinstance(policy, dict)] if isinstance(execute, list) else None


def policies_for(document: Document, id: str) -> list[Document]:
    """What is done for one operation: of its case, where the document tells operations apart."""
    out: list[Document] = []
    is_found = False
    for policy in policies(document) or ():
        switch = policy.get("operation-switch")
        if isinstance(switch, dict) and not is_found:
            is_found = True
            for case in _objects(switch.get("case")):
                if id in (case.get("operations") or ()):
                    out += _objects(case.get("execute"))
        elif "invoke" not in policy or not is_found:
            is_found = is_found or "invoke" in policy
            out.append(policy)
    return out


def target_of(document: Document, id: str) -> str | None:
    """The URL that is called for an operation, None where none is."""
    for policy in policies_for(document, id):
        invoke = policy.get("invoke")
        target = invoke.get("target-url") if isinstance(invoke, dict) else None
        if isinstance(target, str):
            return target
    return None


def _objects(value: Any) -> list[Document]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _cases(document: Document, new_id: str) -> list[Any]:
    """The list of cases to add one to, made where there is none. One call for all operations becomes their case."""
    own = configuration(document)
    if not own:
        own = document[OWN_EXTENSION] = {"cors": {"enabled": True}}
    assembly = own["assembly"] = own["assembly"] if isinstance(own.get("assembly"), dict) else {}
    execute = assembly["execute"] = assembly["execute"] if isinstance(assembly.get("execute"), list) else []
    for at, policy in enumerate(execute):
        switch = policy.get("operation-switch") if isinstance(policy, dict) else None
        if isinstance(switch, dict):
            cases = switch["case"] = switch["case"] if isinstance(switch.get("case"), list) else []
            return cases
        if isinstance(policy, dict) and "invoke" in policy:
            ids = [operation.get("operationId") for _, _, operation in operations_of(document)]
            cases = [{"operations": [id for id in ids if id != new_id], "execute": [policy]}]
            execute[at] = {"operation-switch": {"case": cases}}
            return cases
    cases = []
    execute.insert(0, {"operation-switch": {"case": cases}})
    return cases


def _drop_case(document: Document, id: str | None) -> None:
    """Takes an operation out of the cases, and a case that has none left."""
    if id is None:
        return
    for policy in policies(document) or ():
        switch = policy.get("operation-switch")
        if not isinstance(switch, dict) or not isinstance(switch.get("case"), list):
            continue
        for case in _objects(switch["case"]):
            if isinstance(case.get("operations"), list):
                case["operations"] = [one for one in case["operations"] if one != id]
        switch["case"] = [case for case in switch["case"] if not isinstance(case, dict) or case.get("operations")]


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_swagger(document: Document) -> None:
    """What OpenWhisk checks before its gateway does; raises `ApiRefused`."""
    base_path = document["basePath"]
    if _PARAMETER.search(base_path):
        raise ApiRefused(wording.base_path_has_parameters(base_path))
    if policies(document) is None:
        raise ApiRefused(wording.NO_ASSEMBLY)
    check_shape(document)
    for path, _, operation in operations_of(document):
        names = _PARAMETER.findall(path)
        if names:
            _check_backend(document, operation)
            defined = _defined(document, document["paths"][path]) | _defined(document, operation)
            for name in names:
                if name not in defined:
                    raise ApiRefused(wording.parameter_not_defined(name, path))


def check_shape(document: Document) -> None:
    """That paths are objects of objects."""
    paths = document["paths"]
    if not isinstance(paths, dict):
        raise ApiRefused(wording.PATHS_NOT_OBJECTS)
    for path, operations in paths.items():
        if path.startswith("x-"):
            continue
        if not isinstance(operations, dict):
            raise ApiRefused(wording.PATHS_NOT_OBJECTS)
        for verb, operation in operations.items():
            if verb.lower() in METHODS and not isinstance(operation, dict):
                raise ApiRefused(wording.PATHS_NOT_OBJECTS)


def _check_backend(document: Document, operation: Document) -> None:
    """A web action learns the values of a path's parameters only from the path that it is called with."""
    action = operation.get(ACTION)
    url = action.get("url") if isinstance(action, dict) else None
    if isinstance(url, str) and not url.endswith(".http"):
        raise ApiRefused(wording.NOT_HTTP_RESPONSE)
    id = operation.get("operationId")
    target = target_of(document, id) if isinstance(id, str) else None
    if target is not None and not target.endswith(f".http{PATH_MARK}"):
        raise ApiRefused(wording.target_not_path(str(id)))


def _defined(document: Document, holder: Document) -> set[str]:
    """Names of the parameters of a path or operation, those that it refers to included."""
    names: set[str] = set()
    for parameter in _objects(holder.get("parameters")):
        reference = parameter.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/parameters/"):
            shared = document.get("parameters")
            found = shared.get(reference.removeprefix("#/parameters/")) if isinstance(shared, dict) else None
            parameter = found if isinstance(found, dict) else {}
        if isinstance(parameter.get("name"), str):
            names.add(parameter["name"])
    return names


def check_gateway(document: Document) -> None:
    """What the gateway refuses; raises `ApiRefused` as it is told by who asks the gateway."""
    check_shape(document)
    if "'" in document["basePath"]:
        raise _refused(wording.BASE_PATH_QUOTE)
    for path, operations in document["paths"].items():
        if path.startswith("x-"):
            continue
        if not path.startswith("/"):
            raise _refused(wording.RESOURCE_PATH_SLASH)
        if "'" in path:
            raise _refused(wording.RESOURCE_PATH_QUOTE)
        for verb in operations:
            if verb.lower() not in METHODS and verb not in UNSAID and not verb.startswith("x-"):
                raise _refused(wording.verb_not_supported(verb.lower()))


def _refused(text: str) -> ApiRefused:
    return ApiRefused(wording.gateway_refused(_encode(text)[1:-1].decode()))


# ── how it is shown ─────────────────────────────────────────────────────────────────────────────────────────────


def gateway_url(base_url: str, api: Api) -> str:
    """Where an API answers."""
    path = "" if api.base_path == "/" else quote(api.base_path, safe=_KEPT_IN_URL)
    return f"{base_url}/gw/{quote(api.namespace, safe='@')}{path}"


def render(api: Api, url: str, document: Document | None = None) -> Document:
    """An API as OpenWhisk's clients read it; `document` may be another form of its own."""
    return {
        "namespace": UNUSED,
        "gwApiActivated": True,
        "tenantId": UNUSED,
        "gwApiUrl": url,
        "apidoc": api.document if document is None else document,
    }


def render_listed(shown: Document) -> Document:
    """What `render` made, as an entry of a list."""
    return {"id": UNUSED, "key": UNUSED, "value": shown}
