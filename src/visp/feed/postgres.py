"""PostgreSQL: `postgres/notify` hears a channel, `postgres/changes` tells of rows.

What is notified while no source listens is missed: PostgreSQL keeps none of it. Changes are of two modes. `logical`
reads a replication slot (made at CREATE, with the plugin `test_decoding`, which comes with PostgreSQL) by its SQL
functions, and advances it once what it read was fired; a slot keeps the log of the server until then, so one that was
made here is dropped with its feed. `outbox` reads a table whose `id` grows (`bigserial`), in the order of ids: not
beyond a row of a transaction that others might still commit before, and an id that was missing is looked for again for
a while.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

import msgspec

from visp import wording
from visp.feed import decoding
from visp.feed.base import EVENTS_MOST, Batch, Event, FeedRefused, Json, Made, Reach, Watch
from visp.feed.batching import batches, event
from visp.feed.connecting import ANSWER_S, CONNECT_S, address, library, reached, tls
from visp.feed.outbox import Gaps, seen
from visp.feed.parameters import Field, Own, choice, place, place_of, text, texts, url
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

PORT = 5432
POLL_S = 1.0
QUIET_S = 15.0
"""How long nothing is heard before the connection is tried."""
WAITING_MOST = 10_000
ROWS = 500
IN_USE_S = 0.2
DROP = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1"
SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")

CONNECTION = (Field("url", url("postgres", "postgresql"), required=True, fixed=True), Field("password", text))


class _Postgres(Own):
    secrets: ClassVar[frozenset[str]] = frozenset({"password"})

    def agree(self, kept: Mapping[str, Json]) -> None:
        """Of a URL's options there is one: others would name files, or another host."""
        options = parse_qs(place(kept["url"], PORT).query, keep_blank_values=True)
        if options.keys() - {"sslmode"} or options.get("sslmode", ["prefer"])[-1] not in SSL_MODES:
            raise FeedRefused(wording.feed_parameter_bad("url", wording.FEED_SSLMODE))


class Notify(_Postgres):
    name: ClassVar[str] = "postgres/notify"
    fields: ClassVar[tuple[Field, ...]] = (*CONNECTION, Field("channel", text, required=True))

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        async with connected(parameters, reach, FeedRefused):
            return None

    def source(self, parameters: Mapping[str, Json], reach: Reach) -> NotifySource:
        return NotifySource(parameters, reach)


class NotifySource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach

    async def run(self, watch: Watch, position: Json) -> None:
        """A notification has no id: a key is one of this connection's, for none is told twice."""
        mark, count = secrets.token_hex(8), 0
        channel = self._parameters["channel"]
        waiting: asyncio.Queue[str | None] = asyncio.Queue(WAITING_MOST)

        def heard(connection: Any, pid: int, channel: str, payload: str) -> None:
            try:
                waiting.put_nowait(payload)
            except asyncio.QueueFull:
                log.warning("postgres.notification_dropped", waiting=WAITING_MOST)

        def gone(connection: Any) -> None:
            with suppress(asyncio.QueueFull):
                waiting.put_nowait(None)

        async with connected(self._parameters, self._reach) as connection:
            connection.add_termination_listener(gone)
            await connection.add_listener(channel, heard)
            watch.live()
            while True:
                payloads = []
                with suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_S):
                        payloads.append(await waiting.get())
                while not waiting.empty() and len(payloads) < EVENTS_MOST:
                    payloads.append(waiting.get_nowait())
                made: list[tuple[Event | None, Json]] = []
                for payload in payloads:
                    if payload is not None:
                        count += 1
                        body = {"channel": channel, "payload": payload}
                        made.append((event(f"{mark}-{count}", body, Notify.name), None))
                for events, _ in batches(made):
                    await watch.fire(Batch(events, None))
                if None in payloads or connection.is_closed():
                    raise ConnectionError(wording.SOURCE_CLOSED)
                if not payloads:
                    await connection.execute("SELECT 1", timeout=ANSWER_S)
                watch.live(lag=waiting.qsize())


