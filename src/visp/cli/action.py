"""`visp action`: create, update, invoke, get, list, delete."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import click

from visp.cli import artifact as artifacts
from visp.cli import building, listing, output, pairs, saving
from visp.cli import invoke as invoking
from visp.cli import wait as waiting
from visp.cli.command import ApiGroup
from visp.cli.exits import CommandError, misuse, unable
from visp.cli.session import pass_session
from visp.cli.terms import taken, terms_options
from visp.client import documents
from visp.client.errors import ApiError
from visp.client.terms import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName

WEB = {
    "true": {"web-export": True, "raw-http": False, "final": True},
    "yes": {"web-export": True, "raw-http": False, "final": True},
    "raw": {"web-export": True, "raw-http": True, "final": True},
    "false": {"web-export": False, "raw-http": False, "final": False},
    "no": {"web-export": False, "raw-http": False, "final": False},
}
"""`--web` → the annotations it stands for."""

WEB_SECRET = "require-whisk-auth"
SECRET_BELOW = 1 << 53
"""Random secrets stay whole numbers in every language that reads JSON."""


@click.group(cls=ApiGroup)
def action() -> None:
    """Work with actions."""


def _made_of(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that `create` and `update` share."""
    for option in reversed(
        (
            click.argument("name"),
            click.argument("artifact", required=False),
            click.option("--kind", metavar="KIND", help="Runtime, for instance python:3.11 or nodejs:default."),
            click.option("--main", metavar="NAME", help="Function (or class) that is called; main by default."),
            click.option("--docker", metavar="IMAGE", help="Container image that runs the action."),
            click.option("--native", "is_native", is_flag=True, help="ARTIFACT is an executable, or a zip of one."),
            click.option("--sequence", "is_sequence", is_flag=True, help="ARTIFACT is a list of actions: a,b,c."),
            click.option("--copy", "is_copy", is_flag=True, help="ARTIFACT is the name of an action to copy."),
            click.option("-t", "--timeout", type=int, metavar="MS", help="Time limit in milliseconds."),
            click.option("-m", "--memory", type=int, metavar="MB", help="Memory limit in MB."),
            click.option("-l", "--logsize", type=int, metavar="MB", help="Log limit in MB."),
            click.option("-c", "--concurrency", type=int, metavar="N", help="Activations at once in one container."),
            pairs.param_option,
            pairs.param_file_option,
            pairs.annotation_option,
            pairs.annotation_file_option,
            click.option(
                "--web", type=click.Choice(list(WEB), case_sensitive=False), help="Make it a web action, raw or not."
            ),
            click.option(
                "--web-secure", metavar="SECRET", help="Ask web callers for SECRET; true: make one, false: no longer."
            ),
            click.option(
                "--no-build-wait",
                "is_build_left",
                is_flag=True,
                help="Do not wait until its code is compiled, or what it depends on is there.",
            ),
        )
    ):
        command = option(command)
    return command


@action.command(
    epilog="""\b
Examples:
  visp action create hello hello.py -p name World
  visp action create site folder/ --web true
  visp action create resize app.zip --kind nodejs:20 -m 512 -t 120000
  visp action create both --sequence first,/whisk.system/utils/echo
"""
)
@_made_of
@pass_session
def create(session: Session, /, name: str, **given: Any) -> None:
    """Create an action from ARTIFACT: a file, a .zip archive or a folder.

    The kind follows from the file's extension, or from what lies in the folder (package.json or index.js: nodejs,
    __main__.py: python); archives need --kind, --docker or --native.
    """
    entity = _parse(name)
    with unable(f"create action '{name}'"):
        document = _document(session, given)
        if "exec" not in document:
            raise misuse("an action needs an ARTIFACT: a file, a .zip archive or a folder")
        _put(session, entity, document, overwrite=False, is_awaited=not given["is_build_left"])
    output.ok(f"created action {_short(entity)}")


@action.command(
    epilog="""\b
Examples:
  visp action update hello hello.py
  visp action update hello -m 128 -p name Earth
  visp action update hello --del-annotation description
"""
)
@_made_of
@click.option("--del-annotation", "deleted", multiple=True, metavar="KEY", help="Take this annotation away.")
@pass_session
def update(session: Session, /, name: str, deleted: tuple[str, ...], **given: Any) -> None:
    """Change an action, or create it if it does not exist.

    What is not given stays as it is. Annotations are merged by their keys; parameters are replaced as a whole.
    """
    entity = _parse(name)
    with unable(f"update action '{name}'"):
        document = _document(session, given, existing=entity)
        gone = [*deleted, *([WEB_SECRET] if _is_off(given["web_secure"]) else [])]
        if gone:
            document["delAnnotations"] = gone
        _put(session, entity, document, overwrite=True, is_awaited=not given["is_build_left"])
    output.ok(f"updated action {_short(entity)}")


