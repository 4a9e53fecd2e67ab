"""What all nouns share: the flags of lists and of `get`, and how one document is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from visp.cli import output
from visp.cli.exits import CommandError, unable
from visp.client import documents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from visp.cli.session import Session

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

NAME_WIDTH = 70
"""Of the first column where `wsk` prints a list."""
PAGE_LIMIT = 200

skip_option: Decorator = click.option(
    "-s", "--skip", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N."
)
limit_option: Decorator = click.option(
    "-l",
    "--limit",
    type=click.IntRange(0, PAGE_LIMIT),
    default=30,
    metavar="N",
    help="At most N, 30 by default; 0: 200.",
)
name_sort_option: Decorator = click.option("-n", "--name-sort", is_flag=True, help="Sort by name, not by date.")
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print the server's JSON and nothing else."
)
summary_option: Decorator = click.option("-s", "--summary", is_flag=True, help="Say in a line or two what it is.")


def sort_rows(rows: Sequence[tuple[str, ...]], *, by_name: bool) -> Sequence[tuple[str, ...]]:
    """Rows as the server sent them, newest first, or by their first cell."""
    return sorted(rows) if by_name else rows


def show_entities(
    session: Session,
    collection: str,
    noun: str,
    where: str | None,
    *,
    skip: int,
    limit: int,
    name_sort: bool,
    as_json: bool,
) -> None:
    """A collection of a namespace (`/_` by default): names, and whether others see them."""
    from visp.client.names import parse_namespace

    namespace = parse_namespace(where or "/_")
    with unable(f"obtain the list of {collection} for namespace '{namespace}'"):
        raw = session.client.list(collection, namespace, limit=limit, skip=skip)
    if as_json:
        output.answer(raw)
        return
    rows = [(qualified(one), visibility(one)) for one in documents.objects(documents.value(raw))]
    output.table(collection, (noun, "visibility"), sort_rows(rows, by_name=name_sort), (NAME_WIDTH,))


def show(noun: str, name: str, raw: bytes, *, field: str | None, as_json: bool) -> None:
    """A document after `ok: got action hello`; with a field, that member alone."""
    if field is not None:
        members = documents.fields(raw)
        if field not in members:
            raise CommandError(f"Invalid field filter '{field}': there are {', '.join(members) or 'none'}.")
        raw = members[field]
    if as_json:
        output.answer(raw)
        return
    output.ok(f"got {noun} {name}" + (f", displaying field {field}" if field is not None else ""))
    output.document(raw)


def qualified(entity: dict[str, Any]) -> str:
    """`/ns/pkg/name` of an entity in a list."""
    return f"/{documents.text(entity, 'namespace')}/{documents.text(entity, 'name')}"


def visibility(entity: dict[str, Any]) -> str:
    return "shared" if entity.get("publish") is True else "private"


def described(noun: str, name: str, document: dict[str, Any]) -> str:
    """Two lines: what it is, and its parameters; `*` marks those that are bound, `**` those bound for good."""
    description = documents.annotation(document, "description")
    mark = "**" if documents.annotation(document, "final") is True else "*"
    bound = [documents.text(entry, "key") for entry in documents.objects(document.get("parameters"))]
    told = [documents.text(entry, "name") for entry in documents.objects(documents.annotation(document, "parameters"))]
    names = sorted({*told, *bound} - {""})
    parameters = ", ".join(f"{mark}{name}" if name in bound else name for name in names) or "none defined"
    title = f"{noun} {name}: {description}" if isinstance(description, str) else f"{noun} {name}"
    return f"{title}\n   (parameters: {parameters})"
