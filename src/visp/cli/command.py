"""The classes that commands are made of: help that fits its reader, and the flags that every API command takes.

`-i`, `-v`, `--apihost`, `--auth` and `--apiversion` may stand before a noun, between noun and verb, or after the verb,
as with `wsk`; the last one given wins.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from visp.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping


class Command(click.Command):
    """A verb. Its help is drawn by rich on a terminal and is plain text elsewhere."""

    def get_help(self, ctx: click.Context) -> str:
        return _drawn_help(self, ctx) if sys.stdout.isatty() else super().get_help(ctx)


class Group(click.Group):
    """A noun, without flags of its own."""

    command_class = Command

    def get_help(self, ctx: click.Context) -> str:
        return _drawn_help(self, ctx) if sys.stdout.isatty() else super().get_help(ctx)


class ApiCommand(Command):
    """A verb that calls the API."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options())


class ApiGroup(Group):
    """A noun of the API."""

    command_class = ApiCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options())


class LazyGroup(ApiGroup):
    """A group whose commands are imported when they are asked for: `name → module:attribute`."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in self._lazy:
            module, _, attribute = self._lazy[cmd_name].partition(":")
            self.add_command(getattr(importlib.import_module(module), attribute), cmd_name)
        return self.commands.get(cmd_name)


def global_options() -> list[click.Option]:
    """The flags of every API command, as new objects: a command owns its parameters."""
    return [
        click.Option(["--apihost"], metavar="HOST", help="API host, http://127.0.0.1:3233 by default.", **_noted()),
        click.Option(["-u", "--auth"], metavar="KEY", help="Authorization key, UUID:KEY.", **_noted()),
        click.Option(["--apiversion"], metavar="VERSION", help="API version, v1 by default.", **_noted()),
        click.Option(["-i", "--insecure"], is_flag=True, help="Do not check the host's certificate.", **_noted()),
        click.Option(
            ["-v", "--verbose"], is_flag=True, help="Print requests and answers to stderr, without the key.", **_noted()
        ),
    ]


def _noted() -> dict[str, Any]:
    return {"expose_value": False, "callback": _note}


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = ctx.ensure_object(Session)
    if value and parameter.name is not None:
        session.flags[parameter.name] = value


def _drawn_help(command: click.Command, ctx: click.Context) -> str:
    # Drawing takes as long to import as all the rest, and `visp start` has no use for it.
    from visp.cli import drawing

    return drawing.help_of(command, ctx)
