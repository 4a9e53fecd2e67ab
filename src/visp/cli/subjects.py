"""`visp admin user` and `visp admin limits`: what OpenWhisk's `wskadmin` does, with its words."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeVar

import click

from visp.cli import output, pairs
from visp.cli.command import Command, Group
from visp.cli.exits import CommandError
from visp.cli.settings_flags import data_flags, load
from visp.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from visp.care import Subjects
    from visp.entity.subject import AuthKey

T = TypeVar("T")

namespace_option = click.option(
    "-ns", "--namespace", metavar="NAMESPACE", help="A namespace; by default the subject's own."
)


def _do(given: dict[str, Any], work: Callable[[Subjects], Awaitable[T]]) -> T:
    """Does it on the data folder that the flags name, whether or not a server runs; refusals become sentences."""
    import asyncio

    from visp import care

    settings = load(given["config"], given["others"], {"data_dir": given["data_dir"]}).settings
    try:
        return asyncio.run(care.with_subjects(settings, work))
    except Refused as refused:
        raise CommandError(str(refused)) from None


# ── users ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.group(cls=Group)
def user() -> None:
    """Work with subjects, their namespaces and keys."""


@user.command(
    cls=Command,
    epilog="""\b
Examples:
  visp admin user create alice
  visp admin user create alice -ns team
  visp admin user create alice -r
""",
)
@click.argument("subject")
@click.option("-u", "--auth", metavar="UUID:KEY", help="This pair instead of a random one.")
@namespace_option
@click.option("-r", "--revoke", "is_renewed", is_flag=True, help="A new key for a namespace that is there.")
@click.option("-g", "--genonly", "is_generated", is_flag=True, help="Only make a pair, and print it.")
@click.option("-s", "--silent", "is_silent", is_flag=True, help="Print nothing.")
@data_flags
def create(
    subject: str,
    auth: str | None,
    namespace: str | None,
    is_renewed: bool,
    is_generated: bool,
    is_silent: bool,
    **given: Any,
) -> None:
    """Create a subject, or add a namespace to one, and print the key: UUID:KEY."""
    from visp.entity.subject import check_subject, new_key, parse_pair

    try:
        pair = None if auth is None else parse_pair(auth)
        if is_generated:
            check_subject(subject, subject if namespace is None else namespace)
    except Refused as refused:
        raise CommandError(str(refused)) from None
    if is_generated:
        made: AuthKey = pair or new_key()
    else:
        made = _do(given, lambda subjects: subjects.create(subject, namespace, pair, is_renewed=is_renewed))
    if not is_silent:
        output.line(str(made))


@user.command(cls=Command)
@click.argument("subject")
@namespace_option
@click.option("-a", "--all", "is_all", is_flag=True, help="Every namespace of the subject, with its key.")
@data_flags
def get(subject: str, namespace: str | None, is_all: bool, **given: Any) -> None:
    """Print a subject's key."""
    if is_all:
        for name, auth in _do(given, lambda subjects: subjects.all_of(subject)):
            output.line(f"{name}\t{auth}")
    else:
        output.line(str(_do(given, lambda subjects: subjects.get(subject, namespace))))


@user.command(cls=Command)
@click.argument("auth", metavar="UUID:KEY")
@data_flags
def whois(auth: str, **given: Any) -> None:
    """Say whose key this is."""
    from visp.entity.subject import parse_pair

    try:
        pair = parse_pair(auth)
    except Refused as refused:
        raise CommandError(str(refused)) from None
    subject, namespace = _do(given, lambda subjects: subjects.whois(pair))
    output.line(f"subject: {subject}")
    output.line(f"namespace: {namespace}")


