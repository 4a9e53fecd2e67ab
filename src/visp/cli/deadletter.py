"""`visp deadletter`: list, get, replay, drop."""

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

COLLECTION = "deadletters"
ID_WIDTH, TIME_WIDTH, COUNT_WIDTH = 34, 20, 8


@click.group(cls=ApiGroup)
def deadletter() -> None:
    """Work with dead letters: activations that failed for good.

    An action or a rule asks for them by the annotation `dead-letter`, and for further attempts before that by `retry`.
    """


@deadletter.command(name="list")
@listing.skip_option
@listing.limit_option
@listing.json_option
@pass_session
def list_(session: Session, skip: int, limit: int, as_json: bool) -> None:
    """List dead letters, newest first."""
    with unable("obtain the list of dead letters"):
        raw = session.client.list(COLLECTION, limit=limit, skip=skip)
    if as_json:
        output.answer(raw)
        return
    rows = [
        (
            documents.text(one, "activationId"),
            _time(one.get("at")),
            str(one.get("attempts", "")),
            documents.text(one, "action"),
        )
        for one in documents.objects(documents.value(raw))
    ]
    output.table("dead letters", ("activation", "at", "attempts", "action"), rows, (ID_WIDTH, TIME_WIDTH, COUNT_WIDTH))


@deadletter.command()
@click.argument("id")
@click.argument("field", required=False)
@listing.json_option
@pass_session
def get(session: Session, id: str, field: str | None, as_json: bool) -> None:
    """Show a dead letter, or one FIELD of it. ID is that of the last attempt's activation."""
    with unable(f"get dead letter '{id}'"):
        raw = session.client.deferred("GET", COLLECTION, id)
    listing.show("dead letter", id, raw, field=field, as_json=as_json)


@deadletter.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@pass_session
def replay(session: Session, ids: tuple[str, ...]) -> None:
    """Run the activation anew, with the same argument; the letter goes."""
    for id in ids:
        with unable(f"replay dead letter '{id}'"):
            raw = session.client.deferred("POST", COLLECTION, id)
        output.ok(f"replayed {id} with id {documents.text(documents.value(raw), 'activationId')}")


@deadletter.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@pass_session
def drop(session: Session, ids: tuple[str, ...]) -> None:
    """Forget a dead letter; the activation's record stays."""
    for id in ids:
        with unable(f"drop dead letter '{id}'"):
            session.client.deferred("DELETE", COLLECTION, id)
        output.ok(f"dropped {id}")


def _time(at_ms: object) -> str:
    if not isinstance(at_ms, int):
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
