"""Requests that this server makes to addresses that its users name: they reach nothing that the users could not.

Every connection is checked once the name is resolved, so a name that answers otherwise the second time gains nothing.
Redirects are not followed; bodies of answers are read where they are asked for, up to a bound.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from visp import wording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import aiohttp

    from visp.entity.network import Address
    from visp.settings import Hooks

CONNECTIONS = 256
HEAD_BYTES = 8_190


class NotReached(Exception):
    """There was no answer; the text says why."""


class Outbound:
    """Connections are kept for a while; the client is imported by the first request.

    `is_open` says whether an address lies in the internet: what holds for actions holds here.
    """

    def __init__(self, settings: Hooks, is_open: Callable[[Address], bool]) -> None:
        self._settings = settings
        self._is_open = is_open
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], limit_bytes: int
    ) -> tuple[int, bytes]:
        """Status and body of the answer; raises `NotReached`, also when the body is longer than the limit."""
        session = await self._opened()
        import aiohttp

        try:
            async with session.request(
                method,
                url,
                data=body or None,
                headers={**headers, "accept-encoding": "identity"},
                allow_redirects=False,
            ) as answer:
                chunks, size = [], 0
                async for chunk in answer.content.iter_any():
                    size += len(chunk)
                    if size > limit_bytes:
                        raise NotReached(wording.answer_too_long(limit_bytes))
                    chunks.append(chunk)
                return answer.status, b"".join(chunks)
        except TimeoutError:
            raise NotReached(wording.not_answered(self._settings.timeout_s)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotReached(reason_of(error)) from None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer; raises `NotReached`."""
        session = await self._opened()
        import aiohttp

        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                status: int = answer.status
                return status
        except TimeoutError:
            raise NotReached(wording.not_answered(self._settings.timeout_s)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotReached(reason_of(error)) from None

    async def _opened(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                client: Any = await asyncio.to_thread(importlib.import_module, "aiohttp")
                self._session = client.ClientSession(
                    connector=client.TCPConnector(limit=CONNECTIONS, socket_factory=self._socket),
                    timeout=client.ClientTimeout(total=self._settings.timeout_s),
                    cookie_jar=client.DummyCookieJar(),
                    auto_decompress=False,
                    max_line_size=HEAD_BYTES,
                    max_field_size=HEAD_BYTES,
                    headers={"user-agent": "visp"},
                )
            return self._session

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """What a connection is made with, once it is known whereto."""
        family, kind, protocol, _, (host, *_) = address
        if self._settings.reach == "internet" and not self._is_open(ipaddress.ip_address(host)):
            raise OSError(wording.address_closed(host))
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def reason_of(error: Exception) -> str:
    """What is at the bottom of a client's error, in one line."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return str(error) or type(error).__name__
