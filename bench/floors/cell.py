"""The floor of a cold binary: a prepared process that stands in a sandbox, and forks and executes the binary there.

A line of standard input starts it, with the two descriptors that were named in the places of 0 and 3; the next one ends
it, and is answered by a line.
"""

from __future__ import annotations

import os
import signal
import sys


def main(binary: str, inside: int, outside: int) -> None:
    places = [(os.POSIX_SPAWN_DUP2, inside, 0), (os.POSIX_SPAWN_DUP2, outside, 3)]
    while sys.stdin.readline():
        pid = os.posix_spawn(binary, [binary], os.environ, file_actions=places)
        sys.stdin.readline()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(flush=True)


main(sys.argv[1], *map(int, sys.argv[2:]))
