"""Answers that are compressed for clients who can read that. What is decided is pure; long ones are made in a thread.

Only whole answers of a textual type, and of some length: what is short gains nothing, and a secret beside text of a
stranger's choosing could be guessed from lengths. An action that wants none of it says `Cache-Control: no-transform`,
or names its `Content-Encoding` itself.
"""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from visp.entity.media import parse_media_type

if TYPE_CHECKING:
    from visp.api.errors import HttpAnswer

GZIP = "gzip"
LEVEL = 4
"""Half the time of the usual level, for some hundredths more bytes."""
AT_ONCE_BYTES = 16 * 1024
"""What is longer would hold up others."""
MORE_TEXTS = frozenset({"application/json", "application/openmetrics-text", "image/svg+xml"})
KINDS_KEPT = 256
"""Content types of which it is remembered what they are."""
_VARY = ("Vary", "Accept-Encoding")
_WBITS = 16 + zlib.MAX_WBITS


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` lets an answer be compressed so. Source: RFC 9110, section 12.5.3."""
    if not header:
        return False
    weights = {}
    for item in header.lower().split(","):
        name, _, parameter = item.partition(";")
        weights[name.strip()] = _weight(parameter)
    return weights.get(GZIP, weights.get("x-gzip", weights.get("*", 0.0))) > 0.0


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def may_vary(answer: HttpAnswer, least_bytes: int) -> bool:
    """Whether the answer's form depends on what its client can read."""
    if len(answer.body) < least_bytes or answer.content_type is None or answer.status in (204, 206, 304):
        return False
    for name, value in answer.headers:
        lowered = name.lower()
        if lowered == "content-encoding" or (lowered == "cache-control" and "no-transform" in value.lower()):
            return False
    return _is_text(answer.content_type)


@lru_cache(KINDS_KEPT)
def _is_text(content_type: str) -> bool:
    kind = parse_media_type(content_type)
    return kind is not None and (kind.is_textual or kind.is_json or kind.kind in MORE_TEXTS)


def plain(answer: HttpAnswer) -> HttpAnswer:
    """One that may vary, as it is."""
    return msgspec.structs.replace(answer, headers=_varied(answer.headers))


def _varied(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    is_told = any(name.lower() == "vary" and _VARY[1].lower() in value.lower() for name, value in headers)
    return headers if is_told else (*headers, _VARY)


def compressed(answer: HttpAnswer) -> HttpAnswer:
    """One that may vary, compressed if that is shorter. A strong `ETag` becomes weak, it was of the other bytes; and
    ranges, which are of those too, are not offered.
    """
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _WBITS)
    body = packer.compress(answer.body) + packer.flush()
    if len(body) >= len(answer.body):
        return plain(answer)
    headers = tuple(
        (name, f"W/{value}" if name.lower() == "etag" and not value.startswith("W/") else value)
        for name, value in answer.headers
        if name.lower() != "accept-ranges"
    )
    return msgspec.structs.replace(answer, body=body, headers=_varied((*headers, ("Content-Encoding", GZIP))))


async def encoded(answer: HttpAnswer, header: str, least_bytes: int, *, is_head: bool = False) -> HttpAnswer:
    """The answer as it is sent to who sent this `Accept-Encoding`; to `HEAD`, whose answer has no body, as it is."""
    if not may_vary(answer, least_bytes):
        return answer
    if is_head or not accepts_gzip(header):
        return plain(answer)
    if len(answer.body) <= AT_ONCE_BYTES:
        return compressed(answer)
    return await asyncio.to_thread(compressed, answer)
