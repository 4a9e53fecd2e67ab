"""Log lines: one event, one line, structured, on standard error.

A line is `time level event key=value …`; a value with anything but plain characters is written as a JSON string, so
that no field can forge a line (control characters are escaped).
"""

from __future__ import annotations

import json
import sys
import time
import traceback

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_threshold = LEVELS["info"]


def set_level(name: str) -> None:
    """Lines below this level are not even formatted."""
    global _threshold
    _threshold = LEVELS[name]


def is_on(level: str) -> bool:
    return LEVELS[level] >= _threshold


def debug(event: str, **fields: object) -> None:
    _write("debug", event, fields)


def info(event: str, **fields: object) -> None:
    _write("info", event, fields)


def warning(event: str, **fields: object) -> None:
    _write("warning", event, fields)


def error(event: str, **fields: object) -> None:
    _write("error", event, fields)


def exception(event: str, **fields: object) -> None:
    """An error with the current exception's traceback, in one line."""
    _write("error", event, fields | {"traceback": traceback.format_exc(limit=12)})


def _write(level: str, event: str, fields: dict[str, object]) -> None:
    if LEVELS[level] < _threshold:
        return
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    words = [stamp, level.upper(), event, *(f"{key}={_field(value)}" for key, value in fields.items())]
    print(" ".join(words), file=sys.stderr, flush=True)


def _field(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if text and text.isascii() and text.isprintable() and " " not in text and '"' not in text:
        return text
    return json.dumps(text)  # everything beyond ASCII escaped: some of it breaks lines, or moves a terminal's cursor
