"""`visp namespace`: list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from visp.cli import listing, output
from visp.cli.command import ApiGroup
from visp.cli.exits import unable
from visp.cli.session import pass_session
from visp.client import documents

if TYPE_CHECKING:
    from visp.cli.session import Session


@click.group(cls=ApiGroup)
def namespace() -> None:
    """Work with namespaces."""


@namespace.command(name="list")
@listing.json_option
@pass_session
def list_(session: Session, as_json: bool) -> None:
    """List the namespaces that the key opens."""
    with unable("obtain the list of available namespaces"):
        raw = session.client.namespaces()
    if as_json:
        output.answer(raw)
        return
    names = documents.value(raw)
    rows = [(name,) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    output.table("namespaces", ("namespace",), rows)
