"""One simulated platform from its first start to its last: a seed is the whole of its fate.

All roles are the real ones, put together by `visp.roles.assembly`; what they stand on is simulated: time and threads
(`loop`), the disk of the ledger (`disk`), the databases (`stores`), the bus (`buses`), containers (`containers`), and
whoever asks (`clients`). Whatever happens is noted; the notes are the steps at each of which the process may be
killed, and their hash is what two runs of one seed have in common.

Left out, because their contracts are tested elsewhere with the real thing: SQLite, HTTP on a wire, several shards,
archives of code and the drivers that unpack them, several runs at once in one container.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import msgspec
from tests.simulation import checks, clients
from tests.simulation.buses import SimBus
from tests.simulation.containers import Fates, Run, SimDriver
from tests.simulation.disk import Disk
from tests.simulation.loop import Killed, SimClock, SimLoop, Stuck, bury, quiet
from tests.simulation.stores import SimEntities, SimIndex, SimPromises, Unsteady

from visp import settings
from visp.controller.acks import Acks
from visp.entity import activation
from visp.errors import ServiceError, VispError
from visp.invoker.pool import Pool
from visp.roles.assembly import Parts, assembled
from visp.settings import Settings
from visp.store.ledger import EmbeddedLedger
from visp.store.memory import MemoryBlobs, MemoryEntities
from visp.telemetry import transid

EPOCH_S = 1_700_000_000.0
SECRET = bytes(range(32))
LIVES = 6
"""The last of them is not killed."""
TRACE = 5000

NEVER = frozenset(
    {"bus.handler_failed", "ledger.then_failed", "composite.failed", "ledger.sweep_failed", "cache.unreadable"}
)
"""Log lines that no fault which is injected here excuses."""


class Broken(Exception):
    """A promise was not kept. The text says which, by which seed, and how to see it again."""


class Character:
    """What a seed's world is like: how large, how unlucky, how long."""

    def __init__(self, chance: random.Random) -> None:
        self.memory_mb = chance.choice((512, 768, 1024, 2048))
        self.is_power_safe = chance.random() < 0.85
        self.seconds = chance.choice((6.0, 10.0, 20.0))
        self.ops = chance.choice((30, 60, 120))
        self.late_s = chance.choice((0.0002, 0.002, 0.02))
        self.fates = Fates(*(chance.choice((0.0, 0.05, 0.2, 0.4)) for _ in range(4)))
        self.has_bad_disk = chance.random() < 0.4
        self.has_bad_stores = chance.random() < 0.3
        self.settings = Settings(
            driver="simulated",
            log_level="warning",
            catalog=settings.Catalog(packages=""),
            pool=settings.Pool(
                memory_mb=self.memory_mb,
                pause_grace_s=chance.choice((0.3, 2.0, 10.0)),
                idle_s=chance.choice((1.0, 5.0, 600.0)),
                keep_alive=chance.choice(("greedy-dual", "timeout", "lru")),
                starts_at_once=chance.choice((1, 2, 4)),
                stem_cells=chance.choice((0, 1, 2)),
                start_timeout_s=2.0,
            ),
            ledger=settings.Ledger(
                durability="power" if self.is_power_safe else "process",
                segment_bytes=chance.choice((4096, 8192, 65536)),
            ),
        )


