"""Transaction ids: one for each request, on every log line of it and in every answer."""

from __future__ import annotations

import random
import string

ALPHABET = string.ascii_letters + string.digits
LENGTH = 32
RESERVED_PREFIX = b"sid_"
GIVEN_LIMIT = 128

_random = random.SystemRandom()
_pool: list[str] = []


def new() -> str:
    """32 random characters `[A-Za-z0-9]`.

    They identify, they protect nothing. Drawn in batches: a system call a hundred ids.
    """
    if not _pool:
        letters = random.Random(_random.getrandbits(256)).choices(ALPHABET, k=LENGTH * 100)
        text = "".join(letters)
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
