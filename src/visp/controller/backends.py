"""Requests of the gateway to what APIs have elsewhere, each namespace over connections of its own.

A namespace's APIs reach what its actions reach: its policy, and the addresses that are open or that an operator opened
for it. An address is checked where the connection is made, so a name that answers otherwise the second time gains
nothing. Redirects are not followed. Beyond the limits a request fails at once: none waits for another's target.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from visp import wording
from visp.controller.outbound import HEAD_BYTES, reason_of
from visp.entity.network import is_opened, read_host
from visp.errors import VispError
from visp.telemetry.metrics import Family, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence

    import aiohttp

    from visp.entity.network import Address, Opening, Policy
    from visp.settings import Hooks

TARGETS = "visp_gateway_targets_total"
UNDER_WAY = "visp_gateway_targets_under_way"

AT_ONCE = 1024
"""Requests under way, of all namespaces."""
NAMESPACE_AT_ONCE = 128
NAMESPACES = 256
"""Namespaces whose connections are kept; the one that has had no request for longest goes."""
KEPT_S = 30.0
CONNECT_S = 10.0
ANSWER_S = 70.0
"""Until the answer begins, and between two parts of it."""
LOOKUP_THREADS = 8
PORTS = {"http": 80, "https": 443}
UNSENT = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that the client would add by itself."""


class Unanswered(VispError):
    """The target did not answer: `status` is what a gateway calls that."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Reply:
    """The head of an answer, and its body as it comes; `close` is called once in any case."""

    def __init__(self, answer: aiohttp.ClientResponse, done: Callable[[], None]) -> None:
        self.status: int = answer.status
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.raw_headers]
        self._answer = answer
        self._done: Callable[[], None] | None = done

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Raises `Unanswered` when it breaks off, or nothing comes for long."""
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except TimeoutError:
            raise Unanswered(504, wording.not_answered(ANSWER_S)) from None
        except (OSError, ValueError, _client_error()) as error:
            raise Unanswered(502, reason_of(error)) from None

    def close(self) -> None:
        """A body that was not read to its end ends the connection."""
        done, self._done = self._done, None
        if done is not None:
            self._answer.close()
            done()


class Backends:
    """One for a server. `policy_of` says what a namespace reaches, `is_open` whether an address is in the internet."""

    def __init__(
        self,
        settings: Hooks,
        is_open: Callable[[Address], bool],
        policy_of: Callable[[str], Awaitable[Policy]],
        openings: Sequence[Opening] = (),
    ) -> None:
        self._settings = settings
        self._is_open = is_open
        self._policy_of = policy_of
        self._openings = openings
        self._ways: dict[str, _Way] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._outcomes = Tally()
        self.under_way = 0

    def measured(self) -> Iterable[Family]:
        """For a scrape."""
        told = "Calls of APIs that went elsewhere: answered, unreachable (or not permitted), slow, busy (too many)."
        yield Family(TARGETS, told, "counter", self._outcomes.samples(), ("outcome",))
        yield Family(UNDER_WAY, "Calls of APIs that wait for a target elsewhere.", "gauge", {(): self.under_way})

    async def close(self) -> None:
        for way in self._ways.values():
            await way.session.close()
        self._ways.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, namespace: str, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer of a target; raises `Unanswered`."""
        try:
            reply = await self._ask(namespace, method, url, headers, body)
        except Unanswered as failure:
            self._outcomes.add({503: "busy", 504: "slow"}.get(failure.status, "unreachable"))
            raise
        self._outcomes.add("answered")
        return reply

    async def _ask(self, namespace: str, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        await self._check(namespace, url)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOOKUP_THREADS, "backends")
            await asyncio.to_thread(importlib.import_module, "aiohttp")
        import yarl

        try:
            address = yarl.URL(url, encoded=True)
        except ValueError as error:
            raise Unanswered(502, str(error)) from None
        way = await self._entered(namespace)

        def done() -> None:
            self.under_way -= 1
            way.under_way -= 1

        with contextlib.ExitStack() as stack:
            stack.callback(done)
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await way.session.request(
                        method,
                        address,
                        data=body or None,
                        headers=headers,
                        allow_redirects=False,
                        skip_auto_headers=UNSENT,
                    )
            except TimeoutError:
                raise Unanswered(504, wording.not_answered(ANSWER_S)) from None
            except (OSError, ValueError, _client_error()) as error:
                raise Unanswered(502, reason_of(error)) from None
            stack.pop_all()
        return Reply(answer, done)

    async def _check(self, namespace: str, url: str) -> None:
        """That the namespace reaches what is named so, and has room."""
        parts = urlsplit(url)
        try:
            host, port = read_host(parts.hostname or ""), parts.port or PORTS[parts.scheme]
        except ValueError as error:
            raise Unanswered(502, str(error)) from None
        policy = await self._policy_of(namespace)
        if not policy.permits(host, port):
            raise Unanswered(502, wording.target_not_permitted(f"{host}:{port}", str(policy)))
        way = self._ways.get(namespace)
        if self.under_way >= AT_ONCE or (way is not None and way.under_way >= NAMESPACE_AT_ONCE):
            raise Unanswered(503, wording.too_many_requests_out(NAMESPACE_AT_ONCE))

    async def _entered(self, namespace: str) -> _Way:
        """The namespace's connections, with one more request under way."""
        way = self._ways.pop(namespace, None) or _Way(self._session(namespace))
        self._ways[namespace] = way
        way.under_way += 1
        self.under_way += 1
        idle = [name for name, other in self._ways.items() if not other.under_way]
        if len(self._ways) > NAMESPACES and idle:
            await self._ways.pop(idle[0]).session.close()
        return way

    def _session(self, namespace: str) -> aiohttp.ClientSession:
        import aiohttp

        assert self._threads is not None
        connector = aiohttp.TCPConnector(
            limit=0,  # requests are counted instead
            keepalive_timeout=KEPT_S,
            resolver=_resolver(self._threads),
            socket_factory=lambda found: self._socket(namespace, found),
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
        )

    def _socket(self, namespace: str, found: tuple[Any, ...]) -> socket.socket:
        """What a connection is made with, once it is known whereto."""
        family, kind, protocol, _, (host, port, *_) = found
        address = ipaddress.ip_address(host)
        is_allowed = (
            self._settings.reach == "any"
            or self._is_open(address)
            or is_opened(address, port, namespace, self._openings)
        )
        if not is_allowed:
            raise OSError(wording.address_closed(host))
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


class _Way:
    """What a namespace has: its connections, and how many requests of it are under way."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.under_way = 0


def _client_error() -> type[Exception]:
    """What the client raises; it is imported by the first request."""
    import aiohttp

    return aiohttp.ClientError


def _resolver(threads: ThreadPoolExecutor) -> Any:
    """Names are looked up in threads of their own: those that answer slowly hold up no others' work."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Resolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            def look_up() -> list[Any]:
                return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)

            found = await asyncio.get_running_loop().run_in_executor(threads, look_up)
            return [
                ResolveResult(
                    hostname=host,
                    host=place[0],
                    port=place[1],
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
                for kind, _, protocol, _, place in found
            ]

        async def close(self) -> None:
            pass

    return Resolver()
