"""The load generator: `wrk` with one thread, which disturbs the measured least and is the same for both sides."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = Path(__file__).with_name("request.lua")
ANSWER_S = 30
MISSING = "the load generator wrk is not installed: apt-get install wrk"


class Broken(Exception):
    """What was measured did not do its work, so that its figures would mean nothing."""


class Load(msgspec.Struct, frozen=True):
    """What one run of wrk saw. `refused` are answers with an error status, `broken` connections."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    max_us: int
    refused: int
    broken: int
    curve: tuple[tuple[float, int], ...] = ()
    """How many per cent of the requests took at most so many microseconds."""

    @property
    def per_s(self) -> float:
        """Requests that were served, each second."""
        return (self.requests - self.refused) / self.duration_us * 1e6


def is_installed() -> bool:
    return shutil.which("wrk") is not None


def post(
    url: str, *, clients: int, seconds: int, authorization: str = "", body: str = "{}", may_refuse: bool = False
) -> Load:
    """POSTs to `url` from keep-alive connections, each with one request in flight. Raises `Broken` on any error."""
    return finish(begin(url, clients=clients, seconds=seconds, authorization=authorization, body=body), may_refuse)


def begin(
    url: str,
    *,
    clients: int,
    seconds: int,
    method: str = "POST",
    authorization: str = "",
    body: str = "{}",
    key: str = "",
) -> subprocess.Popen[str]:
    """A load that goes on beside what the caller does; `finish` waits for its end. `COUNT` in the path counts.

    `key` is an API's.
    """
    options: Sequence[str] = ("-t1", f"-c{clients}", f"-d{seconds}s", f"--timeout={ANSWER_S}s", "-s", str(SCRIPT))
    argv = ["wrk", *options, url, "--", method, authorization, body, key]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str], may_refuse: bool = False) -> Load:
    said, _ = process.communicate()
    if process.returncode != 0:
        raise Broken(f"wrk: {said.strip()}")
    load = msgspec.json.decode(said.strip().rpartition("\n")[2], type=Load)
    if load.requests == 0 or load.broken or (load.refused and not may_refuse):
        raise Broken(
            f"wrk saw {load.refused} refusals and {load.broken} broken connections in {load.requests} requests"
        )
    return load
