"""Where a namespace's sources may be: what its actions reach, and private addresses where the operator lets them.

A source is connected to by the server itself, at an address that a user names: so that is looked up once, checked, and
connected to as it was found.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from visp import wording
from visp.entity.network import is_opened, read_host
from visp.feed.base import FeedRefused, SourceLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from visp.entity.network import Address, Opening, Policy

LOOK_UP_S = 10.0


class Reaches:
    """One for a server. `is_any`: private addresses and this machine's are open to everybody.

    `is_open` says whether an address is in the internet, `policy_of` what a namespace reaches; `roots` are folders
    whose files may be watched.
    """

    def __init__(
        self,
        *,
        is_any: bool,
        is_open: Callable[[Address], bool],
        policy_of: Callable[[str], Awaitable[Policy]],
        openings: Sequence[Opening],
        roots: Sequence[str],
    ) -> None:
        self._is_any = is_any
        self._is_open = is_open
        self._policy_of = policy_of
        self._openings = openings
        self._roots = tuple(os.path.realpath(root) for root in roots)

    def of(self, namespace: str) -> NamespaceReach:
        return NamespaceReach(self, namespace)

    async def addresses(self, namespace: str, host: str, port: int) -> list[str]:
        """Raises `FeedRefused` and `SourceLost`."""
        try:
            read = read_host(host)
        except ValueError as error:
            raise FeedRefused(str(error)) from None
        policy = await self._policy_of(namespace)
        if not self._is_any and not policy.permits(read, port):
            raise FeedRefused(wording.target_not_permitted(f"{host}:{port}", str(policy)))
        found = [read] if not isinstance(read, str) else await _looked_up(read, port)
        allowed = [address for address in found if self._allows(namespace, address, port)]
        if not allowed:
            raise FeedRefused(wording.source_closed(host))
        return [str(address) for address in allowed]

    def _allows(self, namespace: str, address: Address, port: int) -> bool:
        return self._is_any or self._is_open(address) or is_opened(address, port, namespace, self._openings)

    def real_path(self, path: str) -> str:
        """Raises `FeedRefused`."""
        real = os.path.realpath(path)
        if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots):
            raise FeedRefused(wording.path_not_watched(path))
        return real


class NamespaceReach:
    """A `Reach`."""

    def __init__(self, reaches: Reaches, namespace: str) -> None:
        self._reaches = reaches
        self._namespace = namespace

    async def check(self, host: str, port: int) -> Sequence[str]:
        return await self._reaches.addresses(self._namespace, host, port)

    def check_path(self, path: str) -> str:
        return self._reaches.real_path(path)


async def _looked_up(host: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOK_UP_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise SourceLost(wording.name_not_found(host)) from None
    return list(dict.fromkeys(ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found))
