"""Puts a backup back into a data folder that no server uses.

All of it is verified before anything is written. Then it is unpacked beside its place and moved there when it is on
disk; as long as the draft's folder is there, no server starts. What was in the folder is set aside, never removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from visp.store import archive, check, frames, index, promises, sqlite
from visp.store.archive import BackupError, Manifest, Part
from visp.store.segments import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SET_ASIDE = "before-restore-"
KEPT = frozenset(("lock", "secret", "cells", "shards", "runtimes"))
"""What may be in a folder that counts as empty: nothing of it is in a backup."""


def put_back(
    file: Path, data_dir: Path, *, draft_name: str, is_replacing: bool, progress: Callable[[str, int], None]
) -> tuple[Manifest, Path | None]:
    """What the backup is, and where that went which it has replaced. The folder is there, and locked by the caller.

    `is_replacing` allows a folder that holds data; `draft_name` is the folder whose presence keeps servers from
    starting. Raises `BackupError`.
    """
    manifest = archive.verify(file, lambda name, size: progress(f"verifying {name}", size))
    _check_versions(file, manifest)
    present = [path for path in data_dir.iterdir() if path.name not in KEPT and not path.name.startswith(SET_ASIDE)]
    draft = data_dir / draft_name
    if present and not is_replacing:
        raise BackupError(
            f"{data_dir} is not empty ({', '.join(sorted(path.name for path in present)[:5])}): choose another folder "
            "by --data-dir, or say --replace, which sets aside what is there"
        )
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        _unpack(file, draft, manifest, progress)
        aside = _set_aside(data_dir, [path for path in present if _is_store(path)])
        for path in sorted(draft.iterdir()):
            os.rename(path, data_dir / path.name)
        sync_folder(data_dir)
        draft.rmdir()
        sync_folder(data_dir)
    except OSError as error:
        raise BackupError(
            f"the backup cannot be put back into {data_dir}: {error.strerror or error}; mend that, and restore again "
            "with --replace"
        ) from None
    return manifest, aside


def _check_versions(file: Path, manifest: Manifest) -> None:
    known = {
        check.ENTITIES: len(sqlite.ENTITY_MIGRATIONS),
        check.PROMISES: len(promises.MIGRATIONS),
        "frames": frames.VERSION,
    }
    for name, version in manifest.versions.items():
        most = len(index.ACTIVATION_MIGRATIONS) if check.INDEX_NAME.fullmatch(name) else known.get(name)
        if most is not None and int(version) > most:
            raise BackupError(
                f"{file} was made by a newer visp ({manifest.versions.get('visp')}): restore it with that one"
            )
    if manifest.format > archive.FORMAT:
        raise BackupError(f"{file} is of a newer format ({manifest.format}): restore it with the visp that made it")


def _unpack(file: Path, draft: Path, manifest: Manifest, progress: Callable[[str, int], None]) -> None:
    """Every part under its name, on disk; summed up once more on its way."""
    owner = draft.parent.stat()
    told = {part.name: part for part in manifest.parts}
    folders = {draft}
    with archive.reading(file):
        for name, size, content in archive.members(file):
            if name not in told:
                continue
            progress(name, size)
            path = draft / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folders.update(draft / parent for parent in Path(name).parents)
            if _write(path, name, content) != told[name]:
                raise BackupError(f"{file} has changed while it was read: restore again")
    for path in (*folders, *(draft / name for name in told)):
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
    for folder in folders:
        sync_folder(folder)


def _write(path: Path, name: str, content: IO[bytes]) -> Part:
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := content.read(archive.PIECE):
            digest.update(piece)
            size += len(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return Part(name, size, digest.hexdigest())


def _is_store(path: Path) -> bool:
    return path.name in ("ledger", "blobs") or ".db" in path.name or path.suffix == ".values"


def _set_aside(data_dir: Path, present: Iterable[Path]) -> Path | None:
    present = list(present)
    if not present:
        return None
    aside = data_dir / time.strftime(f"{SET_ASIDE}%Y%m%dT%H%M%SZ", time.gmtime())
    aside.mkdir(mode=0o700)
    for path in present:
        os.rename(path, aside / path.name)
    return aside