@action.command(
    epilog="""\b
Examples:
  visp action invoke hello -r -p name World
  visp action invoke hello -b
  visp action invoke /whisk.system/utils/echo -P arguments.json
  visp action invoke remind --delay 2h -p who me
"""
)
@click.argument("name")
@click.option("-b", "--blocking", "is_blocking", is_flag=True, help="Wait for the activation and print its record.")
@click.option("-r", "--result", "is_result", is_flag=True, help="Wait for the activation and print its result alone.")
@click.option("--stream", "is_stream", is_flag=True, help="Print the result as it comes, part by part.")
@click.option("--wait", "is_wait", is_flag=True, help="Do not block: print the id to stderr, then wait for the record.")
@waiting.timeout_option
@terms_options
@pairs.param_option
@pairs.param_file_option
@listing.json_option
@pass_session
def invoke(
    session: Session,
    name: str,
    is_blocking: bool,
    is_result: bool,
    is_stream: bool,
    is_wait: bool,
    within_s: float,
    delay: str | None,
    at: str | None,
    idempotency_key: str | None,
    params: pairs.Pairs,
    param_files: tuple[str, ...],
    as_json: bool,
) -> None:
    """Invoke an action.

    Without -b, -r or --wait the command does not wait. When the action fails, its logs and its error go to stderr, and
    the exit status is not 0: 246 for a failure of the action, 244 for one of the platform, 202 when it still runs.

    --wait (with -r for the result alone) waits as `visp wait` does, however long, also over a restart of the server.
    --stream prints what the action yields as it yields it; of one with a single result, the result at the end.
    --delay and --at: it is accepted now and begun then; `visp delayed` lists and cancels what waits.
    """
    entity = _parse(name)
    terms = taken(delay, at, idempotency_key, is_blocking=is_blocking or (is_result and not is_wait))
    arguments = pairs.values(params, param_files)
    if is_stream:
        if is_blocking or is_result or is_wait or as_json or terms != AT_ONCE:
            raise misuse("--stream stands alone: without --blocking, --result, --wait, --json, --delay, --at and a key")
        with unable(f"invoke action '{name}'"):
            invoking.stream(session, entity, arguments)
        return
    if is_wait:
        if is_blocking:
            raise misuse("--wait and --blocking exclude each other")
        with unable(f"invoke action '{name}'"):
            id = session.client.invoke(entity, arguments, terms=terms).activation_id
        output.ok(f"invoked /{entity.id} with id {id}", is_error=True)
        waiting.show(session, id, within_s, is_result=is_result, as_json=as_json)
        return
    with unable(f"invoke action '{name}'"):
        invoking.run(
            session, entity, arguments, is_blocking=is_blocking, is_result=is_result, as_json=as_json, terms=terms
        )


@action.command(
    epilog="""\b
Examples:
  visp action get hello
  visp action get hello limits
  visp action get hello --save-as copy.py
"""
)
@click.argument("name")
@click.argument("field", required=False)
@listing.summary_option
@click.option("-r", "--url", "is_url", is_flag=True, help="Print the address at which it is invoked.")
@click.option("--save", "is_save", is_flag=True, help="Write its code to a file named after it.")
@click.option("--save-as", metavar="FILE", help="Write its code to FILE.")
@listing.json_option
@pass_session
def get(
    session: Session,
    name: str,
    field: str | None,
    summary: bool,
    is_url: bool,
    is_save: bool,
    save_as: str | None,
    as_json: bool,
) -> None:
    """Show an action, or one FIELD of it."""
    entity = _parse(name)
    with unable(f"get action '{name}'"):
        raw = session.client.get("actions", entity, code=bool(is_save or save_as))
        if is_save or save_as:
            output.ok(f"saved action code to {saving.save(raw, entity.name, save_as)}")
            return
    document = documents.value(raw)
    if is_url:
        output.ok(f"got action {_short(entity)}")
        output.line(_address(session.credentials().base, document))
    elif summary:
        output.line(_summary(document))
    else:
        listing.show("action", _short(entity), raw, field=field, as_json=as_json)


@action.command(name="list")
@click.argument("where", required=False, metavar="[/NAMESPACE | PACKAGE]")
@listing.skip_option
@listing.limit_option
@listing.name_sort_option
@listing.json_option
@pass_session
def list_(session: Session, where: str | None, skip: int, limit: int, name_sort: bool, as_json: bool) -> None:
    """List actions, newest first."""
    from visp.client.names import parse_collection

    namespace, package = parse_collection(where or "/_")
    with unable(f"obtain the list of actions for namespace '{namespace}'"):
        raw = session.client.list("actions", namespace, package, limit=limit, skip=skip)
    if as_json:
        output.answer(raw)
        return
    entities = documents.objects(documents.value(raw))
    rows = [(listing.qualified(one), listing.visibility(one), _kind(one)) for one in entities]
    output.table(
        "actions",
        ("action", "visibility", "kind"),
        listing.sort_rows(rows, by_name=name_sort),
        (listing.NAME_WIDTH,),
    )


