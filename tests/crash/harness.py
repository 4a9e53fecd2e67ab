"""Kills of real servers under load, each over a data folder that the next one takes over.

Three grounds: one process, and two shards, whose driver runs nothing, so that the load is the platform's own; and one
process with real containers. What a seed decides is which kills there are and when; the rest is the machine's.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec
from tests.crash import drivers, points
from tests.crash.book import (
    CONTAINER,
    CONTAINER_STATUSES,
    EFFECT,
    EVENT,
    PARTS,
    RATE_PER_S,
    SEQUENCE,
    STATUSES,
    TERMINAL_S,
    Book,
    Tally,
)
from tests.crash.load import Line, Load, Reader
from tests.system.traces import Seen, Traces, below, shards_of

from visp import premises
from visp.client import running
from visp.client.running import NotReady, Server
from visp.controller.identities import Identities
from visp.entity.subject import GUEST, GUEST_KEY, GUEST_UUID
from visp.settings import Limits, Settings
from visp.store.sqlite import SqliteEntities

ROOT = Path(__file__).parents[2]
OTHER = "other"
KIND = "python:3.11"
LOAD_S = (0.1, 0.5)
"""How long a server is under load before it is killed."""
COME_S = 4.0
"""How long a server has to come to its crash point; else it is killed from outside."""
START_S = 0.3
"""A kill of a server that comes up is no later than this after its driver was made."""
SHARD_KILLS, CONTAINER_KILLS = 4, 6
"""As many before the whole server is killed."""
PENDING = 300
"""When more is owed than this, it is read before there is load again: one reader is slower than all callers."""
GONE_S = 2.0
BACK_S = 15.0
SETTINGS = {
    "pool.memory_mb": 2048,
    "ledger.segment_bytes": 32 * 1024,  # so that segments come and go in lives as short as these
    "retention.every_s": 0.2,
}

Say = Callable[[str], None]


class NotUp(Exception):
    """A data folder over which no server can be started any more."""


class Report(msgspec.Struct):
    """What came of all kills."""

    seed: int
    tallies: dict[str, Tally] = {}
    violations: list[str] = []
    reached: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    """Events that servers logged as errors."""
    given: int = 0
    loaded_s: float = 0.0
    took_s: float = 0.0

    @property
    def kills(self) -> int:
        return sum(tally.kills for tally in self.tallies.values())

    @property
    def rate_per_s(self) -> float:
        """Activations that clients were given, for each second of load."""
        return self.given / self.loaded_s if self.loaded_s else 0.0


class Ground:
    """A data folder, the servers that come and go over it, and the book of their clients."""

    def __init__(self, name: str, folder: Path, report: Report, dice: random.Random, say: Say) -> None:
        self.name = name
        self._folder = folder
        self._data_dir = folder / "data"
        self._effects = folder / "effects"
        self._reached = folder / "reached"
        self._report = report
        self._dice = dice
        self._say = say
        self._is_real = name == "containers"
        self.book = Book(folder / "client.log", self._effects, CONTAINER_STATUSES if self._is_real else STATUSES)
        self._data_dir.mkdir(mode=0o700)
        self._keys = {GUEST: f"{GUEST_UUID}:{GUEST_KEY}", OTHER: asyncio.run(_make_key(self._data_dir))}
        self._server: Server | None = None
        self._traces = Traces(self._data_dir, folder / "cells")

    # ── servers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, order: points.Order | None = None) -> Server | None:
        """A server; None if it ended itself before it was ready, as it was told to."""
        driver = "Trusting" if self._is_real else "Counting"
        flags = ["--driver", f"tests.crash.drivers:{driver}", "--workers", "2" if self.name == "shards" else "1"]
        env = {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", drivers.EFFECTS: str(self._effects)}
        env[points.VARIABLE] = "" if order is None else msgspec.json.encode(order).decode()
        self._reached.unlink(missing_ok=True)
        began_s = time.monotonic()
        try:
            settings = SETTINGS | {"container.cells_dir": self._folder / "cells"}
            server = self._server = running.start(self._data_dir, settings, flags=flags, env=env)
        except NotReady as error:
            if order is None or not self._has_reached():
                raise NotUp(f"life {self.book.life}: no server comes up again: {error}") from None
            self._note_errors(str(error))
            return None
        self.book.ready(time.monotonic() - began_s)
        return server

    def _has_reached(self) -> bool:
        return self._reached.exists()

    def _kill(self, kind: str) -> None:
        """SIGKILL, unless it has ended itself."""
        server = self._server
        assert server is not None
        server.stop(signal.SIGKILL)
        self._note_errors(server.read_log())
        server.log.unlink()
        self._server = None
        self._end_life(kind)
        if self._is_real:
            self._await(lambda: not self._traces.left(), GONE_S, "nothing of a container is left")

    def _end_life(self, kind: str) -> None:
        self.book.end_life(kind)
        kills = sum(tally.kills for tally in self.book.tallies.values())
        if kills % 10 == 0:
            bad = len(self.book.violations)
            self._say(f"{self.name}: {kills} kills, {len(self.book.given)} ids given, {bad} violations")

    def _await(self, condition: Callable[[], object], within_s: float, what: str) -> float:
        """How long it took; a violation if it did not come."""
        began_s = time.monotonic()
        while not condition():
            if time.monotonic() - began_s > within_s:
                self.book.violations.append(f"not within {within_s} s: {what} (life {self.book.life})")
                break
            time.sleep(0.01)
        return time.monotonic() - began_s

    def _note_errors(self, log: str) -> None:
        """What a server printed is kept, and its errors are counted."""
        with (self._folder / "servers.log").open("a") as file:
            file.write(f"── life {self.book.life}\n{log}")
        for line in log.splitlines():
            fields = line.split(" ", 3)
            if fields[1:2] == ["ERROR"]:
                self._report.errors[fields[2]] += 1
            elif line.startswith("Traceback"):
                self._report.errors["traceback"] += 1

    def close(self) -> None:
        if self._server is not None:
            self._server.stop(signal.SIGKILL)
            self._note_errors(self._server.read_log())
            self._server.log.unlink()
            self._server = None

    # ── the load ────────────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self) -> None:
        """What the load calls, in both namespaces."""
        server = self._start()
        assert server is not None
        code = drivers.code(self._effects) if self._is_real else "{}"
        for key in self._keys.values():
            line = Line(server.url, key)
            for path, body in (
                (f"actions/{EFFECT}", {"exec": {"kind": KIND, "code": code}, "limits": {"memory": 128}}),
                (f"actions/{SEQUENCE}", {"exec": {"kind": "sequence", "components": [f"/_/{EFFECT}"] * PARTS}}),
                (f"triggers/{EVENT}", {}),
                ("rules/one", {"trigger": f"/_/{EVENT}", "action": f"/_/{EFFECT}"}),
                ("rules/line", {"trigger": f"/_/{EVENT}", "action": f"/_/{SEQUENCE}"}),
            ):
                status, answer, _ = line.request("PUT", path, body)
                assert status == 200, answer
            line.close()
        server.stop()
        self.close()

    @contextmanager
    def _loaded(self, server: Server) -> Iterator[None]:
        with self._reading(server) as reader, suppress(HTTPException, OSError, ValueError):
            reader.read_kept()  # a server that is to end may do so meanwhile
            if len(self.book.pending) > PENDING or self._dice.random() < 0.5:  # else it recovers under load
                reader.read_all(TERMINAL_S, lambda: server.process.poll() is None)
        began_s = time.monotonic()
        with Load(server.url, self._keys, self.book, self._dice.getrandbits(32)):
            yield
            self._report.loaded_s += time.monotonic() - began_s

    @contextmanager
    def _reading(self, server: Server) -> Iterator[Reader]:
        reader = Reader(server.url, self._keys, self.book)
        try:
            yield reader
        finally:
            reader.close()

    # ── kills ───────────────────────────────────────────────────────────────────────────────────────────────────

    def kill_running(self) -> None:
        """At a random instant of the load."""
        server = self._start()
        assert server is not None
        with self._loaded(server):
            time.sleep(self._dice.uniform(*LOAD_S))  # not a synchronisation: the moment is what is random
            server.process.kill()
        self._kill("server, at random")

    def kill_starting(self) -> None:
        """While it comes up, recovery included; or soon after."""
        order = points.Order(str(self._reached), after_s=self._dice.uniform(0, START_S))
        self._come_to(order, "server, while it starts")

    def kill_at(self, name: str) -> None:
        """At a crash point."""
        if self._come_to(self._order(name), "server, at a point"):
            self._report.reached[name] += 1
        else:
            self._report.missed[name] += 1

    def _order(self, name: str) -> points.Order:
        return points.Order(str(self._reached), name, self._dice.randint(1, points.POINTS[name].most))

    def _come_to(self, order: points.Order, kind: str) -> bool:
        """Whether the server came to what was ordered; it is dead now anyway."""
        server = self._start(order)
        if server is None:
            self._end_life(kind)
            return True
        with self._loaded(server):
            try:
                server.process.wait(COME_S)
            except subprocess.TimeoutExpired:
                server.process.kill()
        has_reached = self._has_reached()
        self._kill(kind)
        return has_reached

    def kill_shards(self, count: int, name: str) -> None:
        """The first that comes to the point, then one or the other, under one load; then the parent and all with it."""
        server = self._start(self._order(name))
        is_point_left = server is not None
        if server is None:  # it came to that before all shards were ready, which ends the whole server
            self._report.reached[name] += 1
            self._end_life("parent of shards")
            server = self._start()
        assert server is not None
        with self._loaded(server):
            for n in range(count):
                before = shards_of(server)
                kind, pid = "shard", self._await_point(name) if is_point_left and n == 0 else 0
                if pid:
                    kind = "shard, at a point"
                else:
                    time.sleep(self._dice.uniform(*LOAD_S))
                    pid = self._dice.choice(sorted(before.values()))
                    os.kill(pid, signal.SIGKILL)
                self.book.end_life(kind)
                # it may have ended before it was looked at: then either was it
                for victim in [number for number in before if before[number] == pid] or [0, 1]:
                    took_s = self._await(partial(self._is_back, server, victim, pid), BACK_S, f"shard {victim} is back")
                    self.book.ready(took_s)
            time.sleep(self._dice.uniform(*LOAD_S))
            server.process.kill()
        self._kill("parent of shards")

    def _await_point(self, name: str) -> int:
        """The process that came to the point; 0 if none does."""
        until_s = time.monotonic() + COME_S
        while time.monotonic() < until_s:
            if self._has_reached() and (text := self._reached.read_text()):
                self._report.reached[name] += 1
                return int(text)
            time.sleep(0.01)
        self._report.missed[name] += 1
        return 0

    def _is_back(self, server: Server, victim: int, old_pid: int) -> bool:
        """Whether a connection to the new process of that shard finds it ready."""
        if shards_of(server).get(victim, old_pid) == old_pid:
            return False
        line = Line(server.url, self._keys[GUEST])
        try:
            return line.ready_shard() == victim
        except (HTTPException, OSError):
            return False
        finally:
            line.close()

    def kill_containers(self, count: int) -> None:
        """Processes of containers while they run; then the server."""
        server = self._start()
        assert server is not None
        with self._loaded(server):
            for _ in range(count):
                time.sleep(self._dice.uniform(*LOAD_S))
                found = containers_of(server)
                if found:
                    with suppress(ProcessLookupError):
                        os.kill(self._dice.choice(found).pid, signal.SIGKILL)
                    self.book.end_life(CONTAINER)
            time.sleep(self._dice.uniform(*LOAD_S))
            server.process.kill()
        self._kill("server, with containers")

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """One more server, without load: everything that was given is there, and all else is as it was written."""
        server = self._start()
        assert server is not None
        with self._reading(server) as reader:
            reader.read_kept()
            reader.read_all(TERMINAL_S, lambda: server.process.poll() is None)
            self.book.close_accounts(reader.list_all())
        report = self._report
        report.given += sum(given.entity is not None for given in self.book.given.values())
        report.violations += [f"{self.name}: {sentence}" for sentence in self.book.violations]
        for kind, tally in self.book.tallies.items():
            report.tallies[kind] = _sum(report.tallies.get(kind, Tally()), tally)


def _sum(one: Tally, other: Tally) -> Tally:
    """Counts are added, and the slowest is kept."""
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in Tally.__struct_fields__]
    return Tally(**{name: max(a, b) if name.startswith("slowest") else a + b for name, a, b in pairs})


async def _make_key(data_dir: Path) -> str:
    """A second namespace in the data folder of a server that is yet to start."""
    store = await SqliteEntities.open(data_dir / "entities.db")
    try:
        identities = Identities(store, premises.read_secret(Settings(), data_dir), Limits(), is_loopback=True)
        return str(await identities.ensure(OTHER))
    finally:
        await store.close()


def containers_of(server: Server) -> list[Seen]:
    """Processes that run actions, or will."""
    return [seen for seen in below(server.pid) if "launcher" in seen.command]


# ── the whole ───────────────────────────────────────────────────────────────────────────────────────────────────


class Plan(msgspec.Struct, frozen=True):
    """How many kills of each kind; those of containers are over and above."""

    running: int
    starting: int
    points: int
    shards: int
    real: int

    @classmethod
    def of(cls, kills: int) -> Plan:
        starting, at_points, shards, real = kills * 3 // 20, kills * 7 // 20, kills // 5, max(1, kills // 20)
        return cls(kills - starting - at_points - shards - real, starting, at_points, shards, real)


def run(kills: int, seed: int, say: Say = print) -> Report:
    """So many kills of servers and shards, and some of containers; nothing is raised for what was violated."""
    report, dice, plan = Report(seed), random.Random(seed), Plan.of(kills)
    began_s = time.monotonic()
    names = points_of(("anywhere", "start"), plan.points, dice)
    acts: list[Callable[[Ground], None]] = [Ground.kill_running] * plan.running
    acts += [Ground.kill_starting] * plan.starting
    acts += [partial(Ground.kill_at, name=name) for name in names]
    _stand("one process", _shuffled(acts, dice), report, dice, say)
    counts = [min(SHARD_KILLS, plan.shards - at - 1) for at in range(0, plan.shards, SHARD_KILLS + 1)]
    names = points_of(("anywhere", "shards"), len(counts), dice)
    shards = [partial(Ground.kill_shards, count=count, name=name) for count, name in zip(counts, names, strict=True)]
    _stand("shards", shards, report, dice, say)
    _stand("containers", [partial(Ground.kill_containers, count=CONTAINER_KILLS)] * plan.real, report, dice, say)
    if report.rate_per_s < RATE_PER_S:
        report.violations.append(f"only {report.rate_per_s:.0f} activations/s of load: the kills prove little")
    report.took_s = time.monotonic() - began_s
    return report


def _stand(name: str, acts: list[Any], report: Report, dice: random.Random, say: Say) -> None:
    """One ground and what is done on it; its folder is kept if anything was violated."""
    if not acts:
        return
    folder = Path(tempfile.mkdtemp(prefix="visp-crash-"))
    folder.chmod(0o711)  # containers of a root server reach their code below it under uids of their own
    ground = Ground(name, folder, report, dice, say)
    try:
        ground.prepare()
        for act in acts:
            act(ground)
        ground.settle()
    except NotUp as error:
        report.violations.append(f"{name}: {error}")
    finally:
        ground.close()
        ground.book.close()
    if report.violations:
        say(f"kept: {folder}; {report.violations[0]}")
    else:
        _remove(folder)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def points_of(where: Sequence[points.Where], count: int, dice: random.Random) -> list[str]:
    """As many names of points, each as often as any other."""
    names = [name for name, point in points.POINTS.items() if point.where in where]
    return [name for _ in range(count // len(names) + 1) for name in _shuffled(names, dice)][:count]


def _shuffled(of: Any, dice: random.Random) -> list[Any]:
    out = list(of)
    dice.shuffle(out)
    return out
