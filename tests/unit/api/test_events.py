"""Server-sent events: their form, when they are asked for, and how a stream ends."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from visp.api import events
from visp.api.events import GREETING, EventStream, event, is_asked_for


@pytest.mark.parametrize(
    ("accept", "asked"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; q=0.9", True),
        ("application/json, text/event-stream", True),
        ("*/*", False),
        ("text/*", False),
        ("text/event-streams", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_type_itself_asks_for_events(accept: str | None, asked: bool) -> None:
    assert is_asked_for(accept) is asked


def test_an_event_keeps_every_line_of_its_data() -> None:
    assert event("record", b'{"a":1}', "7") == b'id: 7\nevent: record\ndata: {"a":1}\n\n'
    assert event("lost", b'{\n"a":\r\n1\r}') == b'event: lost\ndata: {\ndata: "a":\ndata: 1\ndata: }\n\n'


class Client:
    """A reader: what it was sent, and when it goes away."""

    def __init__(self, takes: int = 100) -> None:
        self.sent: list[dict[str, Any]] = []
        self.is_gone = asyncio.Event()
        self._takes = takes

    async def receive(self) -> dict[str, Any]:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if len(self.sent) >= self._takes:
            await asyncio.Event().wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        return self.sent[-1].get("more_body") is False


class Source:
    """Two events, and if it is endless a long wait for the third."""

    def __init__(self, *, is_endless: bool = False) -> None:
        self.is_left = self.is_closed = False
        self._is_endless = is_endless

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            yield b"one"
            yield b"two"
            if self._is_endless:
                await asyncio.Event().wait()
        finally:
            self.is_left = True

    async def close(self) -> None:
        self.is_closed = True

    @property
    def stream(self) -> EventStream:
        return EventStream(self.events(), self.close)


async def test_a_stream_is_sent_to_its_end() -> None:
    client, source = Client(), Source()
    await events.respond(source.stream, "t", client.receive, client.send)
    assert client.body == GREETING + b"onetwo"
    assert client.is_complete
    assert (b"content-type", b"text/event-stream") in client.sent[0]["headers"]
    assert source.is_closed


async def test_a_reader_that_goes_away_ends_it() -> None:
    client, source = Client(), Source(is_endless=True)
    responding = asyncio.ensure_future(events.respond(source.stream, "t", client.receive, client.send))
    async with asyncio.timeout(5):
        while not client.body.endswith(b"two"):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        client.is_gone.set()
        await responding
    assert (source.is_left, source.is_closed) == (True, True)
    assert not client.is_complete


async def test_a_reader_that_takes_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SEND_S", 0.01)
    client, source = Client(takes=3), Source(is_endless=True)
    async with asyncio.timeout(5):
        await events.respond(source.stream, "t", client.receive, client.send)
    assert (source.is_left, source.is_closed) == (True, True)
    assert not client.is_complete


async def test_a_request_that_is_ended_leaves_nothing() -> None:
    client, source = Client(), Source(is_endless=True)
    responding = asyncio.ensure_future(events.respond(source.stream, "t", client.receive, client.send))
    await asyncio.sleep(0)
    responding.cancel()
    await asyncio.gather(responding, return_exceptions=True)
    assert source.is_closed
