"""The client's own log, and the judgement by it: what was given has one record, in its place, and ran once at most."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import msgspec

TERMINAL_S = 60.0
READY_S = 5.0
RATE_PER_S = 50.0
INTERRUPTED, BROKEN = "whisk internal error", "action developer error"
STATUSES = frozenset(("success", INTERRUPTED))
"""What may have become of an action of the tests where servers are killed."""
CONTAINER_STATUSES = STATUSES | {BROKEN}
"""And where its containers are too."""

CONTAINER = "container"
"""The kind of kill that ends one run at most, and no server."""
EFFECT, SEQUENCE, EVENT = "effect", "twice", "event"
PARTS = 2
"""Of the sequence, all of them runs of the action."""


class Given(msgspec.Struct):
    """An activation that a client was told of, itself or by the record of what caused it.

    `life` counts the kills before it; `entity` is the name its record must have, None for a component of anything.
    """

    namespace: str
    life: int
    at_s: float
    entity: str | None = None
    response: Any = None


class Kept(msgspec.Struct):
    """A document that one client writes again and again: the last value acknowledged, and the last one sent."""

    acknowledged: int | None = None
    sent: int | None = None


class Keyed(msgspec.Struct):
    """A request with an idempotency key: what it sends each time, and the id that it was first answered."""

    key: str
    body: Any
    id: str | None = None


class Tally(msgspec.Struct):
    """What came of one kind of kill."""

    kills: int = 0
    given: int = 0
    lost: int = 0
    twice: int = 0
    misplaced: int = 0
    unread: int = 0
    wrong: int = 0
    interrupted: int = 0
    broken: int = 0
    slowest_ready_s: float = 0.0
    slowest_terminal_s: float = 0.0


class Book:
    """All that clients were told by the servers of one data folder. Threads add to it; lives are numbered by kills."""

    def __init__(self, log: Path, effects: Path, statuses: frozenset[str]) -> None:
        self.life = 0
        self.kinds: list[str] = [""]
        """How each life ended; the last one has not."""
        self.given: dict[str, Given] = {}
        self.pending: OrderedDict[str, Given] = OrderedDict()
        """Of earlier lives, whose record nobody has read since."""
        self.seen: dict[str, str] = {}
        """Status by id, of what was read."""
        self.leaves: set[str] = set()
        """Those among them that are runs of the action that counts itself."""
        self.kept: dict[tuple[str, str], Kept] = {}
        self.has_keys = True
        """Whether clients send requests with idempotency keys."""
        self.keyed: dict[tuple[str, int], Keyed] = {}
        """The one that each client sends again."""
        self.effects: dict[int, int] = {}
        """How often each request may have its effect, by its number."""
        self.statuses: Counter[int] = Counter()
        self.tallies: dict[str, Tally] = {}
        self.violations: list[str] = []
        self._numbers = itertools.count(1)
        self._allowed = statuses
        self._effects = effects
        self._log = log.open("a", buffering=1)

    def close(self) -> None:
        self._log.close()

    # ── written by clients ──────────────────────────────────────────────────────────────────────────────────────

    def note(self, namespace: str, what: str, status: int, id: str | None) -> None:
        """Every answer, as it came."""
        self._log.write(f"{time.time():.3f} {self.life} {namespace} {what} {status} {id or '-'}\n")

    def number(self, effects: int) -> int:
        """A number for a request, which goes with all that it causes: so many runs, whatever their ids are."""
        number = next(self._numbers)
        self.effects[number] = effects
        return number

    def give(self, namespace: str, id: str, entity: str | None, response: Any = None) -> None:
        given = Given(namespace, self.life, time.monotonic(), entity, response)
        if self.given.setdefault(id, given) is not given:
            self._violate(given, f"the id {id} was given twice")

    # ── one life after the other ────────────────────────────────────────────────────────────────────────────────

    def end_life(self, kind: str) -> None:
        """The server was killed: what it gave is owed a record from now on."""
        self.kinds[self.life] = kind
        self.tally(self.life).kills += 1
        ended = self.life
        self.kinds.append("")
        self.life += 1
        for id, given in list(self.given.items())[-20_000:]:
            if given.life == ended and id not in self.seen:
                self.pending[id] = given

    def ready(self, took_s: float) -> None:
        """The server of this life came up after the last one's end."""
        tally = self.tally(max(0, self.life - 1))
        tally.slowest_ready_s = max(tally.slowest_ready_s, took_s)
        if self.life and took_s > READY_S:
            self.violations.append(f"ready only {took_s:.1f} s after the kill of life {self.life - 1}")

    def tally(self, life: int) -> Tally:
        return self.tallies.setdefault(self.kinds[life] or "(first start)", Tally())

    # ── read back ───────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, id: str, given: Given, record: Any) -> None:
        """A record, as its own namespace reads it."""
        self.pending.pop(id, None)
        tally, status = self.tally(given.life), record["response"]["status"]
        took_s = time.monotonic() - given.at_s
        tally.slowest_terminal_s = max(tally.slowest_terminal_s, took_s)
        if took_s > TERMINAL_S:
            self._violate(given, f"{id} had its record only {took_s:.1f} s after it was given")
        if record["activationId"] != id or record["namespace"] != given.namespace:
            tally.misplaced += 1
            self._violate(given, f"{id} of {given.namespace} has the record {record}")
        if status not in self._allowed or (given.entity or record["name"]) != record["name"]:
            tally.wrong += 1
            self._violate(given, f"{id} of {given.entity} came to {record}")
        if given.response is not None and given.response != record["response"]:
            tally.wrong += 1
            self._violate(given, f"{id} was answered {given.response} and has the record {record}")
        if record["name"] == SEQUENCE and status == "success" and len(set(record["logs"])) != PARTS:
            tally.wrong += 1
            self._violate(given, f"{id} is said to have run {record['logs']}")
        tally.interrupted += status == INTERRUPTED
        self.seen[id] = status
        if record["name"] == EFFECT:
            self.leaves.add(id)
            tally.broken += status == BROKEN
        for child in children(record):
            if child not in self.given:
                self.given[child] = self.pending[child] = Given(given.namespace, given.life, given.at_s)

    def misplace(self, id: str, given: Given, namespace: str) -> None:
        """Another namespace could read it."""
        self.tally(given.life).misplaced += 1
        self._violate(given, f"{id} of {given.namespace} is read in {namespace}")

    def unread(self, what: str, kept: Kept, found: Any) -> None:
        """A write that was acknowledged and cannot be read."""
        self.tally(max(0, self.life - 1)).unread += 1
        self.violations.append(f"{what}: {kept} was written, and {found} is read in life {self.life}")

    def close_accounts(self, listed: dict[str, list[str]]) -> None:
        """The end: everything given is listed once, by its own namespace, and had its effect once at most."""
        owners: dict[str, str] = {}
        for namespace, ids in listed.items():
            for id, count in Counter(ids).items():
                given = self.given.get(id)
                life = self.life if given is None else given.life
                if count > 1 or id in owners:
                    self.tally(life).twice += 1
                    self.violations.append(f"{id} is listed {count} times in {namespace}, and in {owners.get(id)}")
                if given is not None and given.namespace != namespace:
                    self.misplace(id, given, namespace)
                owners[id] = namespace
        for id, given in self.given.items():
            self.tally(given.life).given += 1
            if id not in owners or id not in self.seen:
                self.tally(given.life).lost += 1
                self._violate(given, f"{id} was given and is lost (listed: {id in owners}, read: {id in self.seen})")
        self._count_effects()
        broken, killed = sum(tally.broken for tally in self.tallies.values()), self.kinds.count(CONTAINER)
        if broken > killed:
            self.violations.append(f"{broken} runs lost their container, and {killed} were killed")

    def _count_effects(self) -> None:
        lines = [line.split() for line in self._effects.read_text().splitlines()] if self._effects.exists() else []
        effects = Counter(id for id, _ in lines)
        for id, count in effects.items():
            if count > 1:
                self._run_too_often(id, f"{id} ran {count} times")
        caused = Counter(int(number) for _, number in lines)
        for number, count in caused.items():
            if count > self.effects.get(number, 0):
                ids = [id for id, of in lines if int(of) == number]
                self._run_too_often(ids[0], f"request {number} ran {count} times, of {self.effects.get(number)}: {ids}")
        for id in self.leaves:
            if self.seen[id] == "success" and not effects[id]:
                self.tally(self.given[id].life).wrong += 1
                self._violate(self.given[id], f"{id} is said to have run, and did not")

    def _run_too_often(self, id: str, sentence: str) -> None:
        self.tally(self.given[id].life if id in self.given else self.life).twice += 1
        self.violations.append(sentence)

    def _violate(self, given: Given, sentence: str) -> None:
        self.violations.append(f"{sentence} (life {given.life}, which ended by: {self.kinds[given.life] or '-'})")


def children(record: Any) -> list[str]:
    """What a record says it caused: a trigger's activations, a sequence's parts."""
    if record["name"] == EVENT:
        entries = [json.loads(entry) for entry in record["logs"]]
        return [entry["activationId"] for entry in entries if "activationId" in entry]
    return list(record["logs"]) if record["name"] == SEQUENCE else []
