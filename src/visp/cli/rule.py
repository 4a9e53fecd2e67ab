"""`visp rule`: create, update, enable, disable, status, get, list, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from visp.cli import listing, output
from visp.cli.command import ApiGroup
from visp.cli.exits import misuse, unable
from visp.cli.session import pass_session
from visp.client import documents
from visp.client.errors import ApiError

if TYPE_CHECKING:
    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName

STATUS_WIDTH = 20


@click.group(cls=ApiGroup)
def rule() -> None:
    """Work with rules: which action runs when which trigger fires."""


@rule.command(
    epilog="""\b
Example:
  visp rule create thumbnails upload resize
"""
)
@click.argument("name")
@click.argument("trigger")
@click.argument("action")
@pass_session
def create(session: Session, name: str, trigger: str, action: str) -> None:
    """Create a rule: when TRIGGER fires, ACTION is invoked. It is active at once."""
    entity = _parse(name)
    with unable(f"create rule '{name}'"):
        session.client.put("rules", entity, _document(trigger, action), overwrite=False)
    output.ok(f"created rule {entity.name}")


@rule.command()
@click.argument("name")
@click.argument("trigger")
@click.argument("action")
@pass_session
def update(session: Session, name: str, trigger: str, action: str) -> None:
    """Change a rule's trigger and action, or create it if it does not exist. Its status stays."""
    entity = _parse(name)
    with unable(f"update rule '{name}'"):
        session.client.put("rules", entity, _document(trigger, action), overwrite=True)
    output.ok(f"updated rule {entity.name}")


@rule.command()
@click.argument("name")
@pass_session
def enable(session: Session, name: str) -> None:
    """Make a rule active."""
    entity = _parse(name)
    with unable(f"enable rule '{name}'"):
        session.client.set_rule_status(entity, "active")
    output.ok(f"enabled rule {entity.name}")


@rule.command()
@click.argument("name")
@pass_session
def disable(session: Session, name: str) -> None:
    """Make a rule inactive: its trigger no longer invokes its action."""
    entity = _parse(name)
    with unable(f"disable rule '{name}'"):
        session.client.set_rule_status(entity, "inactive")
    output.ok(f"disabled rule {entity.name}")


@rule.command()
@click.argument("name")
@listing.json_option
@pass_session
def status(session: Session, name: str, as_json: bool) -> None:
    """Say whether a rule is active."""
    entity = _parse(name)
    with unable(f"get status of rule '{name}'"):
        raw = session.client.get("rules", entity)
    if as_json:
        output.answer(raw)
    else:
        output.ok(f"rule {entity.name} is {documents.text(documents.value(raw), 'status') or 'of unknown status'}")


@rule.command()
@click.argument("name")
@click.argument("field", required=False)
@listing.summary_option
@listing.json_option
@pass_session
def get(session: Session, name: str, field: str | None, summary: bool, as_json: bool) -> None:
    """Show a rule, or one FIELD of it."""
    entity = _parse(name)
    with unable(f"get rule '{name}'"):
        raw = session.client.get("rules", entity)
    if summary:
        output.line(_summary(documents.value(raw)))
    else:
        listing.show("rule", entity.name, raw, field=field, as_json=as_json)


@rule.command(name="list")
@click.argument("where", required=False, metavar="[/NAMESPACE]")
@listing.skip_option
@listing.limit_option
@listing.name_sort_option
@listing.json_option
@pass_session
def list_(session: Session, where: str | None, skip: int, limit: int, name_sort: bool, as_json: bool) -> None:
    """List rules, newest first, each with its status."""
    from visp.client.names import parse_namespace

    namespace = parse_namespace(where or "/_")
    with unable(f"obtain the list of rules for namespace '{namespace}'"):
        raw = session.client.list("rules", namespace, limit=limit, skip=skip)
        if as_json:
            output.answer(raw)
            return
        rows = [
            (listing.qualified(one), listing.visibility(one), _status(session, namespace, one))
            for one in documents.objects(documents.value(raw))
        ]
    output.table(
        "rules",
        ("rule", "visibility", "status"),
        listing.sort_rows(rows, by_name=name_sort),
        (listing.NAME_WIDTH, STATUS_WIDTH),
    )


@rule.command()
@click.argument("name")
@click.option("--disable", "is_disable", is_flag=True, help="Disable it first.")
@pass_session
def delete(session: Session, name: str, is_disable: bool) -> None:
    """Delete a rule."""
    entity = _parse(name)
    with unable(f"delete rule '{name}'"):
        if is_disable:
            session.client.set_rule_status(entity, "inactive")
        session.client.delete("rules", entity)
    output.ok(f"deleted rule {entity.name}")


def _document(trigger: str, action: str) -> dict[str, Any]:
    return {"trigger": f"/{_parse(trigger).id}", "action": f"/{_parse_any(action).id}"}


def _status(session: Session, namespace: str, entity: dict[str, Any]) -> str:
    """A list does not tell it: every rule is asked for. Empty when the rule has gone meanwhile."""
    from visp.entity.names import FullyQualifiedName

    name = FullyQualifiedName(namespace, None, documents.text(entity, "name"))
    try:
        return documents.text(documents.value(session.client.get("rules", name)), "status")
    except ApiError as error:
        if error.status != 404:
            raise
        return ""


def _parse(name: str) -> FullyQualifiedName:
    entity = _parse_any(name)
    if entity.package is not None:
        raise misuse(f"'{name}' is no name of a rule or a trigger: they lie in no package")
    return entity


def _parse_any(name: str) -> FullyQualifiedName:
    from visp.client.names import parse_entity

    return parse_entity(name)


def _summary(document: Any) -> str:
    def path(member: str) -> str:
        reference = document.get(member)
        return f"/{documents.text(reference, 'path')}/{documents.text(reference, 'name')}"

    return (
        f"rule {listing.qualified(document)}\n"
        f"   ({path('trigger')} invokes {path('action')}; {documents.text(document, 'status') or 'status unknown'})"
    )
