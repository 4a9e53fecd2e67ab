"""`visp activation`: list, get, logs, result, poll."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from visp.cli import listing, output
from visp.cli.command import ApiGroup
from visp.cli.exits import CommandError, misuse, unable
from visp.cli.invoke import lines_of
from visp.cli.session import pass_session
from visp.client import documents

if TYPE_CHECKING:
    from visp.cli.session import Session

STATUSES = ("success", "application error", "developer error", "internal error")
"""`statusCode` of a record in a list → how `wsk` names it."""

STAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d+Z\s+(?:stdout|stderr):\s?")
"""What stands before the text of a log line. Source: OpenWhisk's log format, as `wsk` strips it."""

last_option = click.option("-l", "--last", "is_last", is_flag=True, help="Take the newest activation; give no ID.")


@click.group(cls=ApiGroup)
def activation() -> None:
    """Work with activations: what ran, how it ended, what it logged."""


@activation.command(
    name="list",
    epilog="""\b
Examples:
  visp activation list
  visp activation list hello -l 5
  visp activation list --since 1767225600000 --json
""",
)
@click.argument("where", required=False, metavar="[/NAMESPACE | ACTION | TRIGGER]")
@listing.skip_option
@listing.limit_option
@click.option("-f", "--full", "is_full", is_flag=True, help="Print whole records, as JSON.")
@click.option("--since", type=int, metavar="MS", help="Not started before; milliseconds since 1970.")
@click.option("--upto", type=int, metavar="MS", help="Not started after; milliseconds since 1970.")
@listing.json_option
@pass_session
def list_(
    session: Session,
    where: str | None,
    skip: int,
    limit: int,
    is_full: bool,
    since: int | None,
    upto: int | None,
    as_json: bool,
) -> None:
    """List activations, newest first: of a namespace, or of one action or trigger."""
    namespace, name = _where(where)
    with unable(f"obtain the list of activations for namespace '{namespace}'"):
        raw = session.client.activations(
            namespace, name=name, limit=limit, skip=skip, since_ms=since, upto_ms=upto, is_full=is_full
        )
    if as_json or is_full:
        output.answer(raw)
        return
    columns = ("Datetime", "Activation ID", "Kind", "Start", "Duration", "Status", "Entity")
    widths = (19, 32, 12, 5, 10, 17)
    heading = " ".join([*(column.ljust(width) for column, width in zip(columns, widths, strict=False)), columns[-1]])
    rows = [_row(record) for record in documents.objects(documents.value(raw))]
    output.table(heading, columns, rows, widths)


@activation.command(
    epilog="""\b
Examples:
  visp activation get 44794bd6aab74415b4e42a308d880e5b
  visp activation get --last response
  visp activation get --last --logs
  visp activation get --last --timeline
"""
)
@click.argument("id", required=False)
@click.argument("field", required=False)
@last_option
@click.option("-s", "--summary", "is_summary", is_flag=True, help="Print the outcome and the result alone.")
@click.option("-g", "--logs", "is_logs", is_flag=True, help="Print the log lines alone, without time and stream.")
@click.option("-t", "--timeline", "is_timeline", is_flag=True, help="Draw where its time went, and why it began cold.")
@listing.json_option
@pass_session
def get(
    session: Session,
    id: str | None,
    field: str | None,
    is_last: bool,
    is_summary: bool,
    is_logs: bool,
    is_timeline: bool,
    as_json: bool,
) -> None:
    """Show the record of an activation, or one FIELD of it."""
    if is_last and field is None:
        id, field = None, id
    with unable("get activation"):
        chosen = _chosen(session, id, is_last=is_last)
        raw = session.client.activation(chosen, has_phases=is_timeline)
    record = documents.value(raw)
    if is_timeline and not as_json:
        from visp.cli import timeline

        with unable("get activation"):
            timeline.show(record, lambda id: documents.value(session.client.activation(id)))
    elif is_logs:
        for line in lines_of(record):
            output.line(STAMP.sub("", line, count=1))
    elif is_summary:
        _summarise(record, raw)
    else:
        listing.show("activation", chosen, raw, field=field, as_json=as_json)


@activation.command(
    epilog="""\b
Examples:
  visp activation logs --last
  visp activation logs 44794bd6aab74415b4e42a308d880e5b --strip
"""
)
@click.argument("id", required=False)
@last_option
@click.option("-r", "--strip", "is_strip", is_flag=True, help="Print the text alone, without time and stream.")
@listing.json_option
@pass_session
def logs(session: Session, id: str | None, is_last: bool, is_strip: bool, as_json: bool) -> None:
    """Print what an activation logged."""
    with unable("get logs for activation"):
        raw = session.client.activation_logs(_chosen(session, id, is_last=is_last))
    if as_json:
        output.answer(raw)
        return
    for line in lines_of(documents.value(raw)):
        output.line(STAMP.sub("", line, count=1) if is_strip else line)


