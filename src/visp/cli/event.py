"""`visp event`: tail, samples, sample."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from visp.cli import listing, output
from visp.cli.command import ApiGroup, Command
from visp.cli.exits import unable
from visp.cli.session import pass_session
from visp.cli.terms import moment
from visp.client import documents
from visp.client.errors import ApiError, ClientError, NoConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.cli.session import Session

AGAIN_S = 1.0
"""Before a stream that ended is asked for again."""


@click.group(cls=ApiGroup)
def event() -> None:
    """Work with events: what triggers are fired with."""


@event.command(
    epilog="""\b
Examples:
  visp event tail
  visp event tail upload --since 10m
  visp event tail upload --json --exit 60
"""
)
@click.argument("trigger", required=False)
@click.option("--since", metavar="TIME", help="Begin at TIME: 10m (ago), 2030-01-31T12:00:00Z, ms since 1970.")
@click.option("-e", "--exit", "exit_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after SECONDS.")
@listing.json_option
@pass_session
def tail(session: Session, trigger: str | None, since: str | None, exit_s: float | None, as_json: bool) -> None:
    """Print fires of a trigger, or of all, with their events as they come, until Ctrl-C.

    A fire without an active rule leaves no record, and is not seen.
    """
    from visp.cli.replaying import Record, record_of, stamp
    from visp.client.names import parse_entity
    from visp.clock import SystemClock
    from visp.entity.names import CALLERS_NAMESPACE

    entity = None if trigger is None else parse_entity(trigger)
    namespace, name = (CALLERS_NAMESPACE, None) if entity is None else (entity.namespace, entity.name)
    since_ms = None if since is None else moment(since, "--since", SystemClock().now_ms())

    def show(record: Record) -> None:
        if as_json:
            output.line(record.raw.decode(errors="replace"))
        else:
            payload = record.payload.decode(errors="replace")
            output.line(f"{stamp(record.start_ms)} {record.name} {record.id} {payload}")

    with unable(f"follow the fires of namespace '{namespace}'"):
        for kind, data in _followed(session, namespace, name, since_ms, exit_s):
            if kind == "lost":
                count = documents.whole(documents.value(data), "count") or 0
                output.warning(f"{count} records are not shown: they came too fast, or there were too many")
            elif (record := record_of(data)) is not None:
                show(record)


def _followed(
    session: Session, namespace: str, name: str | None, since_ms: int | None, exit_s: float | None
) -> Iterator[tuple[str, bytes]]:
    """Events of one stream after another, until the time is over."""
    ends_s = None if exit_s is None else time.monotonic() + exit_s
    last: str | None = None
    is_away = False
    while True:
        timer = None
        try:
            events = session.client.follow(namespace, name=name, since_ms=since_ms, last=last)
            is_away = False
            if ends_s is not None:
                timer = threading.Timer(max(0.0, ends_s - time.monotonic()), session.client.interrupt)
                timer.start()
            for kind, data in events:
                last = documents.text(documents.value(data), "activationId") or last
                yield kind, data
        except (NoConnection, ApiError) as error:
            if not _may_come_back(error) or (last is None and not is_away and isinstance(error, ApiError)):
                raise
            if not is_away:
                output.note(f"{error}; trying again")
            is_away = True
        finally:
            if timer is not None:
                timer.cancel()
        left_s = AGAIN_S if ends_s is None else min(AGAIN_S, ends_s - time.monotonic())
        if left_s <= 0:
            return
        time.sleep(left_s)


def _may_come_back(error: ClientError) -> bool:
    return isinstance(error, NoConnection) or (isinstance(error, ApiError) and error.retry_after_s is not None)


@event.command(cls=Command)
def samples() -> None:
    """List the feeds of which there is a sample event."""
    from visp.cli import samples as kept

    for feed in sorted(kept.samples()):
        output.line(feed)


@event.command(
    cls=Command,
    epilog="""\b
Examples:
  visp event sample mqtt/feed
  visp event sample github/webhook > event.json
""",
)
@click.argument("feed")
def sample(feed: str) -> None:
    """Print a sample of what FEED fires a trigger with; `visp trigger fire T --sample FEED` fires it."""
    from visp.cli import samples as kept

    output.document(kept.sample(feed))
