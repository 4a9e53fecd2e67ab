"""The gate: visp's own Python for a warm invocation may not grow unnoticed. `python -m bench gate`, and a test in CI.

What is measured is CPU time of the loop's thread, batch by batch, on the plane alone (`plane.py`); a low quantile of
many short batches counts, for others can only add to them. How fast the machine is cancels out: batches take turns with
a fixed piece of pure Python, and what is kept (`gate.json`, for each version of Python) is the ratio of both. More than
a tenth above it is a regression; more than a tenth below it the record has become too generous and is taken anew, by
the same command with `--record`.
"""

from __future__ import annotations

import argparse
import gc
import http.cookies
import ipaddress
import json.encoder
import os
import platform
import shlex
import string
import sys
import time
import urllib.parse
from email import message_from_bytes
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop

from bench.plane import CONNECTIONS, plane
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDS = Path(__file__).with_name("gate.json")
TOLERANCE = 0.10
BATCHES = 1_000
"""Of each side, a millisecond or less each: shorter than what the scheduler gives to others."""
QUANTILE = 0.05
TRIES = 3
ANEW = "python -m bench gate --record"


class Own(msgspec.Struct, frozen=True):
    """CPU time of a warm invocation, and of the reference beside it, on an undisturbed machine."""

    invocation_us: float
    reference_us: float

    @property
    def ratio(self) -> float:
        return self.invocation_us / self.reference_us


class Record(msgspec.Struct, frozen=True):
    """What a version of Python is held to. `invocation_us` only tells people what it was where it was recorded."""

    ratio: float
    invocation_us: float


def judge(own: Own, record: Record) -> str | None:
    """What is wrong, or None. Pure."""
    change = own.ratio / record.ratio - 1
    if change > TOLERANCE:
        return (
            f"own Python of a warm invocation has grown by {change:.0%} (more than {TOLERANCE:.0%}): "
            f"{own.invocation_us:.1f} µs, ratio {own.ratio:.3f} beside {record.ratio:.3f}. "
            "Find out what it is, and make it cheaper; where it is worth its price, say why in the commit and "
            f"record it anew: {ANEW}"
        )
    if change < -TOLERANCE:
        return (
            f"own Python of a warm invocation has become {-change:.0%} less: {own.invocation_us:.1f} µs, ratio "
            f"{own.ratio:.3f} beside {record.ratio:.3f}. Keep what was won: {ANEW}"
        )
    return None


# ── measuring ───────────────────────────────────────────────────────────────────────────────────────────────────


def measure() -> Own:
    """Takes two seconds; the garbage collector rests, as it nearly does in a server."""
    log.set_level("error")
    return uvloop.run(_measure())


async def _measure() -> Own:
    invocations: list[float] = []
    references: list[float] = []
    async with plane() as measured:
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            for _ in range(BATCHES):
                began_s = time.thread_time()
                await measured.round()
                ended_s = time.thread_time()
                for number in range(REFERENCES):
                    reference(number)
                references.append((time.thread_time() - ended_s) / REFERENCES * 1e6)
                invocations.append((ended_s - began_s) / CONNECTIONS * 1e6)
        finally:
            gc.enable()
            gc.unfreeze()
        measured.check()
    return Own(undisturbed(invocations), undisturbed(references))


def undisturbed(batches: Sequence[float]) -> float:
    """What a batch costs when nobody is in the way: the value at a low quantile. Pure."""
    return sorted(batches)[int(len(batches) * QUANTILE)]


REFERENCES = 3
_MAIL = (
    b"From: a@b.example\r\nTo: c@d.example\r\nSubject: hello\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nbody\r\n"
)
_PRETTY = json.encoder.JSONEncoder(indent=1)


def reference(number: int) -> None:
    """A fixed piece of what the standard library does in pure Python, of many kinds: as much code and as many objects
    as a warm invocation touches, so that full caches slow both alike. Never changed: records are ratios to it.
    """
    mail = message_from_bytes(_MAIL)
    mail.get_content_type()
    shlex.split("run --name 'a b' x=1 y=2")
    ipaddress.ip_network("10.1.0.0/16")
    ipaddress.ip_address(f"10.0.0.{number}")
    Fraction(number + 1, 7) + Fraction(3, 11)
    _PRETTY.encode({"a": [1, 2, {"b": number}], "c": "text", "d": None})
    cookies: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
    cookies.load("a=b; c=d")
    cookies.output()
    urllib.parse.parse_qs("a=1&b=2&c=%20x")
    string.Template("$a and $b").substitute(a=number, b=2)


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench gate", description="Holds own Python of an invocation to its record.")
    parser.add_argument("--record", action="store_true", help="takes what is measured now as the record")
    options = parser.parse_args(arguments)
    _with_fixed_hashes()
    version = ".".join(platform.python_version_tuple()[:2])
    records = msgspec.json.decode(RECORDS.read_bytes(), type=dict[str, Record]) if RECORDS.exists() else {}
    if options.record:
        own = min((measure() for _ in range(TRIES)), key=lambda own: own.ratio)
        records[version] = Record(round(own.ratio, 4), round(own.invocation_us, 1))
        RECORDS.write_bytes(msgspec.json.format(msgspec.json.encode(records), indent=2) + b"\n")
        print(f"{_said(own)}; recorded for Python {version}")
        return
    if version not in records:
        print(f"{_said(measure())}; nothing is recorded for Python {version}: {ANEW}")
        return
    for _ in range(TRIES):  # a neighbour who fills the caches makes it look worse, never better for long
        own = measure()
        wrong = judge(own, records[version])
        if wrong is None:
            print(f"{_said(own)}; recorded {records[version].ratio:.3f}")
            return
        print(f"{_said(own)}; recorded {records[version].ratio:.3f}: once more")
    sys.exit(wrong)


def _with_fixed_hashes() -> None:
    """Starts over with the same hashes each time: where keys fall in dictionaries is worth a percent or two."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"})


def _said(own: Own) -> str:
    return (
        f"own Python of a warm invocation: {own.invocation_us:.1f} µs, {own.ratio:.3f} × the reference "
        f"({own.reference_us:.1f} µs)"
    )
