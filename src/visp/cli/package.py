"""`visp package`: create, update, bind, get, list, delete, web."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from visp.cli import listing, output, pairs
from visp.cli.command import ApiGroup
from visp.cli.exits import misuse, unable
from visp.cli.session import pass_session
from visp.client import documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName

COLLECTION = "packages"


@click.group(cls=ApiGroup)
def package() -> None:
    """Work with packages: actions under one name, and bindings to packages of others."""


def _given(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that say what a package holds."""
    for option in reversed(
        (
            pairs.param_option,
            pairs.param_file_option,
            pairs.annotation_option,
            pairs.annotation_file_option,
        )
    ):
        command = option(command)
    return command


shared_option = click.option(
    "--shared",
    type=click.Choice(["yes", "no"], case_sensitive=False),
    help="Whether others may read it, and invoke what is in it.",
)


@package.command(
    epilog="""\b
Examples:
  visp package create tools -p token secret
  visp action create tools/resize resize.py
"""
)
@click.argument("name")
@_given
@shared_option
@pass_session
def create(session: Session, /, name: str, shared: str | None, **given: Any) -> None:
    """Create a package. Its parameters hold for every action in it."""
    entity = _parse(name)
    with unable(f"create package '{name}'"):
        session.client.put(COLLECTION, entity, _document(shared, given), overwrite=False)
    output.ok(f"created package {entity.name}")


@package.command()
@click.argument("name")
@_given
@shared_option
@pass_session
def update(session: Session, /, name: str, shared: str | None, **given: Any) -> None:
    """Change a package, or create it if it does not exist. What is not given stays as it is."""
    entity = _parse(name)
    with unable(f"update package '{name}'"):
        session.client.put(COLLECTION, entity, _document(shared, given), overwrite=True)
    output.ok(f"updated package {entity.name}")


@package.command(
    epilog="""\b
Examples:
  visp package bind /whisk.system/utils mine -p separator ,
  visp action invoke mine/split -p payload a,b
"""
)
@click.argument("provider")
@click.argument("name")
@_given
@pass_session
def bind(session: Session, /, provider: str, name: str, **given: Any) -> None:
    """See the package PROVIDER under NAME, with parameters of one's own over its."""
    bound, entity = _parse(provider), _parse(name)
    with unable(f"bind package '{provider}'"):
        document = _document(None, given) | {"binding": {"namespace": bound.namespace, "name": bound.name}}
        session.client.put(COLLECTION, entity, document, overwrite=False)
    output.ok(f"created binding {entity.name}")


@package.command()
@click.argument("name")
@click.argument("field", required=False)
@listing.summary_option
@listing.json_option
@pass_session
def get(session: Session, name: str, field: str | None, summary: bool, as_json: bool) -> None:
    """Show a package and what is in it, or one FIELD of it."""
    entity = _parse(name)
    with unable(f"get package '{name}'"):
        raw = session.client.get(COLLECTION, entity)
    if summary:
        output.line(_summary(documents.value(raw)))
    else:
        listing.show("package", entity.name, raw, field=field, as_json=as_json)


@package.command(name="list")
@click.argument("where", required=False, metavar="[/NAMESPACE]")
@listing.skip_option
@listing.limit_option
@listing.name_sort_option
@listing.json_option
@pass_session
def list_(session: Session, where: str | None, skip: int, limit: int, name_sort: bool, as_json: bool) -> None:
    """List packages, newest first; of another namespace those that are shared."""
    listing.show_entities(
        session, "packages", "package", where, skip=skip, limit=limit, name_sort=name_sort, as_json=as_json
    )


@package.command()
@click.argument("name")
@click.option("-f", "--force", "is_forced", is_flag=True, help="With the actions that are in it.")
@pass_session
def delete(session: Session, name: str, is_forced: bool) -> None:
    """Delete a package or a binding."""
    entity = _parse(name)
    with unable(f"delete package '{name}'"):
        session.client.delete(COLLECTION, entity, is_forced=is_forced)
    output.ok(f"deleted package {entity.name}")


@package.command(
    epilog="""\b
Examples:
  visp package web shop ./dist
  visp package web shop
  visp package web shop --delete
"""
)
@click.argument("name")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("--delete", "is_deleted", is_flag=True, help="Delete the site.")
@listing.json_option
@pass_session
def web(session: Session, name: str, folder: str | None, is_deleted: bool, as_json: bool) -> None:
    """Serve the files of FOLDER beside the package's web actions, in place of those that were there; or list them."""
    entity = _parse(name)
    if folder is not None and is_deleted:
        raise misuse("FOLDER or --delete, not both")
    with unable(f"change the site of package '{name}'"):
        if is_deleted:
            session.client.delete_site(entity)
            output.ok(f"deleted the site of package {entity.name}")
            return
        raw = session.client.get_site(entity) if folder is None else session.client.put_site(entity, _zipped(folder))
    if as_json:
        output.line(raw.decode())
        return
    site = documents.value(raw)
    for file in documents.objects(site.get("files")):
        output.line(f"{file.get('size'):>10}  {documents.text(file, 'path')}")
    if folder is not None:
        output.ok(f"serves {session.client.credentials.apihost}{documents.text(site, 'path')}")


def _zipped(folder: str) -> bytes:
    """Every file below a folder, links followed while they stay inside."""
    import io
    import zipfile
    from pathlib import Path

    root, out = Path(folder).resolve(), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.resolve().is_relative_to(root):
                zipped.write(path, path.relative_to(root).as_posix())
    return out.getvalue()


def _document(shared: str | None, given: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for field, values in (
        ("parameters", pairs.values(given["params"], given["param_files"])),
        ("annotations", pairs.values(given["annotations"], given["annotation_files"])),
    ):
        if values:
            document[field] = [{"key": key, "value": value} for key, value in values.items()]
    if shared is not None:
        document["publish"] = shared.lower() == "yes"
    return document


def _parse(name: str) -> FullyQualifiedName:
    from visp.client.names import parse_entity

    entity = parse_entity(name)
    if entity.package is not None:
        raise misuse(f"'{name}' is no name of a package: packages lie in no other")
    return entity


def _summary(document: Any) -> str:
    """The package, and below it each of its actions and feeds."""
    name = listing.qualified(document)
    lines = [listing.described("package", name, document)]
    for kind in ("actions", "feeds"):
        lines += [
            listing.described(f" {kind.removesuffix('s')}", f"{name}/{documents.text(one, 'name')}", one)
            for one in documents.objects(document.get(kind))
        ]
    return "\n".join(lines)
