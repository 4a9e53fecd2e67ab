"""Folders that containers see: launchers, modules, unpacked code, and each container's own code folder.

They lie where a container's uid can reach them: below a folder of mode 0711 for root, in the data folder else. Code
cache and cells share a file system, so that code arrives in a running container by hard links.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from visp.container import trees
from visp.errors import StartFailed

if TYPE_CHECKING:
    from visp.settings import Settings

LINKED_FILES = 200
"""A larger tree is not linked into a running container: a new one is started over it."""

ROOT_CELLS = Path("/var/lib/visp-cells")


class Cells:
    """One server's folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "code"
        self._launchers = folder / "launchers"
        self._trees = folder / "trees"
        self.own = folder / "cells"

    @classmethod
    def of(cls, settings: Settings, data_dir: Path) -> Cells:
        """The place for the server with this data folder."""
        instance = instance_of(data_dir)
        if settings.container.cells_dir:
            return cls(Path(settings.container.cells_dir) / instance)
        return cls(ROOT_CELLS / instance if os.geteuid() == 0 else data_dir / "cells")

    def prepare(self) -> None:
        """Makes the folders; raises `StartFailed` when they cannot be."""
        try:
            for path in (self.folder.parent, self.folder, self.code, self._launchers, self._trees, self.own):
                path.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.folder.chmod(0o711)
            if os.geteuid() == 0:
                self.folder.parent.chmod(0o711)
        except OSError as error:
            raise StartFailed(
                f"{self.folder} cannot be used for containers: {error.strerror}; "
                "name another folder by [container] cells_dir"
            ) from None

    def install(self, name: str, content: bytes) -> Path:
        """A launcher under a name made of its content: a running server's is never replaced."""
        digest = hashlib.sha256(content).hexdigest()[:16]
        path = self._launchers / f"{digest}-{Path(name).name}"
        if not path.exists():
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_bytes(content)
            draft.chmod(0o444)
            os.replace(draft, path)
        return path

    def bring(self, tree: Path) -> Path | None:
        """A copy of a tree that every container may see; None where there is none, or it is too large. Blocks."""
        return trees.bring(tree, self._trees)

    def make(self, id: str) -> Path:
        """A container's own, empty code folder."""
        path = self.own / id
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        return path

    def remove(self, id: str) -> None:
        shutil.rmtree(self.own / id, ignore_errors=True)

    def reap(self) -> int:
        """Removes the folders of an earlier server's containers; how many."""
        left = [path.name for path in self.own.iterdir()] if self.own.exists() else []
        for name in left:
            self.remove(name)
        return len(left)


def instance_of(data_dir: Path) -> str:
    """A short name for the server with this data folder, the same at each start."""
    return hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]


def can_link(tree: Path) -> bool:
    """Whether a tree is small enough for `link_tree`."""
    count = 0
    for _, folders, files in os.walk(tree):
        count += len(files) + len(folders)
        if count > LINKED_FILES:
            return False
    return True


def link_tree(tree: Path, into: Path) -> None:
    """Makes every file of `tree` appear in `into`, as a hard link."""
    for folder, folders, files in os.walk(tree):
        target = into / Path(folder).relative_to(tree)
        for name in folders:
            source = Path(folder) / name
            if source.is_symlink():
                os.link(source, target / name, follow_symlinks=False)
            else:
                (target / name).mkdir()
                (target / name).chmod(0o755)
        for name in files:
            os.link(Path(folder) / name, target / name, follow_symlinks=False)
