"""When what was lost, or failed, is tried again. Pure."""

from __future__ import annotations

AGAIN_S = 1.0
LAST_AGAIN_S = 60.0
"""How long is waited at first, and at the most."""
SOON_S = 8.0
PART = 8.0


class Waits:
    """Of one loss, from its beginning on: each twice as long as the one before, up to `SOON_S`, later an eighth of the
    time that it has lasted. So what is back after a minute is found within seconds, what is away for hours is left
    alone."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._next_s = AGAIN_S

    def next_s(self, now_s: float) -> float:
        wait_s = min(self._next_s, max(SOON_S, (now_s - self._since_s) / PART), LAST_AGAIN_S)
        self._next_s = 2 * wait_s
        return wait_s
