"""The `visp` command.

Nothing is imported before it is needed: `visp --help` and `visp start` are quick.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from visp import __version__
from visp.cli.command import LazyGroup
from visp.cli.session import Session, pass_session
from visp.client.errors import INTERRUPTED, USAGE, ClientError
from visp.errors import VispError

NOUNS = {
    "start": "visp.cli.start:start",
    "doctor": "visp.cli.doctor:doctor",
    "runtime": "visp.cli.runtime:runtime",
    "admin": "visp.cli.admin:admin",
    "config": "visp.cli.config:config",
    "sim": "visp.cli.sim:sim",
    "action": "visp.cli.action:action",
    "activation": "visp.cli.activation:activation",
    "wait": "visp.cli.wait:wait",
    "delayed": "visp.cli.delayed:delayed",
    "deadletter": "visp.cli.deadletter:deadletter",
    "trigger": "visp.cli.trigger:trigger",
    "feed": "visp.cli.feed:feed",
    "rule": "visp.cli.rule:rule",
    "event": "visp.cli.event:event",
    "package": "visp.cli.package:package",
    "api": "visp.cli.api:api",
    "namespace": "visp.cli.namespace:namespace",
    "property": "visp.cli.property:property_",
}


class Root(LazyGroup):
    """The whole command line. Here every failure becomes a sentence on standard error and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except ClientError as error:
            _say(str(error))
            ctx.exit(error.exit_code)
        except VispError as error:
            _say(str(error))
            ctx.exit(_exit_code(error))
        finally:
            ctx.ensure_object(Session).close()


@click.command(
    cls=Root,
    lazy=NOUNS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  visp start
  visp action create hello hello.py
  visp action invoke hello -r -p name World
""",
)
@click.version_option(__version__, prog_name="visp")
@pass_session
def root(session: Session) -> None:
    """An event-driven serverless platform that speaks Apache OpenWhisk's protocol.

    `visp start` runs the platform; the nouns below work with one, here or elsewhere, as OpenWhisk's `wsk` does.
    """


def main() -> NoReturn:
    """The entry point of the `visp` script."""
    try:
        root.main(prog_name="visp")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _say(sentence: str) -> None:
    from visp.cli import output

    output.error(sentence)


def _exit_code(error: VispError) -> int:
    from visp.settings import SettingsError

    return USAGE if isinstance(error, SettingsError) else 1
