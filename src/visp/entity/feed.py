"""A trigger's feed, as it is kept and as it is shown: what it was asked for, whether it goes on, how it stands. Pure.

Source: what OpenWhisk's providers answer to READ (`config`, `status` with `active`, `dateChanged`, `reason`); the rest
of the status is our own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

AUTO, ADMIN = "AUTO", "ADMIN"
MASKED = "*****"
ERROR_LENGTH = 500

State = Literal["starting", "live", "retrying", "paused", "disabled"]


class Reason(msgspec.Struct, frozen=True, array_like=True):
    """Why a feed is disabled; `kind` says by whom, `status` is that of the fire that did it."""

    kind: str
    message: str
    status: int | None = None


class FeedEntry(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What is kept of a feed. `id` is of this creation: another CREATE of the same trigger has another.

    `sealed` are its parameters and its owner's key, encrypted.
    """

    namespace: str
    trigger: str
    id: str
    feed: str
    sealed: bytes
    changed_ms: int
    is_paused: bool = False
    reason: Reason | None = None

    @property
    def is_active(self) -> bool:
        """Whether its source is to run."""
        return self.reason is None and not self.is_paused


class Opened(msgspec.Struct, frozen=True):
    """What is encrypted of a feed: its parameters, and the key with which its trigger is fired.

    `made`: it has made at its source what is to be taken away when it goes.
    """

    parameters: dict[str, Any]
    auth: str
    made: bool = False


class Progress(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How a feed stands. `position` is the source's own, as JSON; `batch` counts what was handed over since CREATE.

    `fired` and `refused` count events, `attempts` what failed since an event was last fired. Times are milliseconds.
    """

    position: bytes = b"null"
    batch: int = 0
    fired: int = 0
    refused: int = 0
    state: State = "starting"
    last_event_ms: int | None = None
    next_ms: int | None = None
    lag: int | None = None
    last_error: str | None = None
    last_error_ms: int | None = None


def shown(entry: FeedEntry, progress: Progress, config: Mapping[str, Any], secrets: Collection[str]) -> dict[str, Any]:
    """READ's answer."""
    masked = {name: MASKED if name in secrets and value not in (None, "") else value for name, value in config.items()}
    return {
        "config": {"name": entry.trigger, "namespace": entry.namespace, **masked},
        "status": status(entry, progress),
        "feed": entry.feed,
    }


def status(entry: FeedEntry, progress: Progress) -> dict[str, Any]:
    """What is told of how a feed stands; what is not known is left out."""
    reason = entry.reason
    told: dict[str, Any] = {
        "active": entry.is_active,
        "dateChanged": entry.changed_ms,
        "dateChangedISO": iso(entry.changed_ms),
        "state": state_of(entry, progress),
        "fired": progress.fired,
        "refused": progress.refused,
    }
    if reason is not None:
        told["reason"] = {"kind": reason.kind, "message": reason.message} | (
            {} if reason.status is None else {"statusCode": reason.status}
        )
    more = {
        "lastEvent": progress.last_event_ms,
        "nextFire": progress.next_ms if entry.is_active else None,
        "lag": progress.lag if entry.is_active else None,
        "lastError": progress.last_error,
        "lastErrorAt": progress.last_error_ms,
    }
    return told | {name: value for name, value in more.items() if value is not None}


def state_of(entry: FeedEntry, progress: Progress) -> State:
    if entry.reason is not None:
        return "disabled"
    return "paused" if entry.is_paused else progress.state


def iso(at_ms: int) -> str:
    """As JavaScript writes a date."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"
