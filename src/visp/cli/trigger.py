"""`visp trigger`: create, update, get, list, delete, fire, replay; with the feed behind a trigger, if it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from visp.cli import listing, output, pairs
from visp.cli.command import ApiGroup
from visp.cli.exits import misuse, unable
from visp.cli.session import pass_session
from visp.cli.terms import moment, taken, terms_options
from visp.client import documents
from visp.client.errors import ApiError, ClientError
from visp.client.terms import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName


@click.group(cls=ApiGroup)
def trigger() -> None:
    """Work with triggers."""


def _made_of(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that `create` and `update` share."""
    for option in reversed(
        (
            click.argument("name"),
            pairs.param_option,
            pairs.param_file_option,
            click.option(
                "-F",
                "--feed-param",
                "feed_params",
                nargs=2,
                multiple=True,
                metavar=pairs.KEY_VALUE,
                help="Parameter for the feed alone.",
            ),
            click.option(
                "-T",
                "--trigger-param",
                "trigger_params",
                nargs=2,
                multiple=True,
                metavar=pairs.KEY_VALUE,
                help="Parameter for the trigger alone.",
            ),
            pairs.annotation_option,
            pairs.annotation_file_option,
        )
    ):
        command = option(command)
    return command


@trigger.command(
    epilog="""\b
Examples:
  visp trigger create upload -p bucket photos
  visp trigger create every-minute --feed /whisk.system/alarms/alarm -p cron "* * * * *"
"""
)
@_made_of
@click.option("-f", "--feed", metavar="ACTION", help="Action that feeds it; -p then goes to the feed.")
@pass_session
def create(session: Session, /, name: str, feed: str | None, **given: Any) -> None:
    """Create a trigger, and tell the feed behind it, if it has one."""
    entity = _parse(name)
    with unable(f"create trigger '{name}'"):
        _create(session, entity, feed, given)
    output.ok(f"created trigger {entity.name}")


@trigger.command()
@_made_of
@pass_session
def update(session: Session, /, name: str, **given: Any) -> None:
    """Change a trigger, or create it if it does not exist. Parameters of a fed trigger go to its feed."""
    entity = _parse(name)
    with unable(f"update trigger '{name}'"):
        try:
            feed = _feed_of(session, entity)
        except ApiError as error:
            if error.status != 404:
                raise
            _create(session, entity, None, given)
        else:
            _update(session, entity, feed, given)
    output.ok(f"updated trigger {entity.name}")


@trigger.command()
@click.argument("name")
@click.argument("field", required=False)
@listing.summary_option
@listing.json_option
@pass_session
def get(session: Session, name: str, field: str | None, summary: bool, as_json: bool) -> None:
    """Show a trigger, or one FIELD of it. A fed trigger shows what its feed knows about it."""
    from visp.cli import feeds

    entity = _parse(name)
    with unable(f"get trigger '{name}'"):
        raw = session.client.get("triggers", entity)
    feed = feeds.feed_of(raw)
    if summary:
        output.line(_summary(documents.value(raw)))
    elif feed is None or field is not None:
        listing.show("trigger", entity.name, raw, field=field, as_json=as_json)
    else:
        try:
            feeds.tell(session, feed, "READ", entity, {}, as_json=as_json)
        except ClientError as error:
            # As with `wsk`, a feed that cannot be read is told and does not fail the command: the trigger is there.
            output.error(str(error))


@trigger.command(name="list")
@click.argument("where", required=False, metavar="[/NAMESPACE]")
@listing.skip_option
@listing.limit_option
@listing.name_sort_option
@listing.json_option
@pass_session
def list_(session: Session, where: str | None, skip: int, limit: int, name_sort: bool, as_json: bool) -> None:
    """List triggers, newest first."""
    listing.show_entities(
        session, "triggers", "trigger", where, skip=skip, limit=limit, name_sort=name_sort, as_json=as_json
    )


@trigger.command()
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete a trigger, and tell the feed behind it."""
    entity = _parse(name)
    with unable(f"delete trigger '{name}'"):
        _delete(session, entity)
    output.ok(f"deleted trigger {entity.name}")


@trigger.command(
    epilog="""\b
