"""The modules that OpenWhisk's images of the nodejs kinds bring: which they are, where they lie, where they are seen.

They are installed below the data folder by npm, from the lock file that lies beside the launcher.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

FAMILY = "nodejs"
INSIDE = "/visp/node_modules"
"""Where a container sees them; `/node_modules` leads there, for `import` looks in the folders above a file alone."""
VARIABLE = "NODE_PATH"
"""Where `require` looks after those folders."""
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


def folder_of(data_dir: Path) -> Path:
    """Where they are installed."""
    return data_dir / "runtimes" / FAMILY


def tree_of(data_dir: Path) -> Path:
    """The folder that containers see."""
    return folder_of(data_dir) / "node_modules"


def are_current(data_dir: Path) -> bool:
    """Whether what is installed is what this visp would install."""
    try:
        return (folder_of(data_dir) / FILES[1]).read_bytes() == shipped(FILES[1])
    except OSError:
        return False
