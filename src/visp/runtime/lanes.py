"""Several runs at once over the pipes of one container: each reply names the activation that it answers.

Run lines are the same as ever, and a reply is `@<activation id> ` before what it would be alone. So are parts of its
result, and the lines that it prints, as far as its launcher can tell whose they are. A line for an activation that is
not under way, or one that names none, ends the container: whatever wrote it speaks for nobody. What user code can do
with this wire it could do without it: answer for its own action's runs, in its own container.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from visp.runtime import actionloop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from visp.runtime.base import OnPart, OnPrint, Then


class PipeLanes:
    """The runs under way in one container. Bounded by its owner, who knows how many it takes at once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stdin: int,
        family: str,
        result_limit_bytes: int,
        on_breach: Callable[[], None],
        on_print: OnPrint,
        on_part: OnPart | None = None,
    ) -> None:
        """`on_breach` is called when a reply can belong to nobody; then `lose` is to be."""
        self._loop = loop
        self._stdin = stdin
        self._family = family
        self._on_breach = on_breach
        self._on_print = on_print
        self._on_part = on_part
        self._limit_bytes = result_limit_bytes
        self._reader = actionloop.ReplyReader(result_limit_bytes + actionloop.TAG_BYTES)
        self._thens: dict[bytes, Then] = {}
        self._unsent: deque[tuple[bytes, memoryview]] = deque()
        """Lines that the pipe did not take yet; of the first, what is left."""
        self._is_gone = False

    def run(self, id: str, payload: bytes, then: Then) -> None:
        """`payload` as of `ActionClient.run`; `then` hears of this run alone."""
        name = id.encode()
        if self._is_gone:
            self._loop.call_soon(then, actionloop.gone(self._family, is_init=False, was_sent=False))
            return
        self._thens[name] = then
        if not self._send(name, payload + b"\n"):
            self._is_gone = True
            del self._thens[name]
            self._loop.call_soon(then, actionloop.gone(self._family, is_init=False, was_sent=False))

    def grant(self, id: str, count_bytes: int) -> None:
        name = id.encode()
        if not self._is_gone and name in self._thens:
            self._send(b"", b"@%b +%d\n" % (name, count_bytes))

    def _send(self, name: bytes, line: bytes) -> bool:
        """False when nobody takes it; `name` is empty for what is no run."""
        if self._unsent:
            self._unsent.append((name, memoryview(line)))
            return True
        try:
            sent = os.write(self._stdin, line)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(line):
            self._unsent.append((name, memoryview(line)[sent:]))
            self._loop.add_writer(self._stdin, self._send_rest)
        return True

    def _send_rest(self) -> None:
        name, rest = self._unsent[0]
        try:
            sent = os.write(self._stdin, rest)
        except BlockingIOError:
            return
        except OSError:  # the end is read from the other pipe; what has not left by then was not sent
            self._loop.remove_writer(self._stdin)
            return
        if sent < len(rest):
            self._unsent[0] = (name, rest[sent:])
            return
        self._unsent.popleft()
        if not self._unsent:
            self._loop.remove_writer(self._stdin)

    def feed(self, data: bytes) -> None:
        """What was read from the container's replies."""
        at = 0
        while end := data.find(b"\n", at) + 1:
            complete = self._reader.feed(data[at:end])
            assert complete is not None
            at = end
            if not self._take(*complete):
                self._on_breach()
                return
            if self._is_gone:
                return
        if at < len(data):
            self._reader.feed(data[at:])
            if self._reader.is_endless:
                self._on_breach()

    def _take(self, line: bytes, size_bytes: int) -> bool:
        """False for what nobody may say."""
        name, reply, tag_bytes = actionloop.untag(line)
        mark = reply[:1]
        if mark == actionloop.PART and self._on_part is not None:
            is_whole = size_bytes - tag_bytes <= self._limit_bytes
            return is_whole and name in self._thens and self._on_part(name.decode(), reply[1:])
        if mark in actionloop.PRINTED:
            if name not in self._thens:
                return False
            self._on_print(name.decode(), actionloop.PRINTED[mark], reply[1:])
            return True
        then = self._thens.pop(name, None)
        if then is None:
            return False
        then(actionloop.run_reply(reply, size_bytes - tag_bytes, self._family))
        return True

    def lose(self) -> None:
        """The container has ended: every run under way is answered with `Gone`."""
        self._is_gone = True
        untouched = {name for name, rest in self._unsent if len(rest) == len(rest.obj)}  # type: ignore[arg-type]
        self._stop_sending()
        thens, self._thens = self._thens, {}
        for name, then in thens.items():
            then(actionloop.gone(self._family, is_init=False, was_sent=name not in untouched))

    def close(self) -> None:
        """Nobody is answered any more."""
        self._is_gone = True
        self._thens.clear()
        self._stop_sending()

    def _stop_sending(self) -> None:
        if self._unsent:
            self._loop.remove_writer(self._stdin)
            self._unsent.clear()
