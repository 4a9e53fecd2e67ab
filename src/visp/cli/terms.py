"""How an invocation or a fire is to be taken: when, and once."""

from __future__ import annotations

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
