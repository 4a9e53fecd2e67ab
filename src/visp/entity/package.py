"""A package: actions under one name, with parameters for all of them. Pure parsing, merging and rendering.

Or a binding: another package seen under a name of one's own, with parameters over those of its provider.

Source: OpenWhisk's package documents, and the rules of its PUT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.entity import version
from visp.entity.action import parse_publish, raw_fields
from visp.entity.names import CALLERS_NAMESPACE, FullyQualifiedName, is_name
from visp.entity.parameters import Parameters, plain, render_parameters
from visp.entity.payload import encode, parse_document
from visp.entity.site import Site
from visp.errors import Conflict, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from visp.entity.action import Action

RESERVED = "default"
BINDING, FEED = "binding", "feed"


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One stored package; `binding` names the provider of one that is bound."""

    name: FullyQualifiedName
    binding: FullyQualifiedName | None = None
    parameters: Parameters = {}
    annotations: Parameters = {}
    version: str = version.INITIAL
    publish: bool = False
    updated_ms: int = 0
    revision: int = 0
    site: Site = {}
    """The files of its front end, by path."""

    def action(self, name: str) -> FullyQualifiedName:
        """The name of an action in it."""
        return FullyQualifiedName(self.name.namespace, self.name.name, name)


class PackagePut(msgspec.Struct, frozen=True, kw_only=True):
    """A PUT body, parsed: None where the caller said nothing."""

    binding: FullyQualifiedName | None
    parameters: Parameters | None
    annotations: Parameters | None
    version: str | None
    publish: bool | None


def parse_put(body: bytes, namespace: str) -> PackagePut:
    """`_` as the binding's namespace becomes `namespace`; raises `Malformed`."""
    fields = parse_document(body, BINDING)
    parameters, annotations = raw_fields(body)
    return PackagePut(
        binding=_parse_binding(fields.get(BINDING), namespace),
        parameters=parameters,
        annotations=annotations,
        version=version.parse_version(fields.get("version")),
        publish=parse_publish(fields.get("publish")),
    )


def _parse_binding(value: Any, namespace: str) -> FullyQualifiedName | None:
    """`{"namespace", "name"}`; an empty object is none."""
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise Malformed(wording.object_expected_in(BINDING))
    parts = []
    for member in ("namespace", "name"):
        if member not in value:
            raise Malformed(wording.member_missing(member))
        if not isinstance(value[member], str):
            raise Malformed(wording.string_expected(encode(value[member]).decode()))
        if not is_name(value[member]):
            raise Malformed(wording.NAME_ILLEGAL)
        parts.append(value[member])
    return FullyQualifiedName(namespace if parts[0] == CALLERS_NAMESPACE else parts[0], None, parts[1])


def create(name: FullyQualifiedName, put: PackagePut, now_ms: int) -> Package:
    return Package(
        name=name,
        binding=put.binding,
        parameters=put.parameters or {},
        annotations=_annotations(put.annotations or {}, put.binding),
        version=put.version or version.INITIAL,
        publish=put.publish or False,
        updated_ms=now_ms,
    )


def update(old: Package, put: PackagePut, now_ms: int) -> Package:
    """Parameters and annotations are replaced as a whole where given. Raises `Conflict`: a package stays one."""
    if put.binding is not None and old.binding is None:
        raise Conflict(wording.PACKAGE_NOT_BINDING)
    binding = put.binding or old.binding
    return msgspec.structs.replace(
        old,
        binding=binding,
        parameters=old.parameters if put.parameters is None else put.parameters,
        annotations=_annotations(old.annotations if put.annotations is None else put.annotations, binding),
        version=put.version or version.next_version(old.version),
        publish=old.publish if put.publish is None else put.publish,
        updated_ms=now_ms,
    )


def _annotations(given: Parameters, binding: FullyQualifiedName | None) -> Parameters:
    """The annotation `binding` is the server's."""
    kept = {key: value for key, value in given.items() if key != BINDING}
    return kept if binding is None else kept | plain(BINDING, _render_binding(binding))


def _render_binding(binding: FullyQualifiedName) -> dict[str, str]:
    return {"namespace": binding.namespace, "name": binding.name}


def render(package: Package, parameters: Parameters | None = None) -> dict[str, Any]:
    """The package as PUT and DELETE answer it; `parameters` may be merged ones."""
    return render_summary(package) | {
        "binding": {} if package.binding is None else _render_binding(package.binding),
        "parameters": render_parameters(package.parameters if parameters is None else parameters),
    }


def render_summary(package: Package) -> dict[str, Any]:
    """The package as a list shows it."""
    return {
        "namespace": package.name.path,
        "name": package.name.name,
        "binding": False if package.binding is None else _render_binding(package.binding),
        "annotations": render_parameters(package.annotations),
        "version": package.version,
        "publish": package.publish,
        "updated": package.updated_ms,
    }


def render_content(actions: Iterable[Action]) -> dict[str, Any]:
    """What GET adds: the actions, and apart from them those that are feeds."""
    shown: dict[str, list[dict[str, Any]]] = {"actions": [], "feeds": []}
    for action in actions:
        entry = {
            "name": action.name.name,
            "version": action.version,
            "annotations": render_parameters(action.annotations),
        }
        shown["feeds" if FEED in action.annotations else "actions"].append(entry)
    return shown
