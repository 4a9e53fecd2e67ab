"""`cloudant/changes` against a real server that speaks CouchDB's protocol."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
import pytest
from tests.ports import free_port
from tests.sources.servers import POUCHDB, program, why_no_couch, wire
from tests.unit.feed.watching import Crashed, Loopback, running, system_watch

from visp.feed.base import FeedRefused, SourceEnded, SourceLost
from visp.feed.changes import Changes

MISSING = why_no_couch()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    pytest.mark.slow,  # a server is started, and its answers are waited for
]
FEED = Changes()
WHO = {"Authorization": f"Basic {base64.b64encode(b'who:what').decode()}"}


@pytest.fixture(scope="module")
def couch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("couch"), free_port()
    with program([str(POUCHDB), "--in-memory", "--host", "127.0.0.1", "--port", str(port)], folder, port):
        url = f"http://127.0.0.1:{port}/_config/admins/who"
        with urlopen(Request(url, b'"what"', {"Content-Type": "application/json"}, method="PUT")) as answer:
            assert answer.status == 200
        yield port


class Database:
    def __init__(self, client: aiohttp.ClientSession, port: int, name: str) -> None:
        self._client = client
        self.port = port
        self.name = name

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        async with self._client.request(method, f"http://127.0.0.1:{self.port}/{self.name}{path}", json=body) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json(content_type=None)

    async def put(self, *ids: str, **members: Any) -> None:
        await self.ask("POST", "/_bulk_docs", {"docs": [{"_id": id, **members} for id in ids]})

    def parameters(self, port: int | None = None, **more: Any) -> dict[str, Any]:
        given = {"dbname": self.name, "host": "127.0.0.1", "protocol": "http", "port": port or self.port}
        return FEED.parse({**given, "username": "who", "password": "what", **more}, 0)


@pytest.fixture
async def database(couch: int, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with aiohttp.ClientSession(headers=WHO) as client:
        made = Database(client, couch, request.node.name)
        await made.ask("PUT", "")
        yield made


async def test_changes_from_now_on(database: Database) -> None:
    await database.put("before")
    parameters, watch = database.parameters(), system_watch()
    position = await FEED.check(parameters, Loopback())
    async with running(FEED.open(parameters, Loopback()), watch, position):
        await database.put("first", secret="not told")
        await watch.events(1)
        rev = (await database.ask("GET", "/first"))["_rev"]
        await database.ask("DELETE", f"/first?rev={rev}")
        first, gone = await watch.events(2)
    assert first == {"id": "first", "seq": 2, "changes": [{"rev": rev}], "dbname": database.name}
    assert gone == {"id": "first", "seq": 3, "changes": gone["changes"], "deleted": True, "dbname": database.name}
    assert watch.keys == ["2", "3"]
    assert watch.position == {"since": 3, "fired": 2}


async def test_since_the_beginning_in_batches(database: Database) -> None:
    await database.put(*(f"doc{number:04}" for number in range(2500)))
    parameters, watch = database.parameters(since=0), system_watch()
    async with running(FEED.open(parameters, Loopback()), watch):
        await watch.events(2500)
        await watch.until(lambda: watch.lived != [] and watch.lived[-1][0] == 0)
    assert len(set(watch.keys)) == 2500
    assert max(len(batch.events) for batch in watch.batches) == 1000


async def test_a_filter_with_its_parameters(database: Database) -> None:
    written = "function (doc, req) { return doc.kind === req.query.kind; }"
    await database.ask("PUT", "/_design/pick", {"filters": {"kind": written}})
    parameters, watch = database.parameters(filter="pick/kind", query_params={"kind": "b"}, since=0), system_watch()
    async with running(FEED.open(parameters, Loopback()), watch):
        await database.put("one", kind="a")
        await database.put("two", kind="b")
        await watch.events(1)
        await database.put("three", kind="b")
        await watch.events(2)
    assert [body["id"] for body in watch.bodies] == ["two", "three"]


async def test_a_server_that_is_away_for_a_while(database: Database) -> None:
    watch = system_watch()
    async with wire(database.port) as line:
        parameters = database.parameters(port=line.port)
        source = FEED.open(parameters, Loopback())
        async with running(source, watch, await FEED.check(parameters, Loopback())) as task:
            await database.put("one")
            await watch.events(1)
            await line.cut()
            with pytest.raises(SourceLost, match=r"127\.0\.0\.1"):
                await asyncio.wait_for(task, 20)
        await database.put("two")
        with pytest.raises(SourceLost):
            await FEED.open(parameters, Loopback()).run(watch, watch.position)
        await line.join()
        async with running(FEED.open(parameters, Loopback()), watch):
            await database.put("three")
            await watch.events(3)
    assert [body["id"] for body in watch.bodies] == ["one", "two", "three"]


async def test_a_crash_between_fire_and_position_loses_nothing(database: Database) -> None:
    parameters = database.parameters(since=0)
    await database.put("one", "two")
    first = system_watch(crash_at=1)
    async with running(FEED.open(parameters, Loopback()), first) as task:
        with pytest.raises(Crashed):
            await asyncio.wait_for(task, 20)
    again = system_watch(first.position)
    async with running(FEED.open(parameters, Loopback()), again):
        await again.events(2)
    assert again.keys == first.keys == ["1", "2"]


async def test_the_end_of_a_count(database: Database) -> None:
    await database.put("one", "two", "three")
    parameters, watch = database.parameters(since=0, maxTriggers=2), system_watch()
    async with running(FEED.open(parameters, Loopback()), watch) as task:
        with pytest.raises(SourceEnded, match=r"^Automatically disabled after reaching max triggers$"):
            await asyncio.wait_for(task, 20)
    assert watch.keys == ["1", "2"]
    with pytest.raises(SourceEnded):
        await FEED.open(parameters, Loopback()).run(watch, watch.position)


async def test_a_database_that_is_not_there(database: Database) -> None:
    with pytest.raises(FeedRefused) as refused:
        await FEED.check(database.parameters() | {"dbname": "nowhere"}, Loopback())
    assert (refused.value.status, refused.value.sentence) == (404, "error connecting to database nowhere")
    with pytest.raises(FeedRefused) as refused:
        await FEED.check(database.parameters(port=free_port()), Loopback())
    assert refused.value.sentence == f"error connecting to database {database.name}"


async def test_an_address_that_may_not_be_reached(database: Database) -> None:
    with pytest.raises(FeedRefused) as refused:
        await FEED.check(database.parameters() | {"host": "127.0.0.2"}, Loopback())
    assert refused.value.status == 403
