"""Events of a file, one JSON object in each line, as fires of a trigger."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sys
import tempfile
from typing import IO, TYPE_CHECKING

import msgspec

from visp.cli import firing, output
from visp.cli.exits import misuse
from visp.cli.firing import Chunk, Fire, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName

PIECE_BYTES = 1024 * 1024
LINE_LIMIT_BYTES = 8 * 1024 * 1024
"""A longer line is no event; a server's own limit is smaller."""


class _Keyed(msgspec.Struct):
    key: str
    value: msgspec.Raw


_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_keyed = msgspec.json.Decoder(_Keyed).decode


def fire_file(
    session: Session, trigger: FullyQualifiedName, file: str, *, is_keyed: bool, is_again: bool, as_json: bool
) -> None:
    """Fires once for each line; what was fired of the same content before is left out, unless `is_again`.

    Raises `CommandError` for a file that cannot be read, and when a line was refused.
    """
    with _opened(file) as content:
        digest = hashlib.sha256(b"keyed" if is_keyed else b"lines")
        while piece := content.read(PIECE_BYTES):
            digest.update(piece)
        source = f"file/{digest.hexdigest()[:32]}" + (f"/{secrets.token_hex(8)}" if is_again else "")
        wrong = Tally()

        def chunks(newest: int | None) -> Iterator[Chunk]:
            content.seek(0)
            if newest is not None:
                output.note(
                    f"goes on behind line {newest}: what stands before was fired already (--again fires it anew)"
                )
            wrong.refused = 0
            # a batch has the number of lines before it, so that it can be found again
            found = (fire for fire in _fires(content, wrong, is_keyed=is_keyed) if _at(fire) > (newest or 0))
            return firing.chunks_of(found, lambda _, first: _at(first) - 1)

        tally = firing.send(session, trigger, source, chunks, firing.shown if as_json else None)
    tally.refused += wrong.refused
    firing.told(tally, trigger, "lines", is_quiet=as_json)


def _at(fire: Fire) -> int:
    return int(fire.name.removeprefix("line "))


def _fires(content: IO[bytes], wrong: Tally, *, is_keyed: bool) -> Iterator[Fire]:
    number = 0
    while text := content.readline(LINE_LIMIT_BYTES):
        number += 1
        name, line = f"line {number}", text.strip()
        if not line:
            continue
        if len(text) == LINE_LIMIT_BYTES and not text.endswith(b"\n"):
            raise misuse(f"{name} is longer than {LINE_LIMIT_BYTES} bytes")
        try:
            if is_keyed:
                given = _keyed(line)
                yield Fire(given.key, bytes(given.value), name)
            else:
                _object(line)
                yield Fire(str(number), line, name)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            firing.refuse(wrong, name, "no object with a key and a value" if is_keyed else "no JSON object")


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """The file, or what standard input has, kept until it is fired: it is read more than once."""
    if file != "-":
        try:
            content = open(file, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise misuse(f"cannot read {file}: {error.strerror}") from None
        with content:
            yield content
        return
    with tempfile.TemporaryFile() as kept:
        while piece := sys.stdin.buffer.read(PIECE_BYTES):
            kept.write(piece)
        kept.seek(0)
        yield kept
