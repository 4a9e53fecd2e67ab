"""NATS: `nats/subject` hears what is published while it listens, `nats/stream` reads a stream of JetStream.

A subject keeps nothing: what is published while no source is connected is missed. A stream without `durable` is read
from the position (a sequence) by a consumer that the server forgets again. With one the server keeps what was
acknowledged, which follows the fire; it gives what was not again in any order, after a while. So the position is
`{"fired", "told"}`: sequences that were fired and may not be acknowledged yet, which are acknowledged when they come
again, and fired no more; and those that are about to be fired, which are fired first after a crash, as the same batch.
A durable consumer that was made here goes with its feed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Batch, Event, FeedRefused, Json, Made, Reach, Watch
from visp.feed.batching import batches, event, told
from visp.feed.connecting import ANSWER_S, CONNECT_S, address, library, reached, tls
from visp.feed.parameters import Field, Own, place, text, url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

PORT = 4222
WAIT_S = 5.0
CLOSE_S = 2.0
PENDING_MOST = 65536
PENDING_BYTES = 4 * BATCH_BYTES
FETCH_MOST = 256
"""Messages of a stream at once; a server lets none be larger than 1 MiB, if it was not told otherwise."""
FORGOTTEN_S = 60.0

CONNECTION = (
    Field("url", url("nats", "tls"), required=True, fixed=True),
    Field("username", text),
    Field("password", text),
    Field("token", text),
)
SECRETS = frozenset({"password", "token"})


class Subject(Own):
    """`subject` may have wildcards; of feeds with the same `queue` one hears each message."""

    name: ClassVar[str] = "nats/subject"
    secrets: ClassVar[frozenset[str]] = SECRETS
    fields: ClassVar[tuple[Field, ...]] = (
        *CONNECTION,
        Field("subject", text, required=True),
        Field("queue", text),
    )

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        async with connected(parameters, reach, FeedRefused):
            return None

    def source(self, parameters: Mapping[str, Json], reach: Reach) -> SubjectSource:
        return SubjectSource(parameters, reach)


class SubjectSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach

    async def run(self, watch: Watch, position: Json) -> None:
        """A message has no id of its own: a key is one of this connection's, for none is told twice."""
        mark, count = secrets.token_hex(8), 0
        async with connected(self._parameters, self._reach) as client:
            heard = await client.subscribe(
                self._parameters["subject"],
                queue=self._parameters.get("queue", ""),
                pending_msgs_limit=PENDING_MOST,
                pending_bytes_limit=PENDING_BYTES,
            )
            await client.flush(ANSWER_S)
            watch.live()
            while True:
                messages = [message] if (message := await next_of(client, heard)) else []
                while messages and heard.pending_msgs and len(messages) < EVENTS_MOST:
                    messages.append(await heard.next_msg(WAIT_S))
                made: list[tuple[Event | None, Json]] = []
                for message in messages:
                    count += 1
                    made.append((event(f"{mark}-{count}", body_of(message), Subject.name), None))
                for events, _ in batches(made):
                    await watch.fire(Batch(events, None))
                watch.live(lag=heard.pending_msgs)


