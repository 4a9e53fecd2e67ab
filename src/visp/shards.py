"""A server of several shards: the process that starts them, watches them, and starts again what has ended.

It has no hot work: it keeps the data folder's lock and the sockets that listen, hands them on, and says when all are
ready, or that all may close. The shards die with it. Shard 0 is started first, for it makes what is made once: keys
and tables.

The sockets stay open here, so who is in the queue of a shard that ended is not turned away: another one accepts there
until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import msgspec

from visp import handover, premises
from visp.ending import HURRY_S, Signals
from visp.errors import VispError
from visp.handover import Inheritance, Leaver, Line, Message
from visp.premises import CannotStart
from visp.settings import Settings
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from visp.settings import Loaded

CALM_S = 10.0
"""A shard that lived for this long is started again at once; one that keeps ending sooner waits, longer each time."""
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
BURY_S = 0.5
END_S = 15.0
"""How much longer than the bound a shard may take to end, before it is killed."""
PR_SET_PDEATHSIG = 1


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard is told: its settings (its share of them), who its parent is, and what it inherits."""

    parent: int
    settings: Settings
    listeners: tuple[int, ...]
    control: int


def serve(loaded: Loaded, *, is_takeover: bool = False) -> int:
    """Runs the server until SIGTERM or SIGINT; the exit status. What keeps it from serving goes to stderr."""
    log.set_level(loaded.settings.log_level)
    try:
        asyncio.run(_serve(loaded.settings, is_takeover))
    except VispError as error:
        if str(error):
            print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(settings: Settings, is_takeover: bool) -> None:
    from visp.serving import certificates_of, inherited, redirect_port

    data_dir = premises.prepare_data_dir(settings)
    certificates_of(settings)  # those of the shards are their own: what is wrong is said before, and once
    with redirect_port(settings, is_takeover=is_takeover) as redirect:
        inheritance = inherited(settings, data_dir, is_takeover=is_takeover)
        await _live(settings, data_dir, inheritance, redirect)


async def _live(settings: Settings, data_dir: Path, inheritance: Inheritance, redirect: socket.socket | None) -> None:
    """One life, or several: when a new server that was given way to has not come up."""
    from visp.serving import redirecting

    signals = Signals()
    with contextlib.ExitStack() as stack:
        if not inheritance.listeners:
            inheritance.listeners += stack.enter_context(_ports(settings))
        settings = premises.settings_at(settings, inheritance.listeners[0])
        share = msgspec.structs.replace(premises.share_of(settings), data_dir=str(data_dir))
        while True:
            with premises.locked(data_dir) as lock:
                async with redirecting(redirect, settings):
                    leaver = await Parent(share, lock, data_dir, inheritance, signals).run()
            if leaver is None or await leaver.is_succeeded(signals.stop):
                return
            inheritance = Inheritance(inheritance.listeners, leaver.kept, is_kept=inheritance.is_kept, is_return=True)


@contextlib.contextmanager
def _ports(settings: Settings) -> Iterator[list[socket.socket]]:
    """The port, bound once for each shard, and not listened on yet; raises `CannotStart`.

    It is bound alone before it is bound to be shared: another server's shared port would let itself be shared.
    """
    with premises.listening(settings) as alone:
        port = alone.getsockname()[1]
    at = msgspec.structs.replace(settings, port=port)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(premises.listening(at, is_shared=True)) for _ in range(settings.workers)]


def dealt(count: int, workers: int) -> list[list[int]]:
    """Which of so many listening sockets each shard accepts on: everyone on one, and nobody's is left."""
    hands: list[list[int]] = [[] for _ in range(workers)]
    for number in range(max(count, workers)):
        hands[number % workers].append(number % count)
    return hands


class NotServing(CannotStart):
    """A shard ended before it was ready; it said why."""


