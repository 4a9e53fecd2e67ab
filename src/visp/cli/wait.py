"""`visp wait`: waits for an activation and shows what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from visp.cli import listing, output
from visp.cli.command import ApiCommand
from visp.cli.exits import CommandError, misuse, unable
from visp.cli.invoke import lines_of
from visp.cli.session import pass_session
from visp.client import documents

if TYPE_CHECKING:
    from visp.cli.session import Session
    from visp.client.errors import ClientError

DEFAULT_S = 60.0

timeout_option = click.option(
    "--timeout",
    "within_s",
    type=click.FloatRange(min=0),
    default=DEFAULT_S,
    metavar="SECONDS",
    help="Give up after SECONDS, 60 by default.",
)


@click.command(
    cls=ApiCommand,
    epilog="""\b
Examples:
  visp wait 44794bd6aab74415b4e42a308d880e5b
  visp wait 44794bd6aab74415b4e42a308d880e5b -r --timeout 600
""",
)
@click.argument("id")
@timeout_option
@click.option("-r", "--result", "is_result", is_flag=True, help="Print the result alone.")
@click.option("-g", "--logs", "is_logs", is_flag=True, help="Print the log lines alone.")
@listing.json_option
@pass_session
def wait(session: Session, id: str, within_s: float, is_result: bool, is_logs: bool, as_json: bool) -> None:
    """Wait for an activation to end, and print its record."""
    if is_result and is_logs:
        raise misuse("--result and --logs exclude each other")
    show(session, id, within_s, is_result=is_result, is_logs=is_logs, as_json=as_json)


def show(
    session: Session, id: str, within_s: float, *, is_result: bool = False, is_logs: bool = False, as_json: bool = False
) -> None:
    """Waits for the activation and prints. A failed one raises after it was printed; the exit status is 1."""
    from visp.client.waiting import wait_for

    with unable("wait for activation"):
        raw = wait_for(session.client, id, within_s, _tell_trouble)
    record = documents.value(raw)
    response = documents.fields(raw).get("response", b"{}")
    if is_logs:
        for line in lines_of(record):
            output.line(line)
    elif is_result:
        result = documents.fields(response).get("result", b"{}")
        (output.answer if as_json else output.document)(result)
    else:
        (output.answer if as_json else output.document)(raw)
    outcome = documents.value(response)
    if isinstance(outcome, dict) and outcome.get("success") is False:
        raise CommandError(f"activation {id} has failed: {documents.text(outcome, 'status') or 'application error'}")


def _tell_trouble(error: ClientError) -> None:
    output.warning(f"{error}; trying again")
