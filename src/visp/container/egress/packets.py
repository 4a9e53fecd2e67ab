"""Packets for containers of a server that is root: each has a device of its own, and the kernel checks what it sends.

What stands ready for anybody has its device already, where its driver asks for that; any other container is given one
when it is known for whom it will run. What is said of a device alone is said then, before that one's code comes. Where
packets cannot be had, the reason is kept and the proxy is the only way.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import os
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from visp.container import spawn
from visp.container.egress import nft, surroundings, veth
from visp.container.egress.names import Names
from visp.container.egress.nft import Unavailable
from visp.entity.network import (
    POOL,
    Policy,
    is_closed,
    meant,
    names_of,
    networks_of,
    proxy_environment,
    shared,
)
from visp.errors import StartFailed
from visp.telemetry import log
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from ipaddress import IPv4Address

    from visp.container.spawn import Process
    from visp.entity.network import Address, Network, Opening, Place
    from visp.settings import Network as Limits

IN_FORCE = "visp_egress_packets"
LINKS = "visp_egress_links"
FLOWS = "visp_egress_flows_total"
BYTES = "visp_egress_packet_bytes_total"

BITS = 21
RANGES = 1 << (BITS - POOL.prefixlen)
GATEWAY, FIRST = 1, 2
TRIES = 32
REFRESH_S = 5.0
LOOKS, LOOK_S = 150, 0.2
JANITOR_S = 5.0
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")

_JANITOR = """
read -r nothing
nft delete table inet "$1"
if nft list table inet "$2" && ! nft list tables | grep -q "^table inet ${3}[0-9]"; then
  nft delete table inet "$2" && echo 0 > /proc/sys/net/ipv4/ip_forward
fi
"""
"""Fixed text; the tables' names come as words. Waits for the server's end, however it comes."""


class Link(NamedTuple):
    """One container's way: its place in the range, for whom, and what the table says of it alone."""

    place: int
    namespace: str
    policies: tuple[Policy, ...]
    opened: tuple[Place, ...]
    targets: tuple[Place, ...] | None
    is_lent: bool
    """The device was there before, and stays."""

    @property
    def has_rules(self) -> bool:
        return self.targets is not None or bool(self.opened)


