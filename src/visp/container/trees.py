"""Trees of the data folder that containers see: copied to where their uids can reach them, once for each content."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from visp.errors import VispError
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES_LIMIT = 20_000
BYTES_LIMIT = 200 * 1000 * 1000
KEPT = 2
"""The present one, and the one before it: a server that is being replaced has containers that see it."""


class TreeRefused(VispError):
    """A tree that containers are not shown; the text says why."""


def bring(tree: Path, into: Path) -> Path | None:
    """The copy of `tree` in the folder `into`; None where there is no tree, or, with a warning, none that is fit.

    Anyone can read it. Several processes may bring one at once. Blocks.
    """
    if not tree.is_dir():
        return None
    try:
        copy = into / stamp(tree)
        if not copy.exists():
            _sweep(into, KEPT - 1)
            _copy(tree, copy)
        os.utime(copy)
    except (TreeRefused, OSError) as error:
        log.warning("tree.not_brought", tree=str(tree), reason=str(error))
        return None
    return copy


def stamp(tree: Path) -> str:
    """A name for what the tree is now: any change gives another. Raises `TreeRefused` and `OSError`."""
    if tree.is_symlink() or tree.parent.resolve() != tree.parent:
        raise TreeRefused(f"{tree} is reached over a link, which may lead to what containers are not to see")
    digest, size_bytes = hashlib.sha256(), 0
    for files, (path, found) in enumerate(_walk(tree), 1):
        size_bytes += found.st_size
        if files > FILES_LIMIT or size_bytes > BYTES_LIMIT:
            raise TreeRefused(
                f"{tree} has more than {FILES_LIMIT} files or {BYTES_LIMIT // 1000**2} MB, which is the most that "
                "containers are shown"
            )
        # archives bring times of long ago with them: it is `ctime` that tells two versions apart
        facts = (path.relative_to(tree), found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(repr(facts).encode())
    return digest.hexdigest()[:16]


def _walk(tree: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Folders before what is in them, links as such; what is neither those nor a file is passed over."""
    for name in sorted(os.listdir(tree)):
        path = tree / name
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            yield path, found
            yield from _walk(path)
        elif stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            yield path, found


def _copy(tree: Path, copy: Path) -> None:
    """It appears when it is whole."""
    draft = copy.parent / f".{os.getpid()}"
    draft.mkdir(mode=0o700)
    try:
        for path, found in _walk(tree):
            target = draft / path.relative_to(tree)
            if stat.S_ISDIR(found.st_mode):
                target.mkdir()
                target.chmod(0o755)  # what shows it to containers is read-only; its owner can remove it
            elif stat.S_ISLNK(found.st_mode):
                target.symlink_to(os.readlink(path))
            else:
                shutil.copyfile(path, target, follow_symlinks=False)
                target.chmod(0o555 if found.st_mode & stat.S_IXUSR else 0o444)
        draft.chmod(0o755)
        try:
            draft.rename(copy)
        except OSError:
            if not copy.exists():  # another process has made it meanwhile
                raise
        log.info("tree.brought", tree=str(tree))
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sweep(folder: Path, kept: int) -> None:
    """Removes all but those that were used last, and what a process left that is gone."""
    paths = list(folder.iterdir())
    drafts = [path for path in paths if path.name.startswith(".")]
    whole = sorted(set(paths) - set(drafts), key=lambda path: path.stat().st_mtime_ns)
    for path in whole[:-kept]:
        shutil.rmtree(path, ignore_errors=True)
    for path in drafts:
        if not os.path.exists(f"/proc/{path.name[1:]}"):
            shutil.rmtree(path, ignore_errors=True)
