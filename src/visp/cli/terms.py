"""How an invocation or a fire is to be taken: when, and once."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from visp.cli.exits import misuse
from visp.client.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS = (
    click.option("--delay", metavar="TIME", help="Begin after TIME: 90 (seconds), 10m, 2h, 1d."),
    click.option("--at", metavar="TIME", help="Begin at TIME: 2030-01-31T12:00:00Z, or milliseconds since 1970."),
    click.option("--idempotency-key", metavar="KEY", help="Do it once, however often KEY is sent, for 24 hours."),
)


def terms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--delay`, `--at` and `--idempotency-key`; `taken` makes terms of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken(delay: str | None, at: str | None, idempotency_key: str | None, *, is_blocking: bool = False) -> Terms:
    """Raises `CommandError` for what excludes each other."""
    if delay is not None and at is not None:
        raise misuse("--delay and --at exclude each other")
    if is_blocking and (delay is not None or at is not None):
        raise misuse("what begins later is not waited for with --blocking or --result alone: use --wait")
    return Terms(delay=delay, at=at, idempotency_key=idempotency_key)


_AGO = re.compile(r"(\d{1,9})([smhd])\Z", re.ASCII)
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def moment(text: str, flag: str, now_ms: int | None = None) -> int:
    """A time that was typed, in milliseconds since 1970: such a number, or ISO 8601 (UTC without a zone).

    With `now_ms` also how long ago: `90s`, `10m`, `2h`, `1d`. Raises `CommandError`.
    """
    if text.isascii() and text.isdecimal() and len(text) <= 15:
        return int(text)
    ago = _AGO.match(text)
    if ago is not None and now_ms is not None:
        return max(0, now_ms - int(ago[1]) * _UNIT_MS[ago[2]])
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        also = "" if now_ms is None else ", 10m (ago)"
        raise misuse(f"{flag} takes a time like 2030-01-31T12:00:00Z, milliseconds since 1970{also}") from None
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
