"""`mqtt/feed` against a real broker."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port
from tests.sources.servers import MOSQUITTO, Wire, program, why_no_mosquitto, wire
from tests.unit.feed.watching import Crashed, Loopback, Watching, running, system_watch

from visp.feed.base import FeedRefused, Made, SourceLost
from visp.feed.mqtt import Mqtt, _connected

MISSING = why_no_mosquitto()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    pytest.mark.slow,  # a broker is started, and its answers are waited for
]
FEED = Mqtt()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("mqtt"), free_port()
    passwords = folder / "passwords"
    passwords.write_text("who:what\n")
    passwords.chmod(0o600)
    keeper = Path(MOSQUITTO or "").parent / "mosquitto_passwd"
    tool = keeper if keeper.exists() else Path("/usr/bin/mosquitto_passwd")
    subprocess.run([str(tool), "-U", str(passwords)], check=True)
    written = f"listener {port} 127.0.0.1\nallow_anonymous true\npassword_file {passwords}\nuser root\n"
    (folder / "mosquitto.conf").write_text(written)
    with program([MOSQUITTO or "", "-c", str(folder / "mosquitto.conf")], folder, port):
        yield port


def parameters(port: int, topic: Any, **more: Any) -> dict[str, Any]:
    return FEED.parse({"url": f"mqtt://127.0.0.1:{port}", "topic": topic, **more}, 0)


async def publish(port: int, *messages: tuple[str, str | bytes], qos: int = 1, retain: bool = False) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    def told() -> None:
        client = Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", port)
        client.loop_start()
        for topic, payload in messages:
            client.publish(topic, payload, qos, retain).wait_for_publish(20)
        client.disconnect()
        client.loop_stop()

    await asyncio.to_thread(told)


async def started(watch: Watching) -> None:
    await watch.until(lambda: bool(watch.lived))


async def test_messages_of_topics(broker: int) -> None:
    watch = system_watch()
    made = parameters(broker, ["one/+/temp", "two/#"])
    async with running(FEED.open(made, Loopback()), watch, await FEED.check(made, Loopback())):
        await publish(
            broker, ("one/a/temp", '{"t": 1}'), ("one/a/wind", "no"), ("two/x/y", "text"), ("two", b"\xff\x00")
        )
        found = await watch.events(3)
    assert [(event["topic"], event["body"]) for event in found] == [
        ("one/a/temp", {"t": 1}),
        ("two/x/y", "text"),
        ("two", "/wA="),
    ]
    assert {(event["qos"], event["retain"]) for event in found} == {(1, False)}
    assert all(isinstance(event["receivedAt"], int) for event in found)


async def test_what_comes_while_nobody_is_connected(broker: int) -> None:
    made = parameters(broker, "away/#")
    position = await FEED.check(made, Loopback())
    await publish(broker, *((f"away/{number}", str(number)) for number in range(50)))
    watch = system_watch(position)
    async with running(FEED.open(made, Loopback()), watch):
        await watch.events(50)
    assert [event["body"] for event in watch.bodies] == list(range(50))


async def test_a_crash_between_fire_and_position_brings_the_same_keys(broker: int) -> None:
    made = parameters(broker, "crash")
    position = await FEED.check(made, Loopback())
    await publish(broker, ("crash", "1"), ("crash", "1"), ("crash", "2"))
    first = system_watch(position, crash_at=1)
    async with running(FEED.open(made, Loopback()), first) as task:
        with pytest.raises(Crashed):
            await asyncio.wait_for(task, 20)
    again = system_watch(first.position)
    async with running(FEED.open(made, Loopback()), again):
        await again.events(3)
    assert set(first.keys) <= set(again.keys)
    assert len(set(again.keys)) == 3
    assert [event["body"] for event in again.bodies] == [1, 1, 2]


async def test_a_crash_between_position_and_acknowledgement_fires_nothing_again(broker: int) -> None:
    made = parameters(broker, "late")
    position = await FEED.check(made, Loopback())
    await publish(broker, ("late", "1"))

    class Stopped(Watching):
        async def fire(self, batch: Any) -> None:
            await super().fire(batch)
            raise Crashed

    first = Stopped(system_watch().clock, position)
    async with running(FEED.open(made, Loopback()), first) as task:
        with pytest.raises(Crashed):
            await asyncio.wait_for(task, 20)
    again = system_watch(first.position)
    async with running(FEED.open(made, Loopback()), again):
        await started(again)
        await publish(broker, ("late", "2"))
        await again.events(1)
    assert [event["body"] for event in again.bodies] == [2]


async def test_a_broker_that_breaks_off(broker: int) -> None:
    async with wire(broker) as line:
        made = parameters(line.port, "line")
        watch = system_watch(await FEED.check(made, Loopback()))
        async with running(FEED.open(made, Loopback()), watch) as task:
            await started(watch)
            await line.cut()
            with pytest.raises(SourceLost, match=r"^127\.0\.0\.1 could not be reached: "):
                await asyncio.wait_for(task, 20)
        await publish(broker, ("line", "1"))
        with pytest.raises(SourceLost):
            await FEED.open(made, Loopback()).run(watch, watch.position)
        await line.join()
        await _reads(made, watch, line)


async def _reads(made: dict[str, Any], watch: Watching, line: Wire) -> None:
    async with running(FEED.open(made, Loopback()), watch):
        assert (await watch.events(1))[0]["body"] == 1
    assert line.connections >= 3


async def test_a_retained_message_comes_once(broker: int) -> None:
    await publish(broker, ("kept", "1"), retain=True)
    made = parameters(broker, "kept")
    watch = system_watch()
    async with running(FEED.open(made, Loopback()), watch):
        assert (await watch.events(1))[0]["retain"] is True
        await watch.until(lambda: watch.lived[-1] == (0, None) and len(watch.lived) > 1)
    async with running(FEED.open(made, Loopback()), watch):
        await publish(broker, ("kept", "2"))
        await watch.events(2)
    assert [event["body"] for event in watch.bodies] == [1, 2]


async def test_topics_that_are_given_up(broker: int) -> None:
    made = parameters(broker, ["old", "same"])
    watch = system_watch(await FEED.check(made, Loopback()))
    changed = FEED.changed(made, {"topic": ["same", "new"]}, 0)
    async with running(FEED.open(changed, Loopback()), watch):
        await started(watch)
        await publish(broker, ("old", "1"), ("same", "2"), ("new", "3"))
        await watch.events(2)
    assert [event["body"] for event in watch.bodies] == [2, 3]


async def test_a_filter_lets_go_what_it_does_not_hold_for(broker: int) -> None:
    made = parameters(broker, "hot", filter={"path": "body.temp", "above": 30})
    watch = system_watch(await FEED.check(made, Loopback()))
    async with running(FEED.open(made, Loopback()), watch):
        await publish(broker, *(("hot", '{"temp": 20}') for _ in range(30)), ("hot", '{"temp": 40}'))
        await watch.events(1)
    assert [event["body"] for event in watch.bodies] == [{"temp": 40}]


async def test_who_is_not_let_in(broker: int) -> None:
    with pytest.raises(FeedRefused) as refused:
        await FEED.check(parameters(broker, "x", username="who", password="wrong"), Loopback())
    assert refused.value.status == 502
    assert "wrong" not in refused.value.sentence
    await FEED.check(parameters(broker, "x", username="who", password="what"), Loopback())
    with pytest.raises(FeedRefused):
        await FEED.check(parameters(free_port(), "x"), Loopback())
    with pytest.raises(FeedRefused) as refused:
        await FEED.check({**parameters(broker, "x"), "url": "mqtt://10.0.0.1"}, Loopback())
    assert refused.value.status == 403


async def test_the_session_ends_with_the_feed(broker: int) -> None:
    made = parameters(broker, "ended/#", client_id="ended")
    found = await FEED.check(made, Loopback())
    assert isinstance(found, Made)
    watch = system_watch()
    async with running(FEED.open(made, Loopback()), watch, found) as task:
        await watch.until(lambda: bool(watch.lived))
        await FEED.deleted(made, Loopback())
        with pytest.raises(SourceLost):
            await asyncio.wait_for(task, 20)
    await publish(broker, ("ended/1", "1"))
    async with _connected(made, Loopback()) as connection:
        assert not connection.session_present
        assert connection.waiting == 0
