"""What a bucket holds: read from its lists, kept in little, and what has changed since. Pure."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from visp.feed.base import Json

OBJECTS_MOST = 10_000
SEEN_BYTES = 16 * 1024 * 1024
"""Of what is kept, once unpacked."""
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Thing(msgspec.Struct, frozen=True):
    """An object in a bucket."""

    size: int
    etag: str

    def mark(self) -> str:
        """What tells its content from another."""
        return blake2b(f"{self.size} {self.etag}".encode(), digest_size=8).hexdigest()


class Page(msgspec.Struct, frozen=True):
    """A part of a list; `more` asks for the next one."""

    things: Mapping[str, Thing]
    more: str | None


def read_page(document: bytes) -> Page:
    """The answer to ListObjectsV2; raises `ValueError`."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root = fromstring(document)
    except (ParseError, DefusedXmlException) as error:
        raise ValueError(str(error)) from None
    if root.tag.removeprefix(_SPACE) != "ListBucketResult":
        raise ValueError(root.tag)
    things: dict[str, Thing] = {}
    more = None
    truncated = False
    for part in root:
        match part.tag.removeprefix(_SPACE):
            case "Contents":
                fields = {field.tag.removeprefix(_SPACE): field.text or "" for field in part}
                things[fields.get("Key", "")] = Thing(int(fields.get("Size") or 0), fields.get("ETag", "").strip('"'))
            case "IsTruncated":
                truncated = (part.text or "").strip() == "true"
            case "NextContinuationToken":
                more = part.text
    return Page(things, more if truncated else None)


class Difference(msgspec.Struct, frozen=True):
    op: str
    key: str
    mark: str
    thing: Thing | None


def differences(seen: Mapping[str, str], now: Mapping[str, Thing]) -> Iterator[Difference]:
    """In the order of keys; what is gone comes last."""
    for key, thing in sorted(now.items()):
        mark = thing.mark()
        if seen.get(key) != mark:
            yield Difference("changed" if key in seen else "created", key, mark, thing)
    for key in sorted(seen.keys() - now.keys()):
        yield Difference("deleted", key, seen[key], None)


def packed(seen: Mapping[str, str]) -> Json:
    """Marks by key as a position."""
    return {"seen": base64.b64encode(zlib.compress(msgspec.json.encode(dict(seen)), 1)).decode()}


def unpacked(position: Json) -> dict[str, str]:
    data = zlib.decompressobj().decompress(base64.b64decode(position["seen"]), SEEN_BYTES)
    return msgspec.json.decode(data, type=dict[str, str])
