"""A client that speaks HTTP/2, without a socket: what it says and hears is bytes."""

from __future__ import annotations

from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings

from visp.api.frames import ANY_STREAM, NO_ERROR, goaway

Headers = Iterable[tuple[str, str]]


class Answer:
    """To one request, as far as it has come."""

    def __init__(self) -> None:
        self.status = 0
        self.interim: list[int] = []
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_whole = False
        self.code: int | None = None
        """Why it was broken off."""

    @property
    def is_over(self) -> bool:
        return self.is_whole or self.code is not None

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:300]!r} {self.is_whole} {self.code}>"


class Client:
    """`takes` false: of answers' bodies it takes no more than the windows that a connection begins with."""

    def __init__(self, *, takes: bool = True, settings: dict[int, int] | None = None) -> None:
        self.h2 = H2Connection(
            H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.takes = takes
        self.answers: dict[int, Answer] = {}
        self.ended: int | None = None
        """With which code the connection was ended."""
        self.is_told = False
        """The server begins nothing more."""
        self.last = 0
        """The last stream that the server says it has looked at."""
        given = {SettingCodes(code): value for code, value in (settings or {}).items()}
        self.h2.local_settings = Settings(client=True, initial_values=given)
        self.h2.initiate_connection()

    def ask(self, path: str = "/ping", method: str = "GET", headers: Headers = (), *, more: bool = False) -> int:
        """Begins a request; with `more` a body follows."""
        id = self.h2.get_next_available_stream_id()
        self.answers[id] = Answer()
        pseudo = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")]
        self.h2.send_headers(id, [*pseudo, *headers], end_stream=not more)
        return id

    def room(self, id: int) -> int:
        """How much of a body may be sent at once."""
        return min(self.h2.local_flow_control_window(id), self.h2.max_outbound_frame_size)

    def hear(self, data: bytes) -> None:
        told = data.replace(goaway(ANY_STREAM, NO_ERROR), b"")  # after one the library would hear nothing more
        self.is_told |= told != data
        data = told
        for event in self.h2.receive_data(data):
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.ended, self.last = int(event.error_code or 0), event.last_stream_id or 0
            return
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0)
        if answer is None:
            return
        if isinstance(event, InformationalResponseReceived):
            answer.interim += [int(value) for name, value in event.headers or () if name == b":status"]
        elif isinstance(event, ResponseReceived):
            told = {name.decode(): value.decode("latin-1") for name, value in event.headers or ()}
            answer.status = int(told.pop(":status"))
            answer.headers = told
        elif isinstance(event, DataReceived):
            answer.body += event.data or b""
            if self.takes:
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, StreamEnded):
            answer.is_whole = True
        elif isinstance(event, StreamReset):
            answer.code = int(event.error_code or 0)
