"""What actions import beyond what every Python has loaded: told by their text, or by their first start.

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
COMMON = (
    *("asyncio", "dataclasses", "decimal", "email.message", "hashlib", "hmac", "html", "http.client", "inspect"),
    *("pathlib", "queue", "shutil", "ssl", "subprocess", "tempfile", "typing", "urllib.parse", "urllib.request"),
    "uuid",
)
"""Who imports one of these shares a template that has them all; each makes the starts of those who do not dearer."""
_COMMON_TOPS = frozenset(name.partition(".")[0] for name in COMMON)
_WORDS = re.compile(rf"^[ \t]*(?:import|from)[ \t]+(?:{'|'.join(sorted(_COMMON_TOPS))})\b", re.MULTILINE)
_READ_CHARACTERS = 16 * 1024
"""Of an action's text: imports come first."""


def fit(names: list[str]) -> tuple[str, ...]:
    """What a template should load for a container's names, sorted: nothing but what it may."""
    found = {
        name
        for name in names[: 4 * NAMES_LIMIT]
        if _NAME.match(name) and (top := name.partition(".")[0]) in sys.stdlib_module_names and top not in UNFIT
    }
    own = {name for name in found if name.partition(".")[0] not in _COMMON_TOPS}
    common = COMMON if len(own) < len(found) else ()
    return tuple(sorted((*common, *sorted(own)[: NAMES_LIMIT - len(common)])))


class Imports:
    """By the id of the action."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...]] = {}

    def expect(self, action: str, text: str) -> None:
        """What Python's words in the text of an action ask for that has not started yet."""
        if action not in self._known and (words := _WORDS.search(text, 0, _READ_CHARACTERS)) is not None:
            self.learn(action, [words.group().split()[1]])

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