class World:
    """`run` lives it; raises `Broken`. `digest` is the hash of all that happened, `kills` how the lives ended."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.character = Character(self._chance("character"))
        self.kills: list[str] = []
        self.has_lost_power = False
        self.is_restart_needed = False
        """Work is open that only the next start will run."""
        self.steps = 0
        self.trace: deque[str] = deque(maxlen=TRACE)
        self.runs: dict[str, list[Run]] = {}
        self._keys: dict[str, str] = {}
        self._furthest_s = 0.0
        self.pool: Pool | None = None
        self.ledger: EmbeddedLedger | None = None
        self.acks: Acks | None = None
        self._hash = hashlib.blake2b(digest_size=16)
        self._fate = self._chance("fate")
        self._is_dead = False
        self._steps_left = 0
        self._now_s = 0.0
        self._broken: str | None = None
        self._loop: SimLoop
        self.clock = SimClock(EPOCH_S)
        self.disk = Disk(self._chance("disk"), self.note, self._lose)
        self.unsteady = Unsteady(self._chance("stores"))
        self.entities = MemoryEntities()
        self.blobs = MemoryBlobs()
        self.promises = SimPromises()
        self.index = SimIndex(self._chance("index"), self.unsteady)
        keys = clients.keys(SECRET)
        self.entities._keys = {record.uuid: record for record, _ in keys.values()}
        self.clients = clients.Clients(
            clients.groundwork(self._chance("ground")),
            clients.plan(self._chance("plan"), self.character.seconds, self.character.ops),
            self._chance("clients"),
            {namespace: header for namespace, (_, header) in keys.items()},
            self.note,
            self.broken,
            self._jump,
        )
        self.clients.is_power_safe = self.character.is_power_safe
        self._driver: SimDriver

    def _chance(self, name: str) -> random.Random:
        """A part's own luck: what one draws moves no other's."""
        return random.Random(f"{self.seed}/{name}")

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    # ── what happens ────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, what: str) -> None:
        """A step. The process may end here."""
        if self._is_dead:
            raise Killed("it is dead already", is_power_cut=False)
        self.steps += 1
        line = f"{self._loop.now_s:.6f} {what}"
        self._hash.update(line.encode())
        self.trace.append(line)
        self._steps_left -= 1
        if self._steps_left == 0:
            self._end("killed", is_power_cut=self._fate.random() < 0.5)

    def broken(self, promise: str) -> None:
        """The first one counts: what follows may follow from it."""
        if self._broken is None and not self._is_dead:
            self._broken = promise
            self._end(promise, is_power_cut=False)

    def _end(self, why: str, *, is_power_cut: bool) -> None:
        self._is_dead = True
        raise Killed(why, is_power_cut=is_power_cut)

    def _lose(self) -> None:
        """A sync has failed: what the kernel says it has is not to be trusted after that."""
        self._end("sync failed", is_power_cut=True)

    def _jump(self, seconds: float) -> None:
        self.clock.jumped_s += seconds
        self._furthest_s = max(self._furthest_s, self.clock.jumped_s)

    def _logged(self, level: str, event: str, fields: dict[str, object]) -> None:
        if level == "debug" or self._is_dead:
            return
        if event in NEVER and not (event == "ledger.sweep_failed" and self.disk.faults.sync):
            self.broken(f"log line {event}: {fields}")
        self.note(f"log {event}")

    def _uncaught(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self._is_dead and not isinstance(error, Killed):
            self.broken(f"nobody caught {error!r}: {context.get('message')}")

    def _step(self) -> None:
        """Before each turn of the loop: what must always be so."""
        if self._broken is not None:
            raise Killed(self._broken, is_power_cut=False)
        pool = self.pool
        if pool is not None:
            checks.check_pool(pool, self.broken)

    # ── lives ───────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> World:
        """Raises `Broken`."""
        with self._patched():
            life = 0
            while self._broken is None and not self._live(life):
                life += 1
            if self._broken is None and (self.is_restart_needed or self._fate.random() < 0.3):
                self.is_restart_needed = False
                self._live(LIVES)  # all of it is there after an orderly end, too
        if self._broken is not None:
            raise Broken(self.report())
        return self

    def report(self) -> str:
        return (
            f"{self._broken}\n  seed {self.seed}, step {self.steps}, lives ended by {self.kills}\n"
            f"  to see it again: python -m tests.simulation {self.seed} --trace"
        )

    def _live(self, number: int) -> bool:
        """One process; whether it came to its own end."""
        is_last = number >= LIVES
        fate = self._fate
        self._is_dead = False
        self._steps_left = 0 if is_last or fate.random() < 0.2 else round(10 ** fate.uniform(1.2, 3.0))
        self._set_faults(is_calm=is_last)
        delays = self._chance(f"threads {number}")
        thread_s = fate.choice((0.0003, 0.0003, 0.003, 0.02))
        for part, name in ((self.disk, "disk"), (self.unsteady, "stores"), (self.index, "index")):
            part.chance = self._chance(f"{name} {number}")  # what the dead still draw moves nobody
        loop = self._loop = self.clock.loop = SimLoop(
            self._now_s, self._step, lambda: delays.expovariate(1 / thread_s) + 1e-6, self._uncaught
        )
        self._driver = SimDriver(
            self.clock,
            self._chance(f"containers {number}"),
            self.character.fates if not is_last else Fates(),
            self.character.memory_mb,
            self.note,
            self.broken,
            self.runs,
            self._keys,
        )
        self.pool = self.ledger = self.acks = None
        try:
            loop.run_until_complete(self._serve())
        except Killed as killed:
            self._bury(killed)
            return False
        except VispError as error:
            self._cannot_start(error, is_last)
            return False
        except Stuck as stuck:
            self._broken = self._broken or f"stuck: {stuck}; {self.pool!r}"
        except Exception as error:  # an exception group of the roles: what they cannot stand
            self._broken = self._broken or f"the process failed: {_innermost(error)!r}"
        self._bury(None)
        return True

    def _cannot_start(self, error: VispError, is_last: bool) -> None:
        """With a bad disk a start may fail, as a sentence; the next one tries again."""
        if is_last or not (self.character.has_bad_disk or self.character.has_bad_stores):
            self._broken = f"it does not start: {error}"
        self._bury(Killed(f"no start: {type(error).__name__}", is_power_cut=False))

    def _bury(self, killed: Killed | None) -> None:
        self._now_s = self._loop.now_s + 0.1
        self._is_dead = True
        bury(self._loop)
        self._driver.kill()
        self.disk.end_process()
        if killed is None:
            return
        is_power_cut = killed.is_power_cut and self.character.is_power_safe
        self.kills.append(f"{killed.why}{', power cut' if is_power_cut else ''} at step {self.steps}")
        self.has_lost_power |= is_power_cut
        if is_power_cut:
            self.disk.lose_power()
            self.index.lose_power()
        self.clients.interrupted(is_power_cut=is_power_cut)

    def _set_faults(self, *, is_calm: bool) -> None:
        fate, disk = self._fate, self.disk.faults
        is_bad = self.character.has_bad_disk and not is_calm
        disk.write = fate.choice((0.0, 0.002, 0.02)) if is_bad else 0.0
        disk.sync = fate.choice((0.0, 0.0, 0.01)) if is_bad and self.character.is_power_safe else 0.0
        disk.is_full = is_bad and fate.random() < 0.2
        disk.short = 0.05
        self.unsteady.failing = 0.05 if self.character.has_bad_stores and not is_calm else 0.0
        self.unsteady.slow_s = fate.choice((0.0003, 0.001, 0.01))

    async def _serve(self) -> None:
        """The server's life: clients come before it has booted, as they do."""
        async with assembled(self.character.settings, self.disk.path("/data"), "http://sim") as parts:
            self.clients.resumed()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._boot(parts))
                tasks.create_task(self._change_disk())
                tasks.create_task(self.clients.run(parts.site))
            self._set_faults(is_calm=True)
            self._driver.fates = Fates()
            self.clock.jumped_s = self._furthest_s  # what is due by then is due by the wall clock
            await checks.check_drained(self)
            if not self.is_restart_needed:
                await checks.check_records(self)

    async def _boot(self, parts: Parts) -> None:
        try:
            await parts.boot()
        except ServiceError:
            if self.unsteady.failing:
                self._end("cannot boot", is_power_cut=False)
            raise
        parts.unready = None
        self.note("ready")

    async def _change_disk(self) -> None:
        """A full disk gets room again, and a healthy one is full for a while."""
        if self.character.has_bad_disk:
            for _ in range(2):
                await self.clock.sleep(self._fate.uniform(0.5, 3.0))
                self.disk.faults.is_full = not self.disk.faults.is_full
        self.disk.faults.is_full = False

    # ── what is put in place ────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _patched(self) -> Iterator[None]:
        drawn, cores = self._chance("drawn"), self._chance("cores")

        def open_bus() -> SimBus:
            return SimBus(self._chance(f"bus {self.clients.life}"), self.character.late_s, self.note)

        def keep(name: str, kind: Callable[..., Any]) -> Callable[..., Any]:
            def made(*values: Any, **named: Any) -> Any:
                part = kind(*values, **named)
                setattr(self, name, part)
                return part

            return made

        async def open_entities(_: object) -> SimEntities:
            return SimEntities(self.entities, self.unsteady)

        async def open_index(_: object) -> SimIndex:
            return self.index

        class SimCores:
            count = 2

            def __init__(self, *_: object) -> None:
                pass

            def are_busy(self) -> bool:
                return cores.random() < 0.1

        targets: list[tuple[Any, str, Any]] = [
            (os, "urandom", drawn.randbytes),
            (secrets, "token_bytes", lambda size=32: drawn.randbytes(size)),
            (activation, "_random", []),
            (transid, "_pool", []),
        ]
        named: dict[str, Any] = {
            "visp.roles.assembly.SystemClock": lambda: self.clock,
            "visp.roles.drivers.make": lambda *_: self._driver,
            "visp.roles.assembly.premises.read_secret": lambda *_: SECRET,
            "visp.store.filesystem.FileBlobs": lambda _: self.blobs,
            "visp.shard.MemoryBus": open_bus,
            "visp.shard.SqliteEntities.open": open_entities,
            "visp.shard.SqliteActivations.open": open_index,
            "visp.roles.assembly.SqlitePromises.open": self.promises.open,
            "visp.roles.assembly.Acks": keep("acks", Acks),
            "visp.shard.EmbeddedLedger": keep("ledger", EmbeddedLedger),
            "visp.invoker.invoker.Pool": keep("pool", Pool),
            "visp.invoker.invoker.Cores": SimCores,
            "visp.store.segments.os": self.disk.os,
            "visp.store.ledger.os": self.disk.os,
            "visp.store.chain.os": self.disk.os,
            "visp.store.ledger.fcntl.flock": lambda *_: None,
            "visp.telemetry.log._write": self._logged,
        }
        was_enabled, state = gc.isenabled(), random.getstate()
        random.seed(self.seed)
        gc.freeze()
        gc.disable()  # when it runs depends on what ran before
        try:
            with contextlib.ExitStack() as stack:
                for owner, name, value in targets:
                    stack.enter_context(patch.object(owner, name, value))
                for name, value in named.items():
                    stack.enter_context(patch(name, value))
                yield
        finally:
            self.pool = self.ledger = self.acks = None
            self._loop = self._driver = self.clients.site = None  # type: ignore[assignment]
            with quiet():
                while gc.collect():  # what a finaliser leaves is found by the next one
                    pass
            gc.unfreeze()
            random.setstate(state)
            if was_enabled:
                gc.enable()


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class Lived(msgspec.Struct, frozen=True):
    """What came of a seed. `broken` says which promise was not kept, and how to see it again."""

    seed: int
    digest: str
    steps: int
    crashes: int
    given: int
    runs: int
    broken: str | None


def live(world: World) -> Lived:
    """Lives a world to its end, good or bad."""
    broken = None
    try:
        world.run()
    except Broken as error:
        broken = str(error)
    given = len(world.clients.given)
    return Lived(world.seed, world.digest, world.steps, len(world.kills), given, len(world.runs), broken)
