"""`visp api`: create, get, list, delete, which send what `wsk api` does; and the clients of APIs that ask for keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visp.cli import listing, output
from visp.cli.command import ApiGroup
from visp.cli.exits import CommandError, misuse, unable
from visp.cli.session import pass_session
from visp.client import documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from visp.cli.session import Session

VERBS = ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS")
RESPONSES = ("json", "http", "html", "text", "svg")
EXPORTED, SECRET = "web-export", "require-whisk-auth"
DOMAINS = "x-visp-domains"
ROWS = ("action", "verb", "API name", "URL")


@click.group(cls=ApiGroup)
def api() -> None:
    """Work with APIs: web actions at paths and verbs of one's own, with limits, keys and a description."""


@api.command(
    epilog="""\b
Examples:
  visp api create /club /books get books
  visp api create /club /books/{isbn} get book --response-type http
  visp api create /books get books
  visp api create -c club.json
"""
)
@click.argument("words", nargs=-1, metavar="[BASE_PATH] PATH VERB ACTION")
@click.option("-n", "--apiname", help="What the API is called, if it is new; else its base path.")
@click.option(
    "-c", "--config-file", type=click.Path(exists=True, dir_okay=False), help="A description of the whole API instead."
)
@click.option(
    "--response-type",
    type=click.Choice(RESPONSES, case_sensitive=False),
    default="json",
    help="What the web action's answer is taken for, json by default.",
)
@pass_session
def create(
    session: Session, words: tuple[str, ...], apiname: str | None, config_file: str | None, response_type: str
) -> None:
    """Create an API, or an operation of one: VERB on PATH below BASE_PATH runs the web action ACTION."""
    if config_file is not None:
        if words or apiname:
            raise misuse("a file describes the whole API: no other arguments go with it")
        given = {"namespace": "_", "swagger": json.dumps(_described(Path(config_file)))}
        with unable("create API"):
            made = documents.value(session.client.create_api(given, response_type.lower()))
        for path, verb, operation in _operations(_apidoc(made)):
            output.ok(f"created API {_base(made)}{path} {verb}{_for(operation)}")
            output.line(f"{_url(made)}{path}")
        return
    base, path, verb, action = _parse(words)
    if "{" in path and response_type.lower() != "http":
        raise misuse("a path with parameters needs --response-type http: then the action is given the path")
    from visp.client.names import parse_entity

    entity = parse_entity(action)
    with unable("create API"):
        found = documents.value(session.client.get("actions", entity, code=False))
        if documents.annotation(found, EXPORTED) is not True:
            raise CommandError(f"'{action}' is no web action: `visp action update {action} --web true` makes it one")
        namespace = entity.namespace
        inside = entity.name if entity.package is None else f"{entity.package}/{entity.name}"
        where = f"{namespace}/{entity.package or 'default'}/{entity.name}"
        host = session.client.credentials.apihost
        document: dict[str, Any] = {
            "namespace": "_",
            "gatewayBasePath": base,
            "gatewayPath": path,
            "gatewayMethod": verb,
            "id": f"API:_:{base}",
            "action": {
                "name": inside,
                "namespace": namespace,
                "backendMethod": verb,
                "backendUrl": f"{host}/api/v1/web/{where}.http",
                "authkey": session.client.credentials.auth,
            },
        }
        if apiname:
            document["apiName"] = apiname
        secret = documents.annotation(found, SECRET)
        if secret:
            document["action"]["secureKey"] = secret
        if names := _parameters(path):
            document["pathParameters"] = [
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "type": "string",
                    "description": f"Default description for '{name}'",
                }
                for name in names
            ]
        made = documents.value(session.client.create_api(document, response_type.lower()))
    operation = next((one for at, by, one in _operations(_apidoc(made)) if (at, by) == (path, verb.lower())), {})
    output.ok(f"created API {_base(made)}{path} {verb}{_for(operation)}")
    output.line(f"{_url(made)}{path}")


@api.command()
@click.argument("name", metavar="BASE_PATH|NAME")
@click.option("-f", "--full", is_flag=True, help="With where it is served.")
@click.option("--format", "form", type=click.Choice(["json", "yaml"]), default="json", help="json by default.")
@pass_session
def get(session: Session, name: str, full: bool, form: str) -> None:
    """Show an API's description: what `create -c` takes."""
    with unable(f"get API '{name}'"):
        found = _listed(session, name)
    if not found:
        raise CommandError(f"API does not exist for basepath {name}")
    shown = found[0] if full else _apidoc(found[0])
    if form == "yaml":
        import yaml

        output.line(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())
    else:
        output.line(json.dumps(shown, indent=4, ensure_ascii=False))


