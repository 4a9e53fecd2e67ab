"""The properties file of OpenWhisk's clients, `.wskprops`: lines of `KEY=value`, `#` for comments.

Found at `WSK_CONFIG_FILE`, else in the home folder; a variable that is set and empty means no file at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from visp.client.errors import Misused

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_LIMIT_BYTES = 1 << 20


def file_of(environ: Mapping[str, str]) -> Path | None:
    """Where the file is, whether or not it exists; None when the user wants none."""
    named = environ.get("WSK_CONFIG_FILE")
    if named is not None:
        return Path(named).expanduser() if named else None
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".wskprops"


def read(file: Path | None) -> dict[str, str]:
    """Its keys and values; empty when there is no file. Raises `Misused` when it is there and cannot be read."""
    if file is None:
        return {}
    return dict(entry for line in _lines(file) if (entry := _entry(line)) is not None)


def change(file: Path, changes: Mapping[str, str | None]) -> None:
    """Sets keys, or takes them out where the value is None; other lines stay as they are.

    The file holds a key: it is written for its owner alone, and replaced in one step.
    """
    for key, value in changes.items():
        if value is not None and not value.isprintable():
            raise Misused(
                f"the value of {key} cannot be written to {file}: it holds a line break or a control character"
            )
    kept = [line for line in _lines(file) if (entry := _entry(line)) is None or entry[0] not in changes]
    added = [f"{key}={value}" for key, value in changes.items() if value is not None]
    # A link to the real file, in a folder of configurations, stays a link.
    target = file.resolve()
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.writelines(f"{line}\n" for line in [*kept, *added])
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Misused(f"the properties file {file} cannot be written: {error.strerror}") from None


def _lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            return opened.read(FILE_LIMIT_BYTES).decode().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Misused(f"the properties file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misused(f"the properties file {file} is no text") from None


def _entry(line: str) -> tuple[str, str] | None:
    key, separator, value = line.partition("=")
    if not separator or line.lstrip().startswith("#"):
        return None
    return key.strip().upper(), value.strip()
