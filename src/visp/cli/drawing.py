"""Help as rich-click draws it, for a terminal. Imported only when there is help to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.padding import Padding
from rich.text import Text
from rich_click import RichCommand, RichGroup

if TYPE_CHECKING:
    from rich_click import RichContext, RichHelpFormatter


class _Drawn(RichCommand):
    """The twin of a command: the same texts and flags, in the class that the library draws."""

    def format_epilog(self, ctx: RichContext, formatter: RichHelpFormatter) -> None:  # type: ignore[override]
        # The library would join the lines of examples.
        if self.epilog:
            formatter.write(Padding(Text(self.epilog.removeprefix("\b\n")), (0, 1)))


class _DrawnGroup(_Drawn, RichGroup):  # type: ignore[misc]  # the library mixes its classes so too
    """The same for a noun; its verbs stay in their order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def help_of(command: click.Command, ctx: click.Context) -> str:
    """What `--help` prints."""
    twin: RichCommand
    if isinstance(command, click.Group):
        names = command.list_commands(ctx)
        verbs = {name: verb for name in names if (verb := command.get_command(ctx, name)) is not None}
        twin = _DrawnGroup(
            name=command.name, help=command.help, params=command.params, epilog=command.epilog, commands=verbs
        )
    else:
        twin = _Drawn(name=command.name, help=command.help, params=command.params, epilog=command.epilog)
    settings = {"help_option_names": ctx.help_option_names}
    with twin.make_context(ctx.info_name, [], parent=ctx.parent, resilient_parsing=True, **settings) as drawn:
        return twin.get_help(drawn)
