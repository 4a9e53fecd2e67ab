"""Which invoker runs an activation. Pure."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visp.scheduler.fleet import InvokerView


def place(fleet: Sequence[InvokerView], namespace: str, action: str, memory_mb: int) -> int | None:
    """The id of the invoker that should run it, None when none is up.

    Numbered cases:
      1. One invoker is up: that one.
      2. Several: the action's home by rendezvous hash, where it is likely warm, if it has room or nobody has.
      3. Else the one with the most free memory.
    """
    if len(fleet) == 1:
        return fleet[0].id if fleet[0].is_up else None
    up = [invoker for invoker in fleet if invoker.is_up]
    if not up:
        return None
    if len(up) == 1:
        return up[0].id
    home = max(up, key=lambda invoker: zlib.crc32(f"{namespace}/{action}@{invoker.id}".encode()))
    if _free_mb(home) >= memory_mb:
        return home.id
    roomiest = max(up, key=_free_mb)
    return roomiest.id if _free_mb(roomiest) >= memory_mb else home.id


def _free_mb(invoker: InvokerView) -> int:
    return invoker.memory_mb - invoker.used_mb
