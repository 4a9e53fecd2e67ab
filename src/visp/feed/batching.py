"""What sources make of what they read: bodies that a trigger takes, batches that are not too large. Pure."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from visp.entity.limits import PAYLOAD_LIMIT_BYTES
from visp.feed.base import BATCH_BYTES, EVENTS_MOST, Event, Json
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEY_LIMIT = 200

json = msgspec.json.Encoder()


def event(key: str, body: Json, feed: str) -> Event | None:
    """None: its body is larger than a trigger takes; a line in the log says so."""
    encoded = json.encode(body)
    if len(encoded) > PAYLOAD_LIMIT_BYTES:
        log.warning("feed.event_too_large", feed=feed, key=short(key), bytes=len(encoded))
        return None
    return Event(short(key), encoded)


def short(key: str) -> str:
    """A key that is as long as one may be: a digest of one that is longer."""
    return key if len(key) <= KEY_LIMIT else sha256(key.encode(errors="surrogatepass")).hexdigest()


def batches(made: Iterable[tuple[Event | None, Json]]) -> Iterator[tuple[list[Event], Json]]:
    """Events, each with the position behind it, as batches with theirs. What was skipped still moves the position."""
    events: list[Event] = []
    held, behind, moved = 0, None, False
    for one, position in made:
        size = 0 if one is None else len(one.body)
        if events and (len(events) == EVENTS_MOST or held + size > BATCH_BYTES):
            yield events, behind
            events, held = [], 0
        if one is not None:
            events.append(one)
            held += size
        behind, moved = position, True
    if moved:
        yield events, behind


def told(payload: bytes) -> Json:
    """Bytes as a body shows them: JSON if they are JSON, else text, else base64."""
    try:
        msgspec.json.decode(payload)
        return msgspec.Raw(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return base64.b64encode(payload).decode()
