"""Started programs that stand still, and whose copies go on in cells: templates of what cannot make copies of itself.

A launcher that waits for its first line waits in all its threads. It is held there once, and what each thread has in
its registers is noted; then all its threads follow lists of ours (`machine.py`) and nothing of its own program moves
any more. For a container the first one makes a copy of the process inside a cell, under the cell's limits and filter,
gives it descriptors of its own for those that copies would share, starts its threads anew, and has each take up what it
was doing. The copy reads its first line, and never learns that it was another's program that was started.
"""

from __future__ import annotations

import itertools
import re
import socket
import struct
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from visp.container import machine
from visp.container.belongings import MONOTONIC, NO_WAIT, WRITES, Descriptors, Moving, Unfit, descriptors_of, timers_of
from visp.container.machine import Steps
from visp.container.tracing import Held

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from visp.container.tracing import Thread

# Calls of the kernel, by the numbers that `machine.ARCHITECTURE` has for them.
READ, WRITE, OPEN, CLOSE, SEEK, MMAP, MPROTECT, SIGNAL_MASK, MADVISE, DUP2, PAUSE = 0, 1, 2, 3, 8, 9, 10, 14, 28, 33, 34
RECVFROM, RECVMSG, CLONE, EXIT, WAIT, CHDIR, SETSID, SETRESUID, SETRESGID = 45, 47, 56, 60, 61, 80, 112, 117, 119
CAPSET, PRCTL, MOUNT, EXIT_ALL, EPOLL_WATCH, EVENTFD, EPOLL, DUP3, PIPE = 126, 157, 165, 231, 233, 290, 291, 292, 293
SOCKET_PAIR, TIMER, PRLIMIT, SETNS, CLONE3, CLOSE_RANGE = 53, 222, 302, 308, 435, 436

VM, VFORK, SET_NUMBER, CLEAR_NUMBER, INTO_CGROUP = 0x100, 0x4000, 0x1000000, 0x200000, 0x200000000
NEW_THREAD = VM | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x80000 | SET_NUMBER | CLEAR_NUMBER
"""With the memory, folder, files and handlers of the others, and a place of its own that its base says."""
NEW_PROCESSES = 0x20000000
JOINED = 0x10000000 | 0x00020000 | 0x08000000 | 0x04000000 | 0x02000000 | 0x40000000
"""What else a cell has of its own: users, mounts, messages, names, groups and network."""
PEEK, CLOSE_ON_EXEC, WAIT_FOR_ALL = 2, 0o2000000, 0x40000000
SIGCHLD, SET_MASK, WATCH, BIND = 17, 2, 1, 0x1000
DUMPABLE, NAME, SECCOMP, DROP_BOUND, NO_NEW_PRIVILEGES, AMBIENT, FILTER, CLEAR_ALL = 4, 15, 22, 24, 38, 47, 2, 4
READ_WRITE, READ_RUN, PRIVATE, DO_FORK = 3, 5, 0x22, 11
OWN_NUMBER = 0x2D0
"""Where glibc keeps a thread's number, behind its base."""

REPLIES = 3
ALL = "/action"
LIVES = struct.pack("=q", -1)
CANNOT_ENTER = 125
"""Where everything lies, what is said of a copy that goes on, how one ends that cannot: as `enclosure.py` has it."""
PAGE = 4096
HOME_BYTES, HOME_DATA_BYTES = 16 * 1024, 8 * 1024
ORDER_BYTES, ORDER_DATA_BYTES = 64 * 1024, 16 * 1024
REGION_BYTES = PAGE + HOME_BYTES + ORDER_BYTES
ORDER_OFFSET = 8
"""Where a message lies, behind the results that nobody asks for."""
RIGHTS_BYTES = 1024
PATH_BYTES = 512


Binds: TypeAlias = tuple[tuple[str, str], ...]
"""Paths below what all cells share, and where they are to be seen; `enclosure.show` says how."""
RLimits: TypeAlias = tuple[tuple[int, int], ...]
"""By the numbers of this machine."""


class Resting(msgspec.Struct, frozen=True):
    """What a thread of a copy begins with: its name, the signals that it does not take, and where its registers are.

    `base` is what it finds its own memory by.
    """

    name: bytes
    mask: bytes
    base: int
    frame: int


class Standing(msgspec.Struct, frozen=True):
    """A process that follows our lists, and what its copies need to be told."""

    region: int
    control: int
    threads: tuple[Resting, ...]
    """The first one first."""
    descriptors: Descriptors
    timers: tuple[tuple[int, int], ...]
    """What each sends, and by which signal."""

    @property
    def order_at(self) -> int:
        return self.region + PAGE + HOME_BYTES


