"""A list of system calls, followed by a process of this machine; what is read of one that is to follow such a list."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from visp.container import machine
from visp.container.belongings import Unfit, descriptors_of, timers_of
from visp.container.machine import Steps

WRITE, CLOSE, DUP, EXIT = 1, 3, 32, 231
FROM_C = bytes.fromhex("4889fb")
"""mov rbx, rdi: the first argument is where the list begins."""

here = pytest.mark.skipif(platform.machine() != machine.ARCHITECTURE, reason="the words are those of x86-64")


def follow(write: Callable[[Steps], None]) -> int:
    """How a child ends that follows the list."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(FROM_C + machine.CODE)
    memory = mmap.mmap(-1, 4 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    at_code, at_memory = (ctypes.addressof(ctypes.c_char.from_buffer(part)) for part in (code, memory))
    steps = Steps(at_memory, 1024)
    write(steps)
    memory.write(steps.assemble())
    pid = os.fork()
    if pid == 0:
        ctypes.CFUNCTYPE(None, ctypes.c_uint64)(at_code)(steps.first)
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@here
def test_calls_are_made_in_order_and_results_go_on() -> None:
    reader, writer = os.pipe()

    def write(steps: Steps) -> None:
        text = steps.text("hello")
        steps.call(DUP, writer, keep=steps.argument_ahead(1))
        steps.call(WRITE, 0, text, 5, keep=steps.argument_ahead(1))
        steps.call(EXIT, 0)
        steps.mark("failed")
        steps.call(EXIT, 98)

    assert follow(write) == 5
    assert os.read(reader, 9) == b"hello"
    os.close(reader)
    os.close(writer)


@here
@pytest.mark.parametrize(("number", "ended"), [(CLOSE, 11), (DUP, 12), (-1 & 0xFFF, 13)])
def test_a_result_chooses_what_follows(number: int, ended: int) -> None:
    """Zero, more, and an error."""

    def write(steps: Steps) -> None:
        steps.call(number, 1, zero="zero", more="more", error="error")
        for code, label in enumerate(("zero", "more", "error"), 11):
            steps.mark(label)
            steps.call(EXIT, code)

    def with_failed(steps: Steps) -> None:
        write(steps)
        steps.mark("failed")
        steps.call(EXIT, 14)

    assert follow(with_failed) == ended


def test_a_list_has_its_data_in_front() -> None:
    steps = Steps(0x1000, 64)
    assert (steps.text("x"), steps.data(b"123456789"), steps.data(b"")) == (0x1008, 0x1010, 0x1020)
    steps.call(CLOSE, -1, error=None)
    steps.take_up(0x2000)
    content = steps.assemble()
    assert len(content) == 64 + 2 * machine.STEP.size
    following = steps.first + machine.STEP.size
    expected = (CLOSE, 2**64 - 1, 0, 0, 0, 0, 0, steps.scratch, following, following, following)
    assert machine.STEP.unpack_from(content, 64) == expected
    assert machine.STEP.unpack_from(content, 64 + machine.STEP.size)[:2] == (machine.TAKE_UP, 0x2000)


def test_a_list_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 16 bytes"):
        Steps(0, 16).data(bytes(9))
    steps = Steps(0, 16)
    steps.call(CLOSE, 0, error="nowhere")
    with pytest.raises(KeyError):
        steps.assemble()


@pytest.fixture
def waiting() -> Iterator[Callable[..., int]]:
    """Children that have certain descriptors open, and wait."""
    started = []

    def start(open: Callable[[], object]) -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.closerange(3, writer)
            os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
            held = open()
            os.write(writer, b"1")
            os.close(writer)
            select.select([], [], [], 60)
            os._exit(len(str(held)))
        os.close(writer)
        os.read(reader, 1)
        os.read(reader, 1)
        os.close(reader)
        started.append(pid)
        return pid

    yield start
    for pid in started:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_descriptors_are_told_apart(waiting: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "read").write_text("some text")

    def open() -> object:
        counter = os.eventfd(7, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        reader, writer = os.pipe()
        os.write(writer, b"kept")
        file = os.open(tmp_path / "read", os.O_RDONLY)
        os.lseek(file, 5, os.SEEK_SET)
        epoll = select.epoll()
        epoll.register(reader, select.EPOLLIN)
        os.open("/dev/zero", os.O_RDWR)
        ours, theirs = socket.socketpair()
        theirs.close()
        os.dup2(writer, 50)
        os.close(writer)
        return counter, file, epoll, ours

    pid = waiting(open)
    given = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
    told = descriptors_of(pid, control=0, given=given)
    (counter,), ((reader, writer),), (file, zero), (epoll,) = told.counters, told.pipes, told.files, told.epolls
    assert (told.counters[counter], told.flags[counter] & os.O_NONBLOCK) == (7, os.O_NONBLOCK)
    assert (writer, told.pipes[reader, writer]) == (50, b"kept")
    assert told.files[file] == (str(tmp_path / "read"), 5)
    (watch,) = told.epolls[epoll]
    assert (watch.target, watch.events & select.EPOLLIN, watch.data & 0xFFFF_FFFF) == (reader, select.EPOLLIN, reader)
    assert told.files[zero] == ("/dev/zero", 0)
    assert os.readlink(f"/proc/{pid}/fd/{told.ended[0]}").startswith("socket:")
    assert 0 not in told.flags
    assert timers_of(pid) == ()


@pytest.mark.parametrize(
    "open",
    [
        socket.socket,
        socket.socketpair,
        lambda: os.open("/tmp", os.O_RDWR | os.O_TMPFILE),
        lambda: [os.pipe()[0]] and os.close(4),
        lambda: os.memfd_create("x"),
    ],
    ids=["socket", "pair", "file that is written", "end of a pipe", "memory"],
)
def test_what_no_copy_can_have_is_unfit(waiting: Callable[..., int], open: Callable[[], object]) -> None:
    pid = waiting(open)
    with pytest.raises(Unfit):
        descriptors_of(pid, control=0, given=[os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)])
