"""The zygotes of a driver: begun when a program is started without one, ended when none was for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp.container import machine, turns
from visp.container.belongings import Moving, Unfit
from visp.container.local import close_pipes, open_pipes
from visp.container.template import READY_S, RENEWED_AFTER, Order
from visp.container.zygote import Binds, Entry, RLimits, petrify
from visp.errors import StartFailed
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from visp.container.base import Pipes
    from visp.container.networks import Maker
    from visp.container.spawn import Process
    from visp.container.template import Template
    from visp.container.zygote import Cell, Shape, Standing

KEPT_S = 60.0
"""As long after it was used last."""
REPLACED_AFTER_S = 5.0
"""Where there are as many as may be, one that was not used for so long gives way to another."""
AGAIN_S = 60.0
"""After what kept one from its start, and may pass; twice as long after each further time."""
LOOKS_S = 0.01
CALM_LOOKS = 6
"""A program has settled once it was seen so often in a row to wait and to have done nothing."""
CONTROL = 4
COPIED = {"VISP_COPIED": "1"}
"""By which a launcher learns that others will go on where it waits."""
ENTRIES = 8
"""Shapes of cells for which one keeps its orders."""


class Program(msgspec.Struct, frozen=True):
    """What is started, what it sees, and what bounds it: its heap may be laid out by that."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    binds: Binds
    limits: RLimits


class Zygote:
    """One program that stands still. `maker`: as that of the cells that it may enter; None for all of them."""

    def __init__(
        self, process: Process, maker: Maker | None, control: socket.socket, wire: Pipes, given: tuple[str, ...]
    ) -> None:
        self._given = given
        self.process = process
        self.maker = maker
        self.asked = 0
        self.used_s = 0.0
        self._control = control
        self._wire = wire
        self._standing: Standing | None = None
        self._entries: dict[Shape, Entry] = {}
        self._known: Shape | None = None
        """Whose list it has."""

    @property
    def lives(self) -> bool:
        return self._standing is not None and not self.process.exited.done()

    async def settle(self, cell: Cell) -> None:
        """Until it stands still. Raises `Unfit`, and `OSError` where it is gone or may not be held."""
        self._cell = cell
        async with asyncio.timeout(READY_S):
            while self._standing is None:
                await self._be_calm()
                with contextlib.suppress(Moving):
                    self._standing = await asyncio.to_thread(petrify, self.process.pid, CONTROL, self._given)

    async def _be_calm(self) -> None:
        calm, before = 0, ""
        while calm < CALM_LOOKS:
            await asyncio.sleep(LOOKS_S)
            now = _doing(self.process.pid)
            calm = calm + 1 if now == before and now else 0
            before = now

    def ask(self, code: str, shape: Shape, descriptors: Sequence[int]) -> None:
        """For a copy in the cell that the descriptors are of (`Entry`). `BlockingIOError`: too many are asked for."""
        assert self._standing is not None
        self.asked += 1
        entry = self._entries.get(shape)
        if entry is None:
            if len(self._entries) >= ENTRIES:
                self._entries.clear()
            entry = self._entries[shape] = Entry(self._standing, self._cell, shape)
        socket.send_fds(self._control, [entry.over(code, is_known=shape == self._known)], [*descriptors])
        self._known = shape

    async def end(self) -> None:
        """Its copies live on."""
        self.process.kill()
        self._control.close()
        close_pipes(self._wire)
        await self.process.exited


