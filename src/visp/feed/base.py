"""Sources of events: what fires a trigger from outside. One file here is one kind of source, or a family of them.

A feed is what a user asks for (`Feed`: its name, its parameters, what they may be); a source is one of them that runs.
A source reads what happens outside and hands it over in batches; each batch names the position at which the source goes
on once all of its events have become fires. It holds nothing else that would be missed: whoever runs it may end it at
any moment and open it again, here or elsewhere, at the last position that was kept.

    Feed.parse(given) ─▶ parameters ─▶ Feed.check ─▶ kept, encrypted
    Feed.open(parameters) ─▶ Source.run(watch, position): watch.fire(batch) returns when fires and position are kept
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

import msgspec

from visp.errors import VispError

if TYPE_CHECKING:
    from visp.clock import Clock

Json = Any
"""What JSON can hold."""


class FeedRefused(VispError):
    """What is asked of a feed cannot be: `sentence` and `status` go to the user."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


class SourceLost(VispError):
    """A source could not be reached, or broke off: it is opened again after a while. The message is shown to its owner:
    it holds no secret."""


class SourceEnded(VispError):
    """A source has nothing to tell any more, as it was asked: the feed is disabled, and says why.

    `delete` is what goes with it: the trigger, or the trigger and every rule of it.
    """

    def __init__(self, reason: str, *, delete: Literal["trigger", "rules"] | None = None) -> None:
        super().__init__(reason)
        self.delete = delete


class Event(msgspec.Struct, frozen=True):
    """One thing that happened. `body` is a JSON object, encoded: the fire's parameters.

    `key` tells it from all others of its source: where a source can tell the same event twice after a crash, it has the
    same key, and it is fired once. At most 200 characters.
    """

    key: str
    body: bytes


class Batch(msgspec.Struct, frozen=True):
    """Events in their order, as many as are there (at most `EVENTS_MOST`), and the position behind them (JSON)."""

    events: Sequence[Event]
    position: Json


EVENTS_MOST = 1000
BATCH_BYTES = 8 * 1024 * 1024
"""Of the bodies of a batch; a source hands over what it has when the next event would be too much."""


class Watch(Protocol):
    """What a running source is given."""

    clock: Clock

    async def fire(self, batch: Batch) -> None:
        """Returns when each event is a fire that a crash does not lose, and the position is kept.

        A source reads on after that: so it is held up while the platform is. Empty batches keep a position alone.
        """
        ...

    def live(self, *, lag: int | None = None, next_ms: int | None = None) -> None:
        """The source is connected and up to date but for `lag` events; the next event is due at `next_ms`."""
        ...


class Reach(Protocol):
    """Which addresses a source may be at: a private one only where the server's settings say so."""

    async def check(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host that may be connected to, at least one: connect to these, not to the name again.

        Raises `FeedRefused` for one that may not be reached, `SourceLost` for a name that does not resolve.
        """
        ...

    def check_path(self, path: str) -> str:
        """The real path of a file or folder below one of the operator's roots; raises `FeedRefused`."""
        ...


class Source(Protocol):
    """One that runs. It closes what it has opened when it is cancelled."""

    async def run(self, watch: Watch, position: Json) -> None:
        """Reads until it is cancelled; `position` is the last that was kept, None at first.

        Raises `SourceLost` (any other exception counts as one) and `SourceEnded`.
        """
        ...


class Made(msgspec.Struct, frozen=True):
    """What `Feed.check` says if it has made at the source what outlasts a connection: a slot, a session, a consumer."""

    position: Json


class Feed(Protocol):
    """A kind of source. Parameters are a JSON object from `parse` on, and stay one: they are kept as such."""

    name: ClassVar[str]
    """As the feed action is called in `whisk.system`: `package/action`."""
    secrets: ClassVar[frozenset[str]]
    """Parameters that are never shown."""
    disables_when_throttled: ClassVar[bool]
    """Whether ten fires in a row that are too many disable it, as OpenWhisk's alarms do; others wait."""

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        """What is kept of what CREATE was given. Raises `FeedRefused` with the sentence that clients know."""
        ...

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        """What is kept after UPDATE; raises `FeedRefused`."""
        ...

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json | Made:
        """Whether the source is there: it is connected to once. The position to begin at, if that is known now.

        Raises `FeedRefused`.
        """
        ...

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        """CREATE's result, `{"status": "success"}` of most; `id` is this feed's, and nobody can guess it."""
        ...

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        """READ's `config` but for name and namespace; secrets are masked by who calls this."""
        ...

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> Source: ...


class Leaving(Feed, Protocol):
    """A feed that leaves at its source what costs there until somebody takes it away."""

    def trace(self, parameters: Mapping[str, Json]) -> str | None:
        """What is left, by a name that feeds share which share it; None: these parameters leave nothing."""
        ...

    async def deleted(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        """Takes away what `check` has made, once, after the last feed that shares it is gone.

        It is called again once the source has ended, which may have made it anew. What goes wrong is logged, and keeps
        no feed.
        """
        ...


def trace_of(kind: Feed, parameters: Mapping[str, Json]) -> str | None:
    """Of what a feed leaves; None for nothing."""
    return cast("Leaving", kind).trace(parameters) if hasattr(kind, "deleted") else None


class Request(msgspec.Struct, frozen=True):
    """A request to a feed's own address: headers by lower-case name, the query as it came.

    `rate` is how many fires a minute the namespace may have.
    """

    method: str
    headers: Mapping[str, str]
    query: str
    body: bytes
    rate: int = 0


class Received(msgspec.Struct, frozen=True):
    """What a request came to: events, which are fired before it is answered, and the answer's body and headers.

    Of two requests within a day whose events have the same key the second is answered and fires nothing.
    """

    events: Sequence[Event] = ()
    answer: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Hook(Feed, Protocol):
    """A feed that is told by requests to an address of its own, `/hooks/<id>`; its source only waits."""

    def receive(self, parameters: Mapping[str, Json], request: Request, now_ms: int) -> Received:
        """Raises `FeedRefused` for a request that is not let in: its status is the answer's."""
        ...
