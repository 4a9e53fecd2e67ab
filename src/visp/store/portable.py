"""An archive that is of no store: everything as documents, in one `.tar.gz`.

::

    code/<sha256> … files/<sha256> … packages-000001.ndjson actions-… triggers-… rules-… subjects-… limits-… apis-…
    clients-… activations-… manifest.json

Documents are lines of JSON. A member is read whole, so each is bounded, and what there is much of takes several. The
manifest is last and has the SHA-256 of every member: a file that was cut short has none, and is no archive.

It is read without trust: headers by ourselves, plain files alone, names by a pattern, sizes before contents. Nothing is
ever written under a name that it gives.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import re
import tarfile
import time
import zlib
from collections import Counter
from typing import IO, TYPE_CHECKING, Protocol

import msgspec

from visp import __version__
from visp.entity.limits import CODE_LIMIT_BYTES, MIB
from visp.entity.site import FILE_LIMIT_BYTES
from visp.errors import VispError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = "visp-archive"
VERSION = 3
"""2: with APIs of the gateway; 3: with their clients, and files of sites."""
CODE, FILES = "code", "files"
BLOBS = {CODE: CODE_LIMIT_BYTES, FILES: FILE_LIMIT_BYTES}
"""What lies apart, and the most bytes of one."""
MANIFEST = "manifest.json"
COLLECTIONS = ("packages", "actions", "triggers", "rules")
SUBJECTS, LIMITS, APIS, CLIENTS, ACTIVATIONS = "subjects", "limits", "apis", "clients", "activations"
KINDS = (*COLLECTIONS, SUBJECTS, LIMITS, APIS, CLIENTS, ACTIVATIONS)
_NAME = re.compile(
    rf"(?:{'|'.join(BLOBS)})/[0-9a-f]{{64}}|(?:{'|'.join(KINDS)})-[0-9]{{6}}\.ndjson|{re.escape(MANIFEST)}"
)

CHUNK_BYTES = 16 * MIB
"""A member of documents ends with the line that makes it as long."""
MEMBER_BYTES = 128 * MIB
"""No member is longer: a chunk, and the longest document there can be."""
ENTITY_BYTES = 2048 * MIB
"""Of all documents but activations together, which are held in memory."""
MEMBERS = 500_000
PADDING_BYTES = 1 * MIB
"""What may follow the end of an archive."""


class PortableError(VispError):
    """An archive that cannot be made or read; the sentence says why and what to do."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Part(msgspec.Struct, frozen=True):
    """One member; `sha256` in hex."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive is: `made` is an ISO date, `counts` the documents of each kind, and blobs."""

    format: str = FORMAT
    version: int = VERSION
    visp: str
    made: str
    has_keys: bool
    has_activations: bool
    counts: dict[str, int]
    members: list[Part]


