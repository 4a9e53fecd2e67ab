"""`visp property`: get, set, unset; the `.wskprops` file that OpenWhisk's clients share."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from visp import __version__
from visp.cli import output
from visp.cli.command import Command, Group
from visp.cli.exits import misuse, unable
from visp.cli.session import pass_session
from visp.client import documents
from visp.client.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from visp.cli.session import Session

KEYS = {
    "cert": ("CERT", "client cert"),
    "key": ("KEY", "client key"),
    "auth": ("AUTH", "whisk auth"),
    "apihost": ("APIHOST", "whisk API host"),
    "apiversion": ("APIVERSION", "whisk API version"),
    "namespace": ("NAMESPACE", "whisk namespace"),
}
"""A property's flag → its key in the file, and what it is called."""

ASKED = {"cliversion": "whisk CLI version", "apibuild": "whisk API build", "apibuildno": "whisk API build number"}
"""What `get` shows besides."""

NAME_WIDTH = 24


@click.group(name="property", cls=Group)
def property_() -> None:
    """Work with ~/.wskprops: host and key."""


def _each(names: dict[str, str], *, takes_value: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, title in reversed(names.items()):
            flags = ["-u", "--auth"] if name == "auth" else [f"--{name}"]
            wanted: dict[str, Any] = {"metavar": name.upper()} if takes_value else {"is_flag": True}
            command = click.option(*flags, name, help=f"{title[0].upper()}{title[1:]}.", **wanted)(command)
        return command

    return decorate


_STORED = {name: title for name, (_, title) in KEYS.items()}


@property_.command(
    cls=Command,
    epilog="""\b
Examples:
  visp property get
  visp property get --apihost --output raw
""",
)
@_each(_STORED | ASKED, takes_value=False)
@click.option("--all", "is_all", is_flag=True, help="All properties, which is also what no flag means.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["std", "raw"]), default="std", help="With names, or the values alone."
)
@pass_session
def get(session: Session, /, form: str, is_all: bool, **asked: bool) -> None:
    """Show the properties in force: flags, then WHISK_* variables, then the file, then defaults."""
    titles = _STORED | ASKED
    chosen = [name for name in titles if asked[name]]
    if is_all or not chosen:
        chosen = list(titles)
    credentials = session.credentials()
    known: dict[str, Callable[[], str]] = {
        "cert": lambda: credentials.cert,
        "key": lambda: credentials.key,
        "auth": lambda: credentials.auth,
        "apihost": lambda: credentials.apihost,
        "apiversion": lambda: credentials.apiversion,
        "namespace": lambda: _namespace(session),
        "cliversion": lambda: __version__,
        "apibuild": lambda: _info(session, "build"),
        "apibuildno": lambda: _info(session, "buildno"),
    }
    for name in chosen:
        value = known[name]()
        output.line(value if form == "raw" else f"{titles[name]:<{NAME_WIDTH}}{value or 'not set'}")


@property_.command(
    name="set",
    cls=Command,
    epilog="""\b
Example:
  visp property set --apihost https://functions.example.org --auth UUID:KEY
""",
)
@_each(_STORED, takes_value=True)
def set_(**given: str | None) -> None:
    """Write properties to the file. A key given as - is read from standard input, where no process list shows it."""
    from visp.client.credentials import complete_host

    wanted = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        raise misuse(f"nothing to set: give {', '.join(f'--{name}' for name in KEYS)}")
    if wanted.get("auth") == "-":
        wanted["auth"] = sys.stdin.readline().strip()
    with unable("set the property value"):
        if "apihost" in wanted:
            complete_host(wanted["apihost"])
        _change({KEYS[name][0]: value for name, value in wanted.items()})
    for name, value in wanted.items():
        title = KEYS[name][1]
        is_secret = name in ("auth", "key", "cert")
        tail = f" set. Run 'visp property get --{name}' to see the new value." if is_secret else f" set to {value}"
        output.ok(title + tail)


@property_.command(cls=Command)
@_each(_STORED, takes_value=False)
def unset(**given: bool) -> None:
    """Take properties out of the file."""
    wanted = [name for name, is_given in given.items() if is_given]
    if not wanted:
        raise misuse(f"nothing to unset: give {', '.join(f'--{name}' for name in KEYS)}")
    with unable("unset the property value"):
        _change({KEYS[name][0]: None for name in wanted})
    for name in wanted:
        output.ok(f"{KEYS[name][1]} unset.")


def _change(changes: dict[str, str | None]) -> None:
    from visp.client import properties

    properties.change(_file(), changes)


def _file() -> Path:
    from visp.client import properties

    file = properties.file_of(os.environ)
    if file is None:
        raise misuse("WSK_CONFIG_FILE is empty, which means that there is no properties file")
    return file


def _namespace(session: Session) -> str:
    """The namespace of the key; `_` when the server cannot be asked."""
    try:
        names = documents.value(session.client.namespaces())
    except ClientError:
        return "_"
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else "_"


def _info(session: Session, field: str) -> str:
    try:
        return documents.text(documents.value(session.client.info()), field) or "Unknown"
    except ClientError:
        return "Unknown"
