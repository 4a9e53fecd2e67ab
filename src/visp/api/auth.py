"""Who calls, from the head of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from visp import wording
from visp.api.origin import MARKS
from visp.entity.network import is_loopback
from visp.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visp.api.inside import Inside
    from visp.controller.identities import Identities
    from visp.entity.subject import Identity


_MARKS = tuple(mark.decode() for mark in MARKS)


async def identify(
    identities: Identities, headers: Mapping[str, str], peer: str | None, inside: Inside | None = None
) -> Identity:
    """The caller; `headers` by lower-case name, `peer` the address it connects from. Raises `Unauthorized`."""
    header = headers.get("authorization")
    identity = await identities.identify(None if header is None else header.encode("latin-1"))
    if not identity.is_loopback_only:
        return identity
    may_use = is_local(peer, headers) if inside is None else inside.may_use(identity)
    if not may_use:
        raise Unauthorized(wording.AUTH_INVALID)
    return identity


def is_local(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Whether the well-known key may be used.

    Peer and `Host` must be loopback, and so must an `Origin`: else any web page open in a browser on this machine could
    deploy code, by a request of its own or through a name that it made to resolve to 127.0.0.1. What came through a
    proxy on this machine is from elsewhere.
    """
    host, origin = headers.get("host"), headers.get("origin")
    if peer is None or not is_loopback(peer):
        return False
    if any(mark in headers for mark in _MARKS):
        return False
    if host is not None and not is_loopback(host_of(host)):
        return False
    return origin is None or is_loopback(urlsplit(origin).hostname or "")


def host_of(authority: str) -> str:
    """The host of `host[:port]`."""
    return urlsplit("//" + authority).hostname or ""
