"""Ports for servers that take a while to listen on them."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST, HIGHEST = 15_000, 65_536
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_random = random.SystemRandom()


def free_port() -> int:
    """None that the kernel hands out to whoever asks for any: the tests beside this one ask for many."""
    first, last = map(int, RANGE.read_text().split())
    while True:
        port = _random.choice((*range(LOWEST, first), *range(last + 1, HIGHEST)))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
