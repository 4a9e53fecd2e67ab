"""Makes a backup of a data folder, while a server writes it or not, and without asking it anything.

What was acknowledged before the backup began is in it, and its parts fit together as they do after a crash at one
moment. That follows from the order in which they are copied; a server that starts on the copy does the rest as after a
crash. For each shard:

1. Its ledger's segments are opened: one that the server removes meanwhile stays readable. So every entry behind the
   `indexed_to` of any later state of the index is at hand.
2. The index is copied in one read transaction, and segments that come are opened as they are seen.
3. The ledger's copy ends at the last whole entry: the moment that the copy of this shard stands for. It must not be
   before the copied index's `indexed_to` (else this shard is begun again). So no record in the index belongs to work
   that is open in the ledger, and what the index does not know yet is in the ledger.
4. The large results that the index's rows name are copied. One that is gone was swept with its row since: the row is
   taken out of the copy too.

Then, of all shards together:

5. Other databases: what they say of activations is about ones that a ledger's copy has.
6. The entities: what the work in the ledgers names is in them.
7. The blobs that these entities name: they were there before whoever names them. One that is gone was replaced since:
   the entities are copied again.

The secret is not in a backup: who has both has the keys.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from visp import __version__
from visp.store import archive, check, frames, tallies
from visp.store.archive import BackupError, Manifest, Writer
from visp.store.database import FAILURES, read_only
from visp.store.index import DROP_ACTIVATION, HAS_ACTIVATION, LARGE_RESULTS, ONE_ACTIVATION, PROGRESS, folder_of
from visp.store.segments import sync_folder
from visp.store.values import Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from visp.store.check import Damage

PAGES = 1024
"""Of a database that are copied between two looks at the ledger's folder."""
TRIES = 5
CHECK = "run visp admin check"


def name_now() -> str:
    """What a backup is called that is made now."""
    return time.strftime("visp-%Y%m%dT%H%M%SZ.tar", time.gmtime())


def secret_print(secret: bytes) -> str:
    """What tells whether a secret is the one of a backup, and nothing about the secret."""
    return hmac.new(secret, b"visp-backup", hashlib.sha256).hexdigest()[:32]


def make(
    data_dir: Path, target: Path, *, secret_file: Path, secret: bytes | None, progress: Callable[[str, int], None]
) -> Manifest:
    """Writes a backup to `target`, which appears when all of it is on disk and was read back; what is in it.

    `progress` hears of each part and its bytes. Raises `BackupError`, and leaves nothing then.
    """
    if not (data_dir / check.ENTITIES).exists():
        raise BackupError(f"{data_dir} holds no data of a server: name its folder by --data-dir")
    if target.exists():
        raise BackupError(f"{target} is there already: choose another name")
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(draft.unlink, missing_ok=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".visp-backup-", dir=target.parent))
            descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                copying = _Copying(data_dir, Path(folder), Writer(file), progress)
                copying.run()
                copying.writer.finish(_manifest(copying, secret_file, secret))
                file.flush()
                os.fsync(file.fileno())
            manifest = archive.verify(draft, lambda name, size: progress(f"verifying {name}", size))
            os.rename(draft, target)
            sync_folder(target.parent)
            return manifest
    except OSError as error:
        raise BackupError(f"the backup {target} cannot be made: {error.strerror or error}") from None
    except FAILURES as error:
        raise BackupError(f"the backup cannot be made: {error}; {CHECK}") from None


def _manifest(copying: _Copying, secret_file: Path, secret: bytes | None) -> Manifest:
    return Manifest(
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        data_dir=str(copying.data_dir),
        versions={"visp": __version__, "sqlite": sqlite3.sqlite_version, "frames": str(frames.VERSION)}
        | copying.versions,
        secret_file=str(secret_file),
        secret_print=None if secret is None else secret_print(secret),
        damages=[f"{damage.path}: {damage.says}" for damage in copying.damages],
        parts=copying.writer.parts,
    )


