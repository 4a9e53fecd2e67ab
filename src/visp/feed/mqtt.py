"""`mqtt/feed`: a trigger for each message of a broker's topics (MQTT 3.1.1).

The broker keeps a session by the feed's client id: what is published with QoS 1 while nobody is connected comes
later. Such a message is acknowledged after it was fired and the position kept. The position is `{"topics": those that
the session is subscribed to, and their QoS, "keys": those of the last batch}`: a message that was fired, and comes
again since its acknowledgement was lost, is known by its key. QoS 0 has no such promise. The session ends with
the feed.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import importlib.util
import secrets
import ssl
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from visp import wording
from visp.feed import given as asked
from visp.feed.base import EVENTS_MOST, Event, FeedRefused, Json, Made, SourceLost
from visp.feed.batching import Gathering, key_of
from visp.feed.conditions import filter_of, parse_filter
from visp.feed.connecting import untrusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from paho.mqtt.client import Client, MQTTMessage

    from visp.feed.base import Reach, Watch

PORTS = {"mqtt": 1883, "mqtts": 8883}
CONNECT_S = 10.0
KEEPALIVE_S = 30
LOOK_S = 5.0
"""How often it is looked whether the broker is still there."""
WAITING_MOST = 2_000
"""Messages that were read and are not fired yet; with more, the broker is not read from."""
WAITING_BYTES = 32 * 1024 * 1024
TOPIC_BYTES = 65_535
CLIENT_ID_LENGTH = 200
FORMATS = ("auto", "json", "text", "base64")


class Mqtt:
    name: ClassVar[str] = "mqtt/feed"
    secrets: ClassVar[frozenset[str]] = frozenset({"password"})
    disables_when_throttled: ClassVar[bool] = False

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        if importlib.util.find_spec("paho") is None:
            raise FeedRefused(wording.feed_not_installed("paho-mqtt", "mqtt"))
        kept: dict[str, Json] = {
            "url": asked.url(given, "url", tuple(PORTS)),
            "topic": _topics(given),
            "qos": asked.integer(given, "qos", 1, 0, 1),
            "client_id": asked.text(given, "client_id") or f"visp-{secrets.token_hex(8)}",
            "payload_format": asked.one_of(given, "payload_format", FORMATS, FORMATS[0]),
        }
        if len(kept["client_id"]) > CLIENT_ID_LENGTH:
            raise FeedRefused(wording.feed_parameter_bad("client_id", wording.feed_text(CLIENT_ID_LENGTH)))
        kept |= {name: asked.text(given, name) for name in ("username", "password") if asked.text(given, name)}
        return kept | parse_filter(given)

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        names = ("topic", "qos", "username", "password", "client_id", "payload_format", "filter")
        asked_for = {name: given[name] for name in names if name in given}
        if not asked_for:
            raise FeedRefused(wording.NOTHING_UPDATABLE)
        return self.parse({**kept, **asked_for}, now_ms)

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json | Made:
        """The session begins here: nothing that is published later is missed."""
        topics = _filters(parameters)
        try:
            async with asyncio.timeout(3 * CONNECT_S), _connected(parameters, reach) as connection:
                await connection.subscribe(topics, parameters["qos"])
        except (SourceLost, TimeoutError) as error:
            raise FeedRefused(str(error) or wording.feed_no_answer("the broker"), 502) from None
        return Made({"topics": [*topics, parameters["qos"]], "keys": []})

    def trace(self, parameters: Mapping[str, Json]) -> str | None:
        parts = urlsplit(parameters["url"])
        return f"{parts.hostname}:{parts.port or PORTS[parts.scheme]} {parameters['client_id']}"

    async def deleted(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        """A connection that asks for no session ends the one that there is."""
        async with _connected(parameters, reach, clean=True):
            pass

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return dict(parameters)

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> MqttSource:
        return MqttSource(parameters, reach)


class MqttSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach
        self._holds = filter_of(parameters)

    async def run(self, watch: Watch, position: Json) -> None:
        kept = dict(position or {"topics": [], "keys": []})
        topics, qos = _filters(self._parameters), self._parameters["qos"]
        async with _connected(self._parameters, self._reach) as connection:
            if not connection.session_present or kept["topics"] != [*topics, qos]:
                gone = [topic for topic in kept["topics"][:-1] if topic not in topics]
                await connection.unsubscribe(gone)
                await connection.subscribe(topics, qos)
                position = {"topics": [*topics, qos], "keys": kept["keys"]}
                await Gathering(watch, kept).flush(position)
                kept = position
            watch.live(lag=0)
            while True:
                messages = await connection.some(EVENTS_MOST)
                kept = await self._fire(watch, messages, kept)
                for message in messages:
                    connection.acknowledge(message)
                watch.live(lag=connection.waiting)

    async def _fire(self, watch: Watch, messages: Sequence[MQTTMessage], kept: dict[str, Json]) -> dict[str, Json]:
        """What is acknowledged later is known by the position's keys until then."""
        before, keys = frozenset(kept["keys"]), []
        gathering = Gathering(watch, kept)
        now_ms = watch.clock.now_ms()
        fired = False
        for message in messages:
            key = _key(message)
            if message.qos:
                keys.append(key)
            event = _event(message, self._parameters["payload_format"], now_ms)
            if key not in before and self._holds(event):
                fired = True
                await gathering.add(Event(key, msgspec.json.encode(event)), {"topics": kept["topics"], "keys": keys})
        if fired:
            kept = {"topics": kept["topics"], "keys": keys}
            await gathering.flush(kept)
        return kept


