"""APIs of the gateway as documents of the store of entities.

So they have its revisions and checksums, are told to every shard as entities are, and are in its backups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.entity.api import APIS_LIMIT, Api, id_of, title_of
from visp.errors import Corrupt
from visp.store.base import Delete, Document, EntityQuery, Put
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.store.base import EntityStore, Revision

COLLECTION = "apis"
_MORE_THAN_ALL = 2 * APIS_LIMIT
"""Several shards at once may let a namespace have a few more than its limit."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, object]).decode


class DocumentApis:
    """`ApiStore` over an `EntityStore`."""

    def __init__(self, store: EntityStore) -> None:
        self._store = store

    async def of(self, namespace: str) -> list[Api]:
        query = EntityQuery(collection=COLLECTION, namespace=namespace, limit=_MORE_THAN_ALL)
        out: list[Api] = []
        for document in await self._store.list(query):
            try:
                out.append(from_document(document))
            except Corrupt:
                log.error("apis.unreadable", id=document.id, revision=document.revision)
        return sorted(out, key=lambda api: api.base_path)

    async def put(self, api: Api, expected: Revision | None) -> Revision:
        (revision,) = await self._store.write([Put(to_document(api), expected)])
        return revision

    async def delete(self, api: Api) -> None:
        await self._store.write([Delete(id_of(api.namespace, api.base_path), api.revision)])


def to_document(api: Api) -> Document:
    return Document(
        id=id_of(api.namespace, api.base_path),
        collection=COLLECTION,
        namespace=api.namespace,
        package=None,
        name=api.base_path,
        updated_ms=api.updated_ms,
        publish=False,
        body=_encode(api.document),
    )


def from_document(document: Document) -> Api:
    """Raises `Corrupt` when the body does not read."""
    try:
        found = _decode(document.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Corrupt() from None
    return Api(
        namespace=document.namespace,
        base_path=document.name,
        title=title_of(found),
        document=found,
        size_bytes=len(document.body),
        updated_ms=document.updated_ms,
        revision=document.revision,
    )
