"""`visp runtime`: list, install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visp.cli import output
from visp.cli.command import Command, Group
from visp.cli.exits import misuse
from visp.cli.settings_flags import data_flags, load

if TYPE_CHECKING:
    from visp.entity.runtime_manifest import Kind
    from visp.settings import Settings

WIDTHS = (14, 36, 12, 8)


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
    """List kinds, each with its program, the version and origin of that, and whether its modules are installed."""
    import msgspec

    from visp.equipment import survey

    found = survey.survey(load(config, others, named).settings)
    if as_json:
        output.answer(msgspec.json.encode(found))
        return
    rows = [
        (one.kind, one.program or "none", one.version or "-", one.origin or "-", one.modules or "-") for one in found
    ]
    output.table("", ("kind", "program", "version", "from", "modules"), rows, WIDTHS)


@runtime.command(
    cls=Command,
    epilog="""\b
Examples:
  visp runtime install nodejs:22 deno
  visp runtime install nodejs
  visp runtime install runsc
  visp runtime install python:3.13 --from /opt/python3.13
""",
)
@click.argument("names", nargs=-1, required=True, metavar="KIND...")
@click.option(
    "--from",
    "tree",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Copy an installation that is here, for one kind.",
)
@data_flags
@click.pass_context
def install(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    tree: Path | None,
    config: str | None,
    others: tuple[str, ...],
    **named: Any,
) -> None:
    """Install what runs kinds, where it is not here: programs, toolchains, and the modules of OpenWhisk's images.

    It goes into the folder of runtimes, which every container sees; packages of the system are installed as such, by
    root. A server that runs offers what is new from its next start. Two are no kinds: `runsc` is gVisor, for --driver
    runsc; `uv` brings Python's packages to builds. The exit status is 1 when a kind cannot run then.
    """
    from visp.equipment import sources, survey

    settings = load(config, others, named).settings
    programs = [name for name in dict.fromkeys(names) if name in sources.PROGRAMS]
    try:
        found = survey.find_kinds(settings, tuple(name for name in names if name not in programs))
    except survey.UnknownKind as error:
        raise misuse(str(error)) from None
    if tree is not None and (len(found) != 1 or programs):
        raise misuse("--from is for one kind")
    brought = [name for name in programs if _bring_program(settings, name)]
    running = [kind for kind in found if _bring(settings, kind, tree)]
    _bring_modules(settings, running)
    if running:
        output.note("a server that runs offers what is new from its next start (visp start --takeover)")
    ctx.exit(0 if (brought, running) == (programs, found) else 1)


def _bring_program(settings: Settings, name: str) -> bool:
    """Whether it is here now; it is brought anew each time, for not each tells which version it is."""
    from visp.equipment import fetching, install

    try:
        output.ok(f"installed {name}: {install.install_program(settings, name, output.note)}")
    except fetching.InstallError as error:
        output.error(f"{name}: {error}")
        return False
    return True


def _bring(settings: Settings, kind: Kind, tree: Path | None) -> bool:
    """Whether it runs now; says which program it is, or why there is none."""
    from visp.equipment import fetching, install, survey

    home = survey.home_of(settings)
    program = survey.program_of(kind, home)
    if tree is not None or (program is None and kind.local is not None) or survey.is_outdated(kind, home):
        try:
            where = install.install(settings, kind, output.note, tree)
            output.ok(f"installed {kind.kind} in {where}")
        except fetching.InstallError as error:
            output.error(f"{kind.kind}: {error}")
            return False
        program = survey.program_of(kind, survey.home_of(settings))
    if program is None:
        output.error(f"{kind.kind}: {survey.lack_of(kind)}")
        return False
    output.line(f"{kind.kind}: {program}")
    return True


def _bring_modules(settings: Settings, kinds: list[Kind]) -> None:
    from visp.equipment import install, survey

    if any(survey.has_modules(kind) for kind in kinds):
        names = install.modules_in_words()
        output.note(f"… npm installs {names}")
        output.ok(f"installed {names} in {install.install_modules(settings, output.note)}")
