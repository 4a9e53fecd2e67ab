"""The host's side of a template: starts it, asks it for cells, and starts another when it is gone.

A template is a clean process: its environment is the containers' own, its descriptors are the channel on which it is
asked, its plan, and pipes for what it prints. What it makes are children of the server, not its own, so its end ends
none of them.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import resource
import socket
import struct
from importlib import resources
from io import FileIO
from typing import TYPE_CHECKING

import msgspec

from visp.container import spawn, turns
from visp.container.local import close_pipes, open_pipes
from visp.container.networks import CellNetwork
from visp.container.spawn import Process
from visp.container.zygote import Binds, RLimits, Shape
from visp.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from visp.container.base import Pipes
    from visp.container.cgroup import Group
    from visp.container.networks import Maker, Networks
    from visp.container.zygotes import Zygote

CONTROL, PLAN = 3, 4
"""Its descriptors, beside 0-2."""
ENCLOSURE = resources.files("visp.container").joinpath("enclosure.py")
MESSAGE_BYTES = 64 * 1024
RIGHTS_BYTES = socket.CMSG_SPACE(64 * 4)
"""For as many descriptors."""
REQUEST = struct.Struct("=IBBB")
"""A uid, whether descriptors are of a group and of a network to be born in, and whether no cell is meant."""
READY_S = 10.0
RENEWED_AFTER = 1000
SAID_BYTES = 2048


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a template is told at its start; `enclosure.py` says what it means."""

    words: tuple[str, ...]
    namespaces: int
    uid: int
    hostname: str
    filter: str
    cells: str
    shows: tuple[str, ...]
    argv: tuple[str, ...]
    env: dict[str, str]
    first: str
    imports: tuple[str, ...]
    others: tuple[tuple[tuple[str, ...], int, str], ...]
    mounts: tuple[tuple[str, str], ...]
    doors: tuple[int, ...]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell becomes: what is seen there and where, and the command, None for what the template is for."""

    binds: Binds
    argv: tuple[str, ...] | None
    env: dict[str, str]
    limits: RLimits


def limits_of(rlimits: Mapping[str, int]) -> RLimits:
    return tuple((getattr(resource, f"RLIMIT_{name.upper()}"), value) for name, value in rlimits.items())


class Blank:
    """A cell that waits for its order."""

    def __init__(
        self,
        process: Process,
        channel: socket.socket,
        heir: FileIO,
        uid: int | None,
        group: Group | None,
        network: CellNetwork | None,
        maker: Maker | None,
    ) -> None:
        self.process = process
        self.maker = maker
        """None but what this one has begun may enter it; None: whatever any has."""
        self.network = network
        """Known once it is furnished; it outlives the cell, and is not ended with it."""
        self.uid = uid
        self.group = group
        self._channel = channel
        self._heir = heir

    def obey(self, order: Order) -> Pipes:
        """How the container is spoken to. Raises `OSError` when the cell is gone.

        The order goes out when whoever is at work has nothing left to do, so that what is said to the container at once
        is there when it looks, and nobody has to be waited for.
        """
        self._heir.close()  # the cell names it, or ends
        with contextlib.suppress(BlockingIOError):
            self._channel.recv(1, socket.MSG_PEEK)
            raise ConnectionResetError("the cell has ended")
        inside, wire = open_pipes()
        asyncio.get_running_loop().call_soon(self._order, msgspec.json.encode(order), inside)
        return wire

    def _order(self, message: bytes, inside: dict[int, int]) -> None:
        with contextlib.suppress(OSError):
            socket.send_fds(self._channel, [message], [inside[number] for number in sorted(inside)])
        for descriptor in inside.values():
            os.close(descriptor)
        self._channel.close()

    def be_entered(self, zygote: Zygote, code: str) -> Pipes:
        """A copy of `zygote` goes on in it, over a folder below that of cells; else as `obey`."""
        files = [] if self.group is None else open_group(self.group)
        is_born = self.group is not None and self.group.born_in is not None
        shape = Shape(is_born, len(files) - is_born)
        try:
            entered = (self._heir.fileno(), self.process.handle, *files)
            return self._give(lambda inside: zygote.ask(code, shape, [*inside, *entered]))
        finally:
            self._heir.close()
            for descriptor in files:
                os.close(descriptor)

    def _give(self, send: Callable[[list[int]], object]) -> Pipes:
        inside, wire = open_pipes()
        try:
            send([inside[number] for number in sorted(inside)])
        except BaseException:
            close_pipes(wire)
            raise
        finally:
            for descriptor in inside.values():
                os.close(descriptor)
        self._channel.close()
        return wire

    def end(self) -> None:
        """It was not needed; whoever made it waits for its process."""
        self._channel.close()
        self._heir.close()
        self.process.kill()


def open_group(group: Group) -> list[int]:
    """Descriptors of what a process of the group is born in, if anything, and of what it joins by."""
    born_in = () if group.born_in is None else (os.open(group.born_in, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),)
    return [*born_in, *(os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in group.joined_by)]


class Template:
    """One template, running or not."""

    def __init__(self, python: str, enclosure: Path, plan: Plan) -> None:
        self.becomes = frozenset(command for command, _, _ in plan.others)
        """Commands whose launchers it has loaded besides its own: they need not be seen in a cell."""
        self._argv = [python, "-I", "-S", str(enclosure)]
        self._plan = msgspec.json.encode(plan)
        self._run: _Run | None = None
        self._left: list[_Run] = []

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._run.process.pid if self._run is not None and self._run.lives else None

    @property
    def maker(self) -> Maker | None:
        """As that of the cells that it makes now."""
        return None if os.geteuid() == 0 else self._run

    async def make(self, uid: int | None, group: Group | None, networks: Networks | None = None) -> Blank:
        """A blank cell with this uid, in this group. Raises `StartFailed`; what was made by then is ended.

        Where its namespaces are to be it stands in one of `networks`, or in a new one if none of them is fit.
        """
        try:
            return await self._make(self._running(), uid, group, networks)
        except _Ended:  # since it was looked at last: another is started
            pass
        try:
            return await self._make(self._running(), uid, group, networks)
        except _Ended as error:
            raise StartFailed(f"the template gave no cell: {error}") from None

    async def _make(self, run: _Run, uid: int | None, group: Group | None, networks: Networks | None) -> Blank:
        network = networks.take(run) if networks is not None else None
        try:
            return await self._make_in(run, uid, group, network)
        except BaseException:
            if networks is not None and network is not None:
                networks.drop(network)
            raise

    async def _make_in(self, run: _Run, uid: int | None, group: Group | None, network: CellNetwork | None) -> Blank:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        process: Process | None = None
        try:
            async with asyncio.timeout(READY_S):
                run.ask(theirs, uid, group, network)
                theirs.close()  # so that the end of the last who holds it is seen
                process = await _first_of(ours)
                _, (heir, *made) = await answer(ours)
                maker = self.maker
                blank = Blank(process, ours, FileIO(heir, "wb"), uid, group, network, maker)
                if made:
                    handle, counts, *doors = made
                    blank.network = CellNetwork(handle, counts, door_sockets(doors), maker)
        except BaseException as error:
            ours.close()
            if process is not None:
                process.kill()
                await asyncio.shield(process.exited)
            if isinstance(error, TimeoutError):
                run.end()
                raise StartFailed(f"the template gave no cell within {READY_S} s") from None
            if isinstance(error, ConnectionError):
                run.end()
                raise _Ended(run.last_words() or str(error)) from None
            raise
        finally:
            theirs.close()
        return blank

    async def begin(self, order: Order, descriptors: Sequence[int]) -> tuple[Process, Maker | None]:
        """Starts a program beside it, with its own rights and in its own surroundings; it has these from 0 on.

        Also whose cells it may enter, None for all. Raises `StartFailed` and `OSError`.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            run = self._running()
            async with asyncio.timeout(READY_S):
                run.ask(theirs, None, None, None, stands=True)
                theirs.close()
                process = await _first_of(ours)
            socket.send_fds(ours, [msgspec.json.encode(order)], [*descriptors])
        return process, self.maker

    def _running(self) -> _Run:
        """The one to ask; it is started where none runs.

        After many cells a new one takes its place: what all children of one share, the seed of their hashes and where
        things lie in memory, is not shared for long. The old one answers what it was asked and ends by itself.
        """
        if self._run is None or not self._run.lives or self._run.asked >= RENEWED_AFTER:
            self._leave()
            self._run = _Run(self._argv, self._plan)
        return self._run

    def _leave(self) -> None:
        self._left = [run for run in self._left if not run.process.exited.done()]
        if self._run is not None:
            self._run.let_go()
            self._left.append(self._run)
            self._run = None

    async def close(self) -> None:
        """It runs no more; cells that it made live on."""
        self._leave()
        for run in self._left:
            run.end()
            await run.process.exited


