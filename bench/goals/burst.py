"""How bursts of accepted work are measured: 64 clients for some seconds, then until all of it has run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from bench.load import Load

if TYPE_CHECKING:
    from bench.server import Platform

CLIENTS = 64


class Burst(msgspec.Struct, frozen=True):
    """What was accepted, and how many activations a second were brought to their end from the first to the last."""

    load: Load
    executed_per_s: float


def burst(visp: Platform, target: str, *, query: str, seconds: int, records_each: int) -> Burst:
    """Everything is accepted durably; `records_each` is how many activations one request makes."""
    began_s = time.monotonic()
    load = visp.load(target, clients=CLIENTS, seconds=seconds, query=query, may_refuse=True)
    visp.settle()
    took_s = time.monotonic() - began_s
    return Burst(load, (load.requests - load.refused) * records_each / took_s)
