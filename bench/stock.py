"""Data folders with much in them, filled straight through the stores: a server would need hours for it."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bench.load import Broken
from bench.server import NOOP, platform
from visp import premises
from visp.controller.identities import Identities
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord, new_id
from visp.entity.limits import ActionLimits
from visp.entity.rule import Rule
from visp.entity.subject import GUEST
from visp.entity.trigger import RuleLink, RuleStatus, Trigger
from visp.settings import Limits, Settings
from visp.store.base import Put
from visp.store.cache import EntityCache, to_document
from visp.store.filesystem import FileBlobs
from visp.store.index import SqliteActivations
from visp.store.sqlite import SqliteEntities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from visp.store.cache import Entity

E = TypeVar("E", Action, Trigger, Rule)

AT_ONCE = 1_000
NAMES = 100
"""Records are spread over so many actions."""
AGE_MS = 86_400_000
"""And over the last day."""
ENTITIES_FILE, RECORDS_FILE = "entities.db", "activations-0.db"


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder holds besides its one action, trigger and rule."""

    actions: int = 0
    records: int = 0
    rules: int = 0


def make_key(data_dir: Path, namespace: str) -> str:
    """A key of a namespace, in a folder that no server uses yet."""

    data_dir.mkdir(mode=0o700, exist_ok=True)

    async def ensure() -> str:
        settings = Settings()
        store = await SqliteEntities.open(data_dir / ENTITIES_FILE)
        try:
            identities = Identities(store, premises.read_secret(settings, data_dir), Limits(), is_loopback=True)
            key = await identities.ensure(namespace)
        finally:
            await store.close()
        if key is None:
            raise Broken(f"namespace {namespace} has a key already")
        return str(key)

    return asyncio.run(ensure())


def begin(data_dir: Path) -> None:
    """An action `noop`, a trigger `event`, a rule that joins them, made by a server: the rest is copied from them."""
    with platform(data_dir=data_dir) as visp:
        visp.put_action("noop", NOOP)
        visp.put("triggers", "event", {})
        visp.put("rules", "on-event", {"trigger": "/_/event", "action": "/_/noop"})
        visp.run("noop", {})


def add(data_dir: Path, held: Stock, wanted: Stock) -> None:
    """Adds what `wanted` has more than `held`; says how it goes on to standard error."""
    asyncio.run(_add(data_dir, held, wanted))


async def _add(data_dir: Path, held: Stock, wanted: Stock) -> None:
    store = await SqliteEntities.open(data_dir / ENTITIES_FILE)
    try:
        cache = EntityCache(store, FileBlobs(data_dir / "blobs"))
        action, trigger, rule = [await cache.get(f"{GUEST}/{name}") for name in ("noop", "event", "on-event")]
        assert isinstance(action, Action)
        assert isinstance(trigger, Trigger)
        assert isinstance(rule, Rule)
        entities = [_named(action, f"action{number}") for number in range(held.actions, wanted.actions)]
        await write(store, "actions", entities)
        pairs = [pair for number in range(held.rules, wanted.rules) for pair in _joined(trigger, rule, number)]
        await write(store, "rules and their triggers", pairs)
    finally:
        await store.close()
    index = await SqliteActivations.open(data_dir / RECORDS_FILE)
    try:
        await put_records(index, wanted.records - held.records, first=held.records)
    finally:
        await index.close()


async def put_records(index: SqliteActivations, count: int, first: int = 0) -> float:
    """Adds records, oldest first; the CPU seconds of this process that their writing took."""
    progress = Progress("records", count)
    indexed_to, used_s = await index.indexed_to(), 0.0
    begin_ms = round(time.time() * 1000) - AGE_MS
    for at in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - at)
        records = [record(begin_ms + (first + at + number) * 1000 // AT_ONCE, number) for number in range(size)]
        before_s = time.process_time()
        await index.put(records, indexed_to)
        used_s += time.process_time() - before_s
        progress.show(at + size)
    return used_s


def record(start_ms: int, number: int) -> ActivationRecord:
    """A record as a warm no-op leaves it."""
    name = f"action{number % NAMES}"
    head = ActivationHead(
        id=new_id(start_ms),
        namespace=GUEST,
        subject=GUEST,
        name=name,
        version="0.0.1",
        start_ms=start_ms,
        end_ms=start_ms + 1,
        duration_ms=1,
        size=2,
        path=f"{GUEST}/{name}",
        kind="nodejs:20",
        limits=ActionLimits(),
        wait_ms=1,
        is_timeout=False,
    )
    return ActivationRecord(head=head, result=b"{}")


def _named(entity: E, name: str) -> E:
    return msgspec.structs.replace(entity, name=msgspec.structs.replace(entity.name, name=name))


def _joined(trigger: Trigger, rule: Rule, number: int) -> Iterator[Trigger | Rule]:
    """A trigger with one rule."""
    own = _named(trigger, f"trigger{number}")
    joining = msgspec.structs.replace(_named(rule, f"rule{number}"), trigger=own.name)
    links = {joining.name.id: RuleLink(joining.action, RuleStatus.ACTIVE)}
    yield msgspec.structs.replace(own, rules=links)
    yield joining


async def write(store: SqliteEntities, what: str, entities: Sequence[Entity]) -> None:
    """Adds entities, and says how it goes on."""
    progress = Progress(what, len(entities))
    for at in range(0, len(entities), AT_ONCE):
        some = entities[at : at + AT_ONCE]
        await store.write([Put(to_document(entity), None) for entity in some])
        progress.show(at + len(some))


class Progress:
    """One line that says how far a long work is, on a terminal; else only its end."""

    def __init__(self, what: str, count: int) -> None:
        self._what = what
        self._count = count
        self._began_s = time.monotonic()

    def show(self, done: int) -> None:
        is_over = done >= self._count
        if not (is_over or sys.stderr.isatty()):
            return
        took_s = time.monotonic() - self._began_s
        line = f"  {self._what}: {done:,} of {self._count:,} ({took_s:.0f} s)"
        print(f"\r{line}" if sys.stderr.isatty() else line, end="\n" if is_over else "", file=sys.stderr, flush=True)
