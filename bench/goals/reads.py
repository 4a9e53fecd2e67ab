"""Lists and gets of a server that holds much, each kind of them: what they take at the server."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bench import stock
from bench.goals import Goal
from bench.measure import Finding, spread
from bench.server import NOOP, Platform, platform
from bench.stock import Progress, Stock
from visp.entity.action import Action
from visp.entity.activation import new_id
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package
from visp.entity.subject import GUEST
from visp.store.cache import EntityCache
from visp.store.filesystem import FileBlobs
from visp.store.index import SqliteActivations
from visp.store.sqlite import SqliteEntities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.rig import Rig
    from visp.entity.activation import ActivationRecord

    Draw = Callable[[random.Random], str]

E = TypeVar("E", Package, Action)

GOAL = Goal("reads", "every kind of list and get, with many stored actions, records and rules")
LIST_MS, GET_MS = 20.0, 3.0
"""Of 99 of 100, beyond what a ping takes."""
ASKED = 200
"""Of each kind in a round: its p99 is the third worst."""
DEEP = 100_000
"""What is skipped, where as many are stored twice over."""
PACKAGES, PACKAGED = 100, 5
"""One action in so many lies in a package."""
OTHERS = 5
"""One record in so many is of another namespace; there are as many of those."""
BLOCK = 7
"""Records of one namespace that follow one another."""
OFTEN, RARE, PACKAGED_NAME = "action0", "action7", "p0/action0"
RARE_EVERY = 25_000
HERE = "/api/v1/namespaces/_"
SETTINGS = {"retention.days": 0, "retention.bytes": 0}


class Kind(msgspec.Struct, frozen=True):
    """One kind of request: the path below the namespace, drawn anew for each."""

    what: str
    limit_ms: float
    path: Draw


class Asked(msgspec.Struct, frozen=True):
    """Milliseconds of the requests of one kind in one round, and of the pings between them.

    What is told of both is what they take beyond the median of those pings.
    """

    took_ms: list[float]
    ping_ms: list[float]


def measure(rig: Rig) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="visp-bench-") as folder:
        data_dir, began_s = Path(folder) / "data", time.monotonic()
        begin_ms = _fill(data_dir, rig)
        built_s = time.monotonic() - began_s
        size_mb = sum(path.stat().st_size for path in data_dir.rglob("*") if path.is_file()) / (1 << 20)
        with platform(SETTINGS, data_dir=data_dir) as visp:
            kinds = _kinds(rig, begin_ms, _ids(visp))
            took: list[list[Asked]] = [[] for _ in kinds]
            for number in range(rig.rounds):
                chance = random.Random(number)
                for kind, rounds in zip(kinds, took, strict=True):
                    rounds.append(_ask(visp, [f"{HERE}/{kind.path(chance)}" for _ in range(ASKED)]))
    held = f"{rig.actions:,} actions, {rig.records:,} records, {rig.rules:,} rules"
    note = f"{held}; built in {built_s:.0f} s, {size_mb:,.0f} MB"
    for number, (kind, rounds) in enumerate(zip(kinds, took, strict=True)):
        ours = spread(_p99(asked.took_ms) - statistics.median(asked.ping_ms) for asked in rounds)
        p50 = spread(statistics.median(asked.took_ms) - statistics.median(asked.ping_ms) for asked in rounds)
        yield Finding(
            goal=GOAL.name,
            what=f"{kind.what}: p99; floor: of pings",
            unit="ms",
            ours=ours,
            floor=spread(_p99(asked.ping_ms) - statistics.median(asked.ping_ms) for asked in rounds),
            promise=f"≤ {kind.limit_ms:.0f} ms",
            is_met=ours.median <= kind.limit_ms,
            note=f"p50 {p50.median:.2f} ms" + (f"; {note}" if number == 0 else ""),
        )


def _ask(visp: Platform, paths: Sequence[str]) -> Asked:
    """On one connection, in turn with pings: until each answer is here, unread."""
    took_ms: list[float] = []
    ping_ms: list[float] = []
    for path in paths:
        for times, asked in ((ping_ms, "/ping"), (took_ms, path)):
            began_s = time.perf_counter()
            visp.get(asked)
            times.append((time.perf_counter() - began_s) * 1000)
    return Asked(took_ms, ping_ms)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[max(0, len(values) * 99 // 100 - 1)]


def _ids(visp: Platform) -> list[str]:
    """Ids from all over the store."""
    count = visp.records()
    pages = [visp.get(f"{HERE}/activations?limit=20&skip={count * part // 20}") for part in range(20)]
    return [record["activationId"] for page in pages for record in msgspec.json.decode(page)]


def _kinds(rig: Rig, begin_ms: int, ids: Sequence[str]) -> list[Kind]:
    deep = min(DEEP, rig.records // 2)
    packaged = rig.actions // PACKAGED

    def time_of(chance: random.Random) -> int:
        return begin_ms + chance.randrange(stock.AGE_MS)

    def of_plain(chance: random.Random) -> int:
        number = chance.randrange(rig.actions)
        return number if number % PACKAGED else number + 1

    def window(chance: random.Random, hours: int) -> str:
        since_ms = time_of(chance)
        return f"since={since_ms}&upto={since_ms + hours * 3_600_000}"

    lists: dict[str, Draw] = {
        "actions": lambda _: "actions",
        "actions, limit=200": lambda _: "actions?limit=200",
        "actions, skip to the last": lambda _: f"actions?skip={rig.actions - 100}&limit=30",
        "actions, count": lambda _: "actions?count=true",
        "actions of a package": lambda chance: f"actions/p{chance.randrange(PACKAGES)}/",
        "actions of a package, count": lambda chance: f"actions/p{chance.randrange(PACKAGES)}/?count=true",
        "packages": lambda _: "packages?limit=200",
        "triggers": lambda _: "triggers?limit=200",
        "rules": lambda _: "rules?limit=200",
        "rules, count": lambda _: "rules?count=true",
        "records": lambda _: "activations",
        "records, docs": lambda _: "activations?docs=true",
        "records, limit=200": lambda _: "activations?limit=200",
        "records, docs, limit=200": lambda _: "activations?docs=true&limit=200",
        f"records, skip={deep}": lambda _: f"activations?skip={deep}",
        "records, skip anywhere": lambda chance: f"activations?skip={chance.randrange(rig.records * 3 // 4)}",
        "records of a rare name": lambda _: f"activations?name={RARE}",
        "records of a frequent name": lambda _: f"activations?name={OFTEN}&limit=200",
        "records of a frequent name, deep": lambda _: f"activations?name={OFTEN}&skip={deep // 2}",
        "records of a packaged name": lambda _: f"activations?name={PACKAGED_NAME}",
        "records since then": lambda chance: f"activations?since={time_of(chance)}",
        "records up to then": lambda chance: f"activations?upto={time_of(chance)}",
        "records up to then, deep": lambda chance: f"activations?upto={time_of(chance)}&skip={deep}",
        "records of an hour": lambda chance: f"activations?{window(chance, 1)}&limit=200",
        "records, count": lambda _: "activations?count=true",
        "records, count, skip": lambda _: f"activations?count=true&skip={deep}",
        "records of a frequent name, count": lambda _: f"activations?count=true&name={OFTEN}",
        "records of six hours, count": lambda chance: f"activations?count=true&{window(chance, 6)}",
        "records of a name and an hour, count": lambda chance: (
            f"activations?count=true&name={OFTEN}&{window(chance, 1)}"
        ),
    }
    gets: dict[str, Draw] = {
        "an action": lambda chance: f"actions/action{of_plain(chance)}",
        "a packaged action": lambda chance: f"actions/{_packaged(chance.randrange(packaged) * PACKAGED)}",
        "a trigger": lambda chance: f"triggers/trigger{chance.randrange(rig.rules)}",
        "a rule": lambda chance: f"rules/rule{chance.randrange(rig.rules)}",
        "a record": lambda chance: f"activations/{chance.choice(ids)}",
        "a record's result": lambda chance: f"activations/{chance.choice(ids)}/result",
        "a record's logs": lambda chance: f"activations/{chance.choice(ids)}/logs",
        "a small package": lambda _: "packages/small",
    }
    return [
        *(Kind(f"list of {what}", LIST_MS, path) for what, path in lists.items()),
        *(Kind(f"get of {what}", GET_MS, path) for what, path in gets.items()),
        Kind(
            f"get of a package of {packaged // PACKAGES:,} actions",
            LIST_MS,
            lambda chance: f"packages/p{chance.randrange(PACKAGES)}",
        ),
    ]


# ── what is stored ──────────────────────────────────────────────────────────────────────────────────────────────────


def _fill(data_dir: Path, rig: Rig) -> int:
    """When the first record starts."""
    stock.begin(data_dir)
    with platform(data_dir=data_dir) as visp:
        visp.put("packages", "small", {})
        for number in range(5):
            visp.put_action(f"small/action{number}", NOOP)
    stock.add(data_dir, Stock(), Stock(rules=rig.rules))
    asyncio.run(_add_actions(data_dir, rig.actions))
    return asyncio.run(_add_records(data_dir, rig.records))


async def _add_actions(data_dir: Path, count: int) -> None:
    store = await SqliteEntities.open(data_dir / stock.ENTITIES_FILE)
    try:
        cache = EntityCache(store, FileBlobs(data_dir / "blobs"))
        package, action = [await cache.get(f"{GUEST}/{name}") for name in ("small", "noop")]
        assert isinstance(package, Package)
        assert isinstance(action, Action)
        packages = [_called(package, f"p{number}") for number in range(PACKAGES)]
        await stock.write(store, "packages", packages)
        names = (f"action{number}" if number % PACKAGED else _packaged(number) for number in range(count))
        await stock.write(store, "actions", [_called(action, name) for name in names])
    finally:
        await store.close()


def _packaged(number: int) -> str:
    """Where this action lies."""
    return f"p{number // PACKAGED % PACKAGES}/action{number}"


def _called(entity: E, name: str) -> E:
    package, _, last = name.rpartition("/")
    return msgspec.structs.replace(entity, name=FullyQualifiedName(GUEST, package or None, last))


async def _add_records(data_dir: Path, count: int) -> int:
    index = await SqliteActivations.open(data_dir / stock.RECORDS_FILE)
    try:
        progress, indexed_to = Progress("records", count), await index.indexed_to()
        begin_ms = round(time.time() * 1000) - stock.AGE_MS
        for at in range(0, count, stock.AT_ONCE):
            numbers = range(at, min(at + stock.AT_ONCE, count))
            await index.put([_record(begin_ms + stock.AGE_MS * n // count, n) for n in numbers], indexed_to)
            progress.show(numbers.stop)
    finally:
        await index.close()
    return begin_ms


def _record(start_ms: int, number: int) -> ActivationRecord:
    """Two in five of one name, one in five packaged; the others of some hundred names, of which one is rare."""
    made = stock.record(start_ms, number)
    name = OFTEN if number % 5 < 2 else PACKAGED_NAME if number % 5 == 2 else f"action{8 + number % 100}"
    if number % RARE_EVERY == 0:
        name = RARE
    block = number // BLOCK
    namespace = f"tenant{block // OTHERS % OTHERS}" if block % OTHERS == 0 else GUEST
    head = msgspec.structs.replace(
        made.head,
        id=new_id(start_ms),
        namespace=namespace,
        name=name.rpartition("/")[2],
        path=f"{namespace}/{name}",
    )
    return msgspec.structs.replace(made, head=head, logs=("2024-01-01T00:00:00.000000000Z stdout: said",))
