"""Sources of every kind, as real as the machine has them, that are told numbers: each becomes an event, or part of one.

What they need of a loop runs in one of its own (`Beside`), so that tests may block.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.request import Request, urlopen

import pytest
from tests.ports import free_port
from tests.servers.buckets import ACCESS, SECRET, Buckets
from tests.servers.programs import Kafka, Nats, Postgres, Program, Redis
from tests.sources.polled import Mailbox, News
from tests.sources.servers import MOSQUITTO, POUCHDB, Wire, program, why_no_couch, why_no_mosquitto

T = TypeVar("T")


class Beside:
    """A loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], within_s: float = 90.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Teller(ABC):
    """One source, in a folder of the test's. `skips` raises where it cannot be had."""

    feed: ClassVar[str]
    tells_once: ClassVar[bool] = True
    """Whether a server that is killed still fires each event once; else at least once."""
    every_s: ClassVar[float] = 0.02
    """How often it may be told for long: some have a limit to what is new at once, or to all that there is."""
    is_told_while_away: ClassVar[bool] = True
    """Whether numbers are taken while the feed cannot reach it."""
    lost: ClassVar[str] = "127.0.0.1"
    """What `lastError` says of it when it is away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = AsyncExitStack()

    @abstractmethod
    def parameters(self) -> dict[str, Any]: ...

    @abstractmethod
    async def begin(self) -> None:
        """From here on it is there, and may be told."""

    @abstractmethod
    async def tell(self, number: int) -> None:
        """Returns when the number is there to be read, whatever happens."""

    @abstractmethod
    def numbers(self, event: Any) -> list[int]:
        """Those that an event tells of."""

    async def leave(self) -> None:
        """It is away from now on."""
        raise NotImplementedError

    async def come_back(self) -> None:
        raise NotImplementedError

    async def end(self) -> None:
        await self._stack.aclose()


class Wired(Teller):
    """The feed reaches it by a wire that is cut."""

    async def join(self, port: int) -> None:
        self._wire = Wire(port)
        await self._wire.join()
        self._stack.push_async_callback(self._wire.cut)

    async def leave(self) -> None:
        await self._wire.cut()

    async def come_back(self) -> None:
        await self._wire.join()


class Couch(Wired):
    feed = "cloudant/changes"

    async def begin(self) -> None:
        if (missing := why_no_couch()) is not None:
            pytest.skip(missing)
        self._port = free_port()
        command = [str(POUCHDB), "--in-memory", "--host", "127.0.0.1", "--port", str(self._port)]
        self._stack.enter_context(program(command, self.folder, self._port))
        await self._ask("PUT", "/_config/admins/who", b'"what"', who="")
        await self._ask("PUT", "/told")
        await self.join(self._port)

    def parameters(self) -> dict[str, Any]:
        return {"dbname": "told", "host": "127.0.0.1", "protocol": "http", "port": self._wire.port, "username": "who",
                "password": "what"}  # fmt: skip

    async def tell(self, number: int) -> None:
        await self._ask("PUT", f"/told/{number:06}", b"{}")

    def numbers(self, event: Any) -> list[int]:
        return [int(event["id"])]

    async def _ask(self, method: str, path: str, body: bytes | None = None, who: str = "who:what") -> None:
        headers = {"Content-Type": "application/json"}
        if who:
            headers["Authorization"] = f"Basic {base64.b64encode(who.encode()).decode()}"

        def asked() -> None:
            with urlopen(Request(f"http://127.0.0.1:{self._port}{path}", body, headers, method=method)) as answer:
                assert answer.status < 300

        await asyncio.to_thread(asked)


class Broker(Wired):
    """Mosquitto. What it had sent and was not acknowledged it sends again, not always as it did: at least once."""

    feed = "mqtt/feed"
    tells_once = False

    async def begin(self) -> None:
        if (missing := why_no_mosquitto()) is not None:
            pytest.skip(missing)
        from paho.mqtt.client import CallbackAPIVersion, Client

        port = free_port()
        settings = self.folder / "mosquitto.conf"
        settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        self._stack.enter_context(program([str(MOSQUITTO), "-c", str(settings)], self.folder, port))
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._stack.callback(self._client.loop_stop)
        self._stack.callback(self._client.disconnect)
        await self.join(port)

    def parameters(self) -> dict[str, Any]:
        return {"url": f"mqtt://127.0.0.1:{self._wire.port}", "topic": "told", "client_id": "visp-told"}

    async def tell(self, number: int) -> None:
        told = self._client.publish("told", json.dumps({"n": number}), qos=1)
        await asyncio.to_thread(told.wait_for_publish, 10)

    def numbers(self, event: Any) -> list[int]:
        return [event["body"]["n"]]


class Site(Wired):
    """A news feed."""

    feed = "rss/entries"
    every_s = 0.1

    async def begin(self) -> None:
        self._news = News()
        server = await asyncio.start_server(self._news.answer, "127.0.0.1", 0)
        await self._stack.enter_async_context(server)
        await self.join(server.sockets[0].getsockname()[1])

    def parameters(self) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{self._wire.port}/feed", "interval_s": 10}

    async def tell(self, number: int) -> None:
        self._news.add(str(number))

    def numbers(self, event: Any) -> list[int]:
        return [int(event["id"])]


class Mails(Wired):
    feed = "email/inbox"
    every_s = 0.1

    async def begin(self) -> None:
        self._mailbox = Mailbox()
        server = await asyncio.start_server(self._mailbox.answer, "127.0.0.1", 0)
        await self._stack.enter_async_context(server)
        await self.join(server.sockets[0].getsockname()[1])

    def parameters(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self._wire.port, "username": "u", "password": "secret", "tls": False,
                "interval_s": 5}  # fmt: skip

    async def tell(self, number: int) -> None:
        self._mailbox.add(str(number))

    def numbers(self, event: Any) -> list[int]:
        return [int(event["subject"])]


class Bucket(Wired):
    feed = "s3/objects"
    every_s = 0.1
    lost = "localhost"

    async def begin(self) -> None:
        self._buckets = Buckets(free_port())
        self._buckets.page = 1000
        await self._buckets.start()
        self._stack.push_async_callback(self._buckets.stop)
        await self.join(self._buckets.port)

    def parameters(self) -> dict[str, Any]:
        return {"endpoint": f"http://localhost:{self._wire.port}", "bucket": "photos", "prefix": "in/",
                "access_key": ACCESS, "secret_key": SECRET, "interval_s": 5}  # fmt: skip

    async def tell(self, number: int) -> None:
        self._buckets.objects[f"in/{number:06}"] = b"1"

    def numbers(self, event: Any) -> list[int]:
        return [int(event["key"].removeprefix("in/"))]


class Folder(Teller):
    feed = "files/watch"
    every_s = 0.1
    lost = "No such file"

    async def begin(self) -> None:
        self._there = self.folder / "watched"
        self._there.mkdir()

    def parameters(self) -> dict[str, Any]:
        return {"path": str(self.folder / "watched"), "interval_s": 1, "glob": "*.told"}

    async def tell(self, number: int) -> None:
        draft = self._there / f"{number:06}"
        draft.touch()
        draft.rename(draft.with_suffix(".told"))

    def numbers(self, event: Any) -> list[int]:
        return [int(event["path"].removesuffix(".told"))]

    async def leave(self) -> None:
        self._there = self._there.rename(self.folder / "elsewhere")

    async def come_back(self) -> None:
        self._there = self._there.rename(self.folder / "watched")


class Served(Teller):
    """A program that is killed, and started again in its folder; there is a client of it while it runs."""

    program: Program
    is_told_while_away = False

    @abstractmethod
    def make(self) -> Program:
        """Skips where it is not installed."""

    async def prepare(self) -> None:
        """Once, when it runs."""

    @abstractmethod
    async def connect(self) -> None: ...

    async def disconnect(self) -> None:
        pass

    async def begin(self) -> None:
        self.program = await asyncio.to_thread(self.make)
        self._stack.callback(self.program.close)
        await asyncio.to_thread(self.program.start)
        await self.prepare()
        await self.connect()
        self._stack.push_async_callback(self.disconnect)

    async def leave(self) -> None:
        await self.disconnect()
        self.program.stop()

    async def come_back(self) -> None:
        await asyncio.to_thread(self.program.start)
        await self.connect()


class KafkaTopic(Served):
    feed = "messaging/kafkaFeed"
    lost = "Kafka at localhost"

    def make(self) -> Program:
        return Kafka()

    @property
    def _at(self) -> str:
        return f"localhost:{self.program.port}"

    async def prepare(self) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self._at)
        await admin.start()
        await admin.create_topics([NewTopic("told", 2, 1)])
        await admin.close()

    async def connect(self) -> None:
        from aiokafka import AIOKafkaProducer

        self._producer = AIOKafkaProducer(bootstrap_servers=self._at)
        await self._producer.start()

    async def disconnect(self) -> None:
        await self._producer.stop()

    def parameters(self) -> dict[str, Any]:
        return {"brokers": [self._at], "topic": "told"}

    async def tell(self, number: int) -> None:
        await self._producer.send_and_wait("told", str(number).encode(), partition=number % 2)

    def numbers(self, event: Any) -> list[int]:
        return [int(message["value"]) for message in event["messages"]]


class Table(Served):
    """Of PostgreSQL."""

    feed = "postgres/changes"
    lost = "PostgreSQL at localhost"
    mode: ClassVar[str]

    def make(self) -> Program:
        return Postgres()

    async def prepare(self) -> None:
        await self.connect()
        await self._client.execute("CREATE TABLE told (id bigserial PRIMARY KEY, number int)")
        await self.disconnect()

    async def connect(self) -> None:
        import asyncpg

        while True:
            try:
                self._client: Any = await asyncpg.connect(
                    host="127.0.0.1", port=self.program.port, user="postgres", password="s3cret", ssl=False
                )
                return
            except asyncpg.CannotConnectNowError:  # it reads its log after a crash
                continue

    async def disconnect(self) -> None:
        await self._client.close()

    async def come_back(self) -> None:
        (self.program.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        await super().come_back()

    def parameters(self) -> dict[str, Any]:
        url = f"postgres://postgres:s3cret@localhost:{self.program.port}/postgres"
        return {"url": url, "tables": "told", "mode": self.mode}

    async def tell(self, number: int) -> None:
        await self._client.execute("INSERT INTO told (number) VALUES ($1)", number)

    def numbers(self, event: Any) -> list[int]:
        return [event["new"]["number"]]


class Outbox(Table):
    mode = "outbox"


class Logical(Table):
    mode = "logical"


class RedisStream(Served):
    feed = "redis/stream"
    lost = "Redis at localhost"
    more: ClassVar[dict[str, Any]] = {}

    def make(self) -> Program:
        return Redis()

    async def connect(self) -> None:
        from redis.asyncio import Redis as Client

        self._client = Client(port=self.program.port, password="s3cret")

    async def disconnect(self) -> None:
        await self._client.aclose()

    def parameters(self) -> dict[str, Any]:
        return {"url": f"redis://:s3cret@localhost:{self.program.port}", "stream": "told", **self.more}

    async def tell(self, number: int) -> None:
        await self._client.xadd("told", {"number": number})

    def numbers(self, event: Any) -> list[int]:
        return [int(event["fields"]["number"])]


class RedisGroup(RedisStream):
    more: ClassVar[dict[str, Any]] = {"group": "g"}


class NatsStream(Served):
    feed = "nats/stream"
    lost = "NATS at localhost"
    more: ClassVar[dict[str, Any]] = {}

    def make(self) -> Program:
        return Nats()

    @property
    def _url(self) -> str:
        return f"nats://visp:s3cret@localhost:{self.program.port}"

    async def prepare(self) -> None:
        await self.connect()
        await self._client.jetstream().add_stream(name="TOLD", subjects=["told.>"])
        await self.disconnect()

    async def connect(self) -> None:
        import nats

        self._client: Any = await nats.connect(self._url, allow_reconnect=False)

    async def disconnect(self) -> None:
        await self._client.close()

    def parameters(self) -> dict[str, Any]:
        return {"url": self._url, "stream": "TOLD", **self.more}

    async def tell(self, number: int) -> None:
        await self._client.jetstream().publish("told.new", b"%d" % number)

    def numbers(self, event: Any) -> list[int]:
        return [event["body"]]


class NatsDurable(NatsStream):
    more: ClassVar[dict[str, Any]] = {"durable": "visp"}

    async def prepare(self) -> None:
        """Its messages come again soon."""
        from nats.js.api import ConsumerConfig

        await super().prepare()
        await self.connect()
        made = ConsumerConfig(durable_name="visp", ack_wait=5, max_ack_pending=1000)
        await self._client.jetstream().add_consumer("TOLD", made)
        await self.disconnect()


EVERYWHERE: list[type[Teller]] = [Couch, Broker]
WITH_ALL: list[type[Teller]] = [
    *(Site, Mails, Folder, Bucket, KafkaTopic),
    *(Outbox, Logical, RedisStream, RedisGroup, NatsStream, NatsDurable),
]
