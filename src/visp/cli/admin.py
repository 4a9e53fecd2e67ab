"""`visp admin`: user, limits, backup, restore, check, db, export, import, import-openwhisk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visp.cli import output
from visp.cli.command import Command, Group
from visp.cli.portable import db, export, import_, import_openwhisk
from visp.cli.progress import Progress as _Progress
from visp.cli.progress import size as _size
from visp.cli.settings_flags import data_flags, load
from visp.cli.subjects import limits, user

if TYPE_CHECKING:
    from visp.settings import Settings


@click.group(cls=Group)
def admin() -> None:
    """Care for a server's users and data."""


admin.add_command(user)
admin.add_command(limits)
admin.add_command(db)
admin.add_command(export)
admin.add_command(import_)
admin.add_command(import_openwhisk)


@admin.command(
    cls=Command,
    epilog="""\b
Examples:
  visp admin backup /var/backups/
  visp admin backup today.tar --data-dir /var/lib/visp
""",
)
@click.argument("target", metavar="FILE|FOLDER")
@data_flags
@click.pass_context
def backup(ctx: click.Context, /, target: str, config: str | None, others: tuple[str, ...], **named: Any) -> None:
    """Write a backup of everything a server keeps, while it runs or not.

    Into a folder goes a file with a name of its own. The secret that seals keys is not in it: keep it elsewhere.
    """
    from visp import care

    path, manifest = care.backup(_settings(config, others, named), Path(target), _Progress())
    output.line(f"{path}: {len(manifest.parts)} files, {_size(manifest.size_bytes)}, verified")
    output.note(f"the secret in {manifest.secret_file} is not in it: keep a copy of it elsewhere")
    for damage in manifest.damages:
        output.warning(f"damaged already: {damage}")
    ctx.exit(1 if manifest.damages else 0)


@admin.command(
    cls=Command,
    epilog="""\b
Examples:
  visp admin restore visp-20260101T030000Z.tar --data-dir /var/lib/visp
""",
)
@click.argument("file", metavar="FILE")
@click.option("--replace", "is_replacing", is_flag=True, help="Set aside what is in the folder.")
@data_flags
def restore(file: str, is_replacing: bool, config: str | None, others: tuple[str, ...], **named: Any) -> None:
    """Put a backup back into a data folder that no server uses.

    Every checksum is verified before anything is written.
    """
    from visp import care

    settings = _settings(config, others, named)
    manifest, aside = care.restore(settings, Path(file), is_replacing=is_replacing, progress=_Progress())
    output.line(f"restored {len(manifest.parts)} files, {_size(manifest.size_bytes)}, of {manifest.made}")
    if aside is not None:
        output.note(f"what was there is in {aside}: remove it when it is not needed any more")
    for damage in manifest.damages:
        output.warning(f"damaged already when the backup was made: {damage}")
    if (advice := care.secret_advice(settings, manifest)) is not None:
        output.warning(advice)


@admin.command(
    cls=Command,
    epilog="""\b
Examples:
  visp admin check --data-dir /var/lib/visp
""",
)
@data_flags
@click.option("--json", "as_json", is_flag=True, help="Print what is damaged as JSON.")
@click.pass_context
def check(ctx: click.Context, /, config: str | None, others: tuple[str, ...], as_json: bool, **named: Any) -> None:
    """Read everything a server keeps, and say what is damaged and what to do.

    A server may run meanwhile. The exit status is 1 when anything is damaged.
    """
    import msgspec

    from visp import care

    damages = care.check(_settings(config, others, named), _Progress())
    if as_json:
        output.answer(msgspec.json.encode(damages))
    else:
        for damage in damages:
            output.line(f"{damage.path}: {damage.says}")
            output.line(f"  → {damage.mend}")
        output.note(f"{len(damages)} damages" if damages else "nothing is damaged")
    ctx.exit(1 if damages else 0)


def _settings(config: str | None, others: tuple[str, ...], named: dict[str, Any]) -> Settings:
    return load(config, others, named).settings
