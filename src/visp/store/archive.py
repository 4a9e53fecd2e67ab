"""A backup's file: a tar with everything in it and, last, a manifest with the SHA-256 of each part.

::

    activations-0.values/… activations-0.db ledger/0/… entities.db blobs/… manifest.json manifest.sha256

A file that was cut short has no manifest and is none. Every byte of a part is covered by the manifest, and the manifest
by its own checksum. Names are matched against what a data folder has: nothing else is unpacked, and nothing outside.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tarfile
from typing import IO, TYPE_CHECKING

import msgspec

from visp.errors import VispError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_SUM = "manifest.sha256"
PIECE = 1 << 20
_NAME = re.compile(
    r"[a-z][a-z0-9-]*\.db|activations-\d+\.values/[0-9a-f]{2}/[0-9a-f]{32}|ledger/\d+/[0-9a-f]{16}\.seg"
    r"|blobs/[0-9a-f]{2}/[0-9a-f]{64}"
)


class BackupError(VispError):
    """A backup that cannot be made, read or put back; the sentence says why and what to do."""


class Part(msgspec.Struct, frozen=True):
    """One file of the data folder; `sha256` in hex."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is.

    `made` is an ISO date, `versions` has visp, SQLite, the frames of the ledger and the schema of each database.
    `secret_file` is where the secret was that seals the keys, and `secret_print` what tells whether one is the same:
    itself it is not in here. `damages` are what was damaged already when the backup was made.
    """

    format: int = FORMAT
    made: str
    data_dir: str
    versions: dict[str, str]
    secret_file: str
    secret_print: str | None
    damages: list[str] = []
    parts: list[Part]

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


class Writer:
    """Writes parts one after another, and the manifest at the end; raises `OSError`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 – closed by `finish`
        self.parts: list[Part] = []

    def add(self, name: str, content: bytes | memoryview) -> None:
        self._add(name, io.BytesIO(content), len(content))

    def add_file(self, name: str, path: Path) -> None:
        """A file that nobody writes."""
        with path.open("rb") as file:
            self._add(name, file, path.stat().st_size)

    def _add(self, name: str, content: IO[bytes], size: int) -> None:
        summed = _Summed(content)
        self._put(name, summed, size)
        self.parts.append(Part(name, size, summed.sha256.hexdigest()))

    def _put(self, name: str, content: IO[bytes] | _Summed, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        self._tar.addfile(info, content)

    def finish(self, manifest: Manifest) -> None:
        encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        digest = hashlib.sha256(encoded).hexdigest().encode()
        self._put(MANIFEST, io.BytesIO(encoded), len(encoded))
        self._put(MANIFEST_SUM, io.BytesIO(digest), len(digest))
        self._tar.close()


class _Summed:
    """Reads through, and sums up what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def verify(path: Path, progress: Callable[[str, int], None]) -> Manifest:
    """Reads all of a backup; raises `BackupError` when anything in it is not as it was written."""
    found: list[Part] = []
    last: dict[str, bytes] = {}
    with reading(path):
        for name, size, content in members(path):
            if name in (MANIFEST, MANIFEST_SUM):
                last[name] = content.read()
                continue
            summed = _Summed(content)
            while summed.read(PIECE):
                progress(name, size)
            found.append(Part(name, size, summed.sha256.hexdigest()))
    manifest = _manifest(path, last)
    if found == manifest.parts:
        return manifest
    told = {part.name: part for part in manifest.parts}
    bad = [part.name for part in found if told.pop(part.name, None) != part]
    raise BackupError(f"{path} is damaged: {', '.join([*bad, *told][:5])} is not what it was; take another backup")


def _manifest(path: Path, last: dict[str, bytes]) -> Manifest:
    encoded, digest = last.get(MANIFEST, b""), last.get(MANIFEST_SUM, b"")
    if hashlib.sha256(encoded).hexdigest().encode() != digest:
        raise BackupError(f"{path} is no backup of visp, or is not whole: its manifest is missing or damaged")
    try:
        return msgspec.json.decode(encoded, type=Manifest)
    except msgspec.DecodeError as error:
        raise BackupError(f"{path} cannot be read ({error}): was it made by a newer visp?") from None


def members(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of each part in order; the content is read before the next one is asked for.

    Raises `BackupError` for what no backup has, and what `reading` translates.
    """
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isreg() else None
            if content is None or not (_NAME.fullmatch(info.name) or info.name in (MANIFEST, MANIFEST_SUM)):
                raise BackupError(f"{path} is no backup of visp: it holds {info.name!r}")
            yield info.name, info.size, content


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Makes `BackupError` of what comes of reading a file that is damaged or none of ours."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BackupError(f"{path} is no backup of visp, or is damaged: {error}") from None
