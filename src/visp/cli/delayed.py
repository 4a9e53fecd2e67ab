"""`visp delayed`: list, cancel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from visp.cli import listing, output
from visp.cli.command import ApiGroup
from visp.cli.exits import unable
from visp.cli.session import pass_session
from visp.client import documents

if TYPE_CHECKING:
    from visp.cli.session import Session

COLLECTION = "delayed"
ID_WIDTH, TIME_WIDTH = 34, 20


@click.group(cls=ApiGroup)
def delayed() -> None:
    """Work with what was accepted and is not due yet: delayed invocations and fires, and further attempts."""


@delayed.command(name="list")
@listing.skip_option
@listing.limit_option
@listing.json_option
@pass_session
def list_(session: Session, skip: int, limit: int, as_json: bool) -> None:
    """List what is due later, the next one first."""
    with unable("obtain the list of what is due later"):
        raw = session.client.list(COLLECTION, limit=limit, skip=skip)
    if as_json:
        output.answer(raw)
        return
    rows = [
        (
            documents.text(one, "activationId"),
            datetime.fromtimestamp(int(one["due"]) / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            documents.text(one, "action") or documents.text(one, "trigger"),
        )
        for one in documents.objects(documents.value(raw))
    ]
    output.table("due later", ("activation", "due", "of"), rows, (ID_WIDTH, TIME_WIDTH))


@delayed.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@pass_session
def cancel(session: Session, ids: tuple[str, ...]) -> None:
    """Cancel what has not begun: its record says so."""
    for id in ids:
        with unable(f"cancel activation '{id}'"):
            session.client.deferred("DELETE", COLLECTION, id)
        output.ok(f"cancelled {id}")
