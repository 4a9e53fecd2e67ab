"""Which ports of a container's own loopback address lead to a service of the operator's, and for whom. Pure."""

from __future__ import annotations

import re

import msgspec

from visp.entity.names import is_name

DOOR_PORT = 3233
"""Where a container reaches the platform: at this port of its own loopback address."""
DOOR_NAME = "visp.internal"
"""What that address is called inside."""

PROXY_PORT = 3128
"""Where it finds the proxy that leads out, at the same address."""

_ENTRY = re.compile(r"(\d{1,5})=(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})\Z")
PORTS = range(1, 65536)
RELAYS_LIMIT = 16


class Relay(msgspec.Struct, frozen=True):
    """What is reached, and by containers of which namespaces."""

    host: str
    port: int
    namespaces: frozenset[str]


def parse_relays(text: str) -> dict[int, Relay]:
    """Relays by the port inside; raises `ValueError` with a sentence.

    `6379=127.0.0.1:6379 guest alice; 5432=db.example:5432 bob`.
    """
    relays: dict[int, Relay] = {}
    for entry in filter(None, (part.split() for part in text.split(";"))):
        match = _ENTRY.match(entry[0])
        if match is None or int(match[1]) not in PORTS or int(match[3]) not in PORTS:
            raise ValueError(f"'{entry[0]}' is not of the form 6379=127.0.0.1:6379")
        inside, namespaces = int(match[1]), entry[1:]
        if inside in (DOOR_PORT, PROXY_PORT):
            raise ValueError(f"port {inside} leads to the platform")
        if inside in relays:
            raise ValueError(f"port {inside} is given twice")
        if not namespaces or not all(map(is_name, namespaces)):
            raise ValueError(f"'{entry[0]}' names no namespaces that may use it")
        relays[inside] = Relay(match[2].strip("[]"), int(match[3]), frozenset(namespaces))
    if len(relays) > RELAYS_LIMIT:
        raise ValueError(f"more than {RELAYS_LIMIT} relays")
    return relays