# ── messages: pure ──────────────────────────────────────────────────────────────────────────────────────────────


def _key(message: MQTTMessage) -> str:
    """The broker keeps a message's number until it is acknowledged, and no other has it."""
    if not message.qos:
        return secrets.token_hex(12)
    topic = message.topic
    return f"{message.mid}-{key_of(topic, message.payload.decode('latin-1'))[:32]}"


def _event(message: MQTTMessage, form: str, now_ms: int) -> dict[str, Json]:
    return {
        "topic": message.topic,
        "body": body_of(bytes(message.payload), form),
        "qos": message.qos,
        "retain": bool(message.retain),
        "receivedAt": now_ms,
    }


def body_of(payload: bytes, form: str) -> Json:
    """`json`: the value, the text where there is none; `auto`: also Base64 of what is no text."""
    if form == "base64":
        return base64.b64encode(payload).decode()
    if form != "text":
        try:
            return msgspec.json.decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return base64.b64encode(payload).decode() if form == "auto" else payload.decode(errors="replace")


def _topics(given: Mapping[str, Json]) -> str | list[str]:
    topics = asked.texts(given, "topic")
    if not topics:
        raise FeedRefused(wording.feed_parameter_missing("topic"))
    for topic in topics:
        levels = topic.split("/")
        is_whole = all(level in ("+", "#") or not {"+", "#"} & set(level) for level in levels)
        if not is_whole or "#" in levels[:-1] or "\0" in topic or len(topic.encode(errors="replace")) > TOPIC_BYTES:
            raise FeedRefused(wording.bad_topic(wording.shortened(topic)))
    wish: str | list[str] = given["topic"]
    return wish


def _filters(parameters: Mapping[str, Json]) -> list[str]:
    return sorted(set(asked.texts(parameters, "topic")))


# ── the connection ──────────────────────────────────────────────────────────────────────────────────────────────


