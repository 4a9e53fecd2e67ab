"""`cloudant/changes` with a key of an API: the token that is made of it, and a new one where that is not taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.unit.feed.watching import Loopback, running, system_watch

from visp.feed.base import FeedRefused, SourceLost
from visp.feed.changes import Changes

FEED = Changes()


class Cloud:
    def __init__(self) -> None:
        self.port = 0
        self.asked: list[dict[str, Any]] = []
        self.told = 0
        self.is_taken = True
        self.more = asyncio.Event()

    async def token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        self.asked.append(form)
        if form["apikey"] != "key":
            return web.json_response({"errorMessage": "no such key"}, status=400)
        return web.json_response({"access_token": f"token{len(self.asked)}", "expires_in": 3600})

    async def database(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer token{len(self.asked)}"
        return web.json_response({"update_seq": "4-abc"})

    async def changes(self, request: web.Request) -> web.Response:
        if not self.is_taken or request.headers["Authorization"] != f"Bearer token{len(self.asked)}":
            return web.json_response({}, status=401)
        if self.told:
            await self.more.wait()
        self.told += 1
        rows = [{"id": "doc", "seq": "5-xyz", "changes": [{"rev": "1-a"}]}]
        return web.json_response({"results": rows, "last_seq": "5-xyz", "pending": 0})


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    made, application = Cloud(), web.Application()
    application.router.add_post("/token", made.token)
    application.router.add_get("/db", made.database)
    application.router.add_get("/db/_changes", made.changes)
    async with TestServer(application) as server:
        made.port = server.port or 0
        yield made
        made.more.set()


def parameters(cloud: Cloud, key: str = "key") -> dict[str, Any]:
    url = f"http://127.0.0.1:{cloud.port}/token"
    given = {"dbname": "db", "host": "127.0.0.1", "port": cloud.port, "protocol": "http"}
    return FEED.parse({**given, "iamApiKey": key, "iamUrl": url}, 0)


async def test_a_token_is_made_once(cloud: Cloud) -> None:
    made, watch = parameters(cloud), system_watch()
    position = await FEED.check(made, Loopback())
    assert position == {"since": "4-abc", "fired": 0}
    async with running(FEED.open(made, Loopback()), watch, position):
        await watch.events(1)
    assert watch.position == {"since": "5-xyz", "fired": 1}
    assert cloud.asked == [{"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": "key"}] * 2


async def test_a_key_that_is_not_known(cloud: Cloud) -> None:
    with pytest.raises(FeedRefused, match=r"^error connecting to database db$"):
        await FEED.check(parameters(cloud, "other"), Loopback())
    with pytest.raises(SourceLost) as lost:
        await FEED.open(parameters(cloud, "other"), Loopback()).run(system_watch(), None)
    assert "other" not in str(lost.value)


async def test_a_token_that_is_not_taken_loses_the_source(cloud: Cloud) -> None:
    cloud.is_taken = False
    with pytest.raises(SourceLost, match="401"):
        await FEED.open(parameters(cloud), Loopback()).run(system_watch(), None)


async def test_places_of_a_cluster_are_no_keys(cloud: Cloud) -> None:
    made, watch = parameters(cloud), system_watch()
    async with running(FEED.open(made, Loopback()), watch):
        await watch.events(1)
    assert watch.keys[0] != "5-xyz"
    assert len(watch.keys[0]) == 64