@api.command(name="list")
@click.argument("name", required=False, metavar="[BASE_PATH|NAME")
@click.argument("path", required=False, metavar="[PATH")
@click.argument("verb", required=False, metavar="[VERB]]]")
@listing.skip_option
@listing.limit_option
@click.option("-n", "--name-sort", is_flag=True, help="Sort by name.")
@click.option("-f", "--full", is_flag=True, help="A few lines for each operation.")
@listing.json_option
@pass_session
def list_(
    session: Session,
    name: str | None,
    path: str | None,
    verb: str | None,
    skip: int,
    limit: int,
    name_sort: bool,
    full: bool,
    as_json: bool,
) -> None:
    """List the operations of APIs: of all, of one, of a path of it, or one verb."""
    with unable("list APIs"):
        raw = session.client.apis(name, limit=limit, skip=skip)
    if as_json:
        output.answer(raw)
        return
    found = [
        (_named(operation), by, _title(one), f"{_url(one)}{at}")
        for one in _values(raw)
        for at, by, operation in _operations(_apidoc(one))
        if path in (None, at) and (verb is None or verb.lower() == by)
    ]
    rows = listing.sort_rows(found, by_name=name_sort)
    if not full:
        output.table("APIs", ROWS, rows, (30, 8, 30))
        return
    output.ok("APIs")
    for row in rows:
        output.line("\n".join(f"{title + ':':<10} {value}" for title, value in zip(ROWS, row, strict=True)) + "\n")


@api.command()
@click.argument("name", metavar="BASE_PATH|NAME")
@click.argument("path", required=False, metavar="[PATH")
@click.argument("verb", required=False, metavar="[VERB]]")
@pass_session
def delete(session: Session, name: str, path: str | None, verb: str | None) -> None:
    """Delete an API, a path of it, or one operation."""
    if verb is not None and verb.upper() not in VERBS:
        raise misuse(f"'{verb}' is no verb: there are {', '.join(VERBS)}")
    with unable("delete API"):
        session.client.delete_api(name, path, None if verb is None else verb.upper())
    if path is None:
        output.ok(f"deleted API {name}")
    else:
        output.ok(f"deleted {path}{'' if verb is None else ' ' + verb.upper()} from {name}")


# ── what is given ───────────────────────────────────────────────────────────────────────────────────────────────


