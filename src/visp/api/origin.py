"""Where a request comes from, as the platform sees it: proxies that are named are believed what they say. Pure.

A request that came through any proxy, named or not, never counts as one from this machine.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

import msgspec

from visp.api.heads import is_host
from visp.entity.network import meant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from visp.entity.network import Network

FOR, HOST, PROTO = b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"
MARKS = frozenset({FOR, HOST, PROTO, b"x-forwarded-port", b"x-forwarded-server", b"x-real-ip", b"forwarded", b"via"})
"""Headers that proxies set: whoever sends one of them is not beside us."""
HOPS = 32
"""Proxies in a row that are looked back over."""
INDEX = "public/index.html"
"""What the root of a namespace's own host shows."""

_NAMESPACE = re.compile(r"[0-9A-Za-z-]+\Z")
_WEB = b"/api/v1/web/"


class Origin(msgspec.Struct, frozen=True):
    """`client` is its address where that is known; `host` is None where nothing was said of it."""

    client: str | None
    scheme: str
    host: bytes | None = None


def is_among(peer: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks; what is no address does not."""
    try:
        address = meant(ipaddress.ip_address(peer))
    except ValueError:
        return False
    return any(address.version == network.version and address in network for network in networks)


def told(scheme: str, headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[Network]) -> Origin:
    """What a trusted proxy tells by `X-Forwarded-For`, `-Proto` and `-Host`; `scheme` is its own connection's.

    Of several proxies in a row the client is who is before the first that is not trusted. What cannot be read is not
    believed: then the client is not known.
    """
    hops: list[str] = []
    host: bytes | None = None
    for name, value in headers:
        if name == FOR:
            hops += value.decode("latin-1").split(",")
        elif name == PROTO and (last := value.rpartition(b",")[2].strip().lower()) in (b"http", b"https"):
            scheme = last.decode()
        elif name == HOST:
            last = value.rpartition(b",")[2].strip()
            host = last if is_host(last) else None
    return Origin(_client(hops, trusted), scheme, host)


def placed(
    url: bytes,
    headers: list[tuple[bytes, bytes]],
    scheme: str,
    trusted: Sequence[Network] | None,
    domain: str,
) -> tuple[bytes, list[tuple[bytes, bytes]], Origin | None]:
    """A request for what a trusted proxy says it was, and for what its namespace's own host means.

    `trusted` is None where no trusted proxy brought it, `domain` empty where namespaces have no hosts. With more than
    one `Host` it is given back as it came: it is refused.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return url, headers, None
    origin = None
    if trusted is not None:
        origin = told(scheme, headers, trusted)
        if origin.host is not None and hosts:
            hosts = [origin.host]
            headers = [(n, origin.host if n == b"host" else value) for n, value in headers]
    if domain and hosts:
        url = in_own_host(url, hosts[0], domain) or url
    return url, headers, origin


def _client(hops: list[str], trusted: Sequence[Network]) -> str | None:
    for hop in reversed(hops[-HOPS:]):
        try:
            address = meant(ipaddress.ip_address(hop.strip().strip("[]")))
        except ValueError:
            return None
        if not is_among(str(address), trusted):
            return str(address)
    return None


def in_own_host(url: bytes, host: bytes, domain: str) -> bytes | None:
    """A web action's URL for one that came to its namespace's own host below `domain`; None for other hosts.

    `{ns}.{domain}/x/y` is `/api/v1/web/{ns}/x/y`, its root a page. Source: the rules of OpenWhisk's edge (nginx).
    """
    name, colon, port = host.decode("latin-1").lower().partition(":")
    namespace, dot, rest = name.partition(".")
    if not dot or rest != domain or not _NAMESPACE.match(namespace) or (colon and not port.isdigit()):
        return None
    if not url.startswith(b"/"):
        return None  # it is refused as it stands
    path, mark, query = url.partition(b"?")
    return _WEB + namespace.encode() + (b"/" + INDEX.encode() if path == b"/" else path) + mark + query