class Parent:
    """Starts the shards and keeps them running."""

    def __init__(
        self, settings: Settings, lock: int, data_dir: Path, inheritance: Inheritance, signals: Signals
    ) -> None:
        self._settings = settings
        self._lock = lock
        self._data_dir = data_dir
        self._inheritance = inheritance
        self._signals = signals
        self._url = premises.url_of(inheritance.listeners[0], settings)
        self._hands = dealt(len(inheritance.listeners), settings.workers)
        self._connections = {n: inheritance.connections[n :: settings.workers] for n in range(settings.workers)}
        """What each shard takes over once it is up."""
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._lines: dict[int, Line] = {}
        self._ready = [asyncio.Event() for _ in range(settings.workers)]
        self._is_ready = False
        self._stopping = asyncio.Event()
        """No shard is started any more."""
        self._busy: set[int] = set()
        """Shards that were told to leave, and have not said that they are idle."""
        self._calm = asyncio.Event()
        """Set while none of them is busy."""
        self._leaver: Leaver | None = None

    async def run(self) -> Leaver | None:
        """Until a signal has stopped it, or it has given way, and all shards have ended. Raises `NotServing`."""
        is_serving = True
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._settings.workers):
                    tasks.create_task(self._keep(number))
                tasks.create_task(self._announce())
                tasks.create_task(self._end())
                if self._settings.tls.certificate:
                    tasks.create_task(self._hand_hangups_on())
                if os.getpid() == 1:
                    tasks.create_task(self._bury())
        except* NotServing:
            is_serving = False  # what is raised in here would be a group again
        if not is_serving:
            raise NotServing("")
        return self._leaver

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _end(self) -> None:
        """Waits for what ends this server, and ends its shards: all settle, then all close."""
        while not self._stopping.is_set():
            async with handover.offered(self._data_dir, self._greet) as asked:
                stop = asyncio.ensure_future(self._signals.stop.wait())
                failed = asyncio.ensure_future(self._stopping.wait())
                await asyncio.wait([asked, stop, failed], return_when=asyncio.FIRST_COMPLETED)
                for task in (stop, failed):
                    task.cancel()
                leaver = Leaver(asked.result()) if asked.done() else None
            if self._stopping.is_set():
                return
            if leaver is None or await self._give_way(leaver):
                await self._stop(leaver)

    def _greet(self) -> Message:
        is_ready = self._is_ready
        return handover.hello(self._inheritance.listeners, None if is_ready else "starting: shards are not up")

    async def _give_way(self, leaver: Leaver) -> bool:
        """Whether everything is given away; else the new server is gone, and all is as it was."""
        self._leaver = leaver
        within_s = self._settings.http.shutdown_s
        await leaver.begin(self._inheritance.listeners, within_s)
        async with leaver.sending():
            await self._settled(Message(what="leave", is_handover=True), leaver.is_off)
        if not leaver.is_off.is_set():
            return True
        leaver.give_up()
        self._leaver = None
        self._busy.clear()
        await self._tell(Message(what="stay"))
        await self._deal(leaver.kept)
        return False

    async def _stop(self, leaver: Leaver | None) -> None:
        """What is left of the shards' life: all are idle, or have been told that nobody comes after them."""
        self._stopping.set()
        if leaver is None:
            for each in self._inheritance.listeners:
                each.close()  # the shards have their own, and close them when nobody is left in the queues
            await self._settled(Message(what="leave"), asyncio.Event())
        await self._tell(Message(what="closed"))
        asyncio.get_running_loop().call_later(END_S, self._kill)

    async def _settled(self, leave: Message, is_off: asyncio.Event) -> None:
        """Tells all shards to leave, and waits until they are idle, or it `is_off`; hands a hurry on."""
        self._busy = set(self._lines)
        self._calm.clear()
        await self._tell(leave)
        within_s = self._settings.http.shutdown_s + HURRY_S + END_S
        hurrying = asyncio.ensure_future(self._hand_hurry_on())
        awaited = [asyncio.ensure_future(event.wait()) for event in (self._calm, is_off)]
        self._look_whether_calm()
        done, _ = await asyncio.wait(awaited, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            log.error("shards.not_idle", shards=",".join(map(str, sorted(self._busy))))
        for task in (*awaited, hurrying):
            task.cancel()
        await asyncio.gather(*awaited, hurrying, return_exceptions=True)

    async def _hand_hurry_on(self) -> None:
        await self._signals.hurry.wait()
        await self._tell(Message(what="hurry"))

    async def _hand_hangups_on(self) -> None:
        """SIGHUP has every shard read the certificate's files again."""
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, heard.set)
        try:
            while not self._stopping.is_set():
                await self._wait(heard)
                if heard.is_set():
                    heard.clear()
                    await self._tell(Message(what="reload"))
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    async def _tell(self, message: Message) -> None:
        for line in list(self._lines.values()):
            await line.send(message)

    async def _deal(self, connections: Sequence[socket.socket]) -> None:
        """Gives open connections to the shards that are ready, as many to each."""
        lines = [line for number, line in self._lines.items() if self._ready[number].is_set()]
        for first, line in enumerate(lines):
            await _give(line, connections[first :: len(lines)])

    def _look_whether_calm(self) -> None:
        if not self._busy:
            self._calm.set()

    def _kill(self) -> None:
        for number, process in self._processes.items():
            log.error("shard.killed", shard=number)
            process.kill()

    # ── the shards ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _announce(self) -> None:
        for ready in self._ready:
            await self._wait(ready)
        if not self._stopping.is_set():
            self._is_ready = True
            self._inheritance.confirm()
            if self._inheritance.is_return:  # who started this server has been told
                log.info("handover.back", url=self._url)
            else:
                premises.announce(self._url, self._data_dir)

    async def _bury(self) -> None:
        while not self._stopping.is_set():
            await self._wait(asyncio.Event(), BURY_S)
            bury_orphans({process.pid for process in self._processes.values()})

    async def _wait(self, event: asyncio.Event, within_s: float | None = None) -> None:
        """Until the event, the stop, or the end of the time."""
        waiting = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._stopping.wait())]
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiting:
            waiter.cancel()

    async def _keep(self, number: int) -> None:
        """Starts a shard, again and again."""
        if number:
            await self._wait(self._ready[0])
        loop, wait_s, restarts = asyncio.get_running_loop(), 0.0, 0
        while not self._stopping.is_set():
            began_s = loop.time()
            status = await self._run_once(number)
            if self._stopping.is_set():
                return
            if not self._ready[number].is_set():
                self._fail()
                raise NotServing("")
            restarts += 1
            wait_s = next_wait_s(wait_s, loop.time() - began_s, restarts)
            log.error("shard.ended", shard=number, status=status, restarts=restarts, next_start_s=wait_s)
            await self._cover(number)
            await self._wait(asyncio.Event(), wait_s)
            while self._leaver is not None and not self._stopping.is_set():  # it may be the new server's turn
                await self._wait(asyncio.Event(), FIRST_WAIT_S)

    def _fail(self) -> None:
        """The server cannot be: what there is of it ends by itself."""
        self._stopping.set()
        for process in self._processes.values():
            process.terminate()

    async def _cover(self, number: int) -> None:
        """Another shard accepts where this one did."""
        neighbour = next((line for other, line in self._lines.items() if self._ready[other].is_set()), None)
        if neighbour is not None:
            await neighbour.send(
                Message(what="listeners"), [self._inheritance.listeners[n] for n in self._hands[number]]
            )

    async def _run_once(self, number: int) -> int:
        """One life of a shard; its exit status."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listeners = tuple(self._inheritance.listeners[each].fileno() for each in self._hands[number])
        line = Line(ours)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "visp.shards",
                str(number),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(self._lock, theirs.fileno(), *listeners),
                start_new_session=True,  # a terminal's Ctrl-C is for the parent alone
            )
            control = theirs.fileno()
        self._processes[number], self._lines[number] = process, line
        hearing = asyncio.ensure_future(self._hear(number, line))
        try:
            if self._stopping.is_set():
                process.terminate()
            assert process.stdin is not None
            assert process.stdout is not None
            task = Task(parent=os.getpid(), settings=self._settings, listeners=listeners, control=control)
            with contextlib.suppress(ConnectionError):
                process.stdin.write(msgspec.json.encode(task))
                await process.stdin.drain()
                process.stdin.close()
            if await process.stdout.readline():
                self._ready[number].set()
                await _give(line, self._connections.pop(number, ()))
            return await process.wait()
        finally:
            del self._processes[number], self._lines[number]
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
            line.close()
            self._busy.discard(number)
            self._look_whether_calm()

    async def _hear(self, number: int, line: Line) -> None:
        """What a shard says while it leaves."""
        while (received := await line.receive()) is not None:
            message, sockets = received
            if message.what == "idle":
                self._busy.discard(number)
                self._look_whether_calm()
            elif self._leaver is not None:
                for each in sockets:
                    self._leaver.take(each)
            else:  # the new server is gone meanwhile
                await self._deal(sockets)


async def _give(line: Line, connections: Sequence[socket.socket]) -> None:
    if connections:
        await line.send(Message(what="connections"), connections)
    for each in connections:
        each.close()


def next_wait_s(before_s: float, lived_s: float, restarts: int) -> float:
    """How long a shard's next start waits, by the wait before it, how long the shard lived, and how often it ended."""
    if restarts == 1 or lived_s >= CALM_S:
        return 0.0
    return min(max(FIRST_WAIT_S, 2 * before_s), LONGEST_WAIT_S)


def bury_orphans(own: set[int]) -> None:
    """The first process of a container becomes the parent of every orphan: those that ended are waited for."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
            for pid in set(map(int, file.read().split())) - own:
                os.waitpid(pid, os.WNOHANG)


def main(number: int) -> int:
    """One shard; what it is told it reads from standard input."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != task.parent:  # it ended before we asked to die with it
        return 1
    from visp import serving

    listeners = [premises.adopted(number) for number in task.listeners]
    return serving.serve_shard(task.settings, number, listeners, premises.adopted(task.control))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
