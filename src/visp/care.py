"""Care for a data folder: backup, restore, check. What a server's settings name, and what is in the stores."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from visp import premises
from visp.controller.identities import opens
from visp.controller.subjects import Subjects as Subjects
from visp.entity.subject import GUEST
from visp.errors import VispError
from visp.premises import CannotStart
from visp.settings import default_data_dir
from visp.store import backup as backups
from visp.store import check as checks
from visp.store import restore as restores
from visp.store import rows, sqlite
from visp.store.archive import BackupError, Manifest
from visp.store.check import Damage
from visp.store.database import FAILURES, read_only
from visp.store.sqlite import SqliteEntities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from visp.settings import Settings

    Progress = Callable[[str, int], None]

T = TypeVar("T")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Hosts of a server at which the well-known guest key is good."""


def backup(settings: Settings, target: Path, progress: Progress) -> tuple[Path, Manifest]:
    """A backup in the file `target`, or in a file of its own in the folder `target`; where, and what is in it.

    Raises `BackupError`.
    """
    data_dir = data_dir_of(settings)
    target = target.resolve()
    if target.is_dir():
        target /= backups.name_now()
    if not target.parent.is_dir():
        raise BackupError(f"the folder {target.parent} is not there: make it, or choose another")
    if target.is_relative_to(data_dir):
        raise BackupError(f"{target} is in the data folder, with which it would be lost: choose another place")
    secret_file = premises.secret_path(settings, data_dir)
    secret = secret_of(settings, data_dir)
    return target, backups.make(data_dir, target, secret_file=secret_file, secret=secret, progress=progress)


def restore(settings: Settings, file: Path, *, is_replacing: bool, progress: Progress) -> tuple[Manifest, Path | None]:
    """Puts a backup back; what it is, and where that went which was there. Raises `BackupError`, `CannotStart`."""
    if not file.is_file():
        raise BackupError(f"there is no file {file}")
    data_dir = premises.make_data_dir(settings)
    with premises.locked(data_dir):
        return restores.put_back(
            file, data_dir, draft_name=premises.RESTORING, is_replacing=is_replacing, progress=progress
        )


def secret_advice(settings: Settings, manifest: Manifest) -> str | None:
    """What is to be done about the secret before a server starts on what was restored; None when it is there."""
    data_dir = data_dir_of(settings)
    path = premises.secret_path(settings, data_dir)
    if not path.exists():
        return (
            f"the secret is not in the backup: put the one that was {manifest.secret_file} to {path} "
            f"(chmod 600 {path}) before the server starts; without it no key is valid"
        )
    secret = secret_of(settings, data_dir)
    if secret is None or backups.secret_print(secret) != manifest.secret_print:
        return f"the secret in {path} is not the one of the backup: put the one that was {manifest.secret_file} there"
    return None


async def with_subjects(settings: Settings, work: Callable[[Subjects], Awaitable[T]]) -> T:
    """What `work` comes to on the users and limits of a data folder, whether or not a server runs.

    Raises `Refused`, `CannotStart`, `StoreUnavailable`.
    """
    data_dir = premises.make_data_dir(settings)
    secret = premises.read_secret(settings, data_dir)
    store = await SqliteEntities.open(data_dir / checks.ENTITIES)
    try:
        is_public = settings.host in LOOPBACK and not await store.keys_of(GUEST)
        return await work(Subjects(store, secret, settings.limits, has_public_guest=is_public))
    finally:
        await store.close()


def check(settings: Settings, progress: Progress) -> list[Damage]:
    """Everything that is damaged in the data folder; a server may run meanwhile. Raises `BackupError` for no folder."""
    data_dir = data_dir_of(settings)
    if not data_dir.is_dir():
        raise BackupError(f"there is no folder {data_dir}: name the data folder by --data-dir")
    damages = list(checks.everything(data_dir, is_running=_is_used(data_dir), progress=progress))
    return damages + _secret_damages(settings, data_dir)


def _secret_damages(settings: Settings, data_dir: Path) -> list[Damage]:
    path, entities = premises.secret_path(settings, data_dir), data_dir / checks.ENTITIES
    if not entities.exists():
        return []
    mend = f"put the secret that sealed the keys back to {path}"
    if not path.exists():
        return [Damage(str(path), "is missing", mend)]
    try:
        secret = premises.read_secret(settings, data_dir)
        with read_only(entities) as db:
            keys = [rows.key(row) for row in db.execute(sqlite.ALL_KEYS)]
    except (VispError, *FAILURES) as error:
        return [Damage(str(path), str(error), mend)] if isinstance(error, CannotStart) else []
    if all(opens(key.sealed, secret) for key in keys):
        return []
    return [Damage(str(path), "does not open the keys of this data folder", mend)]


def data_dir_of(settings: Settings) -> Path:
    """The data folder, whether or not it is there."""
    return (Path(settings.data_dir) if settings.data_dir else default_data_dir()).resolve()


def secret_of(settings: Settings, data_dir: Path) -> bytes | None:
    """The secret, None when it is missing or unusable."""
    if not premises.secret_path(settings, data_dir).exists():
        return None
    with contextlib.suppress(CannotStart):
        return premises.read_secret(settings, data_dir)
    return None


def _is_used(data_dir: Path) -> bool:
    try:
        with premises.locked(data_dir):
            return False
    except CannotStart:
        return True
