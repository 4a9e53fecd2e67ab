"""Folders that containers see: launchers, unpacked code, and each container's own code folder.

They lie where a container's uid can reach them: below a folder of mode 0711 for root, in the data folder else. Code
cache and cells share a file system, so that code arrives in a running container by hard links.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from visp.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visp.settings import Settings

LINKED_FILES = 200
"""A larger tree is not linked into a running container: a new one is started over it."""

REMOVE = "/bin/rm"
ROOT_CELLS = Path("/var/lib/visp-cells")


class Cells:
    """One server's folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "code"
        self.launchers = folder / "launchers"
        self.own = folder / "cells"
        self.scratch = folder / "scratch"

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
            inner = (self.code, self.launchers, self.own, self.scratch)
            for path in (self.folder.parent, self.folder, *inner):
                path.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.folder.chmod(0o711)
            self.launchers.chmod(0o755)  # there is nothing but visp's own, and Bun looks around where its program lies
            if os.geteuid() == 0:
                self.folder.parent.chmod(0o711)
        except OSError as error:
            raise StartFailed(
                f"{self.folder} cannot be used for containers: {error.strerror}; "
                "name another folder by [container] cells_dir"
            ) from None

    def install(self, name: str, content: bytes, beside: bytes = b"") -> Path:
        """A launcher under a name made of its content: a running server's is never replaced.

        `beside` is what it finds under the same name but for its last word, when that is installed likewise.
        """
        digest = hashlib.sha256(b"".join(sorted((content, beside)))).hexdigest()[:16]
        path = self.launchers / f"{digest}-{Path(name).name}"
        if not path.exists():
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_bytes(content)
            draft.chmod(0o444)
            os.replace(draft, path)
        return path

    def install_tree(self, name: str, files: Mapping[str, bytes]) -> Path:
        """A folder of programs, by their relative paths, under a name made of its content. Blocks."""
        digest = hashlib.sha256()
        for path, content in sorted(files.items()):
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
        tree = self.launchers / f"{digest.hexdigest()[:16]}-{name}"
        if tree.exists():
            return tree
        draft = tree.with_name(f".{tree.name}.{os.getpid()}")
        for path, content in files.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_bytes(content)
            (draft / path).chmod(0o555)
        for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        _settle(draft, tree)
        return tree

    def show(self, files: Mapping[str, str]) -> Path:
        """A folder in which installed files have these names, to be seen as one. Raises `OSError`."""
        words = "".join(f"{name}\0{path}\0" for name, path in sorted(files.items()))
        tree = self.launchers / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}-shown"
        if not tree.exists():
            draft = tree.with_name(f".{tree.name}.{os.getpid()}")
            shutil.rmtree(draft, ignore_errors=True)  # a server that was killed may have had this number
            draft.mkdir()
            draft.chmod(0o755)
            for name, path in files.items():
                os.link(path, draft / name)
            _settle(draft, tree)
        return tree

    def make(self, id: str) -> Path:
        """A container's own, empty code folder."""
        path = self.own / id
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        return path

    def make_scratch(self, id: str, uid: int | None) -> Path:
        """A folder that a container writes to, for a driver that gives it none of its own size."""
        path = self.scratch / id
        path.mkdir(mode=0o700)
        if uid is not None:
            os.chown(path, uid, uid)
        return path

    def remove(self, id: str) -> None:
        shutil.rmtree(self.own / id, ignore_errors=True)
        if (self.scratch / id).exists():  # what hostile code made may be deeper than Python follows
            subprocess.run([REMOVE, "-rf", "--", self.scratch / id], check=False, capture_output=True)

    def reap(self) -> int:
        """Removes the folders of an earlier server's containers; how many."""
        left = {path.name for folder in (self.own, self.scratch) if folder.exists() for path in folder.iterdir()}
        for name in left:
            self.remove(name)
        return len(left)


def _settle(draft: Path, tree: Path) -> None:
    try:
        draft.rename(tree)
    except OSError:  # another process has made it meanwhile
        shutil.rmtree(draft, ignore_errors=True)


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
