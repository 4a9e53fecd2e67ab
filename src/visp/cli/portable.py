"""`visp admin export`, `import`, `import-openwhisk` and `db`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from visp.cli import output
from visp.cli.command import Command, Group
from visp.cli.exits import misuse
from visp.cli.progress import Progress
from visp.cli.settings_flags import data_flags, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from visp.moving import Taken
    from visp.settings import Settings

STREAM = "-"


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  visp admin export everything.tar.gz
  visp admin export - --no-activations --no-keys > entities.tar.gz
""",
)
@click.argument("file", metavar="FILE")
@click.option("--no-activations", "is_short", is_flag=True, help="Leave activations out.")
@click.option("--no-keys", "is_keyless", is_flag=True, help="Leave keys and secrets out: an import makes new keys.")
@data_flags
@click.pass_context
def export(
    ctx: click.Context,
    /,
    file: str,
    is_short: bool,
    is_keyless: bool,
    config: str | None,
    others: tuple[str, ...],
    **named: Any,
) -> None:
    """Write everything as one archive that is of no store, while a server runs or not.

    Subjects with their keys, limits, packages with their sites, actions with code, triggers, rules, APIs with their
    clients, and activations, as documents in a .tar.gz; `-` writes it to standard output. Keys are in clear in it, of
    clients' secrets digests.
    """
    from visp import moving

    if file == STREAM and sys.stdout.isatty():
        raise misuse("an archive is no text: name a file, or send standard output to one")
    target: Path | IO[bytes] = sys.stdout.buffer if file == STREAM else Path(file)
    manifest, damages = moving.export(
        _settings(config, others, named),
        target,
        has_keys=not is_keyless,
        has_activations=not is_short,
        progress=Progress(),
    )
    sys.stdout.flush()
    say = output.note if file == STREAM else output.line
    say(f"{'written' if file == STREAM else file}: {_counted(manifest.counts)}")
    if not is_keyless and manifest.counts["subjects"]:
        output.note("keys are in clear in it: keep it as you keep them")
    for damage in damages:
        output.warning(damage)
    ctx.exit(1 if damages else 0)


@click.group(cls=Group)
def db() -> None:
    """Look at what is stored, as it is stored."""


@db.command(
    cls=Command,
    epilog="""\b
Examples:
  visp admin db get whisks | jq .name
  visp admin db get subjects --keys
""",
)
@click.argument("table", type=click.Choice(("subjects", "whisks", "activations")))
@click.option("--keys", "has_keys", is_flag=True, help="Show keys, too.")
@data_flags
@click.pass_context
def get(
    ctx: click.Context, /, table: str, has_keys: bool, config: str | None, others: tuple[str, ...], **named: Any
) -> None:
    """Print every document of a table as a line of JSON, while a server runs or not.

    `whisks` are packages, actions, triggers and rules; a large action's code is named by its hash.
    """
    from visp import moving

    output.note(f"getting contents for {table} (primary index)")
    damages = moving.show(_settings(config, others, named), table, sys.stdout.buffer.write, has_keys=has_keys)
    sys.stdout.flush()
    for damage in damages:
        output.warning(damage)
    ctx.exit(1 if damages else 0)


@click.command(
    cls=Command,
    name="import",
    epilog="""\b
Examples:
  visp admin import everything.tar.gz --data-dir /var/lib/visp
  visp admin import entities.tar.gz --on-conflict skip
""",
)
@click.argument("file", metavar="FILE")
@click.option(
    "--on-conflict",
    type=click.Choice(("skip", "replace", "fail")),
    default="fail",
    help="What is there already stays, is replaced, or ends it before anything is written (the default).",
)
@data_flags
def import_(file: str, on_conflict: Any, config: str | None, others: tuple[str, ...], **named: Any) -> None:
    """Bring an archive of `export` into a data folder that no server uses.

    All of it is read and checked before anything is written. New keys are printed: SUBJECT, NAMESPACE, UUID:KEY.
    """
    from visp import moving

    taken = moving.import_archive(_settings(config, others, named), Path(file), on_conflict, Progress())
    _say_taken("imported", taken)
    if taken.there:
        output.note(f"{taken.there} were there already, and stay as they are")


@click.command(
    cls=Command,
    name="import-openwhisk",
    epilog="""\b
Examples:
  visp admin import-openwhisk subjects.json whisks.json activations.json --dry-run
  visp admin import-openwhisk whisks.json --data-dir /var/lib/visp
""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--dry-run", "is_dry", is_flag=True, help="Only say what would come, and what would not.")
@click.option("--ids", metavar="FILE", help="Write the old and the new id of each activation to a new file.")
@data_flags
@click.pass_context
def import_openwhisk(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    is_dry: bool,
    ids: str | None,
    config: str | None,
    others: tuple[str, ...],
    **named: Any,
) -> None:
    """Bring dumps of OpenWhisk's CouchDB databases into a data folder that no server uses.

    A file is an answer of _all_docs?include_docs=true&attachments=true, an array of documents, a document on each line,
    or what couchbackup wrote. What cannot be taken is said, an id and a reason on each line, and the exit status is 1.
    """
    from visp import openwhisk

    skipped = 0

    def tell(id: str, reason: str) -> None:
        nonlocal skipped
        skipped += 1
        output.line(f"skipped {id}: {reason}")

    def note(id: str, what: str) -> None:
        output.warning(f"{id}: {what}")

    with _pairs(ids) as write:
        taken = openwhisk.import_openwhisk(
            _settings(config, others, named),
            [Path(file) for file in files],
            is_dry=is_dry,
            ids=write,
            tell=tell,
            note=note,
            progress=Progress(),
        )
    _say_taken("would import" if is_dry else "imported", taken, are_keys_said=not is_dry)
    output.line(f"skipped {skipped}" if skipped else "nothing was skipped")
    ctx.exit(1 if skipped else 0)


@contextlib.contextmanager
def _pairs(name: str | None) -> Iterator[Callable[[str, str], None] | None]:
    """Writes pairs, a line each, to a new file, if one is named."""
    if name is None:
        yield None
        return
    try:
        file = open(name, "x", encoding="ascii")  # noqa: SIM115 – closed below
    except OSError as error:
        raise misuse(f"--ids {name} cannot be made: {error.strerror}") from None
    with file:
        yield lambda old, new: print(old, new, sep="\t", file=file)


def _say_taken(verb: str, taken: Taken, *, are_keys_said: bool = True) -> None:
    output.line(f"{verb} {_counted(taken.counts)}")
    if are_keys_said:
        for subject, namespace, auth in taken.made:
            output.line(f"{subject}\t{namespace}\t{auth}")


def _counted(counts: dict[str, int]) -> str:
    said = {"code": "large code", "files": "files of sites", "apis": "APIs"}
    return ", ".join(f"{count} {said.get(kind, kind)}" for kind, count in counts.items())


def _settings(config: str | None, others: tuple[str, ...], named: dict[str, Any]) -> Settings:
    return load(config, others, named).settings
