"""Memory of many connections on which nothing happens, as browsers and load balancers keep them."""

from __future__ import annotations

import contextlib
import resource
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.goals import Goal
from bench.load import Broken
from bench.measure import Finding, spread
from bench.processes import rss_mb, server_processes, wait_until_quiet
from bench.server import platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rig import Rig

GOAL = Goal("idle", "memory of the server's processes with 10,000 idle keep-alive connections")
LIMIT_MB = 300.0
KEPT_S = 600.0
"""Longer than it takes to open them all, and to look."""
SPARE_FILES = 1_000
ASKED = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
ANSWER_BYTES = 64 * 1024


def measure(rig: Rig) -> Iterator[Finding]:
    """Each has asked once before it is idle: one that never did would not be kept."""
    _allow_files(rig.idle + SPARE_FILES)
    settings = {"http.keep_alive_s": KEPT_S, "http.connections": rig.idle + SPARE_FILES}
    with platform(settings) as visp, contextlib.ExitStack() as stack:
        wait_until_quiet(visp.pid)
        before_mb = rss_mb(server_processes(visp.pid))
        for _ in range(rig.idle):
            _idle(stack.enter_context(_connected(visp.url)))
        wait_until_quiet(visp.pid)
        after_mb = rss_mb(server_processes(visp.pid))
    yield Finding(
        goal=GOAL.name,
        what=f"resident, with {rig.idle:,} idle connections",
        unit="MB",
        ours=spread([after_mb]),
        promise=f"≤ {LIMIT_MB:.0f} MB",
        is_met=after_mb <= LIMIT_MB,
        note=f"{(after_mb - before_mb) * 1024 / rig.idle:.1f} KiB each",
    )


def _connected(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), 10.0)


def _idle(connection: socket.socket) -> None:
    connection.sendall(ASKED)
    if b" 200 " not in connection.recv(ANSWER_BYTES):
        raise Broken("a ping was not answered")


def _allow_files(count: int) -> None:
    """Lets this process, and the servers that it starts, open so many. Raises `Broken`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Broken(f"this process may open {hard} files, and {count} are needed: raise its hard limit (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
