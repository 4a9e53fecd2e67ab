"""What requests about packages and bindings mean. Rights to the package itself were checked by the caller.

Source: OpenWhisk's rules for packages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.controller.crud import check_sizes
from visp.entitlement import rights
from visp.entity import package as packages
from visp.entity.action import Action
from visp.entity.package import RESERVED, Package
from visp.errors import BadRequest, Conflict, NotFound
from visp.store.base import EntityQuery
from visp.store.cache import Remove, Write

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.controller.crud import Crud
    from visp.entity.locking import Locks
    from visp.entity.names import FullyQualifiedName
    from visp.entity.subject import Identity
    from visp.store.cache import EntityCache

PAGE = 200


class Packages:
    """Written by their owners alone."""

    def __init__(self, *, entities: EntityCache, crud: Crud, locks: Locks, clock: Clock) -> None:
        self._entities = entities
        self._crud = crud
        self._locks = locks
        self._clock = clock

    async def put(self, identity: Identity, name: FullyQualifiedName, body: bytes, *, overwrite: bool) -> Package:
        """Creates or updates; the stored package. Raises `RequestError`."""
        if name.name == RESERVED:
            raise BadRequest(wording.package_reserved(name.name))
        put = packages.parse_put(body, identity.namespace)
        check_sizes(identity, put.parameters, put.annotations)
        target = None if put.binding is None else await self._entities.get(put.binding.id)
        if put.binding is not None:
            readable = target if isinstance(target, Package) else None
            rights.check_package(identity, put.binding, readable, put.binding.id)
        if put.parameters:
            put = msgspec.structs.replace(put, parameters=self._locks.lock(put.parameters))
        old = await self._crud.find_for_put(Package, name, overwrite=overwrite)
        now_ms = self._clock.now_ms()
        new = packages.create(name, put, now_ms) if old is None else packages.update(old, put, now_ms)
        if put.binding is not None:
            if target is None:
                raise BadRequest(wording.BINDING_TO_NOTHING)
            if not isinstance(target, Package):
                raise Conflict(wording.BINDING_TO_OTHER)
            if target.binding is not None:
                raise BadRequest(wording.BINDING_TO_BINDING)
        await self._entities.write(Write(new, None if old is None else old.revision))
        return new

    async def delete(self, name: FullyQualifiedName, *, is_forced: bool) -> Package:
        """With its actions, if forced; raises `Conflict` when there are some and it is not."""
        package = await self._crud.get(Package, name)
        actions = [] if package.binding is not None else await self.actions(package)
        if actions and not is_forced:
            raise Conflict(wording.package_not_empty(len(actions)))
        await self._entities.write(*(Remove(action) for action in actions), Remove(package))
        return package

    async def actions(self, package: Package) -> list[Action]:
        """All that are in it."""
        found: list[Action] = []
        while True:
            page = await self._crud.list(Action, query_of(package, len(found), PAGE))
            found += page
            if len(page) < PAGE:
                return found

    async def check_open(self, name: FullyQualifiedName) -> None:
        """Raises `NotFound` or `BadRequest` where no action can be written: no such package, or a binding."""
        package = await self._crud.find(Package, name)
        if package is None:
            raise NotFound()
        if package.binding is not None:
            raise BadRequest(wording.NOT_ON_BINDING)


def query_of(package: Package, skip: int, limit: int) -> EntityQuery:
    """The actions of a package, as a list asks for them."""
    name = package.name
    return EntityQuery(collection="actions", namespace=name.namespace, package=name.name, skip=skip, limit=limit)