def petrify(pid: int, control: int, given: Sequence[str]) -> Standing:
    """Makes a process that waits a zygote: it listens on its descriptor `control`. Blocks for some milliseconds.

    Its 0-3 once led to what is `given`. Raises `Unfit` for what does not wait or cannot be copied, which goes on as it
    was, and `OSError` where nobody may do this.
    """
    with Held(pid) as held:
        for thread in held.threads:
            if not thread.waits:
                raise Moving("not all its threads wait")
            if struct.unpack("i", held.read(thread.registers["fs_base"] + OWN_NUMBER, 4)) != (thread.number,):
                raise Unfit("its threads are not kept as glibc keeps them")
        _check_memory(pid)
        descriptors = descriptors_of(pid, control, given)
        region = held.call(MMAP, 0, REGION_BYTES, READ_WRITE, PRIVATE, -1, 0)
        for address, size in _not_copied(pid):
            held.call(MADVISE, address, size, DO_FORK)
        home = Steps(region + PAGE, HOME_DATA_BYTES)
        threads = tuple([_laid_down(held, home, thread) for thread in held.threads])
        serve = home.next
        _serve(home, control, region + PAGE + HOME_BYTES)
        held.write(region, machine.CODE)
        held.write(region + PAGE, home.assemble())
        held.call(MPROTECT, region, PAGE, READ_RUN)
        rests = home.labels["rest"]
        for thread in held.threads:
            begins = serve if thread is held.threads[0] else rests
            thread.set(thread.to_call_again() | {"rip": region, "rbx": begins})
        return Standing(
            region,
            control,
            threads,
            descriptors,
            timers_of(pid),
        )


def _laid_down(held: Held, home: Steps, thread: Thread) -> Resting:
    again = thread.to_call_again()
    landing = again["rsp"] - machine.RED_ZONE - 8
    held.write(landing, struct.pack("Q", again["rip"]))
    frame = home.data(machine.FRAME_WORDS.pack(*[(again | {"rsp": landing})[name] for name in machine.FRAME]))
    with open(f"/proc/{held.pid}/task/{thread.number}/comm", "rb") as file:
        name = file.read().strip()
    return Resting(name, thread.mask, again["fs_base"], frame)


def _check_memory(pid: int) -> None:
    for address, _, flags in _mappings(pid):
        if "sh" in flags and "wr" in flags:
            raise Unfit(f"it shares the memory at {address:x}")


def _not_copied(pid: int) -> Iterator[tuple[int, int]]:
    """What its program does not want to be copied, for the sake of children that only start programs."""
    return ((address, size) for address, size, flags in _mappings(pid) if "dc" in flags and "io" not in flags)


def _mappings(pid: int) -> Iterator[tuple[int, int, list[str]]]:
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                begin, end = (int(word, 16) for word in found.groups())
            elif line.startswith("VmFlags:"):
                yield begin, end - begin, line.split()[1:]


def _serve(steps: Steps, control: int, order: int) -> None:
    """What the first thread does for ever: for each message a process that shares its memory follows what it says."""
    control_at = steps.data(bytes(RIGHTS_BYTES))
    parts = steps.data(struct.pack("QQ", order + ORDER_OFFSET, ORDER_BYTES - ORDER_OFFSET))
    message = steps.data(struct.pack("QIxxxxQQQQi4x", 0, 0, parts, 1, control_at, RIGHTS_BYTES, 0))
    steps.call(PRCTL, NAME, steps.text("visp-zygote"))
    steps.call(PRCTL, DUMPABLE, 0)  # also for those that share its memory, one of which is seen in a cell for a moment
    steps.mark("wait")
    steps.call(RECVFROM, control, steps.scratch, 1, PEEK, zero="end", error="end")
    steps.call(CLONE, VM | VFORK, keep=steps.argument_ahead(1), zero="maker", error="drop")
    steps.call(WAIT, 0, 0, WAIT_FOR_ALL, more="wait", error="wait")
    steps.mark("drop")
    steps.call(RECVFROM, control, steps.scratch, 1, zero="end", more="wait", error="end")
    steps.mark("maker")
    steps.call(RECVMSG, control, message, 0, more=order + ORDER_DATA_BYTES, zero="failed")
    steps.mark("end")
    steps.call(EXIT_ALL, 0, error="end")
    steps.mark("failed")
    steps.call(EXIT, 1)
    steps.mark("rest")
    steps.call(PAUSE, zero="rest", more="rest", error="rest")


