"""The floor of a cold Python start: a prepared interpreter that forks into fresh namespaces and runs a hello there.

For each line of standard input `{"code", "value"}` one line of JSON comes back: the result of the code's `main`. Only
namespaces are fresh: no file system is put together, nothing is filtered or limited.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""Mounts, host name, IPC, users, processes, network."""

libc = ctypes.CDLL(None, use_errno=True)


def enter_namespaces() -> None:
    """In namespaces of its own from now on, processes from the next fork on, as uid 65534 in them."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(NEW_NAMESPACES) != 0:
        raise OSError(ctypes.get_errno(), "namespaces are refused here")
    for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {uid} 1"), ("gid_map", f"65534 {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)


def hello(line: str) -> None:
    message = json.loads(line)
    names: dict[str, Any] = {}
    exec(compile(message["code"], "hello.py", "exec"), names)
    result = names["main"](message["value"])
    os.write(1, json.dumps(result).encode() + b"\n")


def in_child(work: Callable[[], None]) -> None:
    """Calls `work` in a forked child and waits for its end; ends with it when it failed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(1)


def cold_hello(line: str) -> None:
    enter_namespaces()
    in_child(partial(hello, line))


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        in_child(partial(cold_hello, line))


main()
