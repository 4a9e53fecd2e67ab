"""What actions import beyond what every Python has loaded: learned from their first start, loaded before the next.

Only modules of the standard library: a template runs before any sandbox is closed around it, so nothing of a user's is
ever loaded there, whatever a container says that it has imported.
"""

from __future__ import annotations

import re
import sys

KNOWN_LIMIT = 10_000
"""Actions whose imports are remembered; beyond it the ones learned first are forgotten."""
NAMES_LIMIT = 64
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31}){0,3}\Z")
UNFIT = frozenset(
    (
        *("antigravity", "idlelib", "lib2to3", "multiprocessing", "pdb", "pip", "test", "this", "tkinter", "turtle"),
        *("turtledemo", "venv", "webbrowser"),
    )
)
"""Of the library, what does something when it is loaded, draws secrets, or serves nobody on a server."""


def fit(names: list[str]) -> tuple[str, ...]:
    """Those of a container's names that a template may load, sorted."""
    found = {
        name
        for name in names[: 4 * NAMES_LIMIT]
        if _NAME.match(name) and (top := name.partition(".")[0]) in sys.stdlib_module_names and top not in UNFIT
    }
    return tuple(sorted(found)[:NAMES_LIMIT])


class Imports:
    """By the id of the action."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...]] = {}

    def learn(self, action: str, names: list[str]) -> None:
        """What its start has imported; what it was, or nothing, if that was loaded before."""
        found = fit([*names, *self._known.pop(action, ())])
        if not found:
            return
        if len(self._known) >= KNOWN_LIMIT:
            del self._known[next(iter(self._known))]
        self._known[action] = found

    def of(self, action: str) -> tuple[str, ...]:
        """Empty for what is not known, or needs nothing."""
        return self._known.get(action, ())
