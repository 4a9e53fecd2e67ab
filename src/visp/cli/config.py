"""`visp config`: show."""

from __future__ import annotations

from typing import Any

import click

from visp.cli import output
from visp.cli.command import Command, Group
from visp.cli.settings_flags import load, settings_flags

HIDDEN = "(hidden)"


@click.group(cls=Group)
def config() -> None:
    """Work with the server's settings."""


@config.command(
    cls=Command,
    epilog="""\b
Examples:
  visp config show --origin
  VISP_PORT=8080 visp config show --json
""",
)
@settings_flags
@click.option("--origin", "is_origin", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: name → value, or name → value and origin.")
def show(config: str | None, others: tuple[str, ...], is_origin: bool, as_json: bool, **named: Any) -> None:
    """Show every setting that `visp start` with the same flags would use."""
    import msgspec

    from visp.settings import leaves

    loaded = load(config, others, named)
    rows = []
    for leaf in leaves():
        value: Any = loaded.settings
        for part in leaf.path:
            value = getattr(value, part)
        if leaf.is_secret and value:
            value = HIDDEN
        rows.append((leaf, value, loaded.origins.get(leaf.path, "default")))
    if as_json:
        document = {
            leaf.toml_name: {"value": value, "origin": origin} if is_origin else value for leaf, value, origin in rows
        }
        output.answer(msgspec.json.encode(document))
    elif output.is_terminal():
        columns = ("setting", "value", *(["origin"] if is_origin else []), "what it is")
        cells = [
            (leaf.toml_name, _text(value), *([origin] if is_origin else []), leaf.sentence)
            for leaf, value, origin in rows
        ]
        output.table("", columns, cells)
    else:
        for leaf, value, origin in rows:
            output.line(f"{leaf.toml_name} = {_text(value)}" + (f"  # {origin}" if is_origin else ""))


def _text(value: Any) -> str:
    """As TOML writes it."""
    import msgspec

    return msgspec.json.encode(value).decode()
