"""The gate: visp's own Python for a warm invocation may not grow unnoticed. `python -m bench gate`, and a test in CI.

What is measured is instructions of the loop's thread, counted by valgrind, on the plane alone (`plane.py`): a count is
the same whatever else the machine does, where a time is not. What is kept (`gate.json`, for each version of Python) is
the ratio to the count of a fixed piece of pure Python, for builds of one version differ. More than a twentieth above it
is a regression; more than a twentieth below it the record has become too generous and is taken anew, by the same
command with `--record`. What caches and guesses of branches cost is not seen: the goal `own_python` shows seconds.
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
import shutil
import string
import subprocess
import sys
import tempfile
import urllib.parse
from email import message_from_bytes
from fractions import Fraction
from pathlib import Path

import msgspec
import uvloop

from bench.load import Broken
from bench.plane import CONNECTIONS, plane
from visp.telemetry import log

RECORDS = Path(__file__).with_name("gate.json")
TOLERANCE = 0.05
BATCHES = 10
"""Of warm invocations, one on each connection."""
REFERENCES = 80
ANEW = "python -m bench gate --record"


class Own(msgspec.Struct, frozen=True):
    """Instructions of a warm invocation, and of the reference."""

    invocation: float
    reference: float

    @property
    def ratio(self) -> float:
        return self.invocation / self.reference


class Record(msgspec.Struct, frozen=True):
    """What a version of Python is held to. `invocation` only tells people what it was where it was recorded."""

    ratio: float
    invocation: int


def judge(own: Own, record: Record) -> str | None:
    """What is wrong, or None. Pure."""
    change = own.ratio / record.ratio - 1
    if change > TOLERANCE:
        return (
            f"own Python of a warm invocation has grown by {change:.0%} (more than {TOLERANCE:.0%}): "
            f"{own.invocation:,.0f} instructions, ratio {own.ratio:.3f} beside {record.ratio:.3f}. "
            "Find out what it is, and make it cheaper; where it is worth its price, say why in the commit and "
            f"record it anew: {ANEW}"
        )
    if change < -TOLERANCE:
        return (
            f"own Python of a warm invocation has become {-change:.0%} less: {own.invocation:,.0f} instructions, ratio "
            f"{own.ratio:.3f} beside {record.ratio:.3f}. Keep what was won: {ANEW}"
        )
    return None


# ── measuring ───────────────────────────────────────────────────────────────────────────────────────────────────


def measure() -> Own:
    """Takes half a minute, for valgrind makes a process fifty times slower. Raises `Broken` where it cannot."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Broken("the gate counts instructions with valgrind, which is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
        counting = subprocess.run(
            [
                *(valgrind, "--tool=callgrind", f"--callgrind-out-file={folder}/counts"),
                *("--separate-threads=yes", f"--dump-before={_mark.__name__}"),
                *(sys.executable, "-m", "bench", "gate", COUNTED),
            ],
            env=os.environ | {"PYTHONHASHSEED": "0"},  # where keys fall in dictionaries is worth a percent or two
            capture_output=True,
            text=True,
            check=False,
        )
        if counting.returncode != 0:
            raise Broken(f"the counted process failed:\n{counting.stderr}")
        invocations, references = (_total(Path(folder, f"counts.{part}-01")) for part in (2, 3))
    return Own(invocations / (BATCHES * CONNECTIONS), references / REFERENCES)


_mark = os.getppid
"""The function of C whose calls end a part of the count: nothing else asks for it."""


def _total(part: Path) -> int:
    """Instructions of the main thread in one part of callgrind's output."""
    return next(int(line.split()[1]) for line in part.read_text().splitlines() if line.startswith("totals:"))


async def _counted() -> None:
    """What runs under valgrind; the garbage collector rests, as it nearly does in a server."""
    async with plane() as measured:
        gc.collect()
        gc.disable()
        _mark()
        for _ in range(BATCHES):
            await measured.round()
        _mark()
        for number in range(REFERENCES):
            reference(number)
        _mark()
        measured.check()


_MAIL = (
    b"From: a@b.example\r\nTo: c@d.example\r\nSubject: hello\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nbody\r\n"
)
_PRETTY = json.encoder.JSONEncoder(indent=1)


def reference(number: int) -> None:
    """A fixed piece of what the standard library does in pure Python, of many kinds. Never changed: records are
    ratios to it.
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

COUNTED = "--counted"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench gate", description="Holds own Python of an invocation to its record.")
    parser.add_argument("--record", action="store_true", help="takes what is measured now as the record")
    parser.add_argument(COUNTED, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.counted:
        log.set_level("error")
        uvloop.run(_counted())
        return
    version = ".".join(platform.python_version_tuple()[:2])
    records = msgspec.json.decode(RECORDS.read_bytes(), type=dict[str, Record]) if RECORDS.exists() else {}
    own = measure()
    said = (
        f"own Python of a warm invocation: {own.invocation:,.0f} instructions, {own.ratio:.4f} × the reference "
        f"({own.reference:,.0f})"
    )
    if options.record:
        records[version] = Record(round(own.ratio, 4), round(own.invocation))
        RECORDS.write_bytes(msgspec.json.format(msgspec.json.encode(records), indent=2) + b"\n")
        print(f"{said}; recorded for Python {version}")
    elif version not in records:
        print(f"{said}; nothing is recorded for Python {version}: {ANEW}")
    else:
        print(f"{said}; recorded {records[version].ratio:.4f}")
        sys.exit(judge(own, records[version]))