Examples:
  visp trigger fire upload -p key photo.jpg
  visp trigger fire upload -P event.json
  visp trigger fire upload --file events.ndjson
  visp trigger fire readings --sample mqtt/feed
"""
)
@click.argument("name")
@terms_options
@pairs.param_option
@pairs.param_file_option
@click.option("--file", metavar="FILE", help="Fire once for each line of FILE, a JSON object; - for stdin.")
@click.option(
    "--keyed", "is_keyed", is_flag=True, help='Lines are {"key", "value"}: of a batch each key is fired once.'
)
@click.option("--again", "is_again", is_flag=True, help="Fire what was fired of the same FILE before, too.")
@click.option("--sample", metavar="FEED", help="Fire with a sample event of FEED, such as mqtt/feed.")
@listing.json_option
@pass_session
def fire(
    session: Session,
    name: str,
    delay: str | None,
    at: str | None,
    idempotency_key: str | None,
    params: pairs.Pairs,
    param_files: tuple[str, ...],
    file: str | None,
    is_keyed: bool,
    is_again: bool,
    sample: str | None,
    as_json: bool,
) -> None:
    """Fire a trigger: each active rule on it invokes its action.

    --delay and --at: it is accepted now and fired then; `visp delayed` lists and cancels what waits. --file: lines are
    sent in batches; a command that was cut off and is given again goes on behind the last one.
    """
    entity = _parse(name)
    terms = taken(delay, at, idempotency_key)
    if file is None and (is_keyed or is_again):
        raise misuse("--keyed and --again are for lines of a --file")
    if file is not None:
        if params or param_files or sample is not None or terms != AT_ONCE:
            raise misuse("--file is for itself: its lines are the events, and begin at once")
        from visp.cli import lines

        with unable(f"fire trigger '{name}'"):
            lines.fire_file(session, entity, file, is_keyed=is_keyed, is_again=is_again, as_json=as_json)
        return
    given = pairs.values(params, param_files)
    if sample is not None:
        from visp.cli import samples

        given = {key: msgspec.Raw(value) for key, value in documents.fields(samples.sample(sample)).items()} | given
    with unable(f"fire trigger '{name}'"):
        fired = session.client.fire(entity, given, terms)
    if as_json:
        output.answer(fired.body or b"{}")
    elif fired.activation_id:
        output.ok(f"triggered /{entity.id} with id {fired.activation_id}")
    else:
        output.ok(f"triggered /{entity.id}; no active rule is attached to it, so nothing was started")


@trigger.command(
    epilog="""\b
Examples:
  visp trigger replay upload --since 2030-01-31T12:00Z --upto 2030-01-31T13:00Z --dry-run
  visp trigger replay upload --since 1896091200000 --upto 1896094800000
