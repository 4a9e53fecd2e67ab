"""What an action is made of: a file, an archive or a folder becomes the `exec` of a request.

A folder is packed in memory, the same bytes for the same content: names in order, one date, only the executable bit of
the mode.
"""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from visp.cli.exits import CommandError, misuse

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {
    ".js": "nodejs:default",
    ".py": "python:default",
    ".swift": "swift:default",
    ".jar": "java:default",
    ".php": "php:default",
    ".rb": "ruby:default",
    ".rs": "rust:default",
    ".go": "go:default",
    ".balx": "ballerina:default",
}
"""A file's extension → the kind of its action. Source: OpenWhisk's `wsk`."""

FOLDERS = {"package.json": "nodejs:default", "index.js": "nodejs:default", "__main__.py": "python:default"}
"""A file at the root of a folder → the kind of the folder's action."""

BINARY = {".zip", ".jar", ".balx"}
NATIVE_IMAGE = "openwhisk/dockerskeleton"
NOT_PACKED = {".git", "__pycache__", ".DS_Store"}
ENTRIES_LIMIT = 100_000
DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that the format knows."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """How the user wants an action to run."""

    kind: str | None = None
    main: str | None = None
    docker: str | None = None
    is_native: bool = False


def executable(artifact: str | None, made: Made) -> dict[str, Any]:
    """The `exec` of a request; raises `CommandError` when it cannot be told what the artifact is."""
    if sum(map(bool, (made.kind, made.docker, made.is_native))) > 1:
        raise misuse("--kind, --docker and --native exclude one another")
    image = NATIVE_IMAGE if made.is_native else made.docker
    if artifact is None and made.docker is None:
        raise misuse("an action needs an ARTIFACT: a file, a .zip archive or a folder")
    out: dict[str, Any] = {}
    if artifact is not None:
        path = Path(artifact)
        kind = made.kind or image or _kind_of(path)
        if kind.startswith("java:") and not made.main:
            raise CommandError("Java actions require --main to specify the fully-qualified name of the main class")
        out = {"kind": kind, "code": _code_of(path)}
    if image is not None:
        out |= {"kind": "blackbox", "image": image}
    if made.main:
        out["main"] = made.main
    return out


def needs_engine(image: str) -> bool:
    """Whether an image is anything but the skeleton, which runs without a container engine."""
    name = image.removeprefix("docker.io/")
    return name != NATIVE_IMAGE and not name.startswith(f"{NATIVE_IMAGE}:")


def _kind_of(path: Path) -> str:
    if path.is_dir():
        for name, kind in FOLDERS.items():
            if (path / name).is_file():
                return kind
        raise CommandError(
            f"the kind of folder '{path}' cannot be told: it has none of {', '.join(FOLDERS)}; use --kind"
        )
    extension = path.suffix.lower()
    if extension == ".zip":
        raise CommandError(
            "creating an action from a .zip artifact requires specifying the action kind explicitly: "
            "--kind, --docker or --native"
        )
    if extension not in KINDS and path.is_file():
        raise CommandError(f"'{extension or path.name}' is not a supported action runtime; --kind names one")
    return KINDS.get(extension, "")


def _code_of(path: Path) -> str:
    """Text as it is; archives, and whatever is no UTF-8, in base64."""
    if path.is_dir():
        return base64.b64encode(pack(path)).decode()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise misuse(f"File '{path}' is not a valid file or it does not exist: {error.strerror}") from None
    if path.suffix.lower() not in BINARY:
        try:
            return content.decode()
        except UnicodeDecodeError:
            pass
    return base64.b64encode(content).decode()


def pack(folder: Path) -> bytes:
    """The folder as a zip archive; links are followed, as the archive's reader could not."""
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for count, (name, file) in enumerate(_files(folder, "", (folder.resolve(),))):
                if count == ENTRIES_LIMIT:
                    raise misuse(f"folder '{folder}' holds more than {ENTRIES_LIMIT} files")
                entry = zipfile.ZipInfo(name, DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = (0o100755 if file.stat().st_mode & 0o100 else 0o100644) << 16
                archive.writestr(entry, file.read_bytes())
    except OSError as error:
        raise misuse(f"folder '{folder}' cannot be read: {error.filename}: {error.strerror}") from None
    return packed.getvalue()


def _files(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name in NOT_PACKED:
            continue
        if not path.is_dir():
            yield prefix + path.name, path
        elif (real := path.resolve()) not in above:
            # A link to a folder that it lies in would never end.
            yield from _files(path, f"{prefix}{path.name}/", (*above, real))
