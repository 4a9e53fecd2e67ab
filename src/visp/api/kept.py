"""Answers of the gateway that are kept for a while, where an API's document asks for it (`x-visp-cache`).

What one caller's credentials brought is never given to another: such an answer is kept for these credentials alone, or
not at all.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from visp.api.errors import HttpAnswer
from visp.entity.gateway import KeyCheck, Operation, SecretCheck
from visp.telemetry.metrics import Family, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from visp.clock import Clock
    from visp.entity.gateway import Check, Keeping

ASKED = "visp_gateway_kept_answers_total"
BYTES = "visp_gateway_kept_answers_bytes"

ALL_BYTES = 64 * 1024 * 1024
ANSWER_BYTES = 1024 * 1024
_OVERHEAD_BYTES = 1024
"""What an answer takes beside its body and headers."""

_CREDENTIALS = ("authorization", "cookie", "x-require-whisk-auth")
_ALWAYS = ("host", "accept", "origin")
_UNKEPT = frozenset({"no-store", "private", "no-cache"})


def place_of(
    keeping: Keeping, checks: Sequence[Check], headers: Mapping[str, str], where: tuple[str, ...]
) -> bytes | None:
    """Under what the answer to a request is kept; None where it is not. Pure.

    `where` tells namespace, path and query.
    """
    if "range" in headers:
        return None
    credentials = [f"{name}={headers[name]}" for name in _credentials(checks) if name in headers]
    if credentials and not keeping.by_credentials:
        return None
    shown = [f"{name}={headers.get(name, '')}" for name in (*_ALWAYS, *keeping.vary)]
    return hashlib.sha256(msgspec.msgpack.encode((where, shown, credentials))).digest()


def _credentials(checks: Sequence[Check]) -> Iterator[str]:
    yield from _CREDENTIALS
    for check in checks:
        if isinstance(check, KeyCheck):
            yield check.header
        elif isinstance(check, SecretCheck):
            yield check.id_header
            yield check.secret_header


class KeptAnswers:
    """Bounded: the one that was kept first goes when there is no room."""

    def __init__(self, clock: Clock, limit_bytes: int = ALL_BYTES) -> None:
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._answers: dict[bytes, _Kept] = {}
        self.bytes = 0
        self._asked = Tally()

    def measured(self) -> Iterable[Family]:
        """For a scrape."""
        told = "Calls of APIs that keep answers: one was kept (hit), or none (miss)."
        yield Family(ASKED, told, "counter", self._asked.samples(), ("result",))
        yield Family(BYTES, "Answers of APIs that are kept.", "gauge", {(): self.bytes})

    def find(self, place: bytes, operation: Operation) -> HttpAnswer | None:
        """What is kept of this very operation: a document that changes has nothing kept."""
        kept = self._answers.get(place)
        now_s = self._clock.monotonic_s()
        if kept is None or kept.operation is not operation or now_s >= kept.until_s:
            self._drop(place)
            self._asked.add("miss")
            return None
        self._asked.add("hit")
        age = ("Age", str(int(now_s - kept.at_s)))
        return msgspec.structs.replace(kept.answer, headers=(*kept.answer.headers, age))

    def keep(self, place: bytes, operation: Operation, keeping: Keeping, answer: HttpAnswer) -> None:
        """Keeps an answer, if it is one to be kept."""
        size = _OVERHEAD_BYTES + len(answer.body) + sum(len(name) + len(value) for name, value in answer.headers)
        if size > min(ANSWER_BYTES, self._limit_bytes) or not may_be_kept(answer, keeping):
            return
        self._drop(place)
        while self.bytes + size > self._limit_bytes:
            self._drop(next(iter(self._answers)))
        at_s = self._clock.monotonic_s()
        self._answers[place] = _Kept(answer, operation, size, at_s, at_s + keeping.seconds)
        self.bytes += size

    def _drop(self, place: bytes) -> None:
        kept = self._answers.pop(place, None)
        if kept is not None:
            self.bytes -= kept.size


class _Kept(msgspec.Struct, frozen=True):
    answer: HttpAnswer
    operation: Operation
    size: int
    at_s: float
    until_s: float


def may_be_kept(answer: HttpAnswer, keeping: Keeping) -> bool:
    """Whether it is a success that says nothing against it, and depends on nothing that is not looked at. Pure."""
    if answer.status != 200:
        return False
    known = {*_ALWAYS, *keeping.vary}
    for name, value in answer.headers:
        words = {word.partition("=")[0].strip().lower() for word in value.split(",")}
        lowered = name.lower()
        if lowered == "set-cookie":
            return False
        if lowered == "cache-control" and words & _UNKEPT:
            return False
        if lowered == "vary" and not words <= known:
            return False
    return True
