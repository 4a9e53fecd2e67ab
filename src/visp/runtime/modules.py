"""The modules that OpenWhisk's images of the nodejs kinds bring: which they are, and where they lie.

They are installed among the runtimes by npm, from the lock file that lies beside the launcher. Every container sees
them there, and by the link `/node_modules`, for `import` looks in the folders above a file alone; `NODE_PATH` of the
manifest leads `require` to them.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

FAMILY = "nodejs"
FOLDER = "nodejs-modules"
FILES = ("package.json", "package-lock.json")
"""Shipped, and kept where they were installed from."""


class _Package(msgspec.Struct):
    dependencies: dict[str, str]


def versions() -> dict[str, str]:
    """Name → version of what this visp installs; what these need besides is in the lock file."""
    return msgspec.json.decode(shipped(FILES[0]), type=_Package).dependencies


def shipped(name: str) -> bytes:
    """One of `FILES`."""
    return resources.files("visp.runtime").joinpath(FAMILY, name).read_bytes()


def folder_of(home: Path) -> Path:
    """Where they are installed in the folder of runtimes."""
    return home / FOLDER


def tree_of(home: Path) -> Path:
    """What containers see."""
    return folder_of(home) / "node_modules"


def are_current(home: Path) -> bool:
    """Whether what is installed is what this visp would install."""
    try:
        return (folder_of(home) / FILES[1]).read_bytes() == shipped(FILES[1])
    except OSError:
        return False
