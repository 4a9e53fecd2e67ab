"""A uid of its own for each container, where the server is root: two servers of one machine share none.

A server, or one of its shards, claims a range by a name that only one process can have, for as long as it runs.
"""

from __future__ import annotations

import os
import secrets
import socket

from visp.errors import StartFailed

FIRST = 200_000
RANGES = 1_000
RANGE = 20_000
TRIES = 100


class Uids:
    """The uids of one driver; a normal user has none to give."""

    def __init__(self) -> None:
        self._claim: socket.socket | None = None
        self._free: list[int] = []
        self._next = self._end = 0

    def take(self) -> int | None:
        """One that no container has; raises `StartFailed` when all are in use."""
        if os.geteuid() != 0:
            return None
        if self._free:
            return self._free.pop()
        if self._claim is None:
            self._claim_range()
        if self._next >= self._end:
            raise StartFailed(f"{RANGE} containers run already")
        self._next += 1
        return self._next - 1

    def give(self, uid: int | None) -> None:
        """Back, once nothing runs under it."""
        if uid is not None:
            self._free.append(uid)

    def close(self) -> None:
        """The range is anyone's; no container is left."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None
        self._free.clear()
        self._next = self._end = 0

    def _claim_range(self) -> None:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for _ in range(TRIES):
            number = secrets.randbelow(RANGES)
            try:
                claim.bind(f"\0visp-uids-{number}")
            except OSError:  # another's
                continue
            self._claim = claim
            self._next = FIRST + number * RANGE
            self._end = self._next + RANGE
            return
        claim.close()
        raise StartFailed("no range of uids is free: too many servers run on this machine")
