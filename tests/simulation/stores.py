"""The databases of the platform, as their contracts allow them to behave. Files of SQLite are not simulated.

Entities: what was acknowledged survives everything (`synchronous=FULL`); a write that a crash interrupts is there or is
not. The index of records: commits survive a crash of the process, and of those since the last checkpoint a power cut
takes away what it likes from the end (`synchronous=NORMAL`). Both take their time, and fail. Promises and dead letters:
the real thing in memory, whose transactions are whole.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visp.entity.activation import ActivationRecord
from visp.errors import StoreFull, StoreUnavailable
from visp.store import promises
from visp.store.base import ActivationQuery, Delete, Put
from visp.store.database import Database
from visp.store.memory import MemoryEntities, MemoryLedger


class Unsteady:
    """How long a call takes, and whether it fails."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.failing = 0.0
        self.slow_s = 0.0005

    async def pause(self) -> None:
        await asyncio.sleep(self.chance.expovariate(1 / self.slow_s))

    def may_fail(self, *errors: type[Exception]) -> None:
        if self.failing and self.chance.random() < self.failing:
            raise self.chance.choice(errors)()


class SimEntities:
    """`EntityStore` and `SubjectStore` of one process over what all of them have in common."""

    def __init__(self, kept: MemoryEntities, unsteady: Unsteady) -> None:
        self._kept = kept
        self._unsteady = unsteady

    async def write(self, changes: Sequence[Put | Delete]) -> list[int]:
        await self._unsteady.pause()
        self._unsteady.may_fail(StoreUnavailable, StoreFull)
        revisions = await self._kept.write(changes)
        await self._unsteady.pause()
        return revisions

    async def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        """All that reads, or writes what no simulation changes."""
        call = getattr(self._kept, name)

        async def slow(*values: Any) -> Any:
            await self._unsteady.pause()
            self._unsteady.may_fail(StoreUnavailable)
            return await call(*values)

        return slow


class _Kept(sqlite3.Connection):
    """Outlives the process that closes it."""

    def close(self) -> None:
        pass


class SimPromises:
    """What `SqlitePromises` of every process opens."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, factory=_Kept)
        for script in promises.MIGRATIONS:
            self._connection.executescript(script)

    async def open(self, path: object) -> promises.SqlitePromises:
        database = Database(Path(str(path)))
        database._to_write = database._to_read = self._connection
        return promises.SqlitePromises(database)


class SimIndex:
    """`SqliteActivations` for the ledger; it stays from one process to the next."""

    def __init__(self, chance: random.Random, unsteady: Unsteady) -> None:
        self.chance = chance
        self._unsteady = unsteady
        self._records: dict[str, ActivationRecord] = {}
        self._indexed_to = 0
        self._safe: tuple[dict[str, ActivationRecord], int] = ({}, 0)
        self._since: list[tuple[tuple[ActivationRecord, ...], int]] = []
        """Commits since the last checkpoint."""

    def lose_power(self) -> None:
        records, self._indexed_to = self._safe
        self._records = records.copy()
        kept = self._since[: self.chance.randint(0, len(self._since))]
        self._since = []
        for commit in kept:
            self._commit(*commit)

    def _commit(self, records: Sequence[ActivationRecord], indexed_to: int) -> None:
        self._records |= {record.head.id: record for record in records}
        self._indexed_to = indexed_to
        self._since.append((tuple(records), indexed_to))

    async def put(self, records: Sequence[ActivationRecord], indexed_to: int) -> None:
        await self._unsteady.pause()
        self._unsteady.may_fail(StoreUnavailable, StoreFull)
        self._commit(records, indexed_to)
        await self._unsteady.pause()

    async def checkpoint(self) -> bool:
        await self._unsteady.pause()
        if self.chance.random() < 0.2:
            return False  # a reader is in the way
        self._safe, self._since = (self._records.copy(), self._indexed_to), []
        await self._unsteady.pause()
        return True

    async def indexed_to(self) -> int:
        await self._unsteady.pause()
        return self._indexed_to

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        await self._unsteady.pause()
        return await self._twin().get(namespace, id)

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        await self._unsteady.pause()
        return await self._twin().list(query)

    async def count(self, query: ActivationQuery) -> int:
        return await self._twin().count(query)

    def _twin(self) -> MemoryLedger:
        twin = MemoryLedger()
        twin._records = self._records
        return twin

    async def sweep(
        self, before_ms: int | None, max_bytes: int, own_before_ms: Mapping[str, int | None] | None = None
    ) -> int:
        return 0  # nothing gets old here

    async def close(self) -> None:
        pass
