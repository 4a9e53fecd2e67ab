"""A pair of network devices between the host and a container, made by one message to the kernel. Blocks.

The pair is made with its other end in the container's network at once: making it costs 0.6 ms, moving an end afterwards
waits for the kernel. It goes by itself with the network of the container.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address

SIOCGSKNS = 0x894C
"""The network that a socket is in."""
NEW_NETWORK = 0x40000000
DEVICE = "eth0"
"""What the container calls its end."""

NEW_LINK, END_LINK, NEW_ADDRESS, NEW_ROUTE = 16, 17, 20, 24
REQUEST, ACKNOWLEDGE, EXCLUSIVE, CREATE = 0x1, 0x4, 0x200, 0x400
UP, ANY_TABLE, UNIVERSE, LINK, UNICAST, BY_BOOT = 1, 254, 0, 253, 1, 3
IFLA_NAME, IFLA_INFO, IFLA_NETWORK, INFO_KIND, INFO_DATA, VETH_PEER = 3, 18, 28, 1, 2, 1
IFLA_FAMILIES, INET6_ADDRESSES, NO_ADDRESSES = 26, 8, 1
IFA_ADDRESS, IFA_LOCAL, RTA_DESTINATION, RTA_DEVICE, RTA_GATEWAY, RTA_SOURCE = 1, 2, 1, 4, 5, 7
HEAD = struct.Struct("=IHHII")
WITH_IPV6 = "/proc/net/if_inet6"
WHOLE = 32
"""Bits of an address."""
libc = ctypes.CDLL(None, use_errno=True)


def network_of(door: socket.socket) -> int:
    """A descriptor of the network that a socket was made in, whoever has it now; raises `OSError`."""
    return fcntl.ioctl(door, SIOCGSKNS)


def join(network: int, name: str, address: IPv4Address, gateway: IPv4Address) -> None:
    """Gives the network (a descriptor) a device with this address, from which all goes to the host's end, `name`.

    Only from a thread that may enter networks: it is in another one for a moment. Raises `OSError`.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as here:
        ask(here, *pair(name, network))
        device = socket.if_nametoindex(name)
        raise_up(here, device)
        ask(here, NEW_ADDRESS, *address_on(device, gateway))
        ask(here, NEW_ROUTE, *route(device, address, source=gateway))
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(own).st_ino == os.fstat(network).st_ino:
            raise OSError("this network is the host's own")
        enter(network)
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as there:
                device = socket.if_nametoindex(DEVICE)
                raise_up(there, device)
                ask(there, NEW_ADDRESS, *address_on(device, address))
                ask(there, NEW_ROUTE, *route(device, gateway))
                ask(there, NEW_ROUTE, *route(device, None, through=gateway))
        finally:
            enter(own)
    finally:
        os.close(own)


def remove(name: str) -> None:
    """Takes a device away, and its other end. Raises `OSError`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as here:
        ask(here, END_LINK, 0, struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), 0, 0))


def enter(network: int) -> None:
    if libc.setns(network, NEW_NETWORK) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> None:
    """Sends one message to the kernel and waits for its word; raises `OSError`."""
    sock.sendto(HEAD.pack(HEAD.size + len(body), kind, flags | REQUEST | ACKNOWLEDGE, 1, 0) + body, (0, 0))
    (result,) = struct.unpack_from("=i", sock.recv(65536), HEAD.size)
    if result:
        raise OSError(-result, os.strerror(-result))


def raise_up(sock: socket.socket, device: int) -> None:
    """Without an address of IPv6, for which the kernel would send packets by itself."""
    head = struct.pack("=BxHiII", 0, 0, device, 0, 0)
    if os.path.exists(WITH_IPV6):
        none = attribute(socket.AF_INET6, attribute(INET6_ADDRESSES, bytes([NO_ADDRESSES])))
        ask(sock, NEW_LINK, 0, head + attribute(IFLA_FAMILIES, none))
    ask(sock, NEW_LINK, 0, struct.pack("=BxHiII", 0, 0, device, UP, UP))


def attribute(kind: int, content: bytes) -> bytes:
    size = 4 + len(content)
    return struct.pack("=HH", size, kind) + content + b"\0" * (-size % 4)


def pair(name: str, network: int) -> tuple[int, int, bytes]:
    """Two devices: one here, one in another network."""
    far = (
        struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        + attribute(IFLA_NAME, DEVICE.encode() + b"\0")
        + attribute(IFLA_NETWORK, struct.pack("=I", network))
    )
    data = attribute(INFO_DATA, attribute(VETH_PEER, far))
    info = attribute(IFLA_INFO, attribute(INFO_KIND, b"veth\0") + data)
    head = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    return NEW_LINK, CREATE | EXCLUSIVE, head + attribute(IFLA_NAME, name.encode() + b"\0") + info


def address_on(device: int, address: IPv4Address) -> tuple[int, bytes]:
    """Alone: there is nobody beside it."""
    head = struct.pack("=BBBBi", socket.AF_INET, WHOLE, 0, UNIVERSE, device)
    return CREATE | EXCLUSIVE, head + attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)


def route(
    device: int,
    address: IPv4Address | None,
    *,
    through: IPv4Address | None = None,
    source: IPv4Address | None = None,
) -> tuple[int, bytes]:
    """To one address, or everywhere."""
    bits, scope = (0, UNIVERSE) if address is None else (WHOLE, LINK)
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, bits, 0, 0, ANY_TABLE, BY_BOOT, scope, UNICAST, 0)
    for kind, value in ((RTA_DESTINATION, address), (RTA_GATEWAY, through), (RTA_SOURCE, source)):
        if value is not None:
            body += attribute(kind, value.packed)
    return CREATE | EXCLUSIVE, body + attribute(RTA_DEVICE, struct.pack("=i", device))
