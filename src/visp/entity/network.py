"""What actions reach in a network: policies of namespaces and actions, and the addresses that are nobody's. Pure.

A policy is `none`, `internet`, or a list of hosts, `*.domain`s, addresses and networks, each with a port or without. An
action's annotation `network` holds together with its namespace's policy: what is reached is what both permit. Whatever
they permit, the host, its neighbours and everything private stay closed, but for what an operator opens by name.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.entity.names import is_name
from visp.entity.parameters import text as text_of
from visp.entity.relay import DOOR_NAME, PROXY_PORT
from visp.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from visp.entity.parameters import Parameters

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Place = tuple[Network, int | None]
"""A network, and a port of its addresses; None: any."""

NETWORK = "network"
"""The annotation of an action, and the limit of a namespace."""
POOL = ipaddress.IPv4Network("198.18.0.0/15")
"""Addresses of containers that have one: of the range for measuring networks, which nobody routes."""
TARGETS_LIMIT = 64
TEXT_LIMIT = 4096

CLOSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(range)
    for range in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.168.0.0/16", str(POOL), "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # what a cloud tells its machines, at an address that looks public
        *("::/8", "64:ff9b:1::/48", "100::/64", "2001::/32", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10"),
        "ff00::/8",
    )
)
"""This network, private, shared, own, link-local, reserved and multicast addresses: never the internet.

What is for documentation is not among them: nothing is there, and some networks use it for their services.
"""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")
HOST_LENGTH = 253
LAST_PORT = 65535


class Target(msgspec.Struct, frozen=True):
    """Something in a list: a name (`*.domain`: all below it) or a network; `port` None: any."""

    host: str | Network
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, ipaddress.IPv6Network) and self.port else str(self.host)
        return host if self.port is None else f"{host}:{self.port}"


class Policy(msgspec.Struct, frozen=True):
    """What may be reached: the `targets`, None: the internet. A name is looked up only where it is listed itself."""

    targets: tuple[Target, ...] | None

    def __str__(self) -> str:
        if self.targets is None:
            return "internet"
        return " ".join(map(str, self.targets)) or "none"

    def permits(self, host: str | Address, port: int) -> bool:
        """Whether a connection to what was named so may be tried."""
        return self.targets is None or any(
            target.port in (None, port) and _contains(target.host, host) for target in self.targets
        )


NONE = Policy(())
INTERNET = Policy(None)


class Opening(msgspec.Struct, frozen=True):
    """A network that is private and which an operator lets some namespaces use."""

    network: Network
    port: int | None
    namespaces: frozenset[str]


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_policy(text: str) -> Policy:
    """`none`, `internet`, or targets between spaces or commas; raises `ValueError` with a sentence."""
    words = text[: TEXT_LIMIT + 1].replace(",", " ").split()
    if words == ["none"]:
        return NONE
    if words == ["internet"]:
        return INTERNET
    if not {"none", "internet"}.isdisjoint(words):
        raise ValueError("'none' and 'internet' stand alone")
    if len(text) > TEXT_LIMIT or len(words) > TARGETS_LIMIT:
        raise ValueError(f"a list has at most {TARGETS_LIMIT} entries and {TEXT_LIMIT} characters")
    if not words:
        raise ValueError("it is 'none', 'internet' or a list like 'api.example.com:443 *.example.org 198.51.100.0/24'")
    return Policy(tuple(parse_target(word) for word in words))


def parse_target(word: str) -> Target:
    """`host[:port]`, `*.domain[:port]`, an address or a network; IPv6 with a port stands in brackets."""
    host, port = split_port(word)
    return Target(parse_network(host) or _parse_host(host, word), port)


def split_port(word: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[address]:port`; raises `ValueError`."""
    if word.startswith("["):
        host, bracket, rest = word[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"'{word}' is no address in brackets")
        return host, parse_port(rest[1:]) if rest else None
    if word.count(":") != 1:
        return word, None
    host, _, port = word.partition(":")
    return host, parse_port(port)


def parse_port(text: str) -> int:
    if not _PORT.match(text) or int(text) > LAST_PORT:
        raise ValueError(f"'{text}' is no port")
    return int(text)


