"""What the host is in the midst of: its own addresses, and the networks that it reaches without a router."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from visp.entity.network import is_closed, meant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.entity.network import Address, Network

ROUTES, ROUTES6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
WIDEST_BITS = 8
"""A route for more than that is a way out, whatever it leads through: no network of neighbours."""
UP, GATEWAY = 1, 2


def networks() -> tuple[Network, ...]:
    """Those that the host is in, without its loopback. Reads two files."""
    return tuple(
        network
        for read, path in ((parse_routes, ROUTES), (parse_routes6, ROUTES6))
        for network in read(path.read_text() if path.exists() else "")
        if network.prefixlen >= WIDEST_BITS and not network.is_loopback
    )


def parse_routes(text: str) -> Iterator[Network]:
    """Of `/proc/net/route`, the networks that no gateway leads to."""
    for line in text.splitlines()[1:]:
        _, destination, _, flags, _, _, _, mask, *_ = line.split()
        if int(flags, 16) & (UP | GATEWAY) == UP:
            address, bits = (int.from_bytes(bytes.fromhex(word), "little") for word in (destination, mask))
            yield ipaddress.IPv4Network((address, bits.bit_count()))


def parse_routes6(text: str) -> Iterator[Network]:
    """Of `/proc/net/ipv6_route`, the networks that no gateway leads to."""
    for line in text.splitlines():
        destination, bits, _, _, _, _, _, _, flags, _ = line.split()
        if int(flags, 16) & (UP | GATEWAY) == UP:
            yield ipaddress.IPv6Network((bytes.fromhex(destination), int(bits, 16)))


def is_open(address: Address) -> bool:
    """Whether it lies in the internet, seen from this host, in whatever form it is written. Reads two files."""
    return not is_closed(address, networks()) and not is_own(meant(address))


def is_own(address: Address) -> bool:
    """Whether an interface of the host has it: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
