"""How several clients that do different things at once are run, each a thread with a connection of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench.server import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@contextlib.contextmanager
def together(visp: Platform, clients: int) -> Iterator[list[Platform]]:
    """Connections to one server, for the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Platform(visp.url, visp.pid))) for _ in range(clients)]


def all_at_once(clients: Sequence[Callable[[], None]]) -> float:
    """Lets all begin in one instant; seconds until the last has ended. Raises what one of them raised."""
    began_s: list[float] = []
    gate = threading.Barrier(len(clients), lambda: began_s.append(time.perf_counter()))

    def begin(client: Callable[[], None]) -> None:
        gate.wait()
        client()

    with ThreadPoolExecutor(len(clients)) as threads:
        running = [threads.submit(begin, client) for client in clients]
    for done in running:
        done.result()
    return time.perf_counter() - began_s[0]


def rate(count: int, clients: Sequence[Callable[[], None]]) -> float:
    """How many a second, when the clients do `count` of something together."""
    return count / all_at_once(clients)
