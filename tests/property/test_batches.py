"""No key of a batch is fired twice, and none is lost that was answered: over crashes, retries and two servers.

Two shards share the store of promises and each other's records. Batches are sent whole, in part, with more lines, to
either of them, and cut off anywhere: what had been promised stays, what had been accepted stays, the rest is gone.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from tests.unit.controller.conftest import Controller
from tests.unit.controller.test_fire import ACTIVE, firing, trigger

from visp.controller.batches import BEGINNING_MS, Batches, Line, Numbered
from visp.controller.primitive import Accepted
from visp.errors import OlderBatch, Overloaded
from visp.settings import Queue
from visp.store.base import Batch
from visp.store.promises import SqlitePromises

KEYS = "abcdef"


class Killed(Exception):
    """The server ended here."""


class Store:
    """Promises of a server that may be killed around its write."""

    def __init__(self, kept: SqlitePromises) -> None:
        self.kept = kept
        self.dies = ""

    async def batch(self, scope: bytes) -> Batch | None:
        return await self.kept.batch(scope)

    async def put_batch(self, *values: Any) -> bool | None:
        if self.dies == "before":
            raise Killed
        put = await self.kept.put_batch(*values)
        if self.dies == "after":
            raise Killed
        return put


class Records:
    """What any shard has recorded."""

    def __init__(self, controllers: list[Controller]) -> None:
        self.controllers = controllers

    async def is_open(self, id: str) -> bool:
        return False

    async def get(self, namespace: str, id: str) -> Any:
        found = [await controller.ledger.get(namespace, id) for controller in self.controllers]
        return next((record for record in found if record is not None), None)


steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.lists(st.sampled_from(KEYS), max_size=8),
        st.integers(1, 3),
        st.sampled_from(["", "", "before", "after"]),
        st.sampled_from([0.0, BEGINNING_MS / 1000]),
        st.booleans(),
    ),
    max_size=12,
)


@effort(deadline=None, max_examples=60)
@given(steps=steps)
def test_no_key_is_fired_twice(steps: list[Any]) -> None:
    asyncio.run(run(steps))


async def run(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        promises = await SqlitePromises.open(Path(folder) / "promises.db")
        try:
            async with asyncio.TaskGroup() as tasks:
                await play([Controller(tasks), Controller(tasks)], promises, steps)
        finally:
            await promises.close()


async def play(controllers: list[Controller], promises: SqlitePromises, steps: list[Any]) -> None:
    store = Store(promises)
    servers = []
    for controller in controllers:
        await controller.add("hello")
        controller.clock = controllers[0].clock
        servers.append(
            Batches(
                fire=controller.fire,
                promises=store,  # type: ignore[arg-type]
                activations=Records(controllers),  # type: ignore[arg-type]
                clock=controller.clock,
                limits=Queue(),
            )
        )
    answered: dict[tuple[int, str], str] = {}
    newest = 0
    for shard, keys, number, dies, later_s, is_twice in steps:
        controllers[0].clock.advance(later_s)
        store.dies = dies
        lines = [Line(b'{"k":"%b%d"}' % (key.encode(), number), key) for key in keys]
        of = firing(controllers[shard], trigger(("r", "hello", ACTIVE)))
        sent = [servers[shard].fire(of, lines, Numbered("s", number))]
        if is_twice:
            other = firing(controllers[1 - shard], trigger(("r", "hello", ACTIVE)))
            sent.append(servers[1 - shard].fire(other, lines, Numbered("s", number)))
        for told in await asyncio.gather(*sent, return_exceptions=True):
            newest = max(newest, number)  # it may have been promised before the server was killed
            if isinstance(told, OlderBatch):
                assert number < newest
            elif isinstance(told, BaseException):
                assert isinstance(told, Killed | Overloaded), told
            else:
                for key, outcome in zip(keys, told, strict=True):
                    if isinstance(outcome, Accepted):
                        assert answered.setdefault((number, key), outcome.id) == outcome.id
    fired = Counter(run.content for controller in controllers for run in controller.hands.runs)
    assert not [content for content, count in fired.items() if count > 1]
    assert len(fired) >= len(answered)
