"""What a zip archive of a site holds. Blocks: for another thread."""

from __future__ import annotations

import gzip
import io
import stat
import zipfile
import zlib
from typing import TYPE_CHECKING

from visp import wording
from visp.entity import site as sites
from visp.entity.site import FILE_LIMIT_BYTES, FILES_LIMIT, SITE_LIMIT_BYTES
from visp.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES = 1024 * 1024
ENTRY = b"PK\1\2"
"""Begins every entry of an archive's directory, which is read whole before it can be asked how many there are."""
ENTRIES_READ = 20 * FILES_LIMIT
"""Files of a site may be archives themselves."""


def unpacked(archive: bytes) -> Iterator[tuple[str, bytes, bytes | None]]:
    """The files of a zip archive, each with its compressed form where that is worth keeping. Blocks.

    Raises `BadRequest` for what is no archive, leads elsewhere, or is too much.
    """
    if (count := archive.count(ENTRY)) > ENTRIES_READ:
        raise BadRequest(wording.site_too_many(count, FILES_LIMIT))
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            entries = [entry for entry in zipped.infolist() if not entry.is_dir()]
            if len(entries) > FILES_LIMIT:
                raise BadRequest(wording.site_too_many(len(entries), FILES_LIMIT))
            total = 0
            seen: set[str] = set()
            for entry in entries:
                path = sites.clean_path(entry.filename)
                mode = entry.external_attr >> 16
                if path is None or path in seen or (mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode)):
                    raise BadRequest(wording.site_path(entry.filename))
                seen.add(path)
                content = _read(zipped, entry)
                total += len(content)
                if total > SITE_LIMIT_BYTES:
                    raise BadRequest(wording.site_too_large(SITE_LIMIT_BYTES))
                yield path, content, _compressed(path, content)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError):
        raise BadRequest(wording.SITE_NO_ZIP) from None


def _read(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """No more is unpacked than a file may have, whatever the archive says of it."""
    pieces, size = [], 0
    with zipped.open(entry) as file:
        while piece := file.read(READ_BYTES):
            size += len(piece)
            if size > FILE_LIMIT_BYTES:
                raise BadRequest(wording.site_file_too_large(entry.filename, FILE_LIMIT_BYTES))
            pieces.append(piece)
    return b"".join(pieces)


def _compressed(path: str, content: bytes) -> bytes | None:
    if not sites.is_compressible(path, len(content)):
        return None
    smaller = gzip.compress(content, 6, mtime=0)
    return smaller if len(smaller) < 0.9 * len(content) else None
