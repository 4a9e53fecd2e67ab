"""What a name of an action means to a caller: through packages and bindings, with the parameters of all of them.

It is asked of what is in memory (`peek`) and of the store (`resolve`). Source: OpenWhisk's resolution of packaged
actions, and its rights: whoever may read a package may read and invoke what is in it; a binding is its owner's alone,
and only while its provider may be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.entitlement import rights
from visp.entity.action import Action
from visp.entity.execs import SequenceExec
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package
from visp.entity.parameters import Parameters, init_keys
from visp.errors import CircularBinding, Conflict, NotFound

if TYPE_CHECKING:
    from visp.entity.subject import Identity
    from visp.store.cache import Entity, EntityCache

JOINED_LIMIT = 100_000


class Resolved(msgspec.Struct, frozen=True):
    """An action with the parameters that hold for it; `binding` is the id of the binding it was found through.

    `init` are keys that its package or binding gives at initialisation only.
    """

    action: Action
    binding: str | None = None
    init: tuple[str, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """A package that may be read: itself or, of a binding, its provider, and the parameters of both."""

    provider: Package
    binding: Package | None
    parameters: Parameters


class Resolver:
    """Joins are kept for as long as none of their parts has another revision."""

    def __init__(self, entities: EntityCache) -> None:
        self._entities = entities
        self._joined: dict[tuple[str, str], tuple[tuple[int, int, int], Resolved]] = {}

    async def resolve(self, identity: Identity, name: FullyQualifiedName) -> Resolved:
        """Raises `Forbidden` for what may not be read, `NotFound` for what is not there, `Conflict`."""
        if name.package is None:
            rights.check_owner(identity, name.namespace, name.id)
            return Resolved(_as_action(await self._entities.get(name.id)))
        found = await self.package(identity, package_of(name), name.id)
        action = _as_action(await self._entities.get(found.provider.action(name.name).id))
        return self._join(found, action)

    def peek(self, identity: Identity, name: FullyQualifiedName) -> Resolved | None:
        """The same of what is in memory; None where `resolve` has to be asked."""
        peek = self._entities.peek
        if name.package is None:
            action = peek(name.id)
            return Resolved(action) if isinstance(action, Action) and identity.namespace == name.namespace else None
        package = peek(name.path)
        if not isinstance(package, Package) or not rights.may_read(identity, package):
            return None
        provider = package
        if package.binding is not None:
            bound = peek(package.binding.id)
            if not isinstance(bound, Package) or bound.binding is not None or not rights.may_read(identity, bound):
                return None
            provider = bound
        action = peek(provider.action(name.name).id)
        return self._join(_found(package, provider), action) if isinstance(action, Action) else None

    def peek_or_refuse(self, identity: Identity, name: FullyQualifiedName) -> Resolved:
        """For what was resolved a moment ago: what is not in memory is not there. Raises `Forbidden`, `NotFound`."""
        resolved = self.peek(identity, name)
        if resolved is not None:
            return resolved
        if name.package is None:
            rights.check_owner(identity, name.namespace, name.id)
            raise NotFound()
        package = self._peek_package(identity, package_of(name), name.id)
        if package is not None and package.binding is not None:
            self._peek_package(identity, package.binding, name.id)
        raise NotFound()

    def _peek_package(self, identity: Identity, name: FullyQualifiedName, resource: str) -> Package | None:
        found = self._entities.peek(name.id)
        package = found if isinstance(found, Package) else None
        rights.check_package(identity, name, package, resource)
        return package

    async def check(self, identity: Identity, name: FullyQualifiedName) -> None:
        """The rights to an action, whether or not it exists. Raises `Forbidden`, `NotFound`, `Conflict`."""
        if name.package is None:
            rights.check_owner(identity, name.namespace, name.id)
        else:
            await self.package(identity, package_of(name), name.id)

    async def check_parts(self, identity: Identity, action: Action) -> None:
        """The rights to what a sequence is made of in packages."""
        if isinstance(action.exec, SequenceExec):
            for component in action.exec.components:
                if component.package is not None:
                    await self.package(identity, package_of(component), component.id)

    async def package(self, identity: Identity, name: FullyQualifiedName, resource: str) -> Found:
        """A package that may be read. `resource` is what is asked for, as a refusal names it.

        Raises `Forbidden`, `NotFound`, `Conflict`.
        """
        package = await self._entities.get(name.id)
        rights.check_package(identity, name, package if isinstance(package, Package) else None, resource)
        if package is None:
            raise NotFound()
        if not isinstance(package, Package):
            raise Conflict(wording.WRONG_COLLECTION)
        if package.binding is None:
            return _found(package, package)
        provider = await self._entities.get(package.binding.id)
        readable = provider if isinstance(provider, Package) else None
        rights.check_package(identity, package.binding, readable, resource)
        if readable is None:
            raise NotFound()
        if readable.binding is not None:
            raise CircularBinding(wording.circular_binding(name.name))
        return _found(package, readable)

    def _join(self, found: Found, action: Action) -> Resolved:
        binding = found.binding
        key = action.name.id, "" if binding is None else binding.name.id
        revisions = found.provider.revision, 0 if binding is None else binding.revision, action.revision
        held = self._joined.get(key)
        if held is not None and held[0] == revisions:
            return held[1]
        parameters = found.parameters | action.parameters
        init = tuple(sorted(init_keys(parameters) - init_keys(action.parameters)))
        merged = msgspec.structs.replace(action, parameters=parameters)
        resolved = Resolved(merged, None if binding is None else binding.name.id, init)
        if len(self._joined) >= JOINED_LIMIT:
            self._joined.clear()
        self._joined[key] = revisions, resolved
        return resolved


def must_be_asked(exec: SequenceExec) -> bool:
    """Whether `check_parts` has something to look at."""
    return any(name.package is not None for name in exec.components)


def package_of(name: FullyQualifiedName) -> FullyQualifiedName:
    """The package that a packaged name is in."""
    assert name.package is not None
    return FullyQualifiedName(name.namespace, None, name.package)


def _found(package: Package, provider: Package) -> Found:
    if package is provider:
        return Found(package, None, package.parameters)
    return Found(provider, package, provider.parameters | package.parameters)


def _as_action(entity: Entity | None) -> Action:
    if entity is None:
        raise NotFound()
    if not isinstance(entity, Action):
        raise Conflict(wording.WRONG_COLLECTION)
    return entity
