"""`messaging/kafkaFeed` and `messaging/messageHubFeed` against a real Kafka (one node, KRaft)."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.servers.programs import Kafka
from tests.servers.watched import Crash, Near, Watched
from tests.unit.catalog.conftest import run as run

from visp.feed.base import FeedRefused, SourceLost
from visp.feed.kafka import KafkaFeed, MessageHubFeed

pytestmark = [pytest.mark.all, pytest.mark.slow]  # a JVM that starts


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    program = Kafka()
    try:
        program.start()
        yield program
    finally:
        program.close()


_topics = 0


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    global _topics
    _topics += 1
    await administer(kafka, "create_topics", f"orders{_topics}", 2)
    return f"orders{_topics}"


async def administer(kafka: Kafka, call: str, topic: str, partitions: int) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=f"localhost:{kafka.port}")
    await admin.start()
    try:
        if call == "create_topics":
            await admin.create_topics([NewTopic(topic, partitions, 1)])
        else:
            await admin.create_partitions({topic: NewPartitions(partitions)})
    finally:
        await admin.close()


async def produce(kafka: Kafka, topic: str, *values: bytes, partition: int = 0, key: bytes | None = None) -> None:
    from aiokafka import AIOKafkaProducer

    async with AIOKafkaProducer(bootstrap_servers=f"localhost:{kafka.port}", max_request_size=4_000_000) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=key, partition=partition)


def asked(kafka: Kafka, topic: str, **more: Any) -> dict[str, Any]:
    return KafkaFeed().parse({"brokers": f"localhost:{kafka.port}", "topic": topic, **more}, 0)


def messages(watch: Watched) -> list[dict[str, Any]]:
    return [message for body in watch.bodies for message in body["messages"]]


def values(watch: Watched) -> list[str]:
    return [message["value"] for message in messages(watch)]


async def test_messages_of_all_partitions_are_told_from_creation_on(kafka: Kafka, topic: str) -> None:
    await produce(kafka, topic, b"before")
    asks = asked(kafka, topic)
    watch = Watched(await KafkaFeed().check(asks, Near()))
    await produce(kafka, topic, b"a", b"b", key=b"k")
    await produce(kafka, topic, b"c", partition=1)
    await watch.run(KafkaFeed().open(asks, Near()), lambda watch: len(messages(watch)) == 3)
    assert {"topic": topic, "partition": 0, "offset": 1, "key": "k", "value": "a"} in messages(watch)
    assert {"topic": topic, "partition": 1, "offset": 0, "key": None, "value": "c"} in messages(watch)
    await produce(kafka, topic, b"d")
    await watch.run(KafkaFeed().open(asks, Near()), lambda watch: len(messages(watch)) == 4)
    assert sorted(values(watch)) == ["a", "b", "c", "d"]


async def test_a_crash_between_fire_and_position_makes_the_same_event_again(kafka: Kafka, topic: str) -> None:
    asks = asked(kafka, topic)
    watch = Watched(await KafkaFeed().check(asks, Near()))
    await produce(kafka, topic, b"a", b"b")
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(KafkaFeed().open(asks, Near()), lambda watch: False)
    assert "upto" in watch.position
    fired = watch.told
    await produce(kafka, topic, b"c")
    await watch.run(KafkaFeed().open(asks, Near()), lambda watch: "c" in values(watch))
    assert values(watch) == ["a", "b", "c"]
    assert watch.told > fired


async def test_a_partition_that_is_new_is_read_from_its_beginning(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visp.feed.kafka.CHECK_S", 0.2)
    asks = asked(kafka, topic)
    watch = Watched(await KafkaFeed().check(asks, Near()))

    async def grow() -> None:
        await administer(kafka, "create_partitions", topic, 3)
        await produce(kafka, topic, b"new", partition=2)

    await watch.is_live(KafkaFeed().open(asks, Near()), grow)
    assert values(watch) == ["new"]


async def test_a_message_that_no_trigger_takes_is_skipped(kafka: Kafka, topic: str) -> None:
    asks = asked(kafka, topic)
    watch = Watched(await KafkaFeed().check(asks, Near()))
    await produce(kafka, topic, b"a", b"x" * 1_200_000, b"y" * 600_000, b"z" * 600_000, b"b")
    await watch.run(KafkaFeed().open(asks, Near()), lambda watch: "b" in values(watch))
    assert [value[0] for value in values(watch)] == ["a", "y", "z", "b"]
    assert len(watch.bodies) >= 2


async def test_brokers_that_go_are_lost_and_it_goes_on_where_it_was(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visp.feed.kafka.CHECK_S", 0.2)
    asks = asked(kafka, topic)
    watch = Watched(await KafkaFeed().check(asks, Near()))
    await produce(kafka, topic, b"a")
    source = KafkaFeed().open(asks, Near())

    def stops(watch: Watched) -> bool:
        if watch.events:
            kafka.stop()
        return False

    try:
        with pytest.raises(SourceLost, match="Kafka at localhost"):
            await watch.run(source, stops)
        with pytest.raises(SourceLost):
            await watch.run(source, lambda watch: False)
    finally:
        kafka.start()
    await produce(kafka, topic, b"b")
    await watch.run(source, lambda watch: len(messages(watch)) == 2)
    assert values(watch) == ["a", "b"]


async def test_what_is_read_is_committed_to_the_brokers(kafka: Kafka, topic: str) -> None:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

    asks = asked(kafka, topic)
    watch = Watched(await KafkaFeed().check(asks, Near()))
    await produce(kafka, topic, b"a", b"b")
    await watch.run(KafkaFeed().open(asks, Near()), lambda watch: len(messages(watch)) == 2 and watch.lag == 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=f"localhost:{kafka.port}")
    await admin.start()
    committed = await admin.list_consumer_group_offsets(asks["group"])
    await admin.close()
    assert committed[TopicPartition(topic, 0)].offset == 2


async def test_message_hub_is_read_by_tls_and_a_password(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(kafka.folder / "certificate.pem"))
    given = {"kafka_brokers_sasl": [f"localhost:{kafka.sasl_port}"], "user": "visp", "password": "s3cret",
             "kafka_admin_url": "https://localhost", "topic": topic}  # fmt: skip
    asks = MessageHubFeed().parse(given, 0)
    watch = Watched(await MessageHubFeed().check(asks, Near()))
    await produce(kafka, topic, b"a")
    await watch.run(MessageHubFeed().open(asks, Near()), lambda watch: len(messages(watch)) == 1)
    with pytest.raises(FeedRefused) as refused:
        await MessageHubFeed().check(asks | {"password": "wr0ng"}, Near())
    assert "wr0ng" not in refused.value.sentence


async def test_a_broker_that_names_another_place_leads_nowhere(kafka: Kafka, topic: str) -> None:
    class Bootstrap(Near):
        """Reaches the address that was given, by which the brokers are not known."""

        async def check(self, host: str, port: int) -> Sequence[str]:
            if host == "127.0.0.1":
                return [host]
            raise FeedRefused(f"{host} may not be reached.")

    asks = KafkaFeed().parse({"brokers": f"127.0.0.1:{kafka.port}", "topic": topic}, 0)
    with pytest.raises(FeedRefused):
        await KafkaFeed().check(asks, Bootstrap())


async def test_a_topic_that_is_not_there_is_refused(kafka: Kafka) -> None:
    with pytest.raises(FeedRefused, match="The topic 'none' does not exist"):
        await KafkaFeed().check(asked(kafka, "none"), Near())


async def test_what_the_catalog_produces_is_read(
    run, kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(kafka.folder / "certificate.pem"))
    asks = asked(kafka, topic, isJSONData=True)
    watch = Watched(await KafkaFeed().check(asks, Near()))
    plain = {"brokers": ["localhost:1", f"localhost:{kafka.port}"], "topic": topic}
    said = run("messaging/kafkaProduce", {**plain, "value": '{"n": 1}', "key": "k"})
    assert said["success"] is True
    assert said["message"].startswith(f"Successfully sent message to {topic}:")
    large = base64.b64encode(b'"' + b"x" * 200_000 + b'"').decode()
    assert run("messaging/kafkaProduce", {**plain, "value": large, "base64DecodeValue": True})["success"] is True
    hub = {"kafka_brokers_sasl": [f"localhost:{kafka.sasl_port}"], "user": "visp", "password": "s3cret", "topic": topic}
    assert run("messaging/messageHubProduce", {**hub, "value": "2", "key": "k"})["success"] is True
    await watch.run(KafkaFeed().open(asks, Near()), lambda watch: len(messages(watch)) == 3)
    keyed = [message for message in messages(watch) if message["key"] == "k"]
    assert [message["value"] for message in keyed] == [{"n": 1}, 2]
    assert len({message["partition"] for message in keyed}) == 1
    assert "x" * 200_000 in values(watch)
    assert run("messaging/messageHubProduce", {**hub, "password": "wr0ng", "value": "3"}) == {
        "error": "Authentication failed"
    }
    assert "does not exist" in run("messaging/kafkaProduce", {**plain, "topic": "none", "value": "3"})["error"]
