"""Who may do what. Pure.

Source: OpenWhisk's entitlement table. The owner of a namespace may do everything in it; what is foreign is refused
whether or not it exists, so that existence never leaks. Packages, the only thing that can be shared, are decided by
their own rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp import wording
from visp.errors import Forbidden

if TYPE_CHECKING:
    from visp.entity.names import FullyQualifiedName
    from visp.entity.package import Package
    from visp.entity.subject import Identity


def check_owner(identity: Identity, namespace: str, resource: str) -> None:
    """Raises `Forbidden` naming `resource` (`ns` for a collection, `ns/name` for an entity) unless the caller owns
    the namespace.
    """
    if identity.namespace != namespace:
        raise Forbidden(wording.not_authorized([resource]))


def may_read(identity: Identity, package: Package) -> bool:
    """Its owner, and of one that is published everyone; a binding is its owner's alone."""
    return identity.namespace == package.name.namespace or (package.publish and package.binding is None)


def check_package(identity: Identity, name: FullyQualifiedName, package: Package | None, resource: str) -> None:
    """Raises `Forbidden` naming `resource` unless the package may be read; one that is absent (None) is its owner's."""
    if identity.namespace != name.namespace and (package is None or not may_read(identity, package)):
        raise Forbidden(wording.not_authorized([resource]))


def check_references(identity: Identity, names: tuple[FullyQualifiedName, ...]) -> None:
    """Raises `Forbidden` naming every foreign entity that a sequence or rule refers to."""
    foreign = {name.id for name in names if name.namespace != identity.namespace}
    if foreign:
        raise Forbidden(wording.not_authorized(foreign))


def check_kind(identity: Identity, kind: str) -> None:
    """Raises `Forbidden` when the namespace may not use this kind."""
    allowed = identity.limits.allowed_kinds
    if allowed and kind not in allowed:
        raise Forbidden(wording.kind_not_authorized(kind))