@action.command()
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete an action."""
    entity = _parse(name)
    with unable(f"delete action '{name}'"):
        session.client.delete("actions", entity)
    output.ok(f"deleted action {_short(entity)}")


# ── the body of a PUT ───────────────────────────────────────────────────────────────────────────────────────────────


def _document(session: Session, given: dict[str, Any], existing: FullyQualifiedName | None = None) -> dict[str, Any]:
    """What `create` and `update` send: only what was given."""
    parameters = pairs.values(given["params"], given["param_files"])
    annotations: dict[str, Any] = dict(pairs.values(given["annotations"], given["annotation_files"]))
    annotations |= WEB[given["web"].lower()] if given["web"] else {}
    annotations |= _web_secret(session, given, existing)
    document: dict[str, Any] = {}
    if given["is_copy"]:
        document = _copied(session, given["artifact"])
    elif (executable := _executable(given)) is not None:
        document["exec"] = executable
    if parameters:
        document["parameters"] = _merged(document.get("parameters"), parameters)
    if annotations:
        document["annotations"] = _merged(document.get("annotations"), annotations)
    limits = {
        "timeout": given["timeout"],
        "memory": given["memory"],
        "logs": given["logsize"],
        "concurrency": given["concurrency"],
    }
    if set_limits := {key: value for key, value in limits.items() if value is not None}:
        document["limits"] = set_limits
    return document


def _executable(given: dict[str, Any]) -> dict[str, Any] | None:
    made = artifacts.Made(kind=given["kind"], main=given["main"], docker=given["docker"], is_native=given["is_native"])
    artifact = given["artifact"]
    if given["is_sequence"]:
        if artifact is None or made != artifacts.Made():
            raise misuse("--sequence takes a list of actions as ARTIFACT, and no --kind, --main, --docker or --native")
        names = [part.strip() for part in artifact.split(",")]
        return {"kind": "sequence", "components": [f"/{_parse(part).id}" for part in names if part]}
    if artifact is None and made == artifacts.Made():
        return None
    return artifacts.executable(artifact, made)


def _copied(session: Session, source: str | None) -> dict[str, Any]:
    if source is None:
        raise misuse("--copy takes the name of an action as ARTIFACT")
    members = documents.value(session.client.get("actions", _parse(source), code=True))
    if not isinstance(members, dict):
        raise CommandError(f"action '{source}' cannot be read")
    return {key: members[key] for key in ("exec", "parameters", "annotations") if key in members}


def _merged(entries: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of a copied action, those that were given in their place."""
    return [entry for entry in documents.objects(entries) if entry.get("key") not in values] + pairs.listed(values)


def _web_secret(session: Session, given: dict[str, Any], existing: FullyQualifiedName | None) -> dict[str, Any]:
    secret = given["web_secure"]
    if secret is None or _is_off(secret):
        return {}
    is_web = bool(given["web"]) and WEB[given["web"].lower()]["web-export"]
    if not given["web"] and existing is not None:
        try:
            document = documents.value(session.client.get("actions", existing, code=False))
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            is_web = documents.annotation(document, "web-export") is True
    if not is_web:
        raise misuse("--web-secure is for web actions: give --web true or --web raw with it")
    return {WEB_SECRET: secrets.randbelow(SECRET_BELOW) if secret.lower() == "true" else secret}


def _is_off(secret: str | None) -> bool:
    return secret is not None and secret.lower() == "false"


def _put(
    session: Session, entity: FullyQualifiedName, document: dict[str, Any], *, overwrite: bool, is_awaited: bool
) -> None:
    if is_awaited and "code" in document.get("exec", {}):
        with building.shown() as hear:
            session.client.put_built(entity, document, overwrite=overwrite, hear=hear)
    else:
        session.client.put("actions", entity, document, overwrite=overwrite)
    image = document.get("exec", {}).get("image")
    if isinstance(image, str) and artifacts.needs_engine(image):
        output.warning(
            f"this server has no container engine: an invocation answers \"Failed to pull container image '{image}'.\""
        )


# ── showing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse(name: str) -> FullyQualifiedName:
    from visp.client.names import parse_entity

    return parse_entity(name)


def _short(entity: FullyQualifiedName) -> str:
    return entity.name if entity.package is None else f"{entity.package}/{entity.name}"


def _kind(document: Any) -> str:
    kind = documents.annotation(document, "exec")
    return kind if isinstance(kind, str) else "unknown"


def _address(base: str, document: Any) -> str:
    from visp.client.names import escape

    path, name = documents.text(document, "namespace"), documents.text(document, "name")
    namespace, _, package = path.partition("/")
    if documents.annotation(document, "web-export") is True:
        return f"{base}/web/{escape(namespace)}/{escape(package or 'default')}/{escape(name)}"
    inner = f"{escape(package)}/{escape(name)}" if package else escape(name)
    return f"{base}/namespaces/{escape(namespace)}/actions/{inner}"


def _summary(document: Any) -> str:
    return listing.described("action", listing.qualified(document), document)
