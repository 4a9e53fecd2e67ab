"""How far a build has come: its last line, on a terminal; elsewhere nothing, until there is an outcome."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from visp.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def shown() -> Iterator[Callable[[str], None]]:
    """What is given to the function within the block is shown until the next one, or the block's end."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stderr)
    with contextlib.ExitStack() as stack:
        status = None

        def hear(line: str) -> None:
            nonlocal status
            text = Text(output.plain(line), overflow="ellipsis", no_wrap=True)
            if status is None:  # what is there at once shows nothing
                status = stack.enter_context(console.status(text))
            else:
                status.update(text)

        yield hear
