"""A package's site: the files of a front end that lie beside its web actions. Pure.

Paths are relative, with `/` between their parts. Of a file that is worth it a compressed form is kept too; one that the
site brings itself (`app.js.br`, `app.js.gz`) is preferred.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Final

import msgspec

FILES_LIMIT = 2000
FILE_LIMIT_BYTES = 25 * 1024 * 1024
SITE_LIMIT_BYTES = 100 * 1024 * 1024
PATH_LIMIT_BYTES = 512
INDEX = "index.html"
WORTH_BYTES = 1024
"""Smaller files are not compressed."""
COMPRESSIBLE = re.compile(
    r"(text/.*|application/(json|javascript|xml|wasm|manifest\+json)|image/svg\+xml|.*\+(json|xml))\Z"
)

_TYPES = mimetypes.MimeTypes(filenames=())
_EXTRA: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".map": "application/json",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".md": "text/markdown",
}
_ENCODINGS: Final = (("br", ".br"), ("gzip", ".gz"))
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_CODING = re.compile(r"\s*([\w*-]+)\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?\Z", re.ASCII)


class SiteFile(msgspec.Struct, frozen=True, array_like=True):
    """A file's bytes by their digest, and those of its compressed form."""

    digest: str
    size_bytes: int
    gzip: str | None = None
    gzip_bytes: int = 0

    @property
    def digests(self) -> tuple[str, ...]:
        return (self.digest,) if self.gzip is None else (self.digest, self.gzip)


Site = dict[str, SiteFile]


class Variant(msgspec.Struct, frozen=True):
    """What of a file is sent."""

    digest: str
    size_bytes: int
    encoding: str | None = None

    @property
    def etag(self) -> str:
        return f'"{self.digest[:32]}"'


def clean_path(name: str) -> str | None:
    """The path of a file in a site; None for one that leads elsewhere, or is none."""
    parts = name.split("/")
    if not name or len(name.encode("utf-8", "replace")) > PATH_LIMIT_BYTES or "\\" in name or not name.isprintable():
        return None
    return None if any(part in ("", ".", "..") for part in parts) else name


def content_type(path: str) -> str:
    """By the path's ending; text is UTF-8."""
    ending = path[path.rfind(".") :].lower() if "." in path else ""
    kind = _EXTRA.get(ending) or _TYPES.guess_type(path)[0] or "application/octet-stream"
    return f"{kind}; charset=UTF-8" if kind.startswith("text/") else kind


def is_compressible(path: str, size_bytes: int) -> bool:
    return size_bytes >= WORTH_BYTES and COMPRESSIBLE.match(content_type(path).partition(";")[0]) is not None


def find(site: Site, path: str) -> str | None:
    """The file that a path means: itself, or the index of a folder, which ends with a slash."""
    if path == "" or path.endswith("/"):
        path += INDEX
    return path if path in site else None


def is_folder(site: Site, path: str) -> bool:
    """Whether a path without its last slash means a folder that has an index."""
    return bool(path) and f"{path}/{INDEX}" in site


def variant(site: Site, path: str, accept_encoding: str | None) -> Variant:
    """The form of a file that the caller takes, the smallest kind first."""
    file = site[path]
    welcome = _codings(accept_encoding)
    for coding, ending in _ENCODINGS:
        if coding in welcome:
            own = site.get(path + ending)
            if own is not None:
                return Variant(own.digest, own.size_bytes, coding)
            if coding == "gzip" and file.gzip is not None:
                return Variant(file.gzip, file.gzip_bytes, coding)
    return Variant(file.digest, file.size_bytes)


def has_variants(site: Site, path: str) -> bool:
    return site[path].gzip is not None or any(path + ending in site for _, ending in _ENCODINGS)


def _codings(header: str | None) -> frozenset[str]:
    found = set()
    for item in (header or "").split(","):
        match = _CODING.match(item)
        if match is not None and (match[2] is None or match[2].strip("0.")):
            found.add(match[1].lower())
    return frozenset({"br", "gzip"} if "*" in found else found)


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the caller has it already."""
    if if_none_match is None:
        return False
    listed = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return etag in listed or "*" in listed


class Unsatisfiable(Exception):
    """No byte of the range is there."""


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """First and last byte of one range; None for none, and for what is answered with the whole.

    Raises `Unsatisfiable`.
    """
    match = None if header is None else _RANGE.match(header.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        count = min(int(last), size_bytes)
        if not count:
            raise Unsatisfiable()
        return size_bytes - count, size_bytes - 1
    begin, end = int(first), min(int(last), size_bytes - 1) if last else size_bytes - 1
    if last and int(last) < begin:
        return None
    if begin >= size_bytes:
        raise Unsatisfiable()
    return begin, end
