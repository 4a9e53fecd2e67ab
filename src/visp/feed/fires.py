"""Triggers fired by the public API, as any client does it: a batch is a request with a line for each event."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from visp import wording
from visp.feed.base import SourceLost
from visp.feed.running import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import aiohttp

    from visp.feed.base import Event

CONNECTIONS = 64
"""Requests at once; more wait for one that is done."""
ANSWER_S = 90.0

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct):
    """An answer's line, or a whole answer that is an error."""

    activationId: str = ""
    status: int = 202
    error: str = ""


class _Rules(msgspec.Struct):
    """Of a trigger, by their full names."""

    rules: dict[str, object] = {}


_decode = msgspec.json.Decoder(_Line).decode
_decode_rules = msgspec.json.Decoder(_Rules).decode


class ApiFires:
    """`url` says where the API is; it is asked at each fire."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(self, namespace: str, trigger: str, auth: str) -> int:
        status, _ = await self._ask("GET", "triggers", namespace, trigger, auth)
        return status

    async def delete(self, namespace: str, trigger: str, auth: str, *, with_rules: bool) -> None:
        if with_rules:
            status, body = await self._ask("GET", "triggers", namespace, trigger, auth)
            rules = _decode_rules(body).rules if status == 200 else {}
            for rule in rules:
                home, _, name = rule.rpartition("/")
                _done(await self._ask("DELETE", "rules", home or namespace, name, auth))
        _done(await self._ask("DELETE", "triggers", namespace, trigger, auth))

    async def fire(
        self, namespace: str, trigger: str, auth: str, batch: str, events: Sequence[Event]
    ) -> Sequence[Outcome]:
        lines = [b'{"key":%b,"value":%b}' % (_encode(event.key), event.body) for event in events]
        query = f"?keyed=true&batch={quote(batch, safe='')}"
        status, body = await self._ask("POST", "triggers", namespace, trigger, auth, query, b"\n".join(lines))
        try:
            if status != 200:
                return [Outcome(status, _decode(body).error if body[:1] == b"{" else "")]
            told = [_decode(line) for line in body.splitlines()]
        except msgspec.DecodeError:
            raise SourceLost(wording.not_fired(status, "")) from None
        if len(told) != len(events):
            raise SourceLost(wording.not_fired(status, ""))
        return [Outcome(line.status, line.error) for line in told]

    async def _ask(
        self,
        method: str,
        collection: str,
        namespace: str,
        name: str,
        auth: str,
        query: str = "",
        body: bytes | None = None,
    ) -> tuple[int, bytes]:
        session = await self._opened()
        import aiohttp

        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{collection}/{quote(name, safe='')}{query}"
        headers = {"authorization": "Basic " + base64.b64encode(auth.encode()).decode()}
        if body is not None:
            headers["content-type"] = "application/x-ndjson"
        try:
            async with session.request(method, self._url() + path, data=body, headers=headers) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SourceLost(wording.not_fired(503, type(error).__name__)) from None

    async def _opened(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                import aiohttp

                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=15.0),
                    timeout=aiohttp.ClientTimeout(total=ANSWER_S),
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            return self._session


def _done(answer: tuple[int, bytes]) -> None:
    """What is gone already is as good. Raises `SourceLost`."""
    status, _ = answer
    if status >= 400 and status != 404:
        raise SourceLost(wording.not_fired(status, ""))