class Changes(_Postgres):
    """`tables` are names with a schema or without (`public`); two triggers need a `slot` each."""

    name: ClassVar[str] = "postgres/changes"
    fields: ClassVar[tuple[Field, ...]] = (
        *CONNECTION,
        Field("tables", texts, required=True),
        Field("mode", choice("logical", "outbox"), default="logical", fixed=True),
        Field("slot", text, fixed=True),
    )

    def agree(self, kept: Mapping[str, Json]) -> None:
        super().agree(kept)
        for table in kept["tables"]:
            if len(qualified(table)) != 2 or not all(qualified(table)):
                raise FeedRefused(wording.feed_parameter_bad("tables", wording.FEED_TABLES))
        if not decoding.is_slot(slot_of(kept)):
            raise FeedRefused(wording.feed_parameter_bad("slot", wording.FEED_SLOT))

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        shown = super().shown(parameters)
        return shown | {"slot": slot_of(parameters)} if parameters["mode"] == "logical" else shown

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json | Made:
        async with connected(parameters, reach, FeedRefused) as connection:
            for table in parameters["tables"]:
                if await connection.fetchval("SELECT to_regclass($1)", quoted(table), timeout=ANSWER_S) is None:
                    raise FeedRefused(wording.no_such_table(table))
            if parameters["mode"] == "logical":
                return Made({}) if await slot_made(connection, slot_of(parameters)) else {}
            return {"tables": {table: {"id": await newest(connection, table)} for table in parameters["tables"]}}

    def trace(self, parameters: Mapping[str, Json]) -> str | None:
        return f"{place(parameters['url'], PORT)} {slot_of(parameters)}" if parameters["mode"] == "logical" else None

    async def deleted(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        """While the source still reads its slot, that is tried again."""
        errors = await library("asyncpg.exceptions", "postgres")
        async with connected(parameters, reach) as connection:
            while True:
                try:
                    await connection.execute(DROP, slot_of(parameters), timeout=ANSWER_S)
                    return
                except errors.ObjectInUseError:
                    await asyncio.sleep(IN_USE_S)

    def source(self, parameters: Mapping[str, Json], reach: Reach) -> LogicalSource | OutboxSource:
        source = LogicalSource if parameters["mode"] == "logical" else OutboxSource
        return source(parameters, reach)


def qualified(table: str) -> list[str]:
    """Schema and name."""
    return table.split(".") if "." in table else ["public", table]


def quoted(table: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in qualified(table))


def slot_of(parameters: Mapping[str, Json]) -> str:
    """The name of the slot: the same for the same tables of the same database, where none is given."""
    given = parameters.get("slot")
    if given is not None:
        return str(given)
    where = "\n".join([str(place_of(parameters["url"])), *sorted(map(quoted, parameters["tables"]))])
    return f"visp_{sha256(where.encode()).hexdigest()[:16]}"


class LogicalSource:
    """The position is `{"lsn", "xid"?, "done"?}`: all before `lsn` was fired, and `done` changes of `xid`."""

    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach
        self._slot = slot_of(parameters)
        self._tables = {".".join(qualified(table)): quoted(table) for table in parameters["tables"]}
        self._keys: dict[str, list[str]] = {}

    async def run(self, watch: Watch, position: Json) -> None:
        position = dict(position or {})
        async with connected(self._parameters, self._reach) as connection:
            await slot_made(connection, self._slot)
            await self._alone(connection)
            for name, table in self._tables.items():
                self._keys[name] = await keys_of(connection, table)
            if "lsn" in position:
                await self._advance(connection, position["lsn"])
            watch.live()
            while True:
                if not await self._round(connection, watch, position):
                    watch.live(lag=0)
                    await watch.clock.sleep(POLL_S)

    async def _round(self, connection: Any, watch: Watch, position: dict[str, Json]) -> bool:
        """What is in the slot now; whether there was something."""
        upto: str | None = None
        async with connection.transaction():
            rows = await connection.cursor(decoding.PEEK, self._slot, timeout=None)
            reading = decoding.Reading(position.get("xid"), position.get("done", 0))
            while True:
                async with asyncio.timeout(ANSWER_S * 6):
                    found = await rows.fetch(ROWS)
                if not found:
                    break
                made: list[tuple[Event | None, Json]] = []
                for row in found:
                    change = reading.take(str(row["lsn"]), row["xid"], row["data"])
                    if reading.committed is not None:
                        upto = reading.committed
                    kept = reading.position(upto or position.get("lsn"))
                    if change is not None and change.table in self._tables:
                        body = decoding.body(change, self._keys[change.table])
                        made.append((event(change.id, body, Changes.name), kept))
                    elif made:
                        made.append((None, kept))
                for events, kept in batches(made):
                    if events:
                        await watch.fire(Batch(events, kept))
                        position.clear()
                        position.update(kept)
        if upto is not None:
            await watch.fire(Batch((), {"lsn": upto}))
            position.clear()
            position["lsn"] = upto
            await self._advance(connection, upto)
        return upto is not None

    async def _advance(self, connection: Any, lsn: str) -> None:
        """A slot that is further already stays as it is."""
        await connection.execute(
            "SELECT pg_replication_slot_advance(slot_name, $2::text::pg_lsn) FROM pg_replication_slots"
            " WHERE slot_name = $1 AND confirmed_flush_lsn < $2::text::pg_lsn",
            self._slot, lsn, timeout=ANSWER_S,
        )  # fmt: skip

    async def _alone(self, connection: Any) -> None:
        """Two that read one slot would each miss what the other has read."""
        locked = await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", f"visp/{self._slot}")
        if not locked:
            raise ConnectionError(wording.slot_in_use(self._slot))


async def slot_made(connection: Any, slot: str) -> bool:
    """Whether it was made now; it is there then."""
    plugin = await connection.fetchval("SELECT plugin FROM pg_replication_slots WHERE slot_name = $1", slot)
    if plugin is None:
        await connection.execute(
            "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", slot, timeout=ANSWER_S
        )
        return True
    if plugin != "test_decoding":
        raise FeedRefused(wording.slot_of_another_plugin(slot, plugin))
    return False


async def keys_of(connection: Any, table: str) -> list[str]:
    """Columns of a table's primary key."""
    rows = await connection.fetch(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
        " WHERE i.indisprimary AND i.indrelid = to_regclass($1)",
        table, timeout=ANSWER_S,
    )  # fmt: skip
    return [row["attname"] for row in rows]


class OutboxSource:
    """The position is `{"tables": {table: {"id", "gaps"?}}}`."""

    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach

    async def run(self, watch: Watch, position: Json) -> None:
        async with connected(self._parameters, self._reach) as connection:
            kept: dict[str, Json] = dict((position or {}).get("tables", {}))
            for table in self._parameters["tables"]:
                if table not in kept:
                    kept[table] = {"id": await newest(connection, table)}
            watch.live()
            while True:
                found = 0
                for table in self._parameters["tables"]:
                    found += await self._round(connection, watch, table, kept)
                if not found:
                    watch.live(lag=0)
                    await watch.clock.sleep(POLL_S)

    async def _round(self, connection: Any, watch: Watch, table: str, kept: dict[str, Json]) -> int:
        gaps = Gaps.read(kept[table], watch.clock.now_ms())
        rows = await connection.fetch(
            OUTBOX.format(table=quoted(table)), kept[table]["id"], gaps.ids(), ROWS, timeout=ANSWER_S * 3
        )
        settled = seen(rows, kept[table]["id"])
        made: list[tuple[Event | None, Json]] = []
        for row in settled:
            gaps = gaps.after(row["id"], row["next"], watch.clock.now_ms())
            body = {
                "table": table, "op": "insert", "key": {"id": row["id"]}, "new": msgspec.Raw(row["body"].encode()),
                "lsn": None,
            }  # fmt: skip
            behind = {"tables": {**kept, table: gaps.kept()}}
            made.append((event(f"{table}:{row['id']}", body, Changes.name), behind))
        for events, behind in batches(made):
            await watch.fire(Batch(events, behind))
            kept.update(behind["tables"])
        horizon = rows[0]["horizon"] if rows else await connection.fetchval(HORIZON, timeout=ANSWER_S)
        kept[table] = Gaps.read(kept[table], watch.clock.now_ms()).without(horizon).kept()
        return len(settled)


HORIZON = "SELECT txid_snapshot_xmin(txid_current_snapshot())"
OUTBOX = """
WITH now AS (SELECT txid_snapshot_xmin(txid_current_snapshot()) AS horizon,
                    txid_snapshot_xmax(txid_current_snapshot()) AS next)
SELECT t.id::bigint AS id, row_to_json(t)::text AS body, now.horizon, now.next,
       (t.xmin::text::bigint < 3 OR ((now.horizon - t.xmin::text::bigint) & 4294967295) BETWEEN 1 AND 2147483647)
           AS settled
FROM {table} t, now WHERE t.id > $1 OR t.id = ANY($2::bigint[]) ORDER BY t.id LIMIT $3
"""


async def newest(connection: Any, table: str) -> int:
    """The id behind which reading begins: the last one that is there."""
    found: int = await connection.fetchval(
        f"SELECT coalesce(max(id), 0)::bigint FROM {quoted(table)}", timeout=ANSWER_S
    )
    return found


@asynccontextmanager
async def connected(
    parameters: Mapping[str, Json], reach: Reach, refused: type[FeedRefused] | None = None
) -> AsyncIterator[Any]:
    """A connection to the address that was checked; nothing of the server's own environment or files goes into it."""
    asyncpg = await library("asyncpg", "postgres")
    where = place(parameters["url"], PORT)
    password = parameters.get("password") or where.password or ""
    mode = parse_qs(where.query).get("sslmode", ["prefer"])[-1]
    async with reached("PostgreSQL", where, [password], refused):
        host = await address(reach, where.host, where.port)
        secured: Any = False
        if mode == "prefer":
            secured = "prefer"
        elif mode != "disable":
            secured = tls(where.host, verified=mode != "require")
            secured.check_hostname = mode == "verify-full"
        async with asyncio.timeout(CONNECT_S * 2):
            connection = await asyncpg.connect(
                host=host,
                port=where.port,
                user=where.user or "postgres",
                password=password,
                database=where.path or where.user or "postgres",
                ssl=secured,
                timeout=CONNECT_S,
                statement_cache_size=0,
                server_settings={"application_name": "visp"},
            )
        try:
            yield connection
        finally:
            connection.terminate()