@user.command(cls=Command, name="list")
@click.argument("namespace")
@click.option("-p", "--pick", type=click.IntRange(min=1), default=1, metavar="N", help="At most N, 1 by default.")
@click.option("-a", "--all", "is_all", is_flag=True, help="All of them.")
@click.option("-k", "--key", "is_key", is_flag=True, help="Without the subjects.")
@data_flags
def list_(namespace: str, pick: int, is_all: bool, is_key: bool, **given: Any) -> None:
    """List the keys of a namespace, each with the subject that holds it."""
    found = _do(given, lambda subjects: subjects.keys_of(namespace))
    for auth, subject in found if is_all else found[:pick]:
        output.line(str(auth) if is_key else f"{auth}\t{subject}")


@user.command(cls=Command)
@click.argument("subjects", nargs=-1, required=True, metavar="SUBJECT...")
@data_flags
@click.pass_context
def block(ctx: click.Context, /, subjects: tuple[str, ...], **given: Any) -> None:
    """Let a subject's keys in no longer. The exit status is the number of failures."""
    ctx.exit(_block(subjects, given, is_blocked=True))


@user.command(cls=Command)
@click.argument("subjects", nargs=-1, required=True, metavar="SUBJECT...")
@data_flags
@click.pass_context
def unblock(ctx: click.Context, /, subjects: tuple[str, ...], **given: Any) -> None:
    """Let a subject's keys in again. The exit status is the number of failures."""
    ctx.exit(_block(subjects, given, is_blocked=False))


def _block(names: tuple[str, ...], given: dict[str, Any], *, is_blocked: bool) -> int:
    failures = 0
    for name in names:
        try:
            _do(given, methodcaller("block", name, is_blocked=is_blocked))
        except CommandError as error:
            failures += 1
            output.error(str(error))
        else:
            output.line(f'"{name}" {"blocked" if is_blocked else "unblocked"} successfully')
    return min(failures, 100)


@user.command(cls=Command)
@click.argument("subject")
@namespace_option
@data_flags
def delete(subject: str, namespace: str | None, **given: Any) -> None:
    """Delete a subject's keys, or its key of one namespace. Entities and limits stay."""
    _do(given, lambda subjects: subjects.delete(subject, namespace))
    output.line("Subject deleted" if namespace is None else "Namespace deleted")


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@click.group(cls=Group)
def limits() -> None:
    """Work with the limits of namespaces."""


@limits.command(
    cls=Command,
    name="set",
    epilog="""\b
Examples:
  visp admin limits set alice --limit invocationsPerMinute 600 --limit concurrentInvocations 100
  visp admin limits set alice --limit allowedKinds '["nodejs:20"]' --limit storeActivations false
  visp admin limits set alice --limit retentionDays 30
  visp admin limits set alice --limit network 'api.example.com:443 *.example.org'
""",
)
@click.argument("namespace")
@click.option(
    "-l",
    "--limit",
    "given_limits",
    nargs=2,
    multiple=True,
    required=True,
    metavar="NAME VALUE",
    help="A limit, by OpenWhisk's name; VALUE is JSON, or a string.",
)
@data_flags
def set_(namespace: str, given_limits: pairs.Pairs, **given: Any) -> None:
    """Set limits of a namespace; the others stay as they are. The namespace need not exist."""
    import msgspec

    fields = {name: msgspec.json.decode(pairs.value_of(text)) for name, text in given_limits}
    was_there = _do(given, lambda subjects: subjects.set_limits(namespace, fields))
    output.line(f'Limits successfully {"updated" if was_there else "set"} for "{namespace}"')


@limits.command(cls=Command, name="get")
@click.argument("namespace")
@data_flags
def get_limits(namespace: str, **given: Any) -> None:
    """Print the limits that were set for a namespace."""
    found = _do(given, lambda subjects: subjects.limits(namespace))
    if found is None:
        output.line("No limits found, default system limits apply")
        return
    for name, value in sorted(found.items()):
        output.line(f"{name} = {value}")


@limits.command(cls=Command, name="delete")
@click.argument("namespace")
@data_flags
def delete_limits(namespace: str, **given: Any) -> None:
    """Forget what was set for a namespace: the server's own limits hold."""
    if not _do(given, lambda subjects: subjects.delete_limits(namespace)):
        raise CommandError(f"Limits not found for '{namespace}'")
    output.line("Limits deleted")
