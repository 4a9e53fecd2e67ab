"""The classes that commands are made of: help that fits its reader, and the flags that every API command takes.

`-i`, `-v`, `--apihost`, `--auth` and `--apiversion` may stand before a noun, between noun and verb, or after the verb,
as with `wsk`; the last one given wins.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click
import rich_click

from visp.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping


class _ReadableHelp(rich_click.RichCommand):
    """Help drawn by rich on a terminal, plain text elsewhere; the lines of its examples stay lines."""

    def get_help(self, ctx: click.Context) -> str:
        return super().get_help(ctx) if sys.stdout.isatty() else _plain_help(self, ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            from rich.padding import Padding
            from rich.text import Text

            formatter.write(Padding(Text(self.epilog.removeprefix("\b\n")), (0, 1)))  # type: ignore[arg-type]


class Command(_ReadableHelp):
    """A verb."""


class Group(_ReadableHelp, rich_click.RichGroup):  # type: ignore[misc]  # the library mixes its classes so too
    """A noun, without flags of its own."""

    command_class = Command


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


def _plain_help(command: click.Command, ctx: click.Context) -> str:
    # rich-click's own steps need its formatter; these are click's.
    formatter = click.HelpFormatter(width=ctx.terminal_width, max_width=ctx.max_content_width or 100)
    click.Command.format_usage(command, ctx, formatter)
    click.Command.format_help_text(command, ctx, formatter)
    click.Command.format_options(command, ctx, formatter)
    if isinstance(command, click.Group):
        click.Group.format_commands(command, ctx, formatter)
    click.Command.format_epilog(command, ctx, formatter)
    return formatter.getvalue().rstrip("\n")
