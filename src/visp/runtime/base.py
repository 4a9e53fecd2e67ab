"""How the invoker speaks to one container, whatever wire it has.

Two wires (`client.py`): JSON lines over pipes for local containers, HTTP `/init` and `/run` for images. Both give the
`(status, body)` that the kind's official image would have answered over HTTP, so one classification serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import msgspec

from visp.entity.images import Wanted

STDOUT, STDERR = 0, 1

CONCURRENT = b'"concurrent":true'
"""In a launcher's answer to an init line that asks for several runs at once (`concurrency`), if it can.

With any other answer it is given one at a time.
"""

STREAMS = b'"stream":true'
"""In a launcher's answer to an init line, if results may come in parts: then a part never takes it more than
`WINDOW_BYTES` ahead of what it was granted.
"""

WINDOW_BYTES = 256 * 1024
"""So much of a run's result, as parts, may be on its way before any of it is granted again."""


IMPORTED = b'{"ok":true,"imports":['
"""So begins what a launcher answers to an init line whose code took its time to import modules: it names them."""


class _Imported(msgspec.Struct):
    imports: list[str]


def imported(body: bytes) -> list[str]:
    """The names in such an answer; none where it does not read."""
    try:
        return msgspec.json.decode(body, type=_Imported).imports
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A container's answer: HTTP status and raw body; only its first bytes when `size_bytes` exceeds the limit."""

    status: int
    body: bytes
    size_bytes: int


class Gone(msgspec.Struct, frozen=True):
    """The container ended, or broke its wire, before it answered.

    `was_sent` is false when nothing of the request had left. `reply` is what the kind's official image answers for a
    child that is gone; None when there the connection breaks too.
    """

    was_sent: bool = True
    reply: Reply | None = None


Then = Callable[[Reply | Gone], None]
"""Called once, from the event loop, never from inside the call that took it."""

OnOutput = Callable[[int, bytes], None]
"""`STDOUT` or `STDERR`, and bytes as they came, in the order of reading."""


OnPart = Callable[[str, bytes], bool]
"""The activation's id, empty where only one is under way, and a part of its result: JSON, or `:` and the base64 of
bytes. False ends the container: the part is more than there may be.
"""

OnPrint = Callable[[str, int, bytes], None]
"""The id of an activation under way, `STDOUT` or `STDERR`, and a line that it printed, without the line end."""


class Lanes(Protocol):
    """Several runs at once in one container."""

    def run(self, id: str, payload: bytes, then: Then) -> None:
        """As `ActionClient.run`, for the activation with this id; each run is answered, or `Gone`, by itself."""
        ...

    def grant(self, id: str, count_bytes: int) -> None:
        """As `ActionClient.grant`, to the run of this activation."""
        ...


class ActionClient(Protocol):
    """The connection to one container. One call at a time, unless the container runs several at once: then its runs go
    through what `share` gives.

    `cancel` forgets the caller of what is under way (a deadline passed): a reply that comes later is dropped, and the
    container must then be destroyed by its owner.
    """

    def init(self, payload: bytes, then: Then) -> None:
        """`payload` is the `/init` body, one line of JSON."""
        ...

    def run(self, payload: bytes, then: Then) -> None:
        """`payload` is the `/run` body, one line of JSON without the line end. Writes at once; no task, no await."""
        ...

    def stream(self, on_part: OnPart) -> None:
        """From now on, after an init whose answer says so, parts of a run's result may come before its reply."""
        ...

    def grant(self, count_bytes: int) -> None:
        """So much more of the result of the run under way may come as parts."""
        ...

    def share(self, on_print: OnPrint) -> Lanes | None:
        """From now on, after an init that asked for it, several runs may be under way, and replies name theirs.

        So do lines that a run prints, where the launcher can tell. None where the wire carries one at a time.
        """
        ...

    def rest(self) -> None:
        """Nothing is under way, and a pause is likely: the launcher may give memory back. It does not answer."""
        ...

    def cancel(self) -> None:
        """Forgets the caller of what is under way."""
        ...

    def give_up(self) -> None:
        """The container is known to have ended: what is under way, if anything, is answered with `Gone` now."""
        ...

    def drain(self) -> bool:
        """Hands over to `on_output` what the log pipes hold at this instant, without waiting.

        True when the logs of the last call are complete by that (local containers: always, after a reply).
        """
        ...

    def close(self) -> None:
        """Stops reading and writing. Descriptors belong to the container."""
        ...


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to start inside a container for a kind: its argument list, its environment, and host paths to show
    read-only. `template` is the host's path of a program whose children can become it, where the kind has one.

    `image`: what a container engine runs instead; it has its own arguments. `root`: a host folder that is the root file
    system in place of the host's programs. `reserve_mb`: memory that it asks for and does not use. `stands`: copies of
    it can be made while it waits for its first line.
    """

    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    mounts: tuple[tuple[str, str], ...] = ()
    template: str | None = None
    image: Wanted | None = None
    root: str | None = None
    reserve_mb: int = 0
    stands: bool = False


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How code of a kind becomes what runs: by a program that a build sandbox runs once for each code.

    `stamp` names everything beside the code that the result depends on: toolchain, flags, the program itself. `skips`
    are names of files; an archive that has one of them at its root is built already. `needs`: one that has none of
    these has nothing to build (empty: it has); `NAME/` is a folder, `NAME#MEMBER` a JSON file with such a member that
    is not empty, and `*` is any text.
    `primes`: it can prepare, without any code, what all its builds may then read at `PRIMED`.
    """

    command: Command
    stamp: str
    skips: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    primes: bool = False


PRIMED = "/visp/primed"


class Takes(Enum):
    """How a kind is given an action's code."""

    AS_SENT = "as sent"
    """As the action has it, text or base64: images unpack by themselves."""
    TREE = "tree"
    """Text, or the folder of an archive."""
    PROGRAM = "program"
    """Always a folder: what is no archive, text too, is its file `exec`."""


class Kind(Protocol):
    """What runs the actions of a kind here."""

    @property
    def takes(self) -> Takes:
        """How it is given an action's code."""
        ...

    @property
    def recipe(self) -> Recipe | None:
        """What builds code for it; None where code runs as it is."""
        ...

    @property
    def is_concurrent(self) -> bool:
        """Whether one container can run several activations at once."""
        ...

    @property
    def rests(self) -> bool:
        """Whether its launcher knows what `ActionClient.rest` says."""
        ...

    @property
    def keeps_compiled(self) -> bool:
        """Whether its launcher answers `{"collect": <offset>}` by `{"compiled": <base64>}`, empty at the end."""
        ...

    @property
    def is_sentinelled(self) -> bool:
        """Of an image: whether the end of each activation's output is marked, and so waited for."""
        ...

    def command(self, memory_mb: int) -> Command:
        """What is started for it in a container with this much memory."""
        ...


class PreparedCode(msgspec.Struct, frozen=True):
    """Code as the init line carries it: its text, or the host folder where it lies unpacked (to be seen at
    `/action`).
    """

    text: str | None = None
    folder: str | None = None


class CodeRefused(Exception):
    """Code that cannot be unpacked or built. `sentence` is for its developer: it becomes the init error.

    `is_final`: the same code will be refused for ever; else another try may go better.
    """

    def __init__(self, sentence: str, *, is_final: bool = True) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.is_final = is_final