def _scoped(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say for what a client is, if not for the whole API."""
    command = click.option("--path", "path", help="Only this path of the API, where its document says so.")(command)
    return click.option("--all", "is_all", is_flag=True, help="All APIs of the namespace, where documents say so.")(
        command
    )


def _scope(path: str | None, *, is_all: bool) -> dict[str, str]:
    if is_all and path is not None:
        raise misuse("--path and --all exclude each other")
    if is_all:
        return {"scope": "tenant"}
    return {} if path is None else {"scope": "resource", "resource": path}


@api.command()
@click.argument("base", metavar="BASE_PATH")
@click.argument("client", metavar="CLIENT")
@_scoped
@click.option("--secret", help="The client's secret, where the API asks for one; - reads it from standard input.")
@pass_session
def subscribe(session: Session, base: str, client: str, secret: str | None, path: str | None, is_all: bool) -> None:
    """Let a client call an API that asks for a key: CLIENT is the key."""
    if secret == "-":
        secret = sys.stdin.readline().rstrip("\n")
    with unable(f"subscribe to API '{base}'"):
        session.client.subscribe(base, client, secret, _scope(path, is_all=is_all))
    output.ok(f"subscribed {client} to {base}")


@api.command()
@click.argument("base", metavar="BASE_PATH")
@_scoped
@listing.json_option
@pass_session
def subscriptions(session: Session, base: str, path: str | None, is_all: bool, as_json: bool) -> None:
    """List the clients that may call an API that asks for a key."""
    with unable(f"list subscriptions of API '{base}'"):
        raw = session.client.subscriptions(base, _scope(path, is_all=is_all))
    if as_json:
        output.answer(raw)
        return
    clients = documents.value(raw)
    output.table("subscriptions", ("client",), [(str(client),) for client in clients or ()])


@api.command()
@click.argument("base", metavar="BASE_PATH")
@click.argument("client", metavar="CLIENT")
@_scoped
@pass_session
def unsubscribe(session: Session, base: str, client: str, path: str | None, is_all: bool) -> None:
    """Take that back: from then on the client's calls are refused."""
    with unable(f"unsubscribe from API '{base}'"):
        session.client.unsubscribe(base, client, _scope(path, is_all=is_all))
    output.ok(f"unsubscribed {client} from {base}")


@api.group(cls=ApiGroup)
def domain() -> None:
    """Work with the domains that APIs answer at, where an operator gave them to the namespace."""


@domain.command("add")
@click.argument("base", metavar="BASE_PATH")
@click.argument("name", metavar="DOMAIN")
@pass_session
def add_domain(session: Session, base: str, name: str) -> None:
    """Let an API answer at a domain."""
    with unable(f"add a domain to API '{base}'"):
        _set_domains(session, base, lambda names: sorted({*names, name.lower()}))
    output.ok(f"{name} is a domain of {base}")


@domain.command("list")
@click.argument("base", metavar="BASE_PATH")
@pass_session
def list_domains(session: Session, base: str) -> None:
    """List the domains that an API names."""
    with unable(f"list domains of API '{base}'"):
        names = _domains(_document(session, base))
    output.table("domains", ("domain",), [(name,) for name in names])


@domain.command("remove")
@click.argument("base", metavar="BASE_PATH")
@click.argument("name", metavar="DOMAIN")
@pass_session
def remove_domain(session: Session, base: str, name: str) -> None:
    """Take that back."""
    with unable(f"remove a domain of API '{base}'"):
        _set_domains(session, base, lambda names: [one for one in names if one != name.lower()])
    output.ok(f"{name} is no domain of {base}")


def _set_domains(session: Session, base: str, change: Callable[[list[str]], list[str]]) -> None:
    document = _document(session, base)
    document[DOMAINS] = change(_domains(document))
    session.client.put_document(document)


def _document(session: Session, base: str) -> dict[str, Any]:
    found = _listed(session, base)
    if not found:
        raise CommandError(f"API does not exist for basepath {base}")
    return _apidoc(found[0])


def _domains(document: dict[str, Any]) -> list[str]:
    return [str(name).lower() for name in document.get(DOMAINS) or ()]


def _parse(words: tuple[str, ...]) -> tuple[str, str, str, str]:
    if len(words) not in (3, 4):
        raise misuse("an operation is [BASE_PATH] PATH VERB ACTION")
    base, path, verb, action = words if len(words) == 4 else ("/", *words)
    if not path.startswith("/"):
        raise misuse(f"the path '{path}' must begin with '/'")
    if "{" in base:
        raise misuse(f"the base path '{base}' cannot have parameters: the path can")
    if verb.upper() not in VERBS:
        raise misuse(f"'{verb}' is no verb: there are {', '.join(VERBS)}")
    return base, path, verb.upper(), action


def _parameters(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{") and part.endswith("}")]


def _described(file: Path) -> dict[str, Any]:
    """A description in JSON or YAML, as far as every server needs it to be right."""
    text = file.read_text()
    if file.suffix in (".yaml", ".yml"):
        import yaml

        try:
            described = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise misuse(f"{file} is no YAML: {error}") from None
    else:
        try:
            described = json.loads(text)
        except ValueError as error:
            raise misuse(f"{file} is no JSON: {error}") from None
    if not isinstance(described, dict):
        raise misuse(f"{file} describes no API")
    if "openapi" not in described:
        missing = [field for field in ("swagger", "basePath", "info", "paths") if field not in described]
        if missing:
            raise misuse(f"{file} lacks {', '.join(missing)}")
        if not str(described["basePath"]).startswith("/"):
            raise misuse(f"{file}: the basePath must begin with '/'")
    return described


# ── what is answered ────────────────────────────────────────────────────────────────────────────────────────────


def _listed(session: Session, name: str) -> list[dict[str, Any]]:
    return list(_values(session.client.apis(name)))


def _values(raw: bytes) -> Iterator[dict[str, Any]]:
    for one in documents.objects(documents.value(raw).get("apis")):
        yield documents.mapping(one.get("value"))


def _apidoc(one: dict[str, Any]) -> dict[str, Any]:
    return documents.mapping(one.get("apidoc"))


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, verbs in documents.mapping(document.get("paths")).items():
        for verb, operation in documents.mapping(verbs).items():
            if verb.upper() in VERBS:
                yield path, verb, documents.mapping(operation)


def _base(made: dict[str, Any]) -> str:
    base = documents.text(_apidoc(made), "basePath")
    return "" if base == "/" else base


def _url(made: dict[str, Any]) -> str:
    return documents.text(made, "gwApiUrl").rstrip("/")


def _title(made: dict[str, Any]) -> str:
    return documents.text(documents.mapping(_apidoc(made).get("info")), "title")


def _named(operation: dict[str, Any]) -> str:
    """The action that an operation runs, if it says so."""
    told = documents.mapping(operation.get("x-openwhisk"))
    if not told:
        return ""
    parts = [documents.text(told, name) for name in ("namespace", "package", "action")]
    return "/" + "/".join(part for part in parts if part)


def _for(operation: dict[str, Any]) -> str:
    name = _named(operation)
    return f" for action {name}" if name else ""
