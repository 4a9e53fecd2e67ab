"""`visp feed`: list, get, pause, resume, replay. Feeds are made and changed with their triggers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from visp.cli import listing, output
from visp.cli.command import ApiGroup
from visp.cli.exits import unable
from visp.cli.session import pass_session
from visp.cli.trigger import replay
from visp.client import documents
from visp.client.names import parse_entity

if TYPE_CHECKING:
    from visp.cli.session import Session

TRIGGER_WIDTH, FEED_WIDTH, STATE_WIDTH, COUNT_WIDTH, TIME_WIDTH = 24, 22, 10, 9, 20


@click.group(cls=ApiGroup)
def feed() -> None:
    """Look after the feeds of triggers: what their sources do, and whether they go on.

    A feed is starting, live, retrying (its source cannot be reached), paused, or disabled, and says why.
    """


@feed.command(name="list")
@listing.json_option
@pass_session
def list_(session: Session, as_json: bool) -> None:
    """List the feeds of the namespace's triggers, and how they stand."""
    with unable("obtain the list of feeds"):
        raw = session.client.feeds()
    if as_json:
        output.answer(raw)
        return
    rows = [_row(one) for one in documents.objects(documents.value(raw))]
    widths = (TRIGGER_WIDTH, FEED_WIDTH, STATE_WIDTH, COUNT_WIDTH, TIME_WIDTH)
    output.table("feeds", ("trigger", "feed", "state", "fired", "last event", "why"), rows, widths)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    status = one.get("status", {})
    why = status.get("reason", {}).get("message") or (
        status.get("lastError", "") if status.get("state") == "retrying" else ""
    )
    return (
        documents.text(one.get("config", {}), "name"),
        documents.text(one, "feed"),
        documents.text(status, "state"),
        str(status.get("fired", "")),
        _time(status.get("lastEvent")),
        why,
    )


@feed.command()
@click.argument("trigger")
@click.argument("field", required=False)
@listing.json_option
@pass_session
def get(session: Session, trigger: str, field: str | None, as_json: bool) -> None:
    """Show what a trigger's feed was asked for and how it stands, or one FIELD of it."""
    name = parse_entity(trigger)
    with unable(f"get the feed of trigger '{trigger}'"):
        raw = session.client.feed("GET", name)
    listing.show("feed", name.name, raw, field=field, as_json=as_json)


@feed.command()
@click.argument("triggers", nargs=-1, required=True, metavar="TRIGGER...")
@pass_session
def pause(session: Session, triggers: tuple[str, ...]) -> None:
    """Let a feed fire nothing until it is resumed; it goes on where it stopped, as far as its source remembers."""
    for trigger in triggers:
        with unable(f"pause the feed of trigger '{trigger}'"):
            session.client.feed("POST", parse_entity(trigger), state="paused")
        output.ok(f"paused the feed of trigger {trigger}")


@feed.command()
@click.argument("triggers", nargs=-1, required=True, metavar="TRIGGER...")
@pass_session
def resume(session: Session, triggers: tuple[str, ...]) -> None:
    """Let a paused feed go on, or one that was disabled try again."""
    for trigger in triggers:
        with unable(f"resume the feed of trigger '{trigger}'"):
            session.client.feed("POST", parse_entity(trigger), state="live")
        output.ok(f"resumed the feed of trigger {trigger}")


feed.add_command(replay)


def _time(at_ms: object) -> str:
    if not isinstance(at_ms, int):
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