class _Copying:
    """One backup on its way. Databases are copied into `folder`, looked through there, and then written."""

    def __init__(self, data_dir: Path, folder: Path, writer: Writer, progress: Callable[[str, int], None]) -> None:
        self.data_dir = data_dir
        self.folder = folder
        self.writer = writer
        self.damages: list[Damage] = []
        self.versions: dict[str, str] = {}
        self._progress = progress

    def run(self) -> None:
        for shard in _shards(self.data_dir):
            self._shard(shard)
        path = self.data_dir / check.PROMISES
        if path.exists():
            copy = self._copy(path)
            self._note(path, check.promised(copy))
            self._write(copy)
        self._entities_and_blobs()

    def _shard(self, shard: int) -> None:
        for _ in range(TRIES):
            with _Pinned(self.data_dir / "ledger" / str(shard)) as pinned:
                index = self.data_dir / f"activations-{shard}.db"
                copy = self._copy(index, pinned.look) if index.exists() else None
                pinned.look()
                followed = check.follow(pinned.parts(), 0 if copy is None else _indexed_to(copy))
                if followed.damage is not None:  # or written, and removed, while it was read
                    continue
                if copy is not None:
                    self._results(index, copy)
                    self._write(copy)
                for (base, load), used in zip(pinned.parts(), followed.used, strict=False):
                    name = f"ledger/{shard}/{base:016x}.seg"
                    self._progress(name, used)
                    self.writer.add(name, memoryview(load())[:used])
                return
        raise BackupError(f"the ledger {pinned.folder} cannot be backed up: {followed.damage}; {CHECK}")

    def _copy(self, path: Path, between: Callable[[], None] = lambda: None) -> Path:
        """A copy of a database as it is at one moment."""
        copy = self.folder / path.name
        copy.unlink(missing_ok=True)

        def copied(_: int, left: int, total: int) -> None:
            between()
            self._progress(path.name, path.stat().st_size * (total - left) // max(1, total))

        with read_only(path) as source, contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
            source.execute("BEGIN")  # one state for all of the copy, which would else begin anew with each commit
            (version,) = source.execute("PRAGMA user_version").fetchone()
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            between()
            source.backup(target, pages=PAGES, progress=copied)
            target.execute("PRAGMA journal_mode=DELETE")  # it is one file, whoever opens it
        self.versions[path.name] = str(version)
        return copy

    def _write(self, copy: Path) -> None:
        self.writer.add_file(copy.name, copy)
        copy.unlink()

    def _results(self, index: Path, copy: Path) -> None:
        """The large results of the rows of a copied index; rows whose results were swept since are taken out."""
        values = Values(folder_of(index))
        swept: list[bytes] = []
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db, read_only(index) as now:
            for (id,) in db.execute(LARGE_RESULTS):
                (row,) = db.execute(ONE_ACTIVATION, (id,)).fetchall()
                if check.is_whole(row, values):
                    name = f"{index.stem}.values/{values.path(id.hex()).relative_to(values.folder)}"
                    self._progress(name, row[5])
                    self.writer.add(name, values.get(id.hex()))
                elif now.execute(HAS_ACTIVATION, (id,)).fetchone() is None:
                    swept.append(id)
            gone = [row for id in swept for row in db.execute(DROP_ACTIVATION, (id,)).fetchall()]
            tallies.take(db, tallies.tally(gone))
        self._note(index, check.activations(copy, values))

    def _entities_and_blobs(self) -> None:
        path = self.data_dir / check.ENTITIES
        for _ in range(TRIES):
            copy = self._copy(path)
            named: dict[str, str] = {}
            damages = list(check.entities(copy, named))
            gone = [digest for digest in named if not self._blob(digest).exists()]
            if not gone:
                break
        self._note(path, damages)
        self._write(copy)
        for digest in sorted(named):
            blob = self._blob(digest)
            name = f"blobs/{digest[:2]}/{digest}"
            try:
                content = blob.read_bytes()
            except FileNotFoundError:
                content = b""
            if hashlib.sha256(content).hexdigest() != digest:
                mend = f"update the action {named[digest]} with its code"
                self.damages.append(check.Damage(str(blob), "is missing or damaged", mend))
                continue
            self._progress(name, len(content))
            self.writer.add(name, content)

    def _blob(self, digest: str) -> Path:
        return self.data_dir / "blobs" / digest[:2] / digest

    def _note(self, path: Path, damages: Iterator[Damage] | list[Damage]) -> None:
        self.damages += [check.Damage(str(path), damage.says, damage.mend) for damage in damages]


class _Pinned:
    """The segments of a ledger that were seen: open, so that they can be read when they are gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptors: dict[int, int] = {}

    def __enter__(self) -> _Pinned:
        self.look()
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def look(self) -> None:
        """Opens those that have come."""
        for path in self.folder.glob("*.seg"):
            base = int(path.stem, 16)
            if base not in self._descriptors:
                with contextlib.suppress(FileNotFoundError):  # removed between the two: before all that was seen
                    self._descriptors[base] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def parts(self) -> list[tuple[int, Callable[[], bytes]]]:
        return [(base, _Loading(self._descriptors[base])) for base in sorted(self._descriptors)]


class _Loading:
    """Reads a segment that is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self) -> bytes:
        pieces, at = [], 0
        while piece := os.pread(self._descriptor, archive.PIECE, at):
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)


def _indexed_to(copy: Path) -> int:
    """What lies before it in the ledger is in this copy of an index."""
    with read_only(copy) as db:
        (offset, _) = db.execute(PROGRESS).fetchone() or (0, 0)
    return int(offset)


def _shards(data_dir: Path) -> list[int]:
    ledgers = {int(path.name) for path in (data_dir / "ledger").glob("*/") if path.name.isdigit()}
    indexes = {int(found[1]) for path in data_dir.glob("*.db") if (found := check.INDEX_NAME.fullmatch(path.name))}
    return sorted(ledgers | indexes)
