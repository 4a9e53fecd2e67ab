"""A driver whose containers run nothing: they speak ActionLoop over real pipes, from the event loop, by a script.

For tests, and for measuring the plane without any action's own cost. A container takes its lines one after the other;
what it prints is written before its reply, as a launcher does that flushes.

A server can run with it too: `--driver visp.container.fake:FakeDriver`. Then every kind of the manifest is there, and
an action's code is its script: JSON such as `{"init_ms": 5, "run_ms": 50, "answer": {}}`, each field optional. Other
code answers at once.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from visp.clock import SystemClock
from visp.container.base import Exit, Pipes, Way
from visp.errors import ContainerGone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from visp.clock import Clock
    from visp.container.base import ContainerSpec
    from visp.settings import Settings

READ_BYTES = 256 * 1024
CREATED_LIMIT = 10_000
KILLED = Exit(-9)
OUT_OF_MEMORY = Exit(-9, is_out_of_memory=True)


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a container does with one line.

    It waits `after_s` of the driver's clock, prints `stdout` and `stderr`, replies (`reply` None: never), and ends if
    `exit` says how.
    """

    reply: bytes | None = b'{"ok":true}'
    after_s: float = 0.0
    stdout: bytes = b""
    stderr: bytes = b""
    exit: Exit | None = None


OK = Act()


class Script(msgspec.Struct, frozen=True):
    """What an action's code says of its containers: how long init and run take, and what a run answers."""

    init_ms: float = 0.0
    run_ms: float = 0.0
    answer: msgspec.Raw = msgspec.Raw(b'{"ok":true}')

    @property
    def init(self) -> Act:
        return Act(after_s=self.init_ms / 1000)

    @property
    def run(self) -> Act:
        return Act(reply=bytes(self.answer), after_s=self.run_ms / 1000)


class FakeDriver:
    """Containers by script. The attributes may be changed at any time; what runs goes by the newest.

    `on_init` and `on_run` get a line without its end; None goes by the script that the code is. `on_create` may
    raise what `create` is to raise; `create_s` and `destroy_s` are how long they take, `clean_s` how long it takes
    to remove what has ended. `can_add_code` false: every tree is too large. `failing` names the calls of a
    container that raise `OSError`. `containers` are those that exist, `created` the specs of the newest ones that
    ever did, `peak_mb` the most memory that existed at once.
    """

    name = "fake"
    has_templates = False
    has_doors = False

    def __init__(
        self, settings: Settings | None = None, data_dir: Path | None = None, *, clock: Clock | None = None
    ) -> None:
        self.clock = clock or SystemClock()
        self.on_init: Callable[[bytes], Act] | None = None
        self.on_run: Callable[[bytes], Act] | None = None
        self.on_create: Callable[[ContainerSpec], None] = _nothing
        self.create_s = 0.0
        self.destroy_s = 0.0
        self.clean_s = 0.0
        self.can_add_code = True
        self.failing: frozenset[str] = frozenset()
        self.containers: dict[str, FakeContainer] = {}
        self.created: deque[ContainerSpec] = deque(maxlen=CREATED_LIMIT)
        self.peak_mb = 0

    async def start(self) -> None:
        pass

    async def reap(self) -> int:
        return 0

    async def create(self, spec: ContainerSpec) -> FakeContainer:
        self.on_create(spec)
        if self.create_s:
            await self.clock.sleep(self.create_s)
        container = FakeContainer(self, spec)
        self.containers[spec.id] = container
        self.created.append(spec)
        self.peak_mb = max(self.peak_mb, sum(other.memory_mb for other in self.containers.values()))
        return container

    async def close(self) -> None:
        for container in list(self.containers.values()):
            await container.destroy()


