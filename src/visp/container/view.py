"""What containers see of the host, said once for every driver: as options of bubblewrap, and as what these mean."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from visp.container.base import Mount

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
WORKING = "/tmp"
"""The folder that a container starts in."""
RUNTIMES = "/opt/visp"
"""Where what visp installs is seen."""
HOST = (
    *("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"),
    *("--symlink", "usr/lib64", "/lib64", "--symlink", "usr/sbin", "/sbin"),
    *("--symlink", "opt/visp/nodejs-modules/node_modules", "/node_modules"),
    *("--ro-bind-try", "/etc/ssl", "/etc/ssl", "--ro-bind-try", "/etc/ca-certificates", "/etc/ca-certificates"),
    *("--ro-bind-try", "/etc/alternatives", "/etc/alternatives"),
    *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/localtime", "/etc/localtime"),
)
"""What of the host is seen inside, where no other root file system is."""
KERNEL = ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev")
SYSTEM = (*HOST, *KERNEL)

INODE_BYTES = 1024
"""What can be written holds one file, folder or link for so many bytes of its size."""
OPERANDS = {"--ro-bind": 2, "--ro-bind-try": 2, "--bind": 2, "--symlink": 2, "--proc": 1, "--dev": 1, "--tmpfs": 1}
OWN_OF_A_SYSTEM = ("proc", "dev", "sys", "tmp", "run")
"""What of another root file system is not shown: each driver makes these by itself, or they are not there."""


class Bind(msgspec.Struct, frozen=True):
    """A host path, read-only."""

    host: str
    inside: str


class Link(msgspec.Struct, frozen=True):
    """A symbolic link."""

    target: str
    inside: str


class Scratch(msgspec.Struct, frozen=True):
    """An empty folder that can be written, of this size."""

    inside: str
    size_bytes: int

    @property
    def bounds(self) -> tuple[str, str]:
        """Options of its tmpfs: else the kernel counts files by the host's memory, whatever the size is."""
        return f"size={self.size_bytes}", f"nr_inodes={self.size_bytes // INODE_BYTES}"


Seen = Bind | Link | Scratch


def seen(words: Iterable[str]) -> Iterator[Seen]:
    """The meaning of words like `SYSTEM`, in their order, for drivers that make /proc and /dev by themselves.

    What need not be there and is not is left out. A bind of `/` comes as what lies in that folder.
    """
    left, size = iter(words), 0
    for option in left:
        if option == "--size":
            size = int(next(left))
            continue
        operands = [next(left) for _ in range(OPERANDS[option])]
        if option == "--symlink":
            yield Link(*operands)
        elif option == "--tmpfs":
            yield Scratch(operands[0], size)
        elif option.startswith("--ro-bind") and not operands[1].startswith("/proc"):
            if operands[1] == "/":
                yield from _spread(operands[0])
            elif option == "--ro-bind" or os.path.exists(operands[0]):
                yield Bind(*operands)


def _spread(root: str) -> Iterator[Seen]:
    """A root file system, entry by entry: nothing can be mounted on a point that it has not."""
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.is_symlink():
            yield Link(os.readlink(entry.path), f"/{entry.name}")
        elif entry.name not in OWN_OF_A_SYSTEM:
            yield Bind(entry.path, f"/{entry.name}")


def on_host(word: str, mounts: Iterable[Mount]) -> str:
    """A path inside as it is called outside: what a driver that mounts nothing says in its place."""
    for mount in mounts:
        if word == mount.inside or word.startswith(mount.inside + "/"):
            return mount.host + word[len(mount.inside) :]
    return word
