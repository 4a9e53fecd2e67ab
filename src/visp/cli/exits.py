"""How a command ends early: with a sentence and an exit status."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from visp.client.errors import GENERAL, USAGE, ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator


class CommandError(ClientError):
    """A command that cannot do what it was asked for, by no fault of the server."""

    def __init__(self, sentence: str, exit_code: int = GENERAL) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def misuse(sentence: str) -> CommandError:
    return CommandError(sentence, USAGE)


@contextlib.contextmanager
def unable(to: str) -> Iterator[None]:
    """Says what was tried, in `wsk`'s words (`Unable to create action 'hello'`), when a call in the block fails."""
    try:
        yield
    except ClientError as error:
        error.doing = error.doing or f"Unable to {to}"
        raise
