"""What is asked of the sandbox that unpacks: an action's code as bytes, the program that reads them, and its end."""

from __future__ import annotations

import binascii
import hashlib
import secrets
import struct
from typing import TYPE_CHECKING

from visp import wording
from visp.container.base import ContainerSpec, Mount
from visp.errors import StartFailed
from visp.invoker import staging
from visp.invoker.building import Work
from visp.runtime.base import CodeRefused, Command
from visp.telemetry import log

if TYPE_CHECKING:
    from pathlib import Path

    from visp.container import once
    from visp.entity.execs import Code

MEMORY_MB = 256
UNPACK_S = 60.0
LENGTH = struct.Struct(">Q")
DECODED_LETTERS = 1 << 20
INSIDE = "/visp/unpack.py"


def unpack_command(python: str, program: Path) -> Command:
    """How `runtime/unpack.py`, which lies at `program` on the host, is started."""
    return Command(argv=(python, "-I", "-S", "-B", INSIDE), env={}, mounts=((str(program), INSIDE),))


def work_of(command: Command | None, frame: bytearray, alone: str) -> Work:
    """What unpacks this code. Raises `StartFailed` where nothing does."""
    if command is None:
        raise StartFailed("archives are unpacked by a system Python, and there is none: apt-get install python3.11")
    spec = ContainerSpec(
        id=f"unpack-{secrets.token_hex(8)}",
        argv=(*command.argv, alone) if alone else command.argv,
        env=command.env,
        memory_mb=MEMORY_MB,
        mounts=tuple(Mount(host, inside) for host, inside in command.mounts),
    )
    return Work(spec, staging.UNPACKED, UNPACK_S, given=frame)


def source_of(code: Code, alone: str) -> str:
    """What names this code before it is decoded."""
    text = code.blob or "inline-" + hashlib.sha256((code.inline or "").encode()).hexdigest()
    return f"{text} {alone}"


def decode(text: str, is_binary: bool) -> tuple[bytearray, str]:
    """The code's bytes after their length, as the unpacker reads them, and their hash; one buffer, no copy."""
    if not is_binary:
        data = text.encode("utf-8", "surrogatepass")
        return bytearray(LENGTH.pack(len(data)) + data), hashlib.sha256(data).hexdigest()
    text = text.strip()
    frame = bytearray(LENGTH.size + len(text) // 4 * 3)
    at = LENGTH.size
    for start in range(0, len(text), DECODED_LETTERS):
        piece = text[start : start + DECODED_LETTERS]
        try:
            data = binascii.a2b_base64(piece, strict_mode=True)
        except ValueError:
            raise CodeRefused(wording.CODE_NOT_BASE64) from None
        if len(data) * 4 != len(piece) * 3 and start + DECODED_LETTERS < len(text):
            raise CodeRefused(wording.CODE_NOT_BASE64)
        frame[at : at + len(data)] = data
        at += len(data)
    del frame[at:]
    LENGTH.pack_into(frame, 0, at - LENGTH.size)
    with memoryview(frame) as view:
        return frame, hashlib.sha256(view[LENGTH.size :]).hexdigest()


def unfinished(ended: once.Ended, memory_mb: int) -> CodeRefused:
    """The sandbox has ended without a word."""
    if ended.is_out_of_memory or "MemoryError" in ended.said:
        return CodeRefused(wording.code_needs_memory(memory_mb))
    log.error("code.unpacker_ended", status=ended.status, said=ended.said[-2000:])
    return CodeRefused(wording.CODE_UNREADABLE)
