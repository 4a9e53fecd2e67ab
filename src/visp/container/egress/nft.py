"""What the kernel lets through between containers and the rest, as one table of nftables. Text, and its program."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec

from visp.container import spawn
from visp.entity.network import CLOSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Address, IPv4Network

    from visp.entity.network import Network, Place

NFT_S = 10.0
FLOWS = 1024
"""Connections of one container at once."""
PREFIX = "visp_"
FORWARDING = "vispforward"
"""A table that is there while forwarding is on because of a server of ours."""
REFUSE = "counter name refused reject with icmpx type admin-prohibited"


class Unavailable(Exception):
    """Packets cannot be filtered here; the text says why."""


def table_of(number: int) -> str:
    return f"{PREFIX}{number}"


def device_of(number: int, place: int) -> str:
    """The host's end of a container's pair: at most 15 characters."""
    return f"vsp{number}-{place}"


def rules(number: int, range: IPv4Network, gateway: IPv4Address, surroundings: Iterable[Network]) -> str:
    """The whole table of a server.

    Every packet that a container sends is looked at, not only a connection's first: an address serves one container
    after the other. What comes back belongs to a connection, or goes nowhere. Names are asked for at the gateway.
    """
    name, devices = table_of(number), f'"vsp{number}-*"'
    return f"""
add table inet {name}
delete table inet {name}
table inet {name} {{
  set near {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {near(surroundings)} }}; }}
  set flows {{ type ipv4_addr; flags dynamic; size 65535; }}
  map own {{ type ipv4_addr : verdict; }}
  counter allowed {{ }}
  counter refused {{ }}
  counter out {{ }}
  counter in {{ }}
  chain from {{
    type filter hook prerouting priority -150; policy accept;
    iifname {devices} fib saddr . iif oif missing drop
  }}
  chain enter {{ type filter hook input priority -10; policy accept; iifname {devices} goto host; }}
  chain host {{
    ct state established,related accept
    ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
    {REFUSE}
  }}
  chain through {{
    type filter hook forward priority -10; policy accept;
    iifname {devices} goto leave
    oifname {devices} ct state established,related counter name in accept
    oifname {devices} drop
  }}
  chain leave {{
    meta nfproto != ipv4 {REFUSE}
    oifname "vsp*" {REFUSE}
    ip saddr vmap @own
    goto internet
  }}
  chain internet {{
    ip daddr @near {REFUSE}
    goto permitted
  }}
  chain permitted {{
    ct state new add @flows {{ ip saddr ct count over {FLOWS} }} {REFUSE}
    ct state new counter name allowed
    counter name out accept
  }}
  chain masked {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {range} oifname != {devices} masquerade
  }}
}}
"""


def near(surroundings: Iterable[Network]) -> str:
    """What is closed to everybody."""
    return ", ".join(str(network) for network in (*CLOSED, *surroundings) if network.version == 4)


def renewed(number: int, surroundings: Iterable[Network]) -> str:
    """The same, of a host whose networks are others by now."""
    name = table_of(number)
    return f"flush set inet {name} near\nadd element inet {name} near {{ {near(surroundings)} }}\n"


def own_rules(
    number: int,
    place: int,
    address: IPv4Address,
    opened: Sequence[Place],
    targets: Sequence[Place] | None,
) -> str:
    """For one container: what an operator opened to it, and what its lists name; None: the internet."""
    name = table_of(number)
    own = [_accepted(network, port) for network, port in opened if network.version == 4]
    if targets is None:
        own.append("goto internet")
    else:
        own.append(f"ip daddr @near {REFUSE}")
        own += (_accepted(network, port) for network, port in targets if network.version == 4)
        own.append(REFUSE)
    lines = [f"add chain inet {name} c{place}"]
    lines += (f"add rule inet {name} c{place} {rule}" for rule in own)
    lines.append(f"add element inet {name} own {{ {address} : goto c{place} }}")
    return "\n".join(lines) + "\n"


def _accepted(network: Network, port: int | None) -> str:
    at = "" if port is None else f" meta l4proto {{ tcp, udp }} th dport {port}"
    return f"ip daddr {network}{at} goto permitted"


def without_own(number: int, place: int, address: IPv4Address) -> str:
    """Whether or not something was said of it."""
    name = table_of(number)
    return (
        f"add chain inet {name} c{place}\nadd element inet {name} own {{ {address} : goto c{place} }}\n"
        f"delete element inet {name} own {{ {address} }}\ndelete chain inet {name} c{place}\n"
    )


# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────


def find() -> str:
    """Where it is; raises `Unavailable`."""
    path = shutil.which("nft", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
    if path is None:
        raise Unavailable("nft is not installed: apt-get install nftables")
    return path


async def run(script: str) -> None:
    """All of the script or nothing; raises `Unavailable` with what the program says."""
    await _call("-f", "-", given=script)


async def counters(number: int) -> dict[str, tuple[int, int]]:
    """Packets and bytes by name."""
    listed = await _listed("list", "counters", "table", "inet", table_of(number))
    found = (entry["counter"] for entry in listed if "counter" in entry)
    return {counter["name"]: (counter["packets"], counter["bytes"]) for counter in found}


async def tables() -> set[int]:
    """Numbers of servers of which there is a table."""
    names = [entry["table"]["name"] for entry in await _listed("list", "tables") if "table" in entry]
    return {int(name[len(PREFIX) :]) for name in names if name.startswith(PREFIX) and name[len(PREFIX) :].isdigit()}


async def obstacle() -> str | None:
    """A chain of somebody else's that drops what it does not know: nothing would come through, whatever we accept."""
    for entry in await _listed("list", "chains"):
        chain = entry.get("chain", {})
        is_ours = chain.get("table", "").startswith(PREFIX)
        if chain.get("hook") in ("forward", "input") and chain.get("policy") == "drop" and not is_ours:
            return f"{chain['family']} {chain['table']} {chain['name']}"
    return None


async def _listed(*words: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = msgspec.json.decode(await _call("-j", *words))["nftables"]
    return listed


async def _call(*words: str, given: str = "") -> bytes:
    pipe, script = asyncio.subprocess.PIPE, spawn.memory_file(given.encode())
    try:
        process = await asyncio.create_subprocess_exec(find(), *words, stdin=script, stdout=pipe, stderr=pipe, env={})
    finally:
        os.close(script)
    try:
        async with asyncio.timeout(NFT_S):
            out, errors = await process.communicate()
    except (TimeoutError, asyncio.CancelledError) as error:
        process.kill()
        await process.wait()  # nothing is changed any more
        if isinstance(error, TimeoutError):
            raise Unavailable(f"nft does not answer within {NFT_S:g} s") from None
        raise
    if process.returncode:
        raise Unavailable(errors.decode("utf-8", "replace").strip().partition("\n")[0])
    return out
