"""Heads of requests that two servers might read differently, refused before anything is made of them. Pure.

The parser is strict already (two lengths, a length beside chunks, bare line feeds, folded lines, spaces before colons);
here is what it leaves to its caller: the form of the target, `Host`, the transfer codings, and the size of it all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from visp import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD_LIMIT_BYTES = 64 * 1024
URI_LIMIT_BYTES = 8 * 1024

_AROUND_BYTES = len(b": \r\n")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]+\Z")


class HeadRefused(Exception):
    """Raised inside of the parser's callbacks: this request ends the connection."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def is_host(text: bytes) -> bool:
    """Whether it can be the value of `Host`."""
    return _HOST.match(text) is not None


def check_head(url: bytes, headers: Sequence[tuple[bytes, bytes]], version: str) -> None:
    """Raises `HeadRefused`; `headers` with names in lower case, `version` as in `HTTP/1.1`."""
    if version not in ("1.0", "1.1"):
        raise HeadRefused(400, wording.NOT_HTTP)
    if not url.startswith(b"/") or not url.isascii() or b"#" in url:
        raise HeadRefused(400, wording.TARGET_NOT_PATH)
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(is_host, hosts)):
        raise HeadRefused(400, wording.HOST_NOT_SINGLE)
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (
        version != "1.1" or codings != [b"chunked"] or any(name == b"content-length" for name, _ in headers)
    ):
        raise HeadRefused(400, wording.TRANSFER_NOT_CHUNKED)


def check_head_size(url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Raises `HeadRefused` for a head over the limit."""
    if len(url) + sum(len(name) + len(value) + _AROUND_BYTES for name, value in headers) > HEAD_LIMIT_BYTES:
        raise HeadRefused(431, wording.head_too_large(HEAD_LIMIT_BYTES))
