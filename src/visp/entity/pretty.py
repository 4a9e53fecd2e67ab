"""JSON as OpenWhisk prints it for people: one member of an object a line, arrays on one line. Pure.

Source: what its web actions answer. Numbers and strings stay the very text that they were.
"""

from __future__ import annotations

import re

import msgspec

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+')
_LINES: list[bytes] = [b"\n" + b"  " * depth for depth in range(64)]

encode = msgspec.json.Encoder().encode


def pretty(raw: bytes) -> bytes:
    """The same JSON, laid out; an empty object is two braces with a blank line between. `raw` is JSON that was read."""
    out: list[bytes] = []
    add = out.append
    opened: list[bool] = []
    """For each bracket that is open, whether it is an object's."""
    depth, before = 0, b""
    for token in _TOKENS.findall(raw):
        if token == b"{":
            depth += 1
            opened.append(True)
            add(token)
            add(_line(depth))
        elif token == b"}":
            depth -= 1
            opened.pop()
            if before == b"{":
                out.pop()
                add(b"\n")
            add(_line(depth))
            add(token)
        elif token == b"[":
            opened.append(False)
            add(token)
        elif token == b"]":
            opened.pop()
            add(token)
        elif token == b",":
            add(token)
            add(_line(depth) if opened[-1] else b" ")
        elif token == b":":
            add(b": ")
        else:
            add(token)
        before = token
    return b"".join(out)


def _line(depth: int) -> bytes:
    return _LINES[depth] if depth < len(_LINES) else b"\n" + b"  " * depth
