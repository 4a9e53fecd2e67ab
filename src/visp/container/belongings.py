"""What is open in a process, and which timers it has: told so that a copy of it can have its own."""

from __future__ import annotations

import ctypes
import os
import re
import select
import socket
import stat
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NO_WAIT = 0o4000
WRITES = 3
"""Of a descriptor's flags: those that say whether it can be written to."""
TAKE_DESCRIPTOR = 438
MONOTONIC = 1
PIPE_BYTES = 4096

_libc = ctypes.CDLL(None)


class Unfit(Exception):
    """A program that cannot be copied as it stands; why."""


class Moving(Unfit):
    """One whose threads do not all wait at this moment."""


class Watch(msgspec.Struct, frozen=True):
    """What an epoll descriptor looks at."""

    target: int
    events: int
    data: int


class Descriptors(msgspec.Struct, frozen=True):
    """Those of a process, by their numbers, and what each is; copies share none of them."""

    flags: dict[int, int]
    channels: dict[int, int]
    """Which of 0-3, as they were given, each is."""
    counters: dict[int, int]
    pipes: dict[tuple[int, int], bytes]
    """What is in each, by where it is read and where it is written; both are inside."""
    epolls: dict[int, tuple[Watch, ...]]
    files: dict[int, tuple[str, int]]
    """Path and place: of what is only read, and of devices."""
    ended: tuple[int, ...]
    """Sockets whose other end is closed."""


def descriptors_of(pid: int, control: int, given: Sequence[str]) -> Descriptors:
    """What is open in a process but for `control`; its 0-3 once led to what is `given`.

    Raises `Unfit` for what no copy can have of its own.
    """
    told, ended = Descriptors({}, {}, {}, {}, {}, {}, ()), []
    ends: dict[str, list[int]] = {}
    for number in sorted({int(name) for name in os.listdir(f"/proc/{pid}/fd")} - {control}):
        path = f"/proc/{pid}/fd/{number}"
        kind, mode = os.readlink(path), os.stat(path).st_mode
        with open(f"/proc/{pid}/fdinfo/{number}") as file:
            info = file.read()
        flags = told.flags[number] = int(_told(info, r"flags:\s*(\d+)"), 8)
        if kind in given:
            told.channels[number] = given.index(kind)
        elif kind == "anon_inode:[eventfd]":
            told.counters[number] = int(_told(info, r"eventfd-count:\s*([0-9a-f]+)"), 16)
        elif kind == "anon_inode:[eventpoll]":
            found = re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)", info)
            told.epolls[number] = tuple(Watch(int(at), int(events, 16), int(data, 16)) for at, events, data in found)
        elif stat.S_ISFIFO(mode):
            ends.setdefault(kind, []).append(number)
        elif (stat.S_ISREG(mode) and flags & WRITES == 0) or stat.S_ISCHR(mode):
            told.files[number] = kind, int(_told(info, r"pos:\s*(\d+)"))
        elif stat.S_ISSOCK(mode) and _is_ended(pid, number):
            ended.append(number)
        else:
            raise Unfit(f"descriptor {number} is {kind}")
    for kind, pair in ends.items():
        if sorted(told.flags[number] & WRITES for number in pair) != [0, 1] or len({*_waits(told, pair)}) > 1:
            raise Unfit(f"descriptors {pair} are ends of {kind}")
        reader, writer = sorted(pair, key=lambda number: told.flags[number] & WRITES)
        told.pipes[reader, writer] = _content_of(f"/proc/{pid}/fd/{reader}")
    for number, watches in told.epolls.items():
        if {watch.target for watch in watches} - told.flags.keys():
            raise Unfit(f"descriptor {number} watches one that is closed")
    return msgspec.structs.replace(told, ended=tuple(ended))


def _is_ended(pid: int, number: int) -> bool:
    """Whether a socket is one of a pair whose other end is closed: something to put in the place of what is closed."""
    handle = os.pidfd_open(pid)
    try:
        taken = _libc.syscall(TAKE_DESCRIPTOR, handle, number, 0)
    finally:
        os.close(handle)
    if taken < 0:
        return False
    with socket.socket(fileno=taken) as ours:
        poll = select.poll()
        poll.register(ours, 0)
        is_pair = (ours.family, ours.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
        return is_pair and any(event & select.POLLHUP for _, event in poll.poll(0))


def _waits(told: Descriptors, numbers: Sequence[int]) -> Iterator[bool]:
    return (told.flags[number] & NO_WAIT == 0 for number in numbers)


def timers_of(pid: int) -> tuple[tuple[int, int], ...]:
    """Of a process: none is under way while it waits. Raises `Unfit` for other ones than copies can have."""
    with open(f"/proc/{pid}/timers") as file:
        told = file.read()
    timers = re.findall(r"^ID: (\d+)\nsignal: (\d+)/([0-9a-f]+)\nnotify: (\w+)/pid.*\nClockID: (\d+)$", told, re.M)
    expected = [(str(number), "signal", str(MONOTONIC)) for number in range(len(re.findall("^ID:", told, re.M)))]
    if [(number, notify, clock) for number, _, _, notify, clock in timers] != expected:
        raise Unfit(f"its timers {told!r}")
    return tuple((int(value, 16), int(signal)) for _, signal, value, _, _ in timers)


def _content_of(pipe: str) -> bytes:
    """What is in a pipe, and stays there."""
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, PIPE_BYTES)
        os.write(descriptor, content)
    except BlockingIOError:
        return b""
    finally:
        os.close(descriptor)
    if len(content) == PIPE_BYTES:
        raise Unfit(f"there is much in {pipe}")
    return content


def _told(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise Unfit(f"the kernel says nothing like {pattern} of a descriptor")
    return found[1]