# ── a copy ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Cell(msgspec.Struct, frozen=True):
    """What is the same for all cells that copies of a program enter.

    `binds` are what is seen there besides the code; `filter` is a BPF program.
    """

    uid: int
    capabilities: int
    filter: bytes
    binds: Binds
    limits: RLimits


class Shape(msgspec.Struct, frozen=True):
    """Where cells can differ. `joins` is the number of files by which groups are joined."""

    is_born_in_group: bool
    joins: int


class Entry:
    """The list by which one copy after the other enters a cell; only the folder of its code differs.

    A message is that folder, and behind it the list where the zygote has another by now. With it go descriptors: 0-3 as
    they are to be, where the copy's number is told, the cell's first process, then if it is born in a group that, and
    those by which groups are joined.
    """

    def __init__(self, standing: Standing, cell: Cell, shape: Shape) -> None:
        self._steps = Steps(standing.order_at, ORDER_DATA_BYTES)
        self._standing = standing
        self._code = self._steps.data(bytes(PATH_BYTES))
        assert self._code == self._steps.address + ORDER_OFFSET
        count = REPLIES + 3 + shape.is_born_in_group + shape.joins
        taken = {*standing.descriptors.flags, standing.control}
        free = (number for number in itertools.count() if number not in taken)
        self._received = [*itertools.islice(free, count)]
        self._write(cell, shape)
        self._list = self._steps.assemble()[ORDER_OFFSET + PATH_BYTES :]

    def over(self, code: str, *, is_known: bool) -> bytes:
        """The message for a copy over a folder that all cells share. Raises `ValueError` where its name is too long."""
        path = f"{ALL}/{code}\0".encode()
        if len(path) > PATH_BYTES:
            raise ValueError(f"a path of {len(path)} bytes")
        return path if is_known else path.ljust(PATH_BYTES, b"\0") + self._list

    def _write(self, cell: Cell, shape: Shape) -> None:
        steps, heir, first = self._steps, self._received[REPLIES + 1], self._received[REPLIES + 2]
        left = self._received[REPLIES + 3 :]
        copy = steps.data(bytes(8))
        steps.call(SETNS, first, NEW_PROCESSES, keep=copy)  # none as yet
        steps.call(
            *self._birth(left.pop(0) if shape.is_born_in_group else None), keep=steps.argument_ahead(1), zero="inside"
        )
        steps.call(WAIT, 0, 0, WAIT_FOR_ALL)
        steps.call(WRITE, heir, copy, 8)  # whose parent is by now the cell's first process
        steps.call(EXIT, 0)
        steps.mark("inside")
        nobody = steps.data(b"0")
        for number in left:
            steps.call(WRITE, number, nobody, 1)
        self._enter(cell, first)
        self._own_descriptors(heir)
        self._drop(cell)
        reader, writer = self._until_alone(heir)
        own = self._standing.threads[0].base + OWN_NUMBER
        steps.call(CLONE, SIGCHLD | SET_NUMBER | CLEAR_NUMBER, 0, 0, own, keep=copy, zero="copy")
        steps.call(EXIT, 0)
        steps.mark("failed")
        steps.call(EXIT, CANNOT_ENTER)
        steps.mark("copy")
        steps.call(CLOSE, writer)
        steps.call(READ, reader, steps.scratch, 1, more="failed")
        steps.call(CLOSE, reader)
        self._go_on(heir)

    def _until_alone(self, heir: int) -> tuple[int, int]:
        """A pipe whose end comes when the one who made the copy is on its way out, and can no longer be stopped.

        It shares the zygote's memory, and the zygote waits for it: the copy's program must not find it.
        """
        self._steps.call(PIPE, self._steps.scratch, 0)
        taken = {*self._standing.descriptors.flags, heir}
        reader, writer = itertools.islice((number for number in itertools.count() if number not in taken), 2)
        return reader, writer

    def _birth(self, group: int | None) -> tuple[int, ...]:
        flags = VM | VFORK | (0 if group is None else INTO_CGROUP)
        arguments = struct.pack("11Q", flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, group or 0)
        return CLONE3, self._steps.data(arguments), len(arguments)

    def _enter(self, cell: Cell, first: int) -> None:
        """The sandbox that stands around the cell's first process, and what is seen there of code and programs."""
        steps = self._steps
        steps.call(SETNS, first, JOINED)
        steps.call(SETSID)
        steps.call(SETRESGID, cell.uid, cell.uid, cell.uid)
        steps.call(SETRESUID, cell.uid, cell.uid, cell.uid)
        for source, target in cell.binds:
            steps.call(MOUNT, steps.text(f"{ALL}/{source}"), steps.text(target), 0, BIND, 0)
        steps.call(MOUNT, self._code, steps.text(ALL), 0, BIND, 0)
        steps.call(CHDIR, steps.text("/tmp"))
        for number, value in cell.limits:
            steps.call(PRLIMIT, 0, number, steps.data(struct.pack("QQ", value, value)), 0)

    def _drop(self, cell: Cell) -> None:
        """No capability, and the filter of system calls: nothing of this can be undone."""
        steps = self._steps
        steps.call(PRCTL, NO_NEW_PRIVILEGES, 1)
        steps.call(PRCTL, AMBIENT, CLEAR_ALL)
        for number in range(cell.capabilities):
            steps.call(PRCTL, DROP_BOUND, number)
        steps.call(CAPSET, steps.data(struct.pack("Ii", 0x20080522, 0)), steps.data(bytes(24)))
        program = steps.data(cell.filter)
        steps.call(PRCTL, SECCOMP, FILTER, steps.data(struct.pack("HxxxxxxQ", len(cell.filter) // 8, program)))

    def _own_descriptors(self, heir: int) -> None:
        """New ones in the place of those that all copies would share, and of those that lead out of the zygote.

        The kernel gives the lowest number that is free: below the highest, all are taken first.
        """
        steps, told = self._steps, self._standing.descriptors
        taken = {*told.flags, self._standing.control, *self._received}
        top = max(taken)
        gaps = {*range(top)} - taken
        fresh = itertools.count(top + 1)
        for number in gaps:
            steps.call(DUP2, self._received[0], number)
        for number, channel in told.channels.items():
            self._put(self._received[channel], number)
        for number, count in told.counters.items():
            steps.call(EVENTFD, count, told.flags[number] & NO_WAIT)
            self._put(next(fresh), number)
        for (reader, writer), content in told.pipes.items():
            steps.call(PIPE, steps.scratch, told.flags[reader] & NO_WAIT)
            self._put(next(fresh), reader)
            self._put(next(fresh), writer)
            if content:
                steps.call(WRITE, writer, steps.data(content), len(content))
        for number, (path, place) in told.files.items():
            steps.call(OPEN, steps.text(path), told.flags[number] & (WRITES | NO_WAIT))
            self._put(next(fresh), number)
            if place:
                steps.call(SEEK, number, place, 0)
        for number in told.ended:
            steps.call(SOCKET_PAIR, socket.AF_UNIX, socket.SOCK_STREAM, 0, steps.scratch)
            self._put(next(fresh), number)
            next(fresh)  # which is closed with all that is new
        for number, watches in told.epolls.items():
            epoll = next(fresh)
            steps.call(EPOLL, 0)
            for watch in watches:
                event = steps.data(struct.pack("=IQ", watch.events, watch.data))
                steps.call(EPOLL_WATCH, epoll, WATCH, watch.target, event)
            self._put(epoll, number)
        for number in sorted(gaps | {*self._received, self._standing.control} - {heir}):
            steps.call(CLOSE, number)
        steps.call(CLOSE_RANGE, top + 1, 0xFFFF_FFFF)

    def _put(self, fresh: int, number: int) -> None:
        """A new descriptor in the place of an old one, with its flags."""
        self._steps.call(DUP3, fresh, number, self._standing.descriptors.flags[number] & CLOSE_ON_EXEC)

    def _go_on(self, heir: int) -> None:
        """In the copy: its threads are started anew, and each takes up what it was doing."""
        steps, standing = self._steps, self._standing
        steps.call(PRCTL, DUMPABLE, 1)
        for value, signal in standing.timers:
            steps.call(TIMER, MONOTONIC, steps.data(struct.pack("Qi52x", value, signal)), steps.scratch)
        first, *others = standing.threads
        for thread in others:
            number = thread.base + OWN_NUMBER
            steps.call(SIGNAL_MASK, SET_MASK, steps.data(thread.mask), 0, len(thread.mask))
            steps.call(CLONE, NEW_THREAD, 0, number, number, thread.base, zero=f"thread {number}")
        steps.call(SIGNAL_MASK, SET_MASK, steps.data(first.mask), 0, len(first.mask))
        steps.call(WRITE, heir, steps.data(LIVES), len(LIVES))
        steps.call(CLOSE, heir)
        self._take_up(first)
        for thread in others:
            steps.mark(f"thread {thread.base + OWN_NUMBER}")
            self._take_up(thread)

    def _take_up(self, thread: Resting) -> None:
        self._steps.call(PRCTL, NAME, self._steps.data(thread.name + b"\0"))
        self._steps.take_up(thread.frame)
