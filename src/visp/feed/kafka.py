"""Kafka: `messaging/kafkaFeed` and `messaging/messageHubFeed`, as OpenWhisk's provider of messages has them.

An event is as many messages as were there, up to what a trigger takes. What it holds is decided before it is fired: the
offsets up to which it goes are kept first, so that after a crash the same messages make the same event, with the same
key. Offsets are ours; they are committed to the brokers too, for who watches there. All partitions are read here, new
ones from their first message on: nobody else is in the group.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from visp import wording
from visp.entity.limits import PAYLOAD_LIMIT_BYTES
from visp.feed.base import BATCH_BYTES, Batch, Event, FeedRefused, Json, Reach, Watch
from visp.feed.batching import batches, json, key_of
from visp.feed.connecting import ANSWER_S, CONNECT_S, library, reached, tls
from visp.feed.parameters import flag
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

FLAGS = ("isJSONData", "isBinaryKey", "isBinaryValue")
BROKERS_LIMIT = 50
TOPIC_LENGTH = 249
POLL_MS = 1000
CHECK_S = 5.0
"""How often brokers are asked for new partitions, and whether they are there."""
COMMIT_S = 5.0
MESSAGES_MOST = 10_000
PARTITION_BYTES = 1024 * 1024

Offsets = dict[int, int]
"""By partition, the offset that is read next."""


class Message(msgspec.Struct, frozen=True):
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class _Kafka:
    disables_when_throttled: ClassVar[bool] = False
    secrets: ClassVar[frozenset[str]] = frozenset({"password"})
    name: ClassVar[str]
    addresses: ClassVar[str]
    """The parameter that names brokers."""
    needed: ClassVar[tuple[tuple[str, str], ...]] = ()

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        kept: dict[str, Json] = {"topic": _topic(given)}
        if not given.get(self.addresses):
            raise FeedRefused(wording.feed_parameter_missing(self.addresses))
        kept[self.addresses] = brokers(given[self.addresses])
        for name, sentence in self.needed:
            value = given.get(name)
            if not isinstance(value, str) or not value:
                raise FeedRefused(sentence)
            kept[name] = value
        return kept | flags(given) | {"group": f"visp-{secrets.token_hex(12)}"}

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        """The three flags; anything else stays as it is."""
        return {**kept, **flags({**kept, **given})}

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        async with connected(self, parameters, reach, FeedRefused) as reader:
            ends = await reader.ends()
            if not ends:
                raise FeedRefused(wording.no_such_topic(parameters["topic"]))
            return kept_as(ends, None)

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"uuid": id}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {name: value for name, value in parameters.items() if name != "group"}

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> KafkaSource:
        return KafkaSource(self, parameters, reach)

    def signing_in(self, parameters: Mapping[str, Json]) -> dict[str, Any]:
        """How a client of the library signs in."""
        return {}


class KafkaFeed(_Kafka):
    """A cluster that anybody may read: `brokers`."""

    name = "messaging/kafkaFeed"
    addresses = "brokers"


class MessageHubFeed(_Kafka):
    """A cluster by TLS and a password (SASL PLAIN); `kafka_admin_url` is kept, and not called."""

    name = "messaging/messageHubFeed"
    addresses = "kafka_brokers_sasl"
    needed = (
        ("user", wording.message_hub_needs("user")),
        ("password", wording.message_hub_needs("password")),
        ("kafka_admin_url", wording.feed_parameter_missing("kafka_admin_url")),
    )

    def signing_in(self, parameters: Mapping[str, Json]) -> dict[str, Any]:
        return {
            "security_protocol": "SASL_SSL",
            "ssl_context": tls(),
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": parameters["user"],
            "sasl_plain_password": parameters["password"],
        }


def _topic(given: Mapping[str, Json]) -> str:
    topic = given.get("topic")
    if not isinstance(topic, str) or not 0 < len(topic) <= TOPIC_LENGTH:
        raise FeedRefused(wording.feed_parameter_missing("topic"))
    return topic


def brokers(given: Json) -> list[str]:
    """A list of `host:port`, or one text with commas."""
    listed = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not isinstance(listed, list) or not 0 < len(listed) <= BROKERS_LIMIT:
        raise FeedRefused(wording.BROKERS_NEEDED)
    for entry in listed:
        host, colon, port = entry.rpartition(":") if isinstance(entry, str) else ("", "", "")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536 and len(host) < 256):
            raise FeedRefused(wording.BROKERS_NEEDED)
    return listed


def flags(given: Mapping[str, Json]) -> dict[str, Json]:
    """The three flags; as in OpenWhisk whatever is not true is false."""
    kept: dict[str, Json] = {}
    for name in FLAGS:
        try:
            kept[name] = flag(given.get(name, False))
        except ValueError:
            kept[name] = False
    if kept["isJSONData"] and kept["isBinaryValue"]:
        raise FeedRefused(wording.JSON_AND_BINARY)
    return kept


class KafkaSource:
    def __init__(self, feed: _Kafka, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._feed = feed
        self._parameters = parameters
        self._reach = reach

    async def run(self, watch: Watch, position: Json) -> None:
        async with connected(self._feed, self._parameters, self._reach) as reader:
            offsets, upto = offsets_of(position)
            if position is None:
                offsets = await reader.ends()
            await reader.begin(offsets)
            watch.live()
            if upto:
                await self._fire(watch, reader, offsets, await reader.between(offsets, upto), upto)
                offsets |= upto
            while True:
                messages = await reader.read(offsets)
                if messages:
                    upto = {message.partition: message.offset + 1 for message in messages}
                    await watch.fire(Batch((), kept_as(offsets, upto)))
                    await self._fire(watch, reader, offsets, messages, upto)
                    offsets |= upto
                watch.live(lag=reader.lag(offsets))

    async def _fire(
        self, watch: Watch, reader: Reader, offsets: Offsets, messages: Sequence[Message], upto: Offsets
    ) -> None:
        """The messages up to there become events; the last batch's position is behind all of them."""
        told = list(events(self._parameters, messages))
        behind = kept_as(offsets | upto, None)
        for index, (made, _) in enumerate(groups := list(batches((one, None) for one in told))):
            last = index == len(groups) - 1
            await watch.fire(Batch(made, behind if last else kept_as(offsets, upto)))
        if not groups:
            await watch.fire(Batch((), behind))
        await reader.commit(upto)


