"""`visp doctor`: what this machine lacks to run the platform, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from visp.cli import output
from visp.cli.command import Command
from visp.cli.settings_flags import load, settings_flags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visp.doctor import Finding


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  visp doctor
  visp doctor --driver bwrap --json
""",
)
@settings_flags
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, /, config: str | None, others: tuple[str, ...], as_json: bool, **named: Any) -> None:
    """Check this machine, and say how to mend what is missing.

    The exit status is 1 when something is missing that `visp start` with the same flags needs.
    """
    import asyncio

    import msgspec

    from visp.doctor import examine

    findings = asyncio.run(examine(load(config, others, named).settings))
    if as_json:
        output.answer(msgspec.json.encode(findings))
    else:
        report(findings)
    ctx.exit(0 if is_fit(findings) else 1)


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether nothing is missing but what the platform can do without."""
    return all(finding.is_ok or finding.is_optional for finding in findings)


def report(findings: Sequence[Finding]) -> None:
    """A line for each finding, the way to mend it below."""
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        mark, colour = ("✓", "green") if finding.is_ok else ("–", "yellow") if finding.is_optional else ("✗", "red")
        styled = click.style(mark, fg=colour) if output.is_terminal() else mark
        click.echo(f"{styled} {finding.name:<{width}}  {finding.says}")
        if not finding.is_ok and finding.mend:
            click.echo(f"  {'':<{width}}  → {finding.mend}")
