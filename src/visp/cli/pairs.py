"""Parameters and annotations as they are typed: `-p KEY VALUE`, `-P FILE`, `-a KEY VALUE`, `-A FILE`.

A value that is JSON is taken as it stands (`5`, `true`, `{"a": 1}`); anything else is a string. Files come first,
then pairs; of a key that is given twice the last one counts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from visp.cli.exits import misuse
from visp.client import documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

Pairs = tuple[tuple[str, str], ...]
Values = dict[str, msgspec.Raw]

KEY_VALUE = "KEY VALUE"

param_option: Decorator = click.option(
    "-p", "--param", "params", nargs=2, multiple=True, metavar=KEY_VALUE, help="Parameter; JSON, else a string."
)
param_file_option: Decorator = click.option(
    "-P", "--param-file", "param_files", multiple=True, metavar="FILE", help="JSON file with parameters; - for stdin."
)
annotation_option: Decorator = click.option(
    "-a", "--annotation", "annotations", nargs=2, multiple=True, metavar=KEY_VALUE, help="Annotation; JSON or a string."
)
annotation_file_option: Decorator = click.option(
    "-A", "--annotation-file", "annotation_files", multiple=True, metavar="FILE", help="JSON file with annotations."
)


def values(pairs: Pairs, files: Iterable[str] = ()) -> Values:
    """One mapping of all that was given; raises `CommandError` for a file that holds no JSON object."""
    out: Values = {}
    for file in files:
        out |= {key: msgspec.Raw(value) for key, value in _object_of(file).items()}
    for key, text in pairs:
        out[_encodable(key)] = value_of(text)
    return out


def value_of(text: str) -> msgspec.Raw:
    """A typed value: JSON as it stands, else a string."""
    raw = _encodable(text).encode()
    try:
        return msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(text))


def listed(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As entities carry them: `[{"key": …, "value": …}]`."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _object_of(file: str) -> dict[str, bytes]:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise misuse(f"File '{file}' cannot be read: {error.strerror}") from None
    if not isinstance(documents.value(raw), dict):
        raise misuse(f"File '{file}' does not hold a JSON object")
    return documents.fields(raw)


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise misuse(f"{text!r} is no UTF-8 text") from None
    return text
