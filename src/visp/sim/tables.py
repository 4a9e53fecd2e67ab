"""Reading the traces' CSV files: plain or gzip, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

from visp.sim.workload import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import TextIO

LINE_LIMIT = 1 << 20
"""Characters of one line: the longest of the traces has about 10,000."""


def find(folder: Path, name: str) -> Path | None:
    """The file, or the same with `.gz`; None if there is neither."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


class Rows:
    """The rows of one file. `line` is the number of the present one, for `wrong`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """`columns`: how the header must begin."""
        self.path = path
        self.line = 0
        self._columns = list(columns)

    def wrong(self, what: str) -> WorkloadError:
        return WorkloadError(f"{self.path}, line {self.line}: {what}")

    def number(self, text: str, column: str) -> float:
        """A number that is not negative."""
        try:
            value = float(text)
        except ValueError:
            raise self.wrong(f"{column}: no number: {_short(text)}") from None
        if not 0.0 <= value < math.inf:
            raise self.wrong(f"{column}: {_short(text)} is not between 0 and infinity")
        return value

    def read(self, splits: int = -1) -> Iterator[list[str]]:
        """Each row's fields, of which the last may hold several if only so many `splits` are made."""
        width = len(self._columns)
        with self._open() as file:
            while line := file.readline(LINE_LIMIT):
                self.line += 1
                fields = line.rstrip("\r\n").split(",", splits)
                if self.line == 1:
                    if [field.strip('"') for field in line.rstrip("\r\n").split(",")[:width]] != self._columns:
                        raise self.wrong(f"the header must begin with {','.join(self._columns)}")
                    continue
                if not line.strip():
                    continue
                if len(fields) < min(width, splits + 1 if splits >= 0 else width):
                    raise self.wrong(f"{width} columns expected, {len(fields)} found")
                yield fields
        if self.line == 0:
            raise WorkloadError(f"{self.path} is empty")

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        try:
            if self.path.suffix == ".gz":
                with gzip.open(self.path, "rt", encoding="utf-8", newline="") as file:
                    yield file
            else:
                with self.path.open(encoding="utf-8", newline="") as file:
                    yield file
        except OSError as error:
            raise WorkloadError(f"{self.path}: {error.strerror or error}") from None
        except (EOFError, UnicodeDecodeError) as error:
            raise self.wrong(f"cannot be read: {error}") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
