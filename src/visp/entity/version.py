"""Semantic versions of entities: `major.minor.patch`, from `0.0.1`, patch counted up by each write."""

from __future__ import annotations

from typing import Any

from visp import wording
from visp.errors import Malformed

INITIAL = "0.0.1"


def parse_version(value: Any) -> str | None:
    """A version of a PUT body; missing parts are 0, all zero is malformed. None when absent."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise Malformed(wording.VERSION_MALFORMED)
    parts = value.split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise Malformed(wording.VERSION_MALFORMED)
    numbers = [int(part) for part in parts] + [0] * (3 - len(parts))
    if not any(numbers):
        raise Malformed(wording.VERSION_MALFORMED)
    return ".".join(map(str, numbers))


def next_version(version: str) -> str:
    """The version after an update that named none."""
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"
