"""Short turns on a processor: no number of busy containers is in the way of one with a moment's work for long."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

from visp.container import watch

SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}
ATTRIBUTES = "IIQiIQQQII"
TURN_NS = 100_000
"""As short as the kernel lets a turn be."""

_libc = ctypes.CDLL(None)


def shorten(pid: int) -> None:
    """What a process and all that it has started and will start hold a processor for, as long as others wait for it.

    Linux 6.12 and newer heed it; nothing is done for what has ended, or is not ours.
    """
    number = SET_ATTRIBUTES.get(os.uname().machine)
    if number is None:
        return
    pids = [pid]
    for one in pids:
        with contextlib.suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, one)
            wanted = struct.pack(ATTRIBUTES, struct.calcsize(ATTRIBUTES), 0, 0, nice, 0, TURN_NS, 0, 0, 0, 0)
            for thread in os.listdir(f"/proc/{one}/task"):
                _libc.syscall(number, int(thread), wanted, 0)
        pids += watch.children(one)  # what it starts after that has its turns
