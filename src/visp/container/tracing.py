"""Holds a process still: what its threads have in their registers, and calls of the kernel made in its name."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

STEP_ON, GET, SET, LET_GO, SEIZE, STOP, GET_MASK = 9, 12, 13, 17, 0x4206, 0x4207, 0x420A
ALL_KINDS = 0x40000000
"""Of children: threads too."""
NAMES: Final = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
WORDS: Final = struct.Struct(f"{len(NAMES)}Q")
MASK_BYTES = 8
NO_CALL = 0xFFFF_FFFF_FFFF_FFFF
CALL_BYTES = 2
"""The length of the instruction that calls the kernel."""
BROKEN_OFF = {-4, *range(-516, -511)}
"""What a call says that was broken off, and may be made again."""
TRIES = 3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class Held:
    """A process whose threads all stand still, from the thread that begins this until its end.

    Raises `OSError` where that is not permitted or the process is gone. It goes on where it stood, if nothing was set.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.threads: list[Thread] = []
        """The first one first."""

    def __enter__(self) -> Self:
        try:
            for _ in range(TRIES):  # a thread may have begun others before it stood still
                known = {thread.number for thread in self.threads}
                for number in sorted({int(name) for name in os.listdir(f"/proc/{self.pid}/task")} - known):
                    self.threads.append(Thread(number))
                    self.threads[-1].stop()
            self.threads.sort(key=lambda thread: thread.number != self.pid)
            self.memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.memory)
        self._let_go()

    def _let_go(self) -> None:
        for thread in self.threads:
            _libc.ptrace(LET_GO, thread.number, None, None)  # it may have been killed

    def read(self, address: int, size: int) -> bytes:
        return os.pread(self.memory, size, address)

    def write(self, address: int, content: bytes) -> None:
        os.pwrite(self.memory, content, address)

    def call(self, number: int, *arguments: int) -> int:
        """A call of the kernel by the first thread; raises `OSError` for its error."""
        thread = self.threads[0]
        before = thread.registers
        there = dict(zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments, strict=False))
        thread.set(before | there | {"rax": number, "orig_rax": NO_CALL, "rip": before["rip"] - CALL_BYTES})
        _ask(STEP_ON, thread.number)
        thread.await_stop()
        result = signed(thread.read()["rax"])
        thread.set(before)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


class Thread:
    """One of them; `registers` are as they were when it stopped, by name."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.registers: dict[str, int] = {}
        self.mask = bytes(MASK_BYTES)
        """The signals that it does not take."""

    def stop(self) -> None:
        _ask(SEIZE, self.number)
        _ask(STOP, self.number)
        self.await_stop()
        self.registers = self.read()
        mask = ctypes.create_string_buffer(MASK_BYTES)
        _ask(GET_MASK, self.number, MASK_BYTES, mask)
        self.mask = mask.raw

    def await_stop(self) -> None:
        os.waitpid(self.number, ALL_KINDS)

    def read(self) -> dict[str, int]:
        words = ctypes.create_string_buffer(WORDS.size)
        _ask(GET, self.number, None, words)
        return dict(zip(NAMES, WORDS.unpack(words.raw), strict=True))

    def set(self, registers: dict[str, int]) -> None:
        _ask(
            SET,
            self.number,
            None,
            ctypes.create_string_buffer(WORDS.pack(*(word & NO_CALL for word in registers.values())), WORDS.size),
        )

    @property
    def waits(self) -> bool:
        """Whether it stands in a call of the kernel that can be made again, and nowhere else."""
        return signed(self.registers["orig_rax"]) >= 0 and signed(self.registers["rax"]) in BROKEN_OFF

    def to_call_again(self) -> dict[str, int]:
        """Its registers as they were just before that call."""
        at = self.registers
        return at | {"rax": at["orig_rax"], "rip": at["rip"] - CALL_BYTES, "orig_rax": NO_CALL}


def signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _ask(request: int, thread: int, address: object = None, data: object = None) -> None:
    if _libc.ptrace(request, thread, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