def events(parameters: Mapping[str, Json], messages: Iterable[Message]) -> Iterator[Event]:
    """Messages in the order of partitions and offsets, as few events as hold them. The same come to the same events."""
    topic = parameters["topic"]
    parts: list[bytes] = []
    size = 0
    held: list[Message] = []
    envelope = len(b'{"messages":[]}')
    for message in sorted(messages, key=lambda message: (message.partition, message.offset)):
        part = rendered(parameters, topic, message)
        if len(part) + envelope > PAYLOAD_LIMIT_BYTES:
            log.warning(
                "kafka.message_too_large", topic=topic, partition=message.partition, offset=message.offset,
                bytes=len(part),
            )  # fmt: skip
            continue
        if held and size + len(part) + 1 + envelope > PAYLOAD_LIMIT_BYTES:
            yield _event(held, parts)
            parts, held, size = [], [], 0
        parts.append(part)
        held.append(message)
        size += len(part) + 1
    if held:
        yield _event(held, parts)


def _event(held: Sequence[Message], parts: Sequence[bytes]) -> Event:
    ranges: dict[int, list[int]] = {}
    for message in held:
        ranges.setdefault(message.partition, [message.offset, message.offset])[1] = message.offset
    key = ",".join(f"{partition}:{low}-{high}" for partition, (low, high) in ranges.items())
    return Event(key_of(key), b'{"messages":[' + b",".join(parts) + b"]}")


def rendered(parameters: Mapping[str, Json], topic: str, message: Message) -> bytes:
    """A message as the payload shows it."""
    return json.encode(
        {
            "topic": topic,
            "partition": message.partition,
            "offset": message.offset,
            "key": shown(message.key, binary=parameters["isBinaryKey"]),
            "value": shown(message.value, binary=parameters["isBinaryValue"], parsed=parameters["isJSONData"]),
        }
    )