class _Ended(Exception):
    """The process that was asked is gone; its last words."""


class _Run:
    """One process of a template. Raises `StartFailed`."""

    def __init__(self, argv: list[str], plan: bytes) -> None:
        self.asked = 0
        self._is_ended = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._said, said_inside = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        nothing, nothing_inside = os.pipe2(os.O_CLOEXEC)
        plan_inside = spawn.memory_file(plan)
        inside = {0: nothing, 1: said_inside, 2: said_inside, CONTROL: theirs.fileno(), PLAN: plan_inside}
        try:
            self.process = spawn.start(argv, {}, inside)
            turns.shorten(self.process.pid)
        except BaseException:
            self.let_go()
            raise
        finally:
            theirs.close()
            for descriptor in (said_inside, nothing, nothing_inside, plan_inside):
                os.close(descriptor)

    @property
    def lives(self) -> bool:
        return not (self._is_ended or self.process.exited.done())

    def end(self) -> None:
        self._is_ended = True
        self.process.kill()

    def ask(
        self,
        channel: socket.socket,
        uid: int | None,
        group: Group | None,
        network: CellNetwork | None,
        *,
        stands: bool = False,
    ) -> None:
        """For a cell that speaks on `channel`, or a program beside the template; raises `OSError`."""
        self.asked += 1
        files = [] if group is None else open_group(group)
        is_born_in = group is not None and group.born_in is not None
        places = [] if network is None else [network.handle]
        try:
            request = REQUEST.pack(uid or 0, is_born_in, network is not None, stands)
            descriptors = [channel.fileno(), *files[:is_born_in], *places, *files[is_born_in:]]
            socket.send_fds(self._control, [request], descriptors)
        finally:
            for descriptor in files:
                os.close(descriptor)

    def last_words(self) -> str:
        try:
            return os.read(self._said, SAID_BYTES).decode("utf-8", "replace").strip()
        except OSError:  # none, or it was let go
            return ""

    def let_go(self) -> None:
        """It is asked no more, and ends when it has answered."""
        self._control.close()
        if self._said >= 0:
            os.close(self._said)
        self._said = -1


async def _first_of(channel: socket.socket) -> Process:
    """The process of which the next message tells."""
    pid = (await answer(channel))[0].get("pid")
    assert isinstance(pid, int)
    return Process(pid)


async def answer(channel: socket.socket) -> tuple[dict[str, object], tuple[int, ...]]:
    """The next message of a cell, and the descriptors that came with it.

    Raises `StartFailed` for one that tells of an error, `OSError` for none.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(channel.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(channel.fileno())
    data, extra, _, _ = channel.recvmsg(MESSAGE_BYTES, RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC)
    descriptors = tuple(number for _, _, content in extra for number in array.array("i", content))
    if not data:
        raise ConnectionResetError("it ended")
    message = msgspec.json.decode(data, type=dict[str, object])
    if "error" in message:
        raise StartFailed(str(message["error"]))
    return message, descriptors


def door_sockets(descriptors: Iterable[int]) -> tuple[socket.socket, ...]:
    doors = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
    for door in doors:
        door.setblocking(False)
    return doors