"""
)
@click.argument("name")
@click.option("--since", required=True, metavar="TIME", help="Not fired before: 2030-01-31T12:00:00Z, ms since 1970.")
@click.option("--upto", required=True, metavar="TIME", help="Not fired after; it must have passed.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N, the oldest.")
@click.option("--dry-run", "is_trial", is_flag=True, help="Print what would be fired, and fire nothing.")
@listing.json_option
@pass_session
def replay(
    session: Session, name: str, since: str, upto: str, limit: int | None, is_trial: bool, as_json: bool
) -> None:
    """Fire again what a trigger was fired with, oldest first, by its records.

    A replay that was cut off goes on when it is given again with the same times: nothing of it is fired twice.
    """
    from visp.cli import replaying
    from visp.clock import SystemClock

    entity = _parse(name)
    since_ms, upto_ms = moment(since, "--since"), moment(upto, "--upto")
    with unable(f"replay trigger '{name}'"):
        replaying.replay(
            session,
            entity,
            since_ms,
            upto_ms,
            now_ms=SystemClock().now_ms(),
            limit=limit,
            is_trial=is_trial,
            as_json=as_json,
        )


# ── a trigger and its feed ──────────────────────────────────────────────────────────────────────────────────────────


def _create(session: Session, entity: FullyQualifiedName, feed: str | None, given: dict[str, Any]) -> None:
    """Writes the trigger, then tells its feed; a feed that fails takes the trigger with it."""
    for_feed, for_trigger = _shares(given, is_fed=feed is not None)
    if given["feed_params"] and feed is None:
        raise misuse("-F is for triggers with a feed: give --feed with it")
    annotations: dict[str, Any] = dict(pairs.values(given["annotations"], given["annotation_files"]))
    if feed is None:
        session.client.put("triggers", entity, _document(for_trigger, annotations), overwrite=False)
        return
    from visp.cli import feeds

    annotations["feed"] = f"/{_parse_any(feed).id}"
    session.client.put("triggers", entity, _document(for_trigger, annotations), overwrite=False)
    try:
        feeds.tell(session, feed, "CREATE", entity, for_feed, as_json=False)
    except ClientError:
        _delete(session, entity)
        raise


def _update(session: Session, entity: FullyQualifiedName, feed: str | None, given: dict[str, Any]) -> None:
    for_feed, for_trigger = _shares(given, is_fed=feed is not None)
    if feed is None and given["feed_params"]:
        raise misuse(f"-F is for triggers with a feed, and '{entity.name}' has none")
    annotations: dict[str, Any] = dict(pairs.values(given["annotations"], given["annotation_files"]))
    if feed is None or given["trigger_params"] or annotations:
        if feed is not None and annotations:
            # A trigger's annotations are replaced as a whole, and the one that names its feed must not get lost.
            annotations = {"feed": feed} | annotations
        session.client.put("triggers", entity, _document(for_trigger, annotations), overwrite=True)
    if feed is not None and for_feed:
        from visp.cli import feeds

        feeds.tell(session, feed, "UPDATE", entity, for_feed, as_json=False)


def _delete(session: Session, entity: FullyQualifiedName) -> None:
    """Tells the feed first; that it fails is said, and does not keep the trigger."""
    from visp.cli import feeds

    feed = _feed_of(session, entity)
    if feed is not None:
        try:
            feeds.tell(session, feed, "DELETE", entity, {}, as_json=False)
        except ClientError as error:
            output.error(str(error))
    session.client.delete("triggers", entity)


def _feed_of(session: Session, entity: FullyQualifiedName) -> str | None:
    from visp.cli import feeds

    return feeds.feed_of(session.client.get("triggers", entity))


def _shares(given: dict[str, Any], *, is_fed: bool) -> tuple[pairs.Values, pairs.Values]:
    """The parameters of the feed, and those of the trigger: `-p` goes to the feed where there is one."""
    common = pairs.values(given["params"], given["param_files"])
    for_feed, for_trigger = pairs.values(given["feed_params"]), pairs.values(given["trigger_params"])
    if common and (for_feed or for_trigger):
        raise misuse("-p and -P cannot be mixed with -F and -T")
    if not common:
        return for_feed, for_trigger
    return (common, {}) if is_fed else ({}, common)


def _document(parameters: pairs.Values, annotations: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if parameters:
        document["parameters"] = pairs.listed(parameters)
    if annotations:
        document["annotations"] = pairs.listed(annotations)
    return document


def _parse(name: str) -> FullyQualifiedName:
    entity = _parse_any(name)
    if entity.package is not None:
        raise misuse(f"'{name}' is no name of a trigger: triggers lie in no package")
    return entity


def _parse_any(name: str) -> FullyQualifiedName:
    from visp.client.names import parse_entity

    return parse_entity(name)


def _summary(document: Any) -> str:
    description = documents.annotation(document, "description")
    keys = [documents.text(entry, "key") for entry in documents.objects(document.get("parameters"))]
    title = f"trigger {listing.qualified(document)}"
    title += f": {description}" if isinstance(description, str) else ""
    return f"{title}\n   (parameters: {', '.join(f'*{key}' for key in keys) or 'none defined'})"