def parse_network(text: str) -> Network | None:
    """An address stands for the network of it alone; None for what is a name."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text or ":" in text:
            raise ValueError(f"'{text}' is no network (address/bits, with no bit set behind those)") from None
        return None


def parse_networks(text: str) -> tuple[Network, ...]:
    """`127.0.0.1 10.0.0.0/8`; raises `ValueError` with a sentence."""
    found = []
    for word in text.replace(",", " ").split():
        network = parse_network(word)
        if network is None:
            raise ValueError(f"'{word}' is no address or network")
        found.append(network)
    if len(found) > TARGETS_LIMIT:
        raise ValueError(f"more than {TARGETS_LIMIT} networks")
    return tuple(found)


def is_domain(text: str) -> bool:
    """Whether it can be a domain with names below it, in lower case."""
    return len(text) <= HOST_LENGTH and not text.startswith("*") and _HOST.match(text) is not None


def _parse_host(host: str, word: str) -> str:
    name = host.lower().removesuffix(".")
    if not _HOST.match(name) or len(name) > HOST_LENGTH or name.rpartition(".")[2].isdigit():
        raise ValueError(f"'{word}' is no host, *.domain or network")
    return name


def read_host(text: str) -> str | Address:
    """What a client asks to be connected with: an address, or a name in lower case; raises `ValueError`.

    Other ways to write an address (`0x7f.1`, `127.1`) are none, and zones have no meaning here.
    """
    network = None if "/" in text else parse_network(text)
    if network is not None:
        if "%" in text:
            raise ValueError(f"'{text}' names a zone")
        return network.network_address
    name = _parse_host(text, text)
    if name.startswith("*"):
        raise ValueError(f"'{text}' is no host")
    return name


def parse_openings(text: str) -> tuple[Opening, ...]:
    """`10.1.0.0/16 alice bob; 192.168.1.5:5432 carol`; raises `ValueError` with a sentence."""
    openings = []
    for entry in filter(None, (part.split() for part in text.split(";"))):
        host, port = split_port(entry[0])
        network, namespaces = parse_network(host), entry[1:]
        if network is None:
            raise ValueError(f"'{entry[0]}' is no address or network")
        if network.is_loopback or network.is_multicast or network.is_unspecified:
            raise ValueError(f"'{entry[0]}' is reached by a relay alone")
        if not namespaces or not all(map(is_name, namespaces)):
            raise ValueError(f"'{entry[0]}' names no namespaces that may use it")
        openings.append(Opening(network, port, frozenset(namespaces)))
    if len(openings) > TARGETS_LIMIT:
        raise ValueError(f"more than {TARGETS_LIMIT} entries")
    return tuple(openings)


def parse_annotation(annotations: Parameters) -> Policy:
    """What an action's annotations ask for, the internet if nothing. Raises `BadRequest` for what cannot be meant."""
    if NETWORK not in annotations:
        return INTERNET
    text = text_of(annotations, NETWORK)
    try:
        if text is None:
            raise ValueError("it is a text")
        return parse_policy(text)
    except ValueError as error:
        raise BadRequest(wording.bad_network(NETWORK, str(error))) from None


def check_annotation(annotations: Parameters, allowed: Policy) -> None:
    """Raises `BadRequest` for what cannot be meant, or asks for more than the namespace may reach."""
    if NETWORK in annotations:
        own = parse_annotation(annotations)
        if not is_within(own, allowed):
            raise BadRequest(wording.network_too_wide(NETWORK, str(own), str(allowed)))


def own_policy(annotations: Parameters) -> Policy:
    """Of an action that was stored: what cannot be meant permits nothing."""
    try:
        return parse_annotation(annotations)
    except BadRequest:
        return NONE


# ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────────


def _contains(wide: str | Network, host: str | Address) -> bool:
    if isinstance(host, str):
        if not isinstance(wide, str):
            return False
        return host == wide or (wide.startswith("*.") and host.endswith(wide[1:]) and len(host) >= len(wide))
    return not isinstance(wide, str) and host.version == wide.version and host in wide


def is_within(own: Policy, allowed: Policy) -> bool:
    """Whether all that one policy permits the other permits too."""
    if allowed.targets is None:
        return True
    return own.targets is not None and all(
        any(_is_covered(one, other) for other in allowed.targets) for one in own.targets
    )


def _is_covered(one: Target, other: Target) -> bool:
    if other.port not in (None, one.port):
        return False
    if isinstance(one.host, str):
        return one.host == other.host or _contains(other.host, one.host.removeprefix("*"))
    return isinstance(other.host, type(one.host)) and one.host.subnet_of(other.host)  # type: ignore[arg-type]


def networks_of(policies: Iterable[Policy]) -> tuple[Place, ...] | None:
    """Where packets may go that all the policies permit, names left out; None: everywhere."""
    common: tuple[Place, ...] | None = None
    for policy in policies:
        if policy.targets is not None:
            places = tuple((target.host, target.port) for target in policy.targets if not isinstance(target.host, str))
            common = places if common is None else shared(common, places)
    return common


def shared(some: Iterable[Place], others: Sequence[Place]) -> tuple[Place, ...]:
    """Where both lead: of two networks one lies within the other, or nothing in both."""
    return tuple(
        (one if one.prefixlen >= other.prefixlen else other, port or other_port)
        for one, port in some
        for other, other_port in others
        if isinstance(other, type(one)) and one.overlaps(other)
        if port is None or other_port is None or port == other_port
    )


def names_of(policies: Iterable[Policy], name: str) -> bool:
    """Whether all the policies permit to ask what a name means."""
    return all(
        policy.targets is None or any(_contains(target.host, name) for target in policy.targets) for policy in policies
    )


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def meant(address: Address) -> Address:
    """The address that a packet goes to in the end: what is written within another form of it counts."""
    if isinstance(address, ipaddress.IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        if within is None and address in _NAT64:
            within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return within or address
    return address


def is_closed(address: Address, surroundings: Iterable[Network] = ()) -> bool:
    """Whether nobody's actions reach it: not in the internet, or the host's own or a neighbour's.

    `surroundings` are the networks that the host is in.
    """
    address = meant(address)
    return any(address.version == network.version and address in network for network in (*CLOSED, *surroundings))


def is_opened(address: Address, port: int, namespace: str, openings: Sequence[Opening]) -> bool:
    """Whether an operator lets the namespace use it though it is closed."""
    address = meant(address)
    return any(
        namespace in opening.namespaces
        and opening.port in (None, port)
        and address.version == opening.network.version
        and address in opening.network
        for opening in openings
    )


def proxy_environment() -> dict[str, str]:
    """By what clients in a container find the proxy."""
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    out = dict.fromkeys((*names, "ALL_PROXY", "all_proxy"), proxy)
    out |= dict.fromkeys(("NO_PROXY", "no_proxy"), f"{DOOR_NAME},localhost,127.0.0.1")
    return out | {"NODE_USE_ENV_PROXY": "1"}