class Zygotes:
    """Those of one driver; they are begun beside a template, whose cells they enter."""

    def __init__(
        self,
        most: int,
        template: Callable[[], Template],
        cell_of: Callable[[Program], Cell],
        prove: Callable[[Zygote], Awaitable[None]],
    ) -> None:
        """`prove` raises `Unfit` where no copy comes to life."""
        self._most = most
        self._prove = prove
        self._template = template
        self._cell_of = cell_of
        self._kept: dict[Program, Zygote] = {}
        self._unfit: dict[Program, tuple[float, float]] = {}
        """Until when none is begun, and how long that is."""
        self._beginning: dict[Program, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = platform.machine() != machine.ARCHITECTURE

    def at_hand(self, program: Program, *, begins: bool) -> Zygote | None:
        """The one of a program that is up. If none is, one may be begun for the next time."""
        zygote = self._kept.get(program)
        if zygote is not None and zygote.lives:
            zygote.used_s = asyncio.get_running_loop().time()
            if zygote.asked >= RENEWED_AFTER or zygote.maker is not self._template().maker:
                self._begin(program)
            return zygote
        if begins:
            self._begin(program)
        return None

    def give_up(self, program: Program) -> None:
        """Its copies do not come to life."""
        self._refuse(program, "a copy could not enter its cell", wait_s=float("inf"))
        zygote = self._kept.pop(program, None)
        if zygote is not None:
            self._let_go(zygote)

    def pids(self) -> list[int]:
        """Of those that are up."""
        return [zygote.process.pid for zygote in self._kept.values() if zygote.lives]

    def _begin(self, program: Program) -> None:
        until_s, _ = self._unfit.get(program, (0.0, 0.0))
        if self._is_closed or program in self._beginning or asyncio.get_running_loop().time() < until_s:
            return
        if program in self._kept or self._has_room():
            self._beginning[program] = asyncio.ensure_future(self._start(program))

    def _has_room(self) -> bool:
        """Also makes it: of too many, the one that was not used for longest goes."""
        if len(self._kept) + len(self._beginning.keys() - self._kept.keys()) < self._most:
            return True
        if not self._kept:
            return False
        program = min(self._kept, key=lambda program: self._kept[program].used_s)
        if asyncio.get_running_loop().time() - self._kept[program].used_s < REPLACED_AFTER_S:
            return False
        self._let_go(self._kept.pop(program))
        return True

    async def _start(self, program: Program) -> None:
        try:
            zygote = await self._started(program)
        except Unfit as error:
            self._refuse(program, str(error), wait_s=float("inf"))
            return
        except (OSError, StartFailed, TimeoutError) as error:
            _, before_s = self._unfit.get(program, (0.0, AGAIN_S / 2))
            self._refuse(program, str(error) or repr(error), wait_s=2 * before_s)
            return
        finally:
            del self._beginning[program]
        log.info("zygote.stands", program=program.argv[0], pid=zygote.process.pid)
        before = self._kept.get(program)
        self._kept[program] = zygote
        if before is not None:
            self._let_go(before)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_S, self._look)

    def _refuse(self, program: Program, reason: str, wait_s: float) -> None:
        log.warning("zygote.unfit", program=program.argv[0], reason=reason, again_s=wait_s)
        self._unfit[program] = asyncio.get_running_loop().time() + wait_s, wait_s

    async def _started(self, program: Program) -> Zygote:
        cell = self._cell_of(program)
        inside, wire = open_pipes()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        zygote: Zygote | None = None
        try:
            with theirs:
                limits = tuple(limit for limit in program.limits if limit[0] != resource.RLIMIT_NPROC)
                env = dict(program.env) | COPIED
                order = Order(binds=program.binds, argv=program.argv, env=env, limits=limits)
                given = [*(inside[number] for number in sorted(inside)), theirs.fileno()]
                process, maker = await self._template().begin(order, given)
            leads = tuple(os.readlink(f"/proc/self/fd/{number}") for number in given[:-1])
            zygote = Zygote(process, maker, ours, wire, leads)
            zygote.used_s = asyncio.get_running_loop().time()
            turns.shorten(process.pid)
            await zygote.settle(cell)
            await self._prove(zygote)
        except BaseException:
            if zygote is not None:
                await asyncio.shield(zygote.end())
            else:
                ours.close()
                close_pipes(wire)
            raise
        finally:
            for descriptor in inside.values():
                os.close(descriptor)
        return zygote

    def _look(self) -> None:
        """Those that nobody has used for long go."""
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        for program, zygote in [*self._kept.items()]:
            if not zygote.lives or now_s - zygote.used_s >= KEPT_S:
                del self._kept[program]
                self._let_go(zygote)
        if self._kept:
            self._timer = asyncio.get_running_loop().call_later(KEPT_S / 4, self._look)

    def _let_go(self, zygote: Zygote) -> None:
        ending = asyncio.ensure_future(zygote.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in [*self._beginning.values()]:
            task.cancel()
        await asyncio.gather(*self._beginning.values(), return_exceptions=True)
        for zygote in self._kept.values():
            self._let_go(zygote)
        self._kept.clear()
        await asyncio.gather(*self._ending)


def _doing(pid: int) -> str:
    """What changes while a process does anything; empty while one of its threads runs. Raises `OSError`."""
    said = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        state, *fields = (task / "stat").read_text().rpartition(") ")[2].split()
        if state != "S":
            return ""
        said.append(f"{task.name} {fields[10:12]}")
    return "\n".join(said)