class _Connection:
    """The library's client, whose socket the loop watches: its functions are called here alone."""

    def __init__(self, client: Client, host: str) -> None:
        self.session_present = False
        self._client = client
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._socket: Any = None
        self._is_read = False
        self._messages: collections.deque[MQTTMessage] = collections.deque()
        self._bytes = 0
        self._told = asyncio.Event()
        self._answered: dict[int, bool] = {}
        self._is_let_in: bool | None = None
        self._lost: str | None = None

    @property
    def waiting(self) -> int:
        return len(self._messages)

    async def begin(self, addresses: Sequence[str], port: int) -> None:
        client = self._client
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = lambda *given: self._note(given[2], True)
        client.on_socket_register_write = self._on_write
        client.on_socket_close = self._on_close
        for last, address in enumerate(addresses, 1 - len(addresses)):
            try:
                await asyncio.to_thread(client.connect, address, port, KEEPALIVE_S)
                break
            except (OSError, ValueError) as error:
                if last == 0:
                    cause = untrusted(error) or getattr(error, "strerror", None) or type(error).__name__
                    raise SourceLost(wording.source_not_reached(self._host, cause)) from None
        self._socket = client.socket()
        self._read_more()
        self._write_more()
        await self._until(lambda: self._is_let_in is not None)
        if not self._is_let_in:
            raise SourceLost(wording.source_not_reached(self._host, self._lost or "it lets nobody in"))

    def end(self) -> None:
        client, opened = self._client, self._socket
        client.on_disconnect = None
        client.on_socket_register_write = None  # what is left is written at once, or not at all
        client.disconnect()
        if opened is not None:
            self._on_close(client, None, opened)
            client.on_socket_close = None
            opened.close()

    async def keep(self) -> None:
        """Pings; what keeps it from it is found by whoever waits."""
        while self._lost is None:
            await asyncio.sleep(LOOK_S)
            self._client.loop_misc()

    async def subscribe(self, topics: Sequence[str], qos: int) -> None:
        await self._answer(self._client.subscribe([(topic, qos) for topic in topics])[1], wording.TOPICS_REFUSED)

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        if topics:
            await self._answer(self._client.unsubscribe(list(topics))[1], wording.TOPICS_REFUSED)

    async def _answer(self, number: int | None, refusal: str) -> None:
        if number is not None:
            await self._until(lambda: number in self._answered)
        if number is None or not self._answered.pop(number):
            raise SourceLost(self._lost or refusal)

    async def some(self, most: int) -> list[MQTTMessage]:
        """At least one. What came before a connection broke is handed over before that is said."""
        while not self._messages:
            self._check()
            self._told.clear()
            await self._told.wait()
        found = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
        self._bytes -= sum(len(message.payload) for message in found)
        self._read_more()
        return found

    def acknowledge(self, message: MQTTMessage) -> None:
        if message.qos:
            self._client.ack(message.mid, message.qos)

    async def _until(self, is_so: Any) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                while not is_so():
                    self._check()
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            raise SourceLost(wording.source_not_reached(self._host, "no answer in time")) from None

    def _check(self) -> None:
        if self._lost is not None:
            raise SourceLost(wording.source_not_reached(self._host, self._lost))

    def _read_more(self) -> None:
        has_room = len(self._messages) < WAITING_MOST and self._bytes < WAITING_BYTES
        if has_room == self._is_read or self._lost is not None or self._socket is None:
            return
        self._is_read = has_room
        if has_room:
            self._loop.add_reader(self._socket, self._read)
        else:
            self._loop.remove_reader(self._socket)

    def _read(self) -> None:
        self._client.loop_read()
        while self._lost is None and self._is_pending() and len(self._messages) < WAITING_MOST:
            self._client.loop_read()
        self._read_more()

    def _is_pending(self) -> bool:
        """Whether TLS has decrypted more than was read."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _write_more(self) -> None:
        if self._socket is None or self._lost is not None or not self._client.want_write():
            return
        self._loop.add_writer(self._socket, self._write)

    def _write(self) -> None:
        self._client.loop_write()
        if not self._client.want_write() and self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _note(self, number: int, is_granted: bool) -> None:
        self._answered[number] = is_granted
        self._told.set()

    def _on_write(self, client: Any, userdata: Any, socket: Any) -> None:
        """There is something to write; while it connects, a thread says so."""
        self._loop.call_soon_threadsafe(self._write_more)

    def _on_close(self, client: Any, userdata: Any, socket: Any) -> None:
        """The library closes its socket next: its number may be another's then."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.session_present = bool(flags.session_present)
        self._is_let_in = not reason.is_failure
        if reason.is_failure:
            self._lost = str(reason)
        self._told.set()

    def _on_subscribe(self, client: Any, userdata: Any, number: int, reasons: Any, properties: Any) -> None:
        self._note(number, all(not reason.is_failure for reason in reasons))

    def _on_message(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        self._messages.append(message)
        self._bytes += len(message.payload)
        self._told.set()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._lost = self._lost or str(reason)
        self._told.set()


@contextlib.asynccontextmanager
async def _connected(
    parameters: Mapping[str, Json], reach: Reach, *, clean: bool = False
) -> AsyncIterator[_Connection]:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    parts = urlsplit(parameters["url"])
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    addresses = await reach.check(host, port)
    client = Client(
        CallbackAPIVersion.VERSION2,
        parameters["client_id"],
        clean_session=clean,
        protocol=MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = CONNECT_S
    if "username" in parameters:
        client.username_pw_set(parameters["username"], parameters.get("password"))
    if parts.scheme == "mqtts":
        client.tls_set_context(await asyncio.to_thread(_context, host))
    connection = _Connection(client, host)
    keeping: asyncio.Task[None] | None = None
    try:
        await connection.begin(addresses, port)
        keeping = asyncio.create_task(connection.keep())
        yield connection
    finally:
        if keeping is not None:
            keeping.cancel()
        connection.end()


def _context(host: str) -> ssl.SSLContext:
    class Named(ssl.SSLContext):
        """The certificate is the name's, whichever of its addresses is connected to. A socket whose certificate is
        refused is closed, which the library would leave open."""

        def wrap_socket(self, *given: Any, **more: Any) -> ssl.SSLSocket:
            return super().wrap_socket(*given, **{**more, "server_hostname": host, "do_handshake_on_connect": True})

    context = Named(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context
