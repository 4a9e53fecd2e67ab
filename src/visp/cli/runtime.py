"""`visp runtime`: list, install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from visp.cli import output
from visp.cli.command import Command, Group
from visp.cli.exits import misuse
from visp.cli.settings_flags import data_flags, load

if TYPE_CHECKING:
    from pathlib import Path

    from visp.entity.runtime_manifest import Kind

KIND_WIDTH, PROGRAM_WIDTH, VERSION_WIDTH = 14, 24, 12


@click.group(cls=Group)
def runtime() -> None:
    """Look at what runs the kinds of action on this machine, and install what they bring."""


@runtime.command(
    name="list",
    cls=Command,
    epilog="""\b
Examples:
  visp runtime list
  visp runtime list --data-dir /var/lib/visp --json
""",
)
@data_flags
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_(config: str | None, others: tuple[str, ...], as_json: bool, **named: Any) -> None:
    """List kinds, each with its program, the version of that, and whether its modules are installed."""
    import msgspec

    from visp import equipment

    found = equipment.survey(load(config, others, named).settings)
    if as_json:
        output.answer(msgspec.json.encode(found))
        return
    rows = [(one.kind, one.program or "none", one.version or "-", one.modules or "-") for one in found]
    widths = (KIND_WIDTH, PROGRAM_WIDTH, VERSION_WIDTH)
    output.table("", ("kind", "program", "version", "modules"), rows, widths)


@runtime.command(
    cls=Command,
    epilog="""\b
Examples:
  visp runtime install nodejs:20
  visp runtime install nodejs python --data-dir /var/lib/visp
""",
)
@click.argument("kinds", nargs=-1, required=True, metavar="KIND...")
@data_flags
@click.pass_context
def install(
    ctx: click.Context, /, kinds: tuple[str, ...], config: str | None, others: tuple[str, ...], **named: Any
) -> None:
    """Install what kinds bring in OpenWhisk's images: Node.js modules, by npm. Of others, say what is missing.

    The modules go into the data folder; a server that runs shows them to actions from its next start. The exit status
    is 1 when a kind cannot run yet.
    """
    from visp import equipment
    from visp.settings import runtimes_folder

    settings = load(config, others, named).settings
    try:
        found = equipment.find_kinds(settings, kinds)
    except equipment.UnknownKind as error:
        raise misuse(str(error)) from None
    lacking = [kind for kind in found if not _has_program(kind, runtimes_folder(settings))]
    if any(equipment.has_modules(kind) for kind in found if kind not in lacking):
        names = equipment.modules_in_words()
        output.note(f"… npm installs {names}")
        folder = equipment.install_modules(settings)
        output.ok(f"installed {names} in {folder}")
        output.note("a server that runs shows them to actions from its next start (visp start --takeover)")
    ctx.exit(1 if lacking else 0)


def _has_program(kind: Kind, home: Path) -> bool:
    """Says which program it is, or how to get one."""
    from visp import equipment

    program = equipment.program_of(kind, home)
    if program is None:
        output.error(f"{kind.kind}: {equipment.lack_of(kind)}")
        return False
    output.line(f"{kind.kind}: {program}")
    return True
