"""Writes the code of an action to a file."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from visp.cli.artifact import KINDS
from visp.cli.exits import CommandError, misuse
from visp.client import documents

EXTENSIONS = {kind.partition(":")[0]: extension for extension, kind in KINDS.items()}
"""The family of a kind → the extension of its source."""

ARCHIVED = {"java": ".jar", "ballerina": ".balx"}
"""Families whose binary is no zip of sources."""


def save(raw: bytes, name: str, save_as: str | None) -> Path:
    """Writes the code of the action `raw`; where. Never over a file that is there. Raises `CommandError`."""
    document = documents.value(raw)
    made = document.get("exec") if isinstance(document, dict) else None
    code = documents.text(made, "code")
    if not isinstance(made, dict) or not code:
        raise CommandError(f"action '{name}' has no code to save: it is {_what(made)}")
    content = code.encode()
    if made.get("binary") is True:
        try:
            content = base64.b64decode(code, validate=True)
        except binascii.Error:
            raise CommandError(f"the code of action '{name}' is no base64") from None
    file = Path(save_as or name + _extension(documents.text(made, "kind"), is_binary=made.get("binary") is True))
    try:
        with file.open("xb") as opened:
            opened.write(content)
    except FileExistsError:
        raise misuse(f"The file '{file}' already exists; --save-as names another") from None
    except OSError as error:
        raise misuse(f"The file '{file}' cannot be written: {error.strerror}") from None
    return file.resolve()


def _extension(kind: str, *, is_binary: bool) -> str:
    family = kind.partition(":")[0]
    if is_binary:
        return ARCHIVED.get(family, ".zip")
    return EXTENSIONS.get(family, "")


def _what(made: object) -> str:
    kind = documents.text(made, "kind")
    return {"sequence": "a sequence", "blackbox": "an image"}.get(kind, f"of kind '{kind}'")
