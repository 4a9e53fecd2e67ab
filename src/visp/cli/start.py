"""`visp start`: the platform, in this process."""

from __future__ import annotations

from typing import Any

import click

from visp.cli.command import Command
from visp.cli.settings_flags import load, settings_flags


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  visp start
  visp start --port 0 --data-dir /tmp/visp
  visp start --takeover
  visp start --set limits.invocations_per_minute=60 --set retention.days=1
""",
)
@settings_flags
@click.option("--takeover", is_flag=True, help="Replace the running server of this data folder; no request fails.")
@click.pass_context
def start(ctx: click.Context, /, config: str | None, others: tuple[str, ...], takeover: bool, **named: Any) -> None:
    """Start the platform in the foreground; Ctrl-C stops it, a second one hurries.

    Settings come from visp.toml, then from VISP_* variables, then from these flags; `visp config show --origin` tells
    where each came from.
    """
    loaded = load(config, others, named)
    if loaded.settings.workers > 1:
        from visp.shards import serve
    else:
        from visp.serving import serve
    ctx.exit(serve(loaded, is_takeover=takeover))
