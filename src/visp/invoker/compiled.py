"""What a launcher compiled of an action's code, kept for the containers that come after: beside the code, for it alone.

It is asked for once, after the first run of a container whose start took its time; the run's caller has been answered
by then. What comes is staged like an archive, and seen by containers of the same namespace's same action and code only:
whoever wrote it could have written the code.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from visp.errors import StartFailed
from visp.invoker.staging import Bounds, Distrusted
from visp.runtime.base import CodeRefused, Gone
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.invoker.code import CodeCache
    from visp.invoker.slot import Key, Slot
    from visp.runtime.base import Reply

WORTH_MS = 50
"""A start that takes less is not worth it."""
BOUNDS = Bounds(bytes=16 * 1024 * 1024, entries=4_000)
COLLECT_S = 10.0
ASKED_LIMIT = 10_000


class _Piece(msgspec.Struct):
    compiled: str


class Compiled:
    """Of one invoker. `code` keeps the folders."""

    def __init__(self, code: CodeCache) -> None:
        self._code = code
        self._asked: dict[str, None] = {}
        """Folders that were asked for what they compile, whatever came of it."""

    def of(self, folder: str, key: Key) -> str:
        """The folder with what was compiled, or the same where there is none."""
        return self._code.compiled(folder, _owner(key))

    def wants(self, slot: Slot, init_ms: int | None) -> bool:
        """Whether the slot's container is to be asked now."""
        folder, key = slot.folder, slot.key
        if folder is None or key is None or init_ms is None or init_ms < WORTH_MS:
            return False
        name = f"{_owner(key)} {folder}"
        if name in self._asked or self.of(folder, key) != folder or self._code.is_compiled(folder):
            return False
        if len(self._asked) >= ASKED_LIMIT:
            self._asked.clear()
        self._asked[name] = None
        return True

    async def collect(self, slot: Slot) -> bool:
        """Asks the container, and keeps what it says. False when it did not answer: it is not to be used again."""
        assert slot.folder is not None
        assert slot.key is not None
        frames = bytearray()
        try:
            async with asyncio.timeout(COLLECT_S):
                while piece := await _ask(slot, len(frames)):
                    frames += piece
                    if len(frames) > BOUNDS.bytes:
                        raise Distrusted("more than was asked for")
        except (TimeoutError, ConnectionError):
            return False
        except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, Distrusted):
            return True  # what it compiled is its own affair
        if frames:
            try:
                await self._code.keep_compiled(slot.folder, _owner(slot.key), bytes(frames), BOUNDS)
            except (CodeRefused, Distrusted, StartFailed, OSError) as error:
                log.warning("compiled.not_kept", action=slot.key.action, reason=repr(error))
        return True


def _owner(key: Key) -> str:
    return f"{key.namespace} {key.action}"


async def _ask(slot: Slot, offset: int) -> bytes:
    """The next piece; raises `ConnectionError` when the container has ended."""
    assert slot.client is not None
    answered: asyncio.Future[Reply | Gone] = asyncio.get_running_loop().create_future()
    slot.client.run(b'{"collect":%d}' % offset, lambda reply: None if answered.done() else answered.set_result(reply))
    reply = await answered
    if isinstance(reply, Gone):
        raise ConnectionError
    return base64.b64decode(msgspec.json.decode(reply.body, type=_Piece).compiled, validate=True)