def shown(data: bytes | None, *, binary: bool, parsed: bool = False) -> Json:
    if data is None:
        return None
    if binary:
        return base64.b64encode(data).decode()
    text = data.decode(errors="replace")
    if not parsed:
        return text
    try:
        msgspec.json.decode(text)
        return msgspec.Raw(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return f'"{text}"'


def kept_as(offsets: Offsets, upto: Offsets | None) -> Json:
    """The position: `{"offsets": {partition: offset}, "upto"?: {partition: offset}}`."""
    position: dict[str, Json] = {"offsets": {str(partition): offset for partition, offset in offsets.items()}}
    if upto is not None:
        position["upto"] = {str(partition): offset for partition, offset in upto.items()}
    return position


def offsets_of(position: Json) -> tuple[Offsets, Offsets]:
    kept = position or {}
    return tuple(  # type: ignore[return-value]
        {int(partition): offset for partition, offset in (kept.get(name) or {}).items()} for name in ("offsets", "upto")
    )


class Reader:
    """The topic's messages, over a consumer of the library that reads all of its partitions."""

    def __init__(self, kafka: Any, consumer: Any, client: Any, topic: str) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._client = client
        self._topic = topic
        self._checked_s = time.monotonic()

    def _partition(self, number: int) -> Any:
        return self._kafka.TopicPartition(self._topic, number)

    async def partitions(self) -> list[int]:
        """Asks the brokers; raises `ConnectionError` where none answers."""
        self._client.set_topics([self._topic])
        async with asyncio.timeout(ANSWER_S):
            if not await self._client.force_metadata_update():
                raise ConnectionError(wording.SOURCE_CLOSED)
        self._checked_s = time.monotonic()
        return sorted(self._client.cluster.partitions_for_topic(self._topic) or ())

    async def ends(self) -> Offsets:
        numbers = await self.partitions()
        async with asyncio.timeout(ANSWER_S):
            found = await self._consumer.end_offsets([self._partition(number) for number in numbers])
        return {partition.partition: offset for partition, offset in found.items()}

    async def begin(self, offsets: Offsets) -> None:
        """Reads on there; a partition that is not named from its first message on, which becomes its offset."""
        numbers = await self.partitions()
        fresh = [number for number in numbers if number not in offsets]
        if fresh:
            async with asyncio.timeout(ANSWER_S):
                found = await self._consumer.beginning_offsets([self._partition(number) for number in fresh])
            offsets |= {partition.partition: offset for partition, offset in found.items()}
        self._consumer.assign([self._partition(number) for number in numbers])
        for number in numbers:
            self._consumer.seek(self._partition(number), offsets[number])

    async def read(self, offsets: Offsets) -> list[Message]:
        """What is there, after a second at most."""
        if time.monotonic() - self._checked_s > CHECK_S:
            known = {partition.partition for partition in self._consumer.assignment()}
            if set(await self.partitions()) - known:
                await self.begin(offsets)
        found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MESSAGES_MOST)
        return [_message(record) for records in found.values() for record in records]

    async def between(self, offsets: Offsets, upto: Offsets) -> list[Message]:
        """The messages from one to the other, and reading goes on there; those that are no more are left out."""
        found: list[Message] = []
        others = [self._partition(number) for number in offsets if number not in upto]
        self._consumer.pause(*others)
        async with asyncio.timeout(ANSWER_S * 3):
            behind = {number for number, end in upto.items() if offsets.get(number, 0) < end}
            while behind:
                read = await self.read(offsets)
                found += [message for message in read if message.offset < upto.get(message.partition, 0)]
                for number in list(behind):
                    if await self._consumer.position(self._partition(number)) >= upto[number]:
                        behind.discard(number)
        for number, end in upto.items():
            self._consumer.seek(self._partition(number), end)
        self._consumer.resume(*others)
        return found

    def lag(self, offsets: Offsets) -> int | None:
        marks = {number: self._consumer.highwater(self._partition(number)) for number in offsets}
        known = [max(0, mark - offsets[number]) for number, mark in marks.items() if mark is not None]
        return sum(known) if known else None

    async def commit(self, upto: Offsets) -> None:
        """For who watches the brokers; what is not committed is not lost."""
        try:
            async with asyncio.timeout(COMMIT_S):
                await self._consumer.commit({self._partition(number): offset for number, offset in upto.items()})
        except (TimeoutError, *self._kafka.errors):
            self._checked_s = -CHECK_S  # are they there at all?


def _message(record: Any) -> Message:
    return Message(record.partition, record.offset, record.key, record.value)


@asynccontextmanager
async def connected(
    feed: _Kafka, parameters: Mapping[str, Json], reach: Reach, refused: type[FeedRefused] | None = None
) -> AsyncIterator[Reader]:
    client_of = await library("visp.feed.kafka_client", "kafka")
    where = parameters[feed.addresses]
    async with reached("Kafka", ", ".join(where), [parameters.get("password")], refused):
        how = feed.signing_in(parameters)
        client = client_of.CheckedClient(reach, where, CONNECT_S, how)
        consumer = client_of.consumer(
            client,
            group_id=parameters["group"],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=BATCH_BYTES,
            max_partition_fetch_bytes=PARTITION_BYTES,
            **how,
        )
        try:
            async with asyncio.timeout(ANSWER_S * 2):
                await consumer.start()
            yield Reader(client_of, consumer, client, parameters["topic"])
        finally:
            with suppress(Exception):
                async with asyncio.timeout(CONNECT_S):
                    await consumer.stop()
