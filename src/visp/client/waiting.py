"""Waits for the record of an activation, through whatever comes between: the server's own bound, and its restarts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from visp.client.errors import ApiError, ClientError, NoConnection, NotInTime

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.client.rest import Client

ROUND_S = 60.0
"""A server may answer sooner that there is nothing yet; then it is asked again."""
AGAIN_S, LAST_AGAIN_S = 0.1, 1.0
"""Between two attempts to reach a server that is away."""


def wait_for(
    client: Client, id: str, within_s: float, on_trouble: Callable[[ClientError], None] | None = None
) -> bytes:
    """The record, as it came. `on_trouble` hears of the first call in a row that found no server, or one that is busy.

    Raises `NotInTime`; after trouble to the end, that; `ApiError` for an activation that is not known.
    """
    ends_s = time.monotonic() + within_s
    again_s = AGAIN_S
    trouble: ClientError | None = None
    now: ClientError
    while True:
        asked_s = time.monotonic()
        wait_s = min(ROUND_S, max(0.0, ends_s - asked_s))
        try:
            return client.activation(id, wait_s=wait_s)
        except NoConnection as error:
            now, pause_s = error, again_s
        except ApiError as error:
            if error.retry_after_s is None:
                raise
            if error.status == 404:
                trouble, again_s = None, AGAIN_S
                left_s = ends_s - time.monotonic()
                if left_s <= 0:
                    raise NotInTime(id, within_s) from None
                if time.monotonic() - asked_s < min(wait_s, error.retry_after_s):  # it ends, or does not wait at all
                    time.sleep(min(left_s, error.retry_after_s))
                continue
            now, pause_s = error, max(again_s, float(error.retry_after_s))
        if trouble is None and on_trouble is not None:
            on_trouble(now)
        trouble = now
        left_s = ends_s - time.monotonic()
        if left_s <= 0:
            raise trouble
        time.sleep(min(pause_s, left_s))
        again_s = min(2 * again_s, LAST_AGAIN_S)
