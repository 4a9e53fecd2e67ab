"""Lists of system calls that another program's process follows, in the machine's own words.

A process that runs somebody else's program cannot be asked to call the kernel for us. So it is given one page of
instructions that read a list: make this call, keep its result there, go on with one step if it is zero, with another if
it is more, with a third after an error. The page calls nothing and uses no stack, so processes that share their memory
can follow it one inside the other. A step can also be the last: it takes up registers that a thread has once had, and
with them what that thread was doing.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

ARCHITECTURE = "x86_64"
"""The only one whose words these are."""
# fmt: off
CODE: Final = bytes.fromhex(
    "48 8b 03"           # next:    mov rax, [rbx]        rbx: the step; first its call
    "48 85 c0"           #          test rax, rax
    "78 3a"              #          js  take_up
    "48 8b 7b 08"        #          mov rdi, [rbx+8]      six arguments
    "48 8b 73 10"        #          mov rsi, [rbx+16]
    "48 8b 53 18"        #          mov rdx, [rbx+24]
    "4c 8b 53 20"        #          mov r10, [rbx+32]
    "4c 8b 43 28"        #          mov r8,  [rbx+40]
    "4c 8b 4b 30"        #          mov r9,  [rbx+48]
    "0f 05"              #          syscall
    "48 8b 4b 38"        #          mov rcx, [rbx+56]     where its result is kept
    "48 89 01"           #          mov [rcx], rax
    "48 85 c0"           #          test rax, rax
    "7f 0e"              #          jg  more
    "74 06"              #          jz  zero
    "48 8b 5b 40 eb ca"  #          mov rbx, [rbx+64]     the next step: after an error
    "48 8b 5b 48 eb c4"  # zero:    mov rbx, [rbx+72]     after zero
    "48 8b 5b 50 eb be"  # more:    mov rbx, [rbx+80]     after more
    "48 8b 63 08"        # take_up: mov rsp, [rbx+8]      a frame
    "41 5f 41 5e 41 5d"  #          pop r15, r14, r13
    "41 5c 5d 5b"        #          pop r12, rbp, rbx
    "41 5b 41 5a"        #          pop r11, r10
    "41 59 41 58"        #          pop r9, r8
    "58 59 5a 5e 5f"     #          pop rax, rcx, rdx, rsi, rdi
    "5c"                 #          pop rsp               below what the thread keeps under its stack
    "c2 80 00"           #          ret 128               to where it was
)
# fmt: on
STEP: Final = struct.Struct("q10Q")
TAKE_UP = -1
RED_ZONE = 128
FRAME = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "rsp")
"""What a frame holds, eight bytes each; its `rsp` is below the thread's, where its next instruction is kept."""
FRAME_WORDS: Final = struct.Struct(f"{len(FRAME)}Q")


Way: TypeAlias = str | int | None
"""The step that follows: by its name, by its address, or the next one."""


class Steps:
    """A list that will lie at an address, and the data that it names.

    Data lies in front, in as many bytes as are set aside for it. Raises `ValueError` when it does not fit.
    """

    def __init__(self, address: int, data_bytes: int) -> None:
        self.address = address
        self._data = bytearray(8)
        self._data_bytes = data_bytes
        self._steps: list[tuple[int, tuple[int, ...], int, tuple[Way, ...]]] = []
        self.labels: dict[str, int] = {}
        """Where steps lie that have names."""

    @property
    def scratch(self) -> int:
        """Where results are kept that nobody asks for."""
        return self.address

    @property
    def first(self) -> int:
        """Where the list begins."""
        return self.address + self._data_bytes

    @property
    def next(self) -> int:
        """Where the step will lie that is added next."""
        return self.first + len(self._steps) * STEP.size

    def data(self, content: bytes) -> int:
        """Its address."""
        at = len(self._data)
        self._data += content + bytes(-len(content) % 8)
        if len(self._data) > self._data_bytes:
            raise ValueError(f"more than {self._data_bytes} bytes of data")
        return self.address + at

    def text(self, words: str) -> int:
        """The address of a text, ended as the kernel wants it."""
        return self.data(words.encode() + b"\0")

    def mark(self, label: str) -> None:
        """Names the step that is added next."""
        self.labels[label] = self.next

    def call(
        self,
        number: int,
        *arguments: int,
        keep: int | None = None,
        zero: Way = None,
        more: Way = None,
        error: Way = "failed",
    ) -> None:
        """Adds a system call; its result is kept at `keep`. The others say what follows it."""
        words = tuple(argument & 0xFFFF_FFFF_FFFF_FFFF for argument in (*arguments, *[0] * (6 - len(arguments))))
        self._steps.append((number, words, self.scratch if keep is None else keep, (error, zero, more)))

    def take_up(self, frame: int) -> None:
        """Adds the end of a list: a thread's own program goes on."""
        self._steps.append((TAKE_UP, (frame, 0, 0, 0, 0, 0), 0, (None, None, None)))

    def argument_ahead(self, steps: int, number: int = 0) -> int:
        """Where an argument will lie of a step that is added so many steps after the next one."""
        return self.next + steps * STEP.size + 8 * (number + 1)

    def assemble(self) -> bytes:
        """Data and list; raises `KeyError` for a label that marks nothing."""
        out = [bytes(self._data), bytes(self._data_bytes - len(self._data))]
        for at, (number, arguments, keep, labels) in enumerate(self._steps, 1):
            following = self.first + at * STEP.size
            ways = [following if way is None else self.labels[way] if isinstance(way, str) else way for way in labels]
            out.append(STEP.pack(number, *arguments, keep, *ways))
        return b"".join(out)