class FakeContainer:
    """One end of four pipes, and the script at the other. `added` are the folders that `add_code` got."""

    code_at = "/action"
    doors = ()

    def __init__(self, driver: FakeDriver, spec: ContainerSpec) -> None:
        self.way = Way.STARTED
        self.id = spec.id
        self.memory_mb = spec.memory_mb
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.added: list[str] = []
        self.is_paused = False
        self._loop = asyncio.get_running_loop()
        self._driver = driver
        self._stdin, stdin = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        replies, self._replies = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stdout, self._stdout = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stderr, self._stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.wire = Pipes(stdin, replies, stdout, stderr)
        self._is_initialized = False
        self._run = OK
        self._is_destroyed = False
        self._partial = b""
        self._lines: deque[bytes] = deque()
        self._writes: deque[tuple[int, memoryview]] = deque()
        self._act: Act | None = None
        self._delay: asyncio.Task[None] | None = None
        self._loop.add_reader(self._stdin, self._read)

    # ── as the invoker sees it ──────────────────────────────────────────────────────────────────────────────────

    async def add_code(self, folder: str) -> bool:
        self._check("add_code")
        if self._driver.can_add_code:
            self.added.append(folder)
        return self._driver.can_add_code

    async def pause(self) -> None:
        self._check("pause")
        self.is_paused = True

    async def resume(self) -> None:
        self._check("resume")
        self.is_paused = False
        self._go_on()

    async def destroy(self) -> None:
        if self._is_destroyed:
            return
        self._is_destroyed = True
        if self._driver.destroy_s:
            await self._driver.clock.sleep(self._driver.destroy_s)
        self.end(KILLED)
        for descriptor in msgspec.structs.astuple(self.wire):
            os.close(descriptor)
        self._driver.containers.pop(self.id, None)
        if self._driver.clean_s:
            await self._driver.clock.sleep(self._driver.clean_s)
        self._fail("destroy")

    def end(self, exit: Exit) -> None:
        """The container ends by itself: its ends of the pipes are closed."""
        if self.exited.done():
            return
        self._loop.remove_reader(self._stdin)
        if self._writes:
            self._loop.remove_writer(self._writes[0][0])
            self._writes.clear()
        if self._delay is not None:
            self._delay.cancel()
        for descriptor in (self._stdin, self._replies, self._stdout, self._stderr):
            os.close(descriptor)
        self.exited.set_result(exit)

    def print(self, data: bytes) -> None:
        """Output that belongs to no line: what a process left behind prints. Only as much as the pipe holds."""
        os.write(self._stdout, data)

    def _check(self, call: str) -> None:
        if self.exited.done():
            raise ContainerGone(self.id)
        self._fail(call)

    def _fail(self, call: str) -> None:
        if call in self._driver.failing:
            raise OSError(f"{call} fails by script")

    # ── the script ──────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        data = os.read(self._stdin, READ_BYTES)
        if not data:
            self.end(Exit(0))  # as a launcher does when its input is closed
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._lines.extend(lines)
        self._go_on()

    def _go_on(self) -> None:
        """Takes the next line unless one is under way; a paused container stands still."""
        while self._lines and self._act is None and not self.is_paused and not self.exited.done():
            self._act = self._next(self._lines.popleft())
            if self._act.after_s:
                self._delay = self._loop.create_task(self._wait(self._act.after_s))
            else:
                self._perform()

    def _next(self, line: bytes) -> Act:
        driver = self._driver
        if self._is_initialized:
            return self._run if driver.on_run is None else driver.on_run(line)
        self._is_initialized = True
        script = read_script(line)
        self._run = script.run
        return script.init if driver.on_init is None else driver.on_init(line)

    async def _wait(self, seconds: float) -> None:
        await self._driver.clock.sleep(seconds)
        self._perform()

    def _perform(self) -> None:
        act = self._act
        assert act is not None
        for descriptor, data in ((self._stdout, act.stdout), (self._stderr, act.stderr)):
            if data:
                self._writes.append((descriptor, memoryview(data)))
        if act.reply is not None:
            self._writes.append((self._replies, memoryview(act.reply + b"\n")))
        self._write()

    def _write(self) -> None:
        """Writes in order, waiting where a pipe is full; then the act is over."""
        while self._writes:
            descriptor, data = self._writes[0]
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                self._loop.add_writer(descriptor, self._write)
                return
            self._loop.remove_writer(descriptor)
            if data:
                self._writes[0] = (descriptor, data)
            else:
                self._writes.popleft()
        act = self._act
        assert act is not None
        if act.exit is not None:
            self.end(act.exit)
        elif act.reply is not None:  # else the line is under way for ever
            self._act = None
            self._loop.call_soon(self._go_on)


class _Value(msgspec.Struct, frozen=True):
    code: str = ""


class _Init(msgspec.Struct, frozen=True):
    value: _Value = _Value()


def read_script(init_line: bytes) -> Script:
    """The script that an init line's code is; the one that answers at once where it is none."""
    try:
        return msgspec.json.decode(msgspec.json.decode(init_line, type=_Init).value.code, type=Script)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Script()


def _nothing(_: ContainerSpec) -> None:
    """Containers start."""