class Packets:
    """Of one server, or of one of its shards. `reason`: why there are none, None while there are."""

    def __init__(
        self, limits: Limits, openings: Sequence[Opening], policy_of: Callable[[str], Awaitable[Policy]]
    ) -> None:
        self._limits = limits
        self._openings = openings
        self._policy_of = policy_of
        self.reason: str | None = "not begun"
        self._claim: socket.socket | None = None
        self._number = 0
        self._range = IPv4Network((POOL.network_address, BITS))
        self._free: collections.deque[int] = collections.deque()
        self._links: dict[str, Link] = {}
        self._places: dict[socket.socket, int] = {}
        """Of networks that were equipped ahead, by their first door."""
        self._thread = ThreadPoolExecutor(1, "egress-links")
        """It enters other networks: no other thread does."""
        self._names = Names(self._may_ask, self._may_tell)
        self._near: tuple[Network, ...] = ()
        self._counters: dict[str, tuple[int, int]] = {}
        self._janitor: tuple[Process, int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Packets {self._range} links={len(self._links)} {self.reason or 'in force'}>"

    @property
    def gateway(self) -> IPv4Address:
        """The host's end of every container's device; names are asked for there."""
        return self._range.network_address + GATEWAY

    def claim(self) -> bool:
        """Takes a range that no other server has; whether packets are to be had at all, as far as that is known."""
        if self._limits.packets == "off":
            self.reason = "switched off by [network] packets"
        elif os.geteuid() != 0:
            self.reason = "this server is not root"
        else:
            for _ in range(TRIES):
                number = secrets.randbelow(RANGES)
                self._claim = claimed(number)
                if self._claim is not None:
                    self._number = number
                    self._range = IPv4Network((int(POOL.network_address) + (number << (32 - BITS)), BITS))
                    self._free.extend(range(FIRST, self._range.num_addresses - 1))
                    return True
            self.reason = "no range of addresses is free: too many servers run on this machine"
        return False

    @property
    def nameserver(self) -> str | None:
        """Whom containers ask what names mean; None where there are no packets."""
        return None if self._claim is None else str(self.gateway)

    async def start(self) -> None:
        """From now on containers have packets, or `reason` says why not."""
        if self._claim is None:
            return
        try:
            await self._set_up()
        except (OSError, StartFailed, Unavailable, msgspec.DecodeError) as error:
            self.reason = str(error)
            log.warning("egress.no_packets", reason=self.reason)
            return
        self.reason = None
        self._run(self._refresh())
        log.info("egress.packets", range=str(self._range))

    async def _set_up(self) -> None:
        obstacle = await nft.obstacle()
        if obstacle is not None and self._limits.packets != "on":
            raise Unavailable(f"another firewall drops what it does not know (chain {obstacle})")
        await _sweep()
        self._near = await asyncio.to_thread(surroundings.networks)
        self._hire()
        await nft.run(nft.rules(self._number, self._range, self.gateway, self._near))
        if (await asyncio.to_thread(FORWARDING.read_text)).strip() == "0":
            await nft.run(f"add table inet {nft.FORWARDING}\n")  # says that it was not on before
            await asyncio.to_thread(FORWARDING.write_text, "1")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._try)
        await self._names.listen(str(self.gateway))

    def _try(self) -> None:
        """A device in a network of nobody's, which goes with it."""
        self._enter(empty_network(), 0)

    def _hire(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            words = (nft.table_of(self._number), nft.FORWARDING, nft.PREFIX)
            argv = ["/bin/sh", "-c", _JANITOR, "visp-janitor", *words]
            environment = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"}
            self._janitor = spawn.start(argv, environment, {0: reader, 1: null, 2: null}), writer
        finally:
            os.close(reader)
            os.close(null)

    async def close(self) -> None:
        """Nothing of this is left; containers have ended."""
        self._names.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False)
        if self._janitor is not None:
            process, pipe = self._janitor
            os.close(pipe)
            await asyncio.wait([process.exited], timeout=JANITOR_S)
        if self._claim is not None:
            self._claim.close()

    # ── containers ──────────────────────────────────────────────────────────────────────────────────────────────

    def environment(self) -> dict[str, str]:
        """What a container needs to find its way out."""
        return {} if self.reason is None else proxy_environment()

    async def equip(self, doors: Sequence[socket.socket]) -> None:
        """Gives what stands ready for anybody its device, which then is not to be waited for by whoever it serves.

        A device is a convenience until then: where it cannot be had now, `lead_out` asks for it once more.
        """
        if self.reason is not None or not doors:
            return
        try:
            self._places[doors[0]] = await self._join(doors[0])
        except StartFailed as error:
            log.warning("egress.not_equipped", reason=str(error))

    def is_equipped(self, doors: Sequence[socket.socket]) -> bool:
        """Whether a network is as `equip` left it, or would."""
        return self.reason is not None or not doors or doors[0] in self._places

    def part(self, doors: Sequence[socket.socket]) -> None:
        """A network that was equipped goes, and its device with it."""
        place = self._places.pop(doors[0], None) if doors else None
        if place is not None:
            self._free.append(place)

    async def lead_out(
        self, doors: Sequence[socket.socket], until: asyncio.Future[Any], namespace: str, own: Policy
    ) -> dict[str, str]:
        """Gives a container that has doors its device, until it has ended; what is to be added to its environment.

        `own` is its action's policy. Raises `StartFailed`.
        """
        if self.reason is not None or not doors:
            return {}
        policies = own, await self._policy_of(namespace)
        targets = networks_of(policies)
        if targets == ():
            await self.strip(doors)
            return proxy_environment()
        opened = self._opened(namespace, targets)
        has_rules = targets is not None or bool(opened)
        # what is said of a device alone is said until it is gone: such a network serves no other
        place = self._places.pop(doors[0], None) if has_rules else self._places.get(doors[0])
        is_lent = place is not None and not has_rules
        if place is None:
            place = await self._join(doors[0])
        await self._permit(Link(place, namespace, policies, opened, targets, is_lent), until)
        is_narrow = any(policy.targets is not None for policy in policies)
        return proxy_environment() if is_narrow else {}  # the proxy alone knows names in lists, and says what is closed

    def _opened(self, namespace: str, targets: tuple[Place, ...] | None) -> tuple[Place, ...]:
        """What an operator has opened to this namespace, as far as the lists have it too."""
        opened = tuple((opening.network, opening.port) for opening in self._openings if namespace in opening.namespaces)
        return opened if targets is None else shared(opened, targets)

    async def _permit(self, link: Link, until: asyncio.Future[Any]) -> None:
        """From now on a device is this container's, and what is said of it alone holds."""
        address = self._range[link.place]
        self._links[str(address)] = link
        until.add_done_callback(lambda _: self._leave(link))
        if link.has_rules:
            try:
                await nft.run(nft.own_rules(self._number, link.place, address, link.opened, link.targets))
            except (OSError, Unavailable) as error:
                raise StartFailed(f"the container could not be given a network: {error}") from None

    async def _join(self, door: socket.socket) -> int:
        """The place of a device that the network of this door has now. Raises `StartFailed`."""
        for _ in range(TRIES):
            if not self._free:
                break
            place = self._free.popleft()
            try:
                await self._in_thread(partial(self._enter, veth.network_of(door), place))
            except FileExistsError:  # of a container that is gone, whose network is not yet
                self._free.append(place)
            except (OSError, ValueError) as error:
                self._free.append(place)
                raise StartFailed(f"the container could not be given a network: {error}") from None
            except BaseException:
                self._free.append(place)
                raise
            else:
                return place
        raise StartFailed("no address is free for a container")

    async def strip(self, doors: Sequence[socket.socket]) -> None:
        """Takes its device away from what is to have none. Raises `StartFailed`."""
        place = self._places.pop(doors[0], None) if doors else None
        if place is None:
            return
        try:
            await self._in_thread(partial(veth.remove, nft.device_of(self._number, place)))
        except OSError as error:
            raise StartFailed(f"the container could not be kept from the network: {error}") from None
        self._free.append(place)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _enter(self, network: int, place: int) -> None:
        """In the thread, to whom the descriptor belongs from now on."""
        try:
            veth.join(network, nft.device_of(self._number, place), self._range[place], self.gateway)
        finally:
            os.close(network)

    def _leave(self, link: Link) -> None:
        """The container has ended. What is said of it alone holds until its device is gone."""
        if link.has_rules:
            self._run(self._forget(link))
        else:
            self._give_back(link)

    def _give_back(self, link: Link) -> None:
        self._links.pop(str(self._range[link.place]), None)
        if not link.is_lent:
            self._free.append(link.place)

    async def _forget(self, link: Link) -> None:
        device = nft.device_of(self._number, link.place)
        for _ in range(LOOKS):
            if not _is_there(device):
                break
            await asyncio.sleep(LOOK_S)
        else:  # its address is not given away again
            log.error("egress.device_not_gone", device=device)
            return
        try:
            await nft.run(nft.without_own(self._number, link.place, self._range[link.place]))
        except (OSError, Unavailable) as error:  # what was said of it would be said of the next
            log.error("egress.rules_not_removed", device=device, reason=str(error))
        else:
            self._give_back(link)

    # ── names ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _may_ask(self, host: str, name: str) -> bool:
        link = self._links.get(host)
        return link is not None and names_of(link.policies, name)

    def _may_tell(self, host: str, address: Address) -> bool:
        link = self._links.get(host)
        if link is None:
            return False
        is_opened = any(
            link.namespace in opening.namespaces
            and meant(address).version == opening.network.version
            and meant(address) in opening.network
            for opening in self._openings
        )
        return is_opened or not is_closed(address, self._near)

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────────────────

    async def _refresh(self) -> None:
        while True:
            counts = bool(self._links)
            await asyncio.sleep(REFRESH_S)
            try:
                if counts or self._links:  # else nobody sends anything
                    self._counters = await nft.counters(self._number)
                near = await asyncio.to_thread(surroundings.networks)
                if set(near) != set(self._near):
                    await nft.run(nft.renewed(self._number, near))
                    self._near = near
            except (OSError, Unavailable, msgspec.DecodeError) as error:
                log.error("egress.not_refreshed", reason=str(error))

    def _run(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def measured(self) -> list[Family]:
        """What was counted, for a scrape; what the kernel counts is a few seconds old."""
        zero = (0, 0)
        return [
            Family(
                IN_FORCE,
                "Whether containers send packets of their own (else the proxy is their only way).",
                "gauge",
                {(): int(self.reason is None)},
            ),
            Family(LINKS, "Containers of namespaces that have a network device.", "gauge", {(): len(self._links)}),
            Family(
                FLOWS,
                "Connections of containers' own packets that were allowed, and packets that were refused.",
                "counter",
                {(name,): self._counters.get(name, zero)[0] for name in ("allowed", "refused")},
                ("result",),
            ),
            Family(
                BYTES,
                "Bytes of containers' own packets, out of them and in.",
                "counter",
                {(name,): self._counters.get(name, zero)[1] for name in ("out", "in")},
                ("direction",),
            ),
        ]


def claimed(number: int) -> socket.socket | None:
    """What says that a range is taken, for as long as it is open; None where another server has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0visp-network-{number}")
    except OSError:
        claim.close()
        return None
    return claim


async def _sweep() -> None:
    """Removes tables of servers that are gone, and whose janitors are gone too."""
    for number in await nft.tables():
        claim = claimed(number)
        if claim is not None:
            with claim:
                await nft.run(f"delete table inet {nft.table_of(number)}\n")


def empty_network() -> int:
    """A descriptor of a new network. The thread that asks is back in its own when this returns. Raises `OSError`."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if veth.libc.unshare(veth.NEW_NETWORK) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            veth.enter(own)
    finally:
        os.close(own)


def _is_there(device: str) -> bool:
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True
