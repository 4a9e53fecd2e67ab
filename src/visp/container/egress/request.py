"""What a client asks a forward proxy for: strict, for what is read in two ways is two requests. Pure.

Source: RFC 9110 (CONNECT, hop-by-hop fields) and RFC 9112 (absolute-form, framing).
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from visp.entity.network import Address, read_host, split_port

HEAD_BYTES = 16 * 1024
FIELDS = 100
HTTP_PORT = 80
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]{1,8192}) HTTP/1\.[01]\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*([\x20-\x7e\x80-\xff\t]*)\Z")
_HOP_BY_HOP = frozenset(
    b"connection proxy-connection proxy-authorization proxy-authenticate keep-alive te upgrade".split()
)


class Malformed(ValueError):
    """No request that a proxy answers; the text says why."""


class Asked(msgspec.Struct, frozen=True):
    """Whereto, and what is sent there first: None for a tunnel, whose client is told when it stands."""

    host: str | Address
    port: int
    head: bytes | None

    @property
    def target(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, ipaddress.IPv6Address) else self.host
        return f"{host}:{self.port}"


def parse(head: bytes) -> Asked:
    """A whole head, with the empty line that ends it. Raises `Malformed`."""
    if not head.endswith(b"\r\n\r\n"):
        raise Malformed("the head has no end")
    line, *fields = head[:-4].split(b"\r\n")
    match = _LINE.match(line)
    if match is None:
        raise Malformed("no request line")
    if len(fields) > FIELDS:
        raise Malformed(f"more than {FIELDS} header fields")
    method, target = match[1], match[2].decode()
    parsed = [_parse_field(field) for field in fields]
    if method == b"CONNECT":
        return Asked(*_authority(target, None), None)
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() != "http":
        raise Malformed("ask by CONNECT, or for an address that begins with http://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :].partition("#")[0]
    host, port = _authority(authority, HTTP_PORT)
    return Asked(host, port, _forwarded(method, path if path.startswith("/") else f"/{path}", authority, parsed))


def _parse_field(field: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.match(field)
    if match is None:
        raise Malformed("a header field is malformed")
    return match[1], match[2].rstrip(b" \t")


def _authority(text: str, default: int | None) -> tuple[str | Address, int]:
    try:
        host, port = split_port(text)
        if port is None and default is None:
            raise ValueError("a tunnel needs a port")
        return read_host(host), port or default or 0
    except ValueError as error:
        raise Malformed(str(error)) from None


def _forwarded(method: bytes, path: str, authority: str, fields: list[tuple[bytes, bytes]]) -> bytes:
    """The head as the origin sees it: one request, after which the connection ends."""
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1 or not all(value.isdigit() for value in lengths):
        raise Malformed("the length of the body is said more than once, or is none")
    if any(value.lower() != b"chunked" for value in codings):
        raise Malformed("of codings of transfer there is chunked alone")
    dropped = _named(fields) | _HOP_BY_HOP | {b"host"}
    lines = [method + b" " + path.encode() + b" HTTP/1.1", b"Host: " + authority.encode()]
    lines += (name + b": " + value for name, value in fields if name.lower() not in dropped)
    return b"\r\n".join((*lines, b"Connection: close", b"", b""))


def _named(fields: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Fields that belong to this connection, as it says itself; how long the body is, is never among them."""
    values = (value for name, value in fields if name.lower() in (b"connection", b"proxy-connection"))
    named = {token.strip().lower() for value in values for token in value.split(b",")}
    return named - {b"content-length", b"transfer-encoding"}


def closing(head: bytes) -> tuple[int, bytes]:
    """The status of an origin's answer, and its head as the client gets it: nothing follows the answer.

    Raises `Malformed`.
    """
    line, *fields = head[:-4].split(b"\r\n")
    match = re.match(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\Z)", line)
    if match is None:
        raise Malformed("the origin does not answer by HTTP")
    status = int(match[1])
    kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in _HOP_BY_HOP]
    end = (b"Connection: close", b"", b"") if status >= 200 else (b"", b"")
    return status, b"\r\n".join((line, *kept, *end))
