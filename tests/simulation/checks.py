"""What must be so: always, and at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from tests.simulation.clients import ATTEMPTS

from visp import wording
from visp.entity.activation import ActivationRecord
from visp.store.base import ActivationQuery

if TYPE_CHECKING:
    from tests.simulation.world import World

    from visp.invoker.pool import Pool

LOOK_S = 1.0
MOST_S = 200.0
"""Longer than the longest wait of any role: everything that was accepted has ended by then."""
PAGE = 200
MISSED = "Timeout reached"
"""Of a part that did not answer a sequence in time, or was lost with the power before anyone was told of it."""


def check_pool(pool: Pool, broken: Callable[[str], None]) -> None:
    """Memory is never exceeded, by slots with a container or without one yet; a slot has no more runs than it may."""
    if pool.used_mb > pool.memory_mb:
        broken(f"the pool takes {pool.used_mb} MB of {pool.memory_mb}: {pool!r}")
    for slot in pool.shelf.slots.values():
        if len(slot.jobs) > slot.concurrency:
            broken(f"{slot!r} has {len(slot.jobs)} runs")


async def check_drained(world: World) -> None:
    """Nothing is in flight, nothing waits, nothing is open: in bounded time, once nothing goes wrong any more.

    After a restart a sequence that could not be read is open until the next one, which must run it, and so is a
    sequence's part whose action was deleted.
    """
    pool, ledger, acks = world.pool, world.ledger, world.acks
    assert pool is not None
    assert acks is not None
    assert ledger is not None
    for _ in range(int(MOST_S / LOOK_S)):
        await world.clock.sleep(LOOK_S)
        left = (len(acks), pool.waiting, len(ledger._open))
        if left == (0, 0, 0):
            break
    else:
        is_hindered = world.clients.has_deleted or world.character.has_bad_stores
        if left[:2] == (0, 0) and is_hindered and world.clients.life > 0 and not world.is_restart_needed:
            world.is_restart_needed = True
            return
        world.broken(
            f"after {MOST_S} s there are {left[0]} in flight, {left[1]} waiting, {left[2]} open: "
            f"{sorted(acks._entries)[:3]} {sorted(ledger._open)[:3]} {pool!r}"
        )
    # what was refused when it could not be accepted may have a container coming, which it will not use
    runs = [job.message.id for slot in pool.shelf.slots.values() for job in slot.jobs]
    if any(id in world.clients.given for id in runs):
        world.broken(f"nothing is in flight, and there are runs {runs}: {pool!r}")


async def check_records(world: World) -> None:
    """Each id that was given has one record, in its namespace; what a record says is so.

    A power cut may leave a record in the index whose ledger entry, and with it what it began, is lost: of a fire that
    nobody was given the id of.
    """
    ledger = world.ledger
    assert ledger is not None
    records: dict[str, ActivationRecord] = {}
    for namespace in world.clients._headers:
        for record in await _all(ledger, namespace):
            if record.head.id in records:
                world.broken(f"{record.head.id} has two records")
            records[record.head.id] = record
    for id, given in world.clients.given.items():
        await _check_given(world, id, given, records)
    for record in records.values():
        _check_record(world, record, records)
    _check_attempts(world, records)
    await asyncio.sleep(0)


async def _all(ledger: Any, namespace: str) -> list[ActivationRecord]:
    found: list[ActivationRecord] = []
    while True:
        page = await ledger.list(ActivationQuery(namespace=namespace, skip=len(found), limit=PAGE))
        found += page
        if len(page) < PAGE:
            return found


async def _check_given(world: World, id: str, given: Any, records: dict[str, ActivationRecord]) -> None:
    record = records.get(id)
    if record is None:
        if not given.is_lost:
            world.broken(f"{given.kind} {id} of {given.namespace} is lost (life {given.life})")
        return
    if record.head.namespace != given.namespace:
        world.broken(f"{id} was given to {given.namespace} and is {record.head.namespace}'s")
    answer = await world.clients.call("GET", given.namespace, f"activations/{id}")
    if answer.status != 200 or answer.json()["activationId"] != id:
        world.broken(f"{given.kind} {id} is listed and not read: {answer}")
    other = next(name for name in world.clients._headers if name != given.namespace)
    foreign = await world.clients.call("GET", other, f"activations/{id}")
    if foreign.status != 404:
        world.broken(f"{other} may read {id} of {given.namespace}")
    for run in _runs_below(world, record, records):
        needed = given.generations.get(run.action.removeprefix("/"), 0)
        if run.generation < needed:
            world.broken(f"{id} ran code {run.generation} of {run.action}, though {needed} was written before it")


def _children(record: ActivationRecord) -> list[str]:
    """What a fire or a sequence began: ids."""
    if record.head.path is None:
        entries = [msgspec.json.decode(entry) for entry in record.logs]
        return [entry["activationId"] for entry in entries if "activationId" in entry]
    return list(record.logs) if record.head.kind == "sequence" else []


def _runs_below(world: World, record: ActivationRecord, records: dict[str, ActivationRecord]) -> list[Any]:
    runs = list(world.runs.get(record.head.id, ()))
    for id in _children(record):
        if id in records:
            runs += _runs_below(world, records[id], records)
    return runs


def _check_record(world: World, record: ActivationRecord, records: dict[str, ActivationRecord]) -> None:
    head = record.head
    is_known = head.id in world.clients.given or not world.has_lost_power
    for id in _children(record):
        if id not in records and MISSED.encode() not in record.result and is_known:
            world.broken(f"{head.name} {head.id} began {id}, which has no record")
    if head.path is None:
        return
    _check_times(world, record)
    if head.kind == "sequence":
        return
    runs = world.runs.get(head.id, [])
    if head.status == 0:
        result = msgspec.json.decode(record.result)
        if len(runs) != 1:
            world.broken(f"{head.id} ended well and ran {len(runs)} times")
        elif result["id"] != head.id or result["namespace"] != head.namespace:
            world.broken(f"{head.id} of {head.namespace} has the result {result}")
    for run in runs:
        if run.namespace != head.namespace or run.action.removeprefix("/") != head.path:
            world.broken(f"{head.id} of {head.path} ran as {run}")


def _check_attempts(world: World, records: dict[str, ActivationRecord]) -> None:
    """Failed activations are tried again, one after the other, as often as was asked and no further.

    Those of a sequence's part are the sequence's own: an attempt that could not be recorded is one of them.
    """
    attempts: dict[str, dict[int, ActivationRecord]] = {}
    for record in records.values():
        if record.head.retry_of is not None and record.head.cause is None:
            made = attempts.setdefault(record.head.retry_of, {})
            if record.head.attempt in made:
                world.broken(f"attempt {record.head.attempt} of {record.head.retry_of} was made twice")
            made[record.head.attempt or 0] = record
    for first, made in attempts.items():
        if sorted(made) != list(range(2, 2 + len(made))) or len(made) >= ATTEMPTS:
            world.broken(f"attempts of {first} are {sorted(made)}")
        last = made[max(made)]
        is_over = last.head.status == 0 or wording.ACTION_GONE.encode() in last.result
        if not is_over and len(made) < ATTEMPTS - 1:
            world.broken(f"{first} failed {1 + len(made)} times and is not tried again: {last.result.decode()}")


def _check_times(world: World, record: ActivationRecord) -> None:
    """No time is negative, whatever the clock was set to meanwhile.

    Save the end of a sequence, which is what the wall clock shows then: it may be before its start.
    """
    head = record.head
    times = {
        "duration": head.duration_ms,
        "end - start": 0 if head.kind == "sequence" else head.end_ms - head.start_ms,
        "wait": head.wait_ms,
        "init": head.init_ms,
    }
    if head.phases is not None:
        times |= {name: getattr(head.phases, name) for name in head.phases.__struct_fields__[:-1]}
    for name, value in times.items():
        if value is not None and value < 0:
            world.broken(f"{name} of {head.path} {head.id} is {value}")
