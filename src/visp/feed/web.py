"""HTTP as sources speak it: to addresses that may be reached alone, with an end to each wait and each body."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from visp import wording
from visp.feed.base import SourceLost
from visp.feed.connecting import untrusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp

    from visp.feed.base import Reach

CONNECT_S = 10.0
ANSWER_S = 30.0
"""Without a byte."""


@contextlib.asynccontextmanager
async def session(reach: Reach) -> AsyncIterator[aiohttp.ClientSession]:
    """Connections of one source, closed with the block."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=4, resolver=_resolver(reach), use_dns_cache=False)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "visp"},
    ) as opened:
        yield opened


@contextlib.asynccontextmanager
async def answer(
    client: aiohttp.ClientSession,
    reach: Reach,
    method: str,
    url: Any,
    *,
    headers: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    quiet_s: float = ANSWER_S,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to one request, its body not read yet; redirects are answers. Raises `SourceLost`, `FeedRefused`."""
    import aiohttp
    from yarl import URL

    target = url if isinstance(url, URL) else URL(url)
    try:
        if target.host is not None and _is_address(target.host):  # a name is checked where it is looked up
            await reach.check(target.host, target.port or 0)
        async with client.request(
            method,
            target,
            headers=headers,
            data=data,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=quiet_s),
        ) as response:
            yield response
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise SourceLost(wording.source_not_reached(target.host or "", _cause(error))) from None


async def body_of(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Raises `SourceLost` for one that has more bytes."""
    found = bytearray()
    async for part in response.content.iter_chunked(64 * 1024):
        found += part
        if len(found) > most:
            raise SourceLost(wording.source_answer_too_large(most))
    return bytes(found)


def _cause(error: Exception) -> str:
    """Not the error's own text: it may hold the whole URL, whose query may have somebody's key."""
    if (refusal := untrusted(error)) is not None:
        return refusal
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolver(reach: Reach) -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Reached(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in await reach.check(host, port)
            ]

        async def close(self) -> None:
            pass

    return Reached()