class Stream(Own):
    """`subject` tells of the stream's messages those that it fits; without it all are read."""

    name: ClassVar[str] = "nats/stream"
    secrets: ClassVar[frozenset[str]] = SECRETS
    fields: ClassVar[tuple[Field, ...]] = (
        *CONNECTION,
        Field("stream", text, required=True, fixed=True),
        Field("subject", text, fixed=True),
        Field("durable", text, fixed=True),
    )

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json | Made:
        async with connected(parameters, reach, FeedRefused) as client:
            jetstream = client.jetstream(timeout=ANSWER_S)
            info = await jetstream.stream_info(parameters["stream"])
            if "durable" in parameters:
                return Made({}) if await joined(jetstream, parameters) else {}
            return {"seq": info.state.last_seq}

    def trace(self, parameters: Mapping[str, Json]) -> str | None:
        if "durable" not in parameters:
            return None
        return f"{place(parameters['url'], PORT)} {parameters['stream']} {parameters['durable']}"

    async def deleted(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        errors = await library("nats.js.errors", "nats")
        async with connected(parameters, reach) as client:
            with contextlib.suppress(errors.NotFoundError):
                await client.jetstream(timeout=ANSWER_S).delete_consumer(parameters["stream"], parameters["durable"])

    def source(self, parameters: Mapping[str, Json], reach: Reach) -> StreamSource:
        return StreamSource(parameters, reach)


class StreamSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach

    async def run(self, watch: Watch, position: Json) -> None:
        errors = await library("nats.errors", "nats")
        async with connected(self._parameters, self._reach) as client:
            jetstream = client.jetstream(timeout=ANSWER_S)
            stream = self._parameters["stream"]
            position = position or {}
            durable = "durable" in self._parameters
            if durable:
                name = self._parameters["durable"]
                await joined(jetstream, self._parameters)
            else:
                seq = position.get("seq")
                if seq is None:
                    seq = (await jetstream.stream_info(stream)).state.last_seq
                name = await passing(jetstream, self._parameters, seq + 1)
            pulled = await jetstream.pull_subscribe_bind(consumer=name, stream=stream)
            fired = numbers(position.get("fired", ()))
            begun = numbers(position.get("told", ())) - fired
            if begun:
                await self._fire(watch, await asked_for(jetstream, stream, sorted(begun)), fired)
            watch.live()
            while True:
                try:
                    messages = await pulled.fetch(FETCH_MOST, timeout=WAIT_S)
                except (errors.TimeoutError, TimeoutError):
                    alive(client)
                    info = await jetstream.consumer_info(stream, name)
                    if durable and not info.num_ack_pending:
                        fired = set()
                    watch.live(lag=info.num_pending)
                    continue
                found = [(message.metadata.sequence.stream, message) for message in messages]
                fresh = sorted((pair for pair in found if pair[0] not in fired), key=lambda pair: pair[0])
                if durable and fresh:
                    await watch.fire(Batch((), self._behind(fresh, 0, fired)))
                await self._fire(watch, fresh, fired)
                if durable:
                    async with asyncio.timeout(ANSWER_S):
                        await asyncio.gather(*(message.ack_sync(ANSWER_S) for message in messages))
                    fired -= {seq for seq, _ in found}
                watch.live(lag=messages[-1].metadata.num_pending)

    async def _fire(self, watch: Watch, messages: Sequence[tuple[int, Any]], fired: set[int]) -> None:
        """In their order; `fired` has those of a durable consumer then."""
        done = 0
        made_of = ((event_of(seq, message), index) for index, (seq, message) in enumerate(messages, 1))
        for events, upto in batches(made_of):
            if "durable" in self._parameters:
                fired |= {seq for seq, _ in messages[done:upto]}
            done = upto
            await watch.fire(Batch(events, self._behind(messages, done, fired)))

    def _behind(self, messages: Sequence[tuple[int, Any]], done: int, fired: Iterable[int]) -> Json:
        """The position when so many of the messages were fired."""
        if "durable" not in self._parameters:
            return {"seq": messages[done - 1][0]}
        left = ranges(seq for seq, _ in messages[done:])
        return {"fired": ranges(fired)} | ({"told": left} if left else {})


async def asked_for(jetstream: Any, stream: str, seqs: Iterable[int]) -> list[tuple[int, Any]]:
    """Messages of a stream by their sequences. What is no more, or may not be asked for, comes again or never."""
    errors = await library("nats.js.errors", "nats")
    found = []
    for seq in seqs:
        try:
            found.append((seq, await jetstream.get_msg(stream, seq)))
        except errors.NotFoundError:
            continue
        except (errors.APIError, TimeoutError):
            break
    return found


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as their runs, first and last."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


def numbers(runs: Iterable[Sequence[int]]) -> set[int]:
    return {number for low, high in runs for number in range(low, high + 1)}


def event_of(seq: int, message: Any) -> Event | None:
    return event(str(seq), {**body_of(message), "seq": seq}, Stream.name)


def body_of(message: Any) -> dict[str, Json]:
    return {"subject": message.subject, "body": told(message.data or b""), "headers": dict(message.headers or {})}


async def next_of(client: Any, heard: Any) -> Any:
    """The next message; None: there was none for a while, and the server still answers."""
    try:
        return await heard.next_msg(WAIT_S)
    except TimeoutError:
        alive(client)
        await client.flush(ANSWER_S)
        return None


def alive(client: Any) -> None:
    if not client.is_connected:
        raise ConnectionError("the connection was closed")


async def joined(jetstream: Any, parameters: Mapping[str, Json]) -> bool:
    """Whether the durable consumer was made now; one that was there is left as it is."""
    api = await library("nats.js.api", "nats")
    errors = await library("nats.js.errors", "nats")
    try:
        await jetstream.consumer_info(parameters["stream"], parameters["durable"])
        return False
    except errors.NotFoundError:
        await jetstream.add_consumer(
            parameters["stream"],
            api.ConsumerConfig(
                durable_name=parameters["durable"],
                ack_policy=api.AckPolicy.EXPLICIT,
                deliver_policy=api.DeliverPolicy.NEW,
                filter_subject=parameters.get("subject"),
                max_ack_pending=EVENTS_MOST,
            ),
        )
        return True


async def passing(jetstream: Any, parameters: Mapping[str, Json], begin: int) -> str:
    """A consumer from a sequence on, which the server forgets when nobody reads."""
    api = await library("nats.js.api", "nats")
    config = api.ConsumerConfig(
        ack_policy=api.AckPolicy.NONE,
        deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=begin,
        filter_subject=parameters.get("subject"),
        inactive_threshold=FORGOTTEN_S,
        mem_storage=True,
    )
    name: str = (await jetstream.add_consumer(parameters["stream"], config)).name
    return name


@asynccontextmanager
async def connected(
    parameters: Mapping[str, Json], reach: Reach, refused: type[FeedRefused] | None = None
) -> AsyncIterator[Any]:
    """A connection to the address that was checked, and to none that the server tells of."""
    nats = await library("nats", "nats")
    where = place(parameters["url"], PORT)
    user = parameters.get("username") or where.user
    password = parameters.get("password") or where.password
    token = parameters.get("token")
    if user and not password and not token:
        user, token = None, user
    async with reached("NATS", where, [password, token], refused):
        host = await address(reach, where.host, where.port)
        secured = where.scheme == "tls"
        at = f"[{host}]" if ":" in host else host
        client = nats.NATS()
        try:
            async with asyncio.timeout(CONNECT_S * 2):
                await client.connect(
                    servers=[f"{'tls' if secured else 'nats'}://{at}:{where.port}"],
                    user=user,
                    password=password,
                    token=token,
                    tls=tls(where.host) if secured else None,
                    tls_hostname=where.host if secured else None,
                    allow_reconnect=False,
                    max_reconnect_attempts=0,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_S,
                    error_cb=_heard,
                    ping_interval=ANSWER_S,
                    max_outstanding_pings=2,
                )
            yield client
        finally:
            with contextlib.suppress(Exception):  # where TLS has failed it waits for what never comes
                async with asyncio.timeout(CLOSE_S):
                    await client.close()


async def _heard(error: Exception) -> None:
    """What goes wrong is seen where it is waited for."""