@activation.command()
@click.argument("id", required=False)
@last_option
@listing.json_option
@pass_session
def result(session: Session, id: str | None, is_last: bool, as_json: bool) -> None:
    """Print the result of an activation; with --json its outcome too."""
    with unable("get result for activation"):
        raw = session.client.activation_result(_chosen(session, id, is_last=is_last))
    if as_json:
        output.answer(raw)
    else:
        output.document(documents.fields(raw).get("result", b"{}"))


@activation.command(
    epilog="""\b
Examples:
  visp activation poll
  visp activation poll hello --since-minutes 5 --exit 60
"""
)
@click.argument("where", required=False, metavar="[/NAMESPACE | ACTION | TRIGGER]")
@click.option("-e", "--exit", "exit_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop after SECONDS.")
@click.option("--since-seconds", type=click.IntRange(min=0), default=0, metavar="N", help="Begin N seconds ago.")
@click.option("--since-minutes", type=click.IntRange(min=0), default=0, metavar="N", help="Begin N minutes ago.")
@click.option("--since-hours", type=click.IntRange(min=0), default=0, metavar="N", help="Begin N hours ago.")
@click.option("--since-days", type=click.IntRange(min=0), default=0, metavar="N", help="Begin N days ago.")
@pass_session
def poll(
    session: Session,
    where: str | None,
    exit_s: float | None,
    since_seconds: int,
    since_minutes: int,
    since_hours: int,
    since_days: int,
) -> None:
    """Print activations and their logs as they end, until Ctrl-C."""
    import time

    from visp.cli.polling import Poll
    from visp.clock import SystemClock

    namespace, name = _where(where)
    clock = SystemClock()
    ago_s = since_seconds + 60 * (since_minutes + 60 * (since_hours + 24 * since_days))
    with unable(f"obtain the list of activations for namespace '{namespace}'"):
        since_ms = clock.now_ms() - 1000 * ago_s if ago_s else None
        polled = Poll(session.client, namespace, name, since_ms)
        output.note("Enter Ctrl-c to exit.")
        output.line("Polling for activation logs")
        ends_s = None if exit_s is None else clock.monotonic_s() + exit_s
        while True:
            for record in polled.fresh():
                output.line(
                    f"\nActivation: '{documents.text(record, 'name')}' ({documents.text(record, 'activationId')})"
                )
                for line in lines_of(record):
                    output.line(line)
            left_s = polled.EVERY_S if ends_s is None else min(polled.EVERY_S, ends_s - clock.monotonic_s())
            if left_s <= 0:
                break
            time.sleep(left_s)


# ── reading what was typed, and what was answered ───────────────────────────────────────────────────────────────────


def _where(text: str | None) -> tuple[str, str | None]:
    """Namespace and name filter of a list: `/ns`, `/ns/name`, `/ns/pkg/name`, `name` or `pkg/name`."""
    from visp.client.names import parse_entity, parse_namespace
    from visp.entity.names import CALLERS_NAMESPACE

    if text is None:
        return CALLERS_NAMESPACE, None
    if text.startswith("/") and text.strip("/").count("/") == 0:
        return parse_namespace(text), None
    entity = parse_entity(text)
    return entity.namespace, entity.name if entity.package is None else f"{entity.package}/{entity.name}"


def _chosen(session: Session, id: str | None, *, is_last: bool) -> str:
    if not is_last:
        if id is None:
            raise misuse("an activation ID is required, or --last")
        return id
    if id is not None:
        raise misuse("--last takes the newest activation: give no ID with it")
    newest = documents.objects(documents.value(session.client.activations(limit=1)))
    if not newest:
        raise CommandError("Activation list does not contain any activations.")
    return documents.text(newest[0], "activationId")


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    """The columns of `wsk activation list`."""
    kind = documents.annotation(record, "kind")
    is_cold = documents.annotation(record, "initTime") is not None
    duration, code = documents.whole(record, "duration"), documents.whole(record, "statusCode")
    entity = f"{documents.text(record, 'namespace')}/{documents.text(record, 'name')}"
    return (
        _time(documents.whole(record, "start")).replace("T", " ").removesuffix("Z"),
        documents.text(record, "activationId"),
        kind if isinstance(kind, str) else "unknown",
        "cold" if is_cold else "warm",
        "" if duration is None else f"{duration}ms",
        STATUSES[code] if code is not None and 0 <= code < len(STATUSES) else "success" if code is None else "unknown",
        f"{entity}:{documents.text(record, 'version')}",
    )


def _summarise(record: Any, raw: bytes) -> None:
    path = f"/{documents.text(record, 'namespace')}/{documents.text(record, 'name')}"
    response = documents.fields(raw).get("response", b"")
    status = documents.text(documents.value(response), "status") or "unknown"
    output.line(f"activation result for '{path}' ({status} at {_time(documents.whole(record, 'start'))})")
    output.document(documents.fields(response).get("result", b"{}"))


def _time(start_ms: int | None) -> str:
    """A start as UTC time in seconds; empty when there is none that a calendar knows."""
    try:
        return datetime.fromtimestamp((start_ms or 0) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if start_ms else ""
    except (OverflowError, ValueError, OSError):
        return ""