class Member(msgspec.Struct, frozen=True):
    """One member, read: its kind (of `KINDS` or `BLOBS`), the digest that names a blob, and what is in it."""

    kind: str
    digest: str
    content: bytes

    def lines(self) -> list[bytes]:
        return [line for line in self.content.split(b"\n") if line]


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Writer:
    """Writes members one after another, and the manifest at the end; raises `OSError`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._gzip = gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=6)
        self._parts: list[Part] = []
        self._counts: Counter[str] = Counter()
        self._chunks: Counter[str] = Counter()
        self._kind = ""
        self._pending = bytearray()

    def blob(self, kind: str, digest: str, content: bytes) -> None:
        """`kind` is of `BLOBS`."""
        self._counts[kind] += 1
        self._member(f"{kind}/{digest}", content)

    def document(self, kind: str, line: bytes) -> None:
        """Documents of one kind come together."""
        if kind != self._kind:
            self._flush()
            self._kind = kind
        self._counts[kind] += 1
        self._pending += line
        self._pending += b"\n"
        if len(self._pending) >= CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._chunks[self._kind] += 1
            self._member(f"{self._kind}-{self._chunks[self._kind]:06}.ndjson", bytes(self._pending))
            self._pending.clear()

    def _member(self, name: str, content: bytes) -> None:
        self._parts.append(Part(name, len(content), hashlib.sha256(content).hexdigest()))
        self._put(name, content)

    def _put(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o600
        self._gzip.write(info.tobuf(tarfile.USTAR_FORMAT))
        self._gzip.write(content)
        self._gzip.write(bytes(-len(content) % tarfile.BLOCKSIZE))

    def finish(self, *, has_keys: bool, has_activations: bool) -> Manifest:
        self._flush()
        manifest = Manifest(
            visp=__version__,
            made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            has_keys=has_keys,
            has_activations=has_activations,
            counts={kind: self._counts[kind] for kind in (*KINDS, *BLOBS)},
            members=self._parts,
        )
        self._put(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        self._gzip.write(bytes(2 * tarfile.BLOCKSIZE))
        self._gzip.close()
        return manifest


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Reader:
    """Reads an archive from its beginning: `members`, and then `manifest` is there, which agrees with all of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Part] = {}
        self._entity_bytes = 0
        self.manifest: Manifest

    def members(self) -> Iterator[Member]:
        """Each member in order, known to be what its name says only when the last one has been given.

        Raises `PortableError` for what is damaged, and for what no archive has.
        """
        with self._reading(), gzip.open(self._path, "rb") as file:
            while (header := _exactly(file, tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
                info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
                self._check(info)
                content = _exactly(file, info.size)
                _exactly(file, -info.size % tarfile.BLOCKSIZE)
                if info.name == MANIFEST:
                    self._finish(file, content)
                    return
                self._found[info.name] = Part(info.name, info.size, hashlib.sha256(content).hexdigest())
                kind, _, digest = info.name.partition("/")
                if digest and self._found[info.name].sha256 != digest:
                    raise self._damaged(f"{info.name} is not what it was")
                yield Member(kind.partition("-")[0], digest, content)
            raise self._damaged("its manifest is missing")

    def _check(self, info: tarfile.TarInfo) -> None:
        if info.type != tarfile.REGTYPE or not _NAME.fullmatch(info.name) or info.name in self._found:
            raise PortableError(f"{self._path} is no archive of visp, or of a newer one: it holds {info.name!r}")
        limit = BLOBS.get(info.name.partition("/")[0], MEMBER_BYTES)
        if not info.name.startswith(f"{ACTIVATIONS}-") and "/" not in info.name:
            self._entity_bytes += info.size
        if not 0 <= info.size <= limit or self._entity_bytes > ENTITY_BYTES or len(self._found) >= MEMBERS:
            raise PortableError(f"{self._path} is larger than an archive may be: at {info.name}, of {info.size} bytes")

    def _finish(self, file: _Readable, content: bytes) -> None:
        try:
            self.manifest = msgspec.json.decode(content, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._damaged(f"its manifest cannot be read ({error})") from None
        if self.manifest.format != FORMAT or self.manifest.version > VERSION:
            raise PortableError(
                f"{self._path} is of the format {self.manifest.format} {self.manifest.version}: import it with the "
                f"visp that knows it ({self.manifest.visp})"
            )
        told = {part.name: part for part in self.manifest.members}
        bad = [name for name in told.keys() | self._found.keys() if told.get(name) != self._found.get(name)]
        if bad:
            raise self._damaged(f"{', '.join(sorted(bad)[:5])} is not what its manifest says")
        rest = file.read(PADDING_BYTES)  # to the end: only there is the checksum of the whole
        if rest.strip(b"\0") or file.read(1):
            raise self._damaged("something follows its end")

    def _damaged(self, what: str) -> PortableError:
        return PortableError(f"{self._path} is damaged: {what}; take another export")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Makes `PortableError` of what comes of reading a file that is damaged or none of ours."""
        try:
            yield
        except (gzip.BadGzipFile, tarfile.TarError, UnicodeDecodeError) as error:
            raise PortableError(f"{self._path} is no archive of visp, or is damaged: {error}") from None
        except (EOFError, zlib.error):
            raise self._damaged("it was cut short, or changed") from None
        except OSError as error:
            raise PortableError(f"{self._path} cannot be read: {error.strerror or error}") from None


def _exactly(file: _Readable, size: int) -> bytes:
    """So many bytes, taken as they come: a header that lies about its size costs no memory."""
    taken = io.BytesIO()
    while size:
        piece = file.read(min(size, MIB))
        if not piece:
            raise EOFError
        taken.write(piece)
        size -= len(piece)
    return taken.getvalue()
