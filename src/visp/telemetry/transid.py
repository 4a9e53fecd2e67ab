"""Transaction ids: one for each request, on every log line of it and in every answer."""

from __future__ import annotations

import os

LENGTH = 32
RESERVED_PREFIX = b"sid_"
GIVEN_LIMIT = 128
DRAWN_AT_ONCE = 256

_pool: list[str] = []


def new() -> str:
    """32 random characters, hexadecimal digits.

    They identify, they protect nothing. Drawn in batches: a system call for 256 of them.
    """
    if not _pool:
        text = os.urandom(LENGTH // 2 * DRAWN_AT_ONCE).hex()
        _pool.extend(text[at : at + LENGTH] for at in range(0, len(text), LENGTH))
    return _pool.pop()


def of_request(given: bytes | None) -> str:
    """The caller's `X-Request-ID` where it is usable, else a new id.

    Ids that begin with `sid_` are the platform's own; longer ones than 128 characters, or with anything but printable
    ASCII, are replaced: they end in headers and logs.
    """
    if given and len(given) <= GIVEN_LIMIT and given.isascii() and not given.startswith(RESERVED_PREFIX):
        text = given.decode()
        if text.isprintable():
            return text
    return new()
