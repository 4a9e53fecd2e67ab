"""Zip archives of actions: a program, what it needs of installed packages, and its pictures."""

from __future__ import annotations

import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Unavailable(Exception):
    """A package is not installed here; the text says how to bring it."""


def write(
    file: Path, program: Path, packages: tuple[str, ...] = (), pictures: Mapping[str, bytes] | None = None
) -> int:
    """Writes the archive of a Python action; returns its size in bytes.

    The packages lie beside `__main__.py` as an installer would put them into that folder, shared libraries included.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(program, "__main__.py")
        for package in packages:
            for path, name in _files(package):
                archive.write(path, name)
        for name, content in (pictures or {}).items():
            archive.writestr(name, content, zipfile.ZIP_STORED)  # a picture is packed already
    return file.stat().st_size


def _files(package: str) -> Iterator[tuple[Path, str]]:
    """What an installed package consists of, but for its commands and for bytecode."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise Unavailable(f"the package '{package}' is not installed here: make install") from None
    for path in files:
        if path.parts[0] != ".." and "__pycache__" not in path.parts:
            yield Path(str(path.locate())), path.as_posix()
