"""Streams of Redis: `redis/stream`, by `XREAD` from a position, or as a consumer of a group.

Without `group` the position is the last entry's id. With one Redis knows what was read: an entry is acknowledged after
it was fired, and what a crash left between is read again first; the position are the ends of the last batch, so that
what was fired is acknowledged then and fired no more. Two feeds of one group each need a `consumer` of their own. A
group that was made here goes with its feed, unless others read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from visp import wording
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, Event, FeedRefused, Json, Made, Reach, Watch
from visp.feed.batching import batches, event
from visp.feed.connecting import ANSWER_S, CONNECT_S, address, library, reached, tls
from visp.feed.parameters import Field, Own, Place, place, text, url

NAME = "redis/stream"
PORT = 6379
BLOCK_MS = 5000
NEW = "$"

Entry = tuple[bytes, Mapping[bytes, bytes] | None]
"""Its id and fields; None: it was deleted while it was pending."""


class Stream(Own):
    """`from`: `$` (what is added from now on), `0` or an id to begin behind."""

    name: ClassVar[str] = NAME
    secrets: ClassVar[frozenset[str]] = frozenset({"password"})
    fields: ClassVar[tuple[Field, ...]] = (
        Field("url", url("redis", "rediss"), required=True, fixed=True),
        Field("stream", text, required=True, fixed=True),
        Field("username", text),
        Field("password", text),
        Field("group", text, fixed=True),
        Field("consumer", text, default="visp", fixed=True),
        Field("from", text, default=NEW, fixed=True),
    )

    def agree(self, kept: Mapping[str, Json]) -> None:
        if kept["from"] != NEW and order(kept["from"]) is None:
            raise FeedRefused(wording.feed_parameter_bad("from", wording.FEED_STREAM_FROM))

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json | Made:
        async with connected(parameters, reach, FeedRefused) as client:
            begin = parameters["from"]
            if begin == NEW:
                begin = await newest(client, parameters["stream"])
            if "group" not in parameters:
                return {"id": begin}
            return Made({}) if await joined(client, parameters, begin) else {}

    def trace(self, parameters: Mapping[str, Json]) -> str | None:
        if "group" not in parameters:
            return None
        where = place(parameters["url"], PORT)
        return f"{where}/{where.path or 0} {len(parameters['stream'])} {parameters['stream']} {parameters['group']}"

    async def deleted(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        """A group that has other consumers stays; its own consumer too, if something is pending there."""
        stream, group, consumer = (parameters[name] for name in ("stream", "group", "consumer"))
        async with connected(parameters, reach) as client:
            groups = await client.xinfo_groups(stream) if await client.exists(stream) else ()
            if group.encode() not in [one["name"] for one in groups]:
                return
            consumers = await client.xinfo_consumers(stream, group)
            ours = [one for one in consumers if one["name"] == consumer.encode()]
            if len(ours) == len(consumers):
                await client.xgroup_destroy(stream, group)
            elif ours and not ours[0]["pending"]:
                await client.xgroup_delconsumer(stream, group, consumer)

    def source(self, parameters: Mapping[str, Json], reach: Reach) -> StreamSource:
        return StreamSource(parameters, reach)


class StreamSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach
        self._stream: str = parameters["stream"]
        self._most = EVENTS_MOST

    async def run(self, watch: Watch, position: Json) -> None:
        async with connected(self._parameters, self._reach) as client:
            if "group" in self._parameters:
                await self._run_group(client, watch, position or {})
            else:
                await self._run_alone(client, watch, (position or {}).get("id") or self._parameters["from"])

    async def _run_alone(self, client: Any, watch: Watch, last: str) -> None:
        if last == NEW:
            last = await newest(client, self._stream)
        watch.live()
        while True:
            async with asyncio.timeout(ANSWER_S):
                read = await client.xread({self._stream: last}, count=self._most, block=BLOCK_MS)
            entries = entries_of(read)
            for events, position in batches((event_of(self._stream, entry), {"id": id_of(entry)}) for entry in entries):
                await watch.fire(Batch(events, position))
                last = position["id"]
            self._adapt(entries)
            watch.live(lag=None if len(entries) == self._most else 0)

    async def _run_group(self, client: Any, watch: Watch, position: Mapping[str, str]) -> None:
        group, consumer = self._parameters["group"], self._parameters["consumer"]
        await joined(client, self._parameters, "0" if position else await newest(client, self._stream))
        watch.live()
        last, pending = "0", True
        while True:
            after = last if pending else ">"
            stream = {self._stream: after}
            async with asyncio.timeout(ANSWER_S):
                read = await client.xreadgroup(group, consumer, stream, count=self._most, block=BLOCK_MS)
            entries = entries_of(read)
            if pending and not entries:
                pending = False
                continue
            told = [entry for entry in entries if entry[1] is not None and not fired(id_of(entry), position)]
            made = ((event_of(self._stream, entry), id_of(entry)) for entry in told)
            begin = id_of(told[0]) if told else ""
            for events, upto in batches(made):
                await watch.fire(Batch(events, {"from": begin, "upto": upto}))
            if entries:
                async with asyncio.timeout(ANSWER_S):
                    await client.xack(self._stream, group, *(entry[0] for entry in entries))
                last = id_of(entries[-1])
            self._adapt(entries)
            watch.live(lag=None if len(entries) == self._most else 0)

    def _adapt(self, entries: Sequence[Entry]) -> None:
        """As many entries at once as a batch takes."""
        size = sum(len(name) + len(value) for _, fields in entries for name, value in (fields or {}).items())
        if size > BATCH_BYTES:
            self._most = max(1, self._most // 2)
        elif size < BATCH_BYTES // 4:
            self._most = min(EVENTS_MOST, self._most * 2)


def order(id: str) -> tuple[int, int] | None:
    """An id as what ids are ordered by; None: it is none."""
    major, dash, minor = id.partition("-")
    if not (major.isascii() and major.isdigit() and len(major) <= 20):
        return None
    if dash and not (minor.isascii() and minor.isdigit() and len(minor) <= 20):
        return None
    return int(major), int(minor or 0)


def fired(id: str, position: Mapping[str, str]) -> bool:
    """Whether an entry that is read again was in the last batch."""
    at, begin, end = order(id), order(position.get("from", "")), order(position.get("upto", ""))
    return at is not None and begin is not None and end is not None and begin <= at <= end


def id_of(entry: Entry) -> str:
    return entry[0].decode("ascii", "replace")


def event_of(stream: str, entry: Entry) -> Event | None:
    fields = {_text(name): _text(value) for name, value in (entry[1] or {}).items()}
    return event(id_of(entry), {"stream": stream, "id": id_of(entry), "fields": fields}, NAME)


def entries_of(read: Any) -> list[Entry]:
    """Of an answer about one stream: `[[name, [(id, {field: value}), …]]]`, or nothing."""
    return [(entry[0], entry[1]) for _, entries in read or () for entry in entries]


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


async def newest(client: Any, stream: str) -> str:
    """The id of the last entry that a stream had, also of one that was trimmed since."""
    if not await client.exists(stream):
        return "0-0"
    found = await client.xinfo_stream(stream)
    last: bytes | str = found.get("last-generated-id") or found[b"last-generated-id"]
    return last.decode() if isinstance(last, bytes) else last


async def joined(client: Any, parameters: Mapping[str, Json], begin: str) -> bool:
    """Whether the group was made now; one that was there is left as it is."""
    errors = await library("redis.exceptions", "redis")
    try:
        await client.xgroup_create(parameters["stream"], parameters["group"], begin, mkstream=True)
    except errors.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
        return False
    return True


@asynccontextmanager
async def connected(
    parameters: Mapping[str, Json], reach: Reach, refused: type[FeedRefused] | None = None
) -> AsyncIterator[Any]:
    """A client with one connection, to the address that was checked: never to where a server would send it."""
    library_ = await library("redis.asyncio", "redis")
    where = place(parameters["url"], PORT)
    password = parameters.get("password") or where.password
    async with reached("Redis", where, [password], refused):
        host = await address(reach, where.host, where.port)
        pool = await _pool(library_, where, host, parameters.get("username") or where.user or None, password)
        client = library_.Redis(connection_pool=pool)
        try:
            async with asyncio.timeout(ANSWER_S):
                await client.ping()
            yield client
        finally:
            await client.aclose()
            await pool.disconnect()


async def _pool(redis: Any, where: Place, host: str, user: str | None, password: str | None) -> Any:
    connection = await library("redis.asyncio.connection", "redis")
    retry = await library("redis.asyncio.retry", "redis")
    backoff = await library("redis.backoff", "redis")
    moves = await library("redis.maint_notifications", "redis")

    class Secured(connection.SSLConnection):  # type: ignore[name-defined, misc]
        def _connection_arguments(self) -> Mapping[str, Any]:
            return {**super()._connection_arguments(), "ssl": tls(where.host)}

    return redis.ConnectionPool(
        connection_class=Secured if where.scheme == "rediss" else connection.Connection,
        host=host,
        port=where.port,
        db=int(where.path) if where.path.isdigit() else 0,
        username=user,
        password=password,
        protocol=2,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=None,  # with one, a cancellation that comes while it writes is lost
        retry=retry.Retry(backoff.NoBackoff(), 0),
        maint_notifications_config=moves.MaintNotificationsConfig(enabled=False),
        max_connections=1,
    )
