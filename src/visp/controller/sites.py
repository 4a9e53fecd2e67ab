"""The files of packages' sites: taken from an archive, kept as blobs, read again for whoever asks."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.entity.package import Package
from visp.entity.site import Site, SiteFile
from visp.errors import BadRequest, NotFound
from visp.store.cache import Write

if TYPE_CHECKING:
    from visp.clock import Clock
    from visp.entity.names import FullyQualifiedName
    from visp.store.base import BlobStore
    from visp.store.cache import EntityCache

KEPT_BYTES = 64 * 1024 * 1024
KEPT_FILE_BYTES = 4 * 1024 * 1024


class Sites:
    """Sites are written by their packages' owners and read by everybody. What is read often stays in memory."""

    def __init__(self, entities: EntityCache, blobs: BlobStore, clock: Clock) -> None:
        self._entities = entities
        self._blobs = blobs
        self._clock = clock
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._taking = asyncio.Lock()
        """One archive is unpacked at a time: each may be many times what was sent."""

    async def put(self, name: FullyQualifiedName, archive: bytes) -> Package:
        """Replaces the whole site by what a zip archive holds. Raises `BadRequest`, `NotFound`."""
        package = await self._owned(name)
        site: Site = {}
        from visp.controller.unzip import unpacked  # a server that has no sites needs none of it

        async with self._taking:
            contents = await asyncio.to_thread(lambda: list(unpacked(archive)))
            for path, content, smaller in contents:
                digest = await self._blobs.put(content)
                gzipped = None if smaller is None else await self._blobs.put(smaller)
                site[path] = SiteFile(digest, len(content), gzipped, 0 if smaller is None else len(smaller))
        return await self._write(package, site)

    async def delete(self, name: FullyQualifiedName) -> Package:
        """Raises `NotFound`."""
        return await self._write(await self._owned(name), {})

    async def _owned(self, name: FullyQualifiedName) -> Package:
        package = await self._entities.get(name.id)
        if not isinstance(package, Package):
            raise NotFound()
        if package.binding is not None:
            raise BadRequest(wording.NOT_ON_BINDING)
        return package

    async def _write(self, package: Package, site: Site) -> Package:
        new = msgspec.structs.replace(package, site=site, updated_ms=self._clock.now_ms())
        await self._entities.write(Write(new, package.revision))
        return new

    async def read(self, digest: str) -> bytes:
        """Raises `Corrupt`."""
        content = self._kept.get(digest)
        if content is not None:
            self._kept.move_to_end(digest)
            return content
        content = await self._blobs.get(digest)
        if len(content) <= KEPT_FILE_BYTES and digest not in self._kept:
            self._kept[digest] = content
            self._kept_bytes += len(content)
            while self._kept_bytes > KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])
        return content
