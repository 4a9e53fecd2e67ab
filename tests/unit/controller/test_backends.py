"""Targets that are elsewhere: whom a namespace reaches, how many at once, and what of a target that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from visp.container.egress.surroundings import is_open
from visp.controller import backends as subject
from visp.controller.backends import Backends, Reply, Unanswered
from visp.entity.network import INTERNET, Policy, parse_policy
from visp.settings import Hooks

Answerer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def target(answer: bytes | Answerer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request so; its URL, and a head for each connection that was made."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(b"")
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heads[-1] += head
                if callable(answer):
                    await answer(reader, writer)
                else:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()


class Rules:
    def __init__(self) -> None:
        self.policy: Policy = INTERNET

    async def policy_of(self, namespace: str) -> Policy:
        return self.policy


@asynccontextmanager
async def made(rules: Rules | None = None, **settings: Any) -> AsyncIterator[Backends]:
    out = Backends(Hooks(**settings), is_open, (rules or Rules()).policy_of)
    try:
        yield out
    finally:
        await out.close()


async def read(reply: Reply) -> bytes:
    try:
        return b"".join([chunk async for chunk in reply.chunks()])
    finally:
        reply.close()


OK = b"HTTP/1.1 201 Created\r\nX-Own: \xe9\r\nContent-Length: 2\r\n\r\nhi"


async def test_an_answer_and_a_connection_that_is_used_again() -> None:
    async with target(OK) as (url, heads), made(reach="any") as backends:
        for number in range(3):
            reply = await backends.ask("ns", "GET", f"{url}/a%2Fb?q=%20", {"x-n": str(number)}, b"")
            assert (reply.status, reply.headers[0]) == (201, ("X-Own", "é"))
            assert await read(reply) == b"hi"
        assert backends.under_way == 0
        assert len(heads) == 1
        assert heads[0].count(b"GET /a%2Fb?q=%20 HTTP/1.1\r\n") == 3
        assert b"user-agent" not in heads[0].lower()
        await read(await backends.ask("other", "GET", url, {}, b""))
        assert len(heads) == 2  # connections of one namespace are nobody else's


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:7f00:1]", "127.1", "0x7f.1", "2130706433"]
)
async def test_no_connection_is_made_to_this_machine_however_it_is_written(host: str) -> None:
    async with target(OK) as (url, heads), made() as backends:
        with pytest.raises(Unanswered) as raised:
            await backends.ask("ns", "GET", f"http://{host}:{url.rpartition(':')[2]}/", {}, b"")
        assert raised.value.status == 502
        assert heads == []
        assert backends.under_way == 0


async def test_the_namespaces_policy_holds() -> None:
    rules = Rules()
    async with target(OK) as (url, heads), made(rules, reach="any") as backends:
        for text in ("none", "example.com", "127.0.0.1:1"):
            rules.policy = parse_policy(text)
            with pytest.raises(Unanswered, match="network policy"):
                await backends.ask("ns", "GET", url, {}, b"")
        assert heads == []
        rules.policy = parse_policy("127.0.0.1")
        assert await read(await backends.ask("ns", "GET", url, {}, b"")) == b"hi"


async def test_a_target_that_says_nothing_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "ANSWER_S", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with target(silent) as (url, _), made(reach="any") as backends:
        with pytest.raises(Unanswered) as raised:
            await backends.ask("ns", "GET", url, {}, b"")
        assert raised.value.status == 504
        assert backends.under_way == 0


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"])
async def test_what_is_no_answer(answer: bytes) -> None:
    async with target(answer) as (url, _), made(reach="any") as backends:
        with pytest.raises(Unanswered) as raised:
            await backends.ask("ns", "GET", url, {}, b"")
        assert raised.value.status == 502


async def test_an_answer_that_breaks_off_is_not_whole() -> None:
    async def short(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi")
        writer.close()

    async with target(short) as (url, _), made(reach="any") as backends:
        reply = await backends.ask("ns", "GET", url, {}, b"")
        with pytest.raises(Unanswered):
            await read(reply)
        assert backends.under_way == 0


async def test_a_header_that_would_be_two_is_refused() -> None:
    async with target(OK) as (url, heads), made(reach="any") as backends:
        with pytest.raises(Unanswered):
            await backends.ask("ns", "GET", url, {"x-a": "1\r\nX-B: 2"}, b"")
        assert b"X-B" not in b"".join(heads)


async def test_requests_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "NAMESPACE_AT_ONCE", 1)
    async with target(OK) as (url, _), made(reach="any") as backends:
        reply = await backends.ask("ns", "GET", url, {}, b"")
        with pytest.raises(Unanswered) as raised:
            await backends.ask("ns", "GET", url, {}, b"")
        assert raised.value.status == 503
        await read(await backends.ask("other", "GET", url, {}, b""))
        await read(reply)
        await read(await backends.ask("ns", "GET", url, {}, b""))


async def test_namespaces_whose_connections_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "NAMESPACES", 2)
    async with target(OK) as (url, _), made(reach="any") as backends:
        for name in ("a", "b", "a", "c"):
            await read(await backends.ask(name, "GET", url, {}, b""))
        assert list(backends._ways) == ["a", "c"]
