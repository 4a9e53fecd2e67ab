"""Several runs at once over the pipes of one container: each reply names the activation that it answers.

Run lines are the same as ever, and a reply is `@<activation id> ` before what it would be alone. A reply to an
activation that is not under way, or one that names none, ends the container: whatever wrote it speaks for nobody. What
user code can do with this wire it could do without it: answer for its own action's runs, in its own container.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from visp.runtime import actionloop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from visp.runtime.base import Then


class PipeLanes:
    """The runs under way in one container. Bounded by its owner, who knows how many it takes at once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stdin: int,
        family: str,
        result_limit_bytes: int,
        on_breach: Callable[[], None],
    ) -> None:
        """`on_breach` is called when a reply can belong to nobody; then `lose` is to be."""
        self._loop = loop
        self._stdin = stdin
        self._family = family
        self._on_breach = on_breach
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
        line = payload + b"\n"
        if self._unsent:
            self._unsent.append((name, memoryview(line)))
            return
        try:
            sent = os.write(self._stdin, line)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._is_gone = True
            del self._thens[name]
            self._loop.call_soon(then, actionloop.gone(self._family, is_init=False, was_sent=False))
            return
        if sent < len(line):
            self._unsent.append((name, memoryview(line)[sent:]))
            self._loop.add_writer(self._stdin, self._send_rest)

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
        end = data.find(b"\n") + 1
        while end:
            complete = self._reader.feed(data[:end])
            assert complete is not None
            if not self._answer(*complete):
                self._on_breach()
                return
            if self._is_gone:
                return
            data = data[end:]
            end = data.find(b"\n") + 1
        if data:
            self._reader.feed(data)
            if self._reader.is_endless:
                self._on_breach()

    def _answer(self, line: bytes, size_bytes: int) -> bool:
        """False when nobody asked."""
        name, reply, tag_bytes = actionloop.untag(line)
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
