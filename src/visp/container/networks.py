"""The networks of cells. One in which nothing was ever sent is as good as new, and serves another cell.

For the kernel a network with its devices is the dearest part of a cell, to make as well as to take down.
"""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

COUNTS_BYTES = 4096
HEAD_LINES = 2
PACKETS = (1, 9)
"""Columns of `/proc/net/dev` after the device's name: those that came, those that went."""


class Maker(Protocol):
    """A process that makes cells."""

    @property
    def lives(self) -> bool: ...


class CellNetwork:
    """A network, by descriptors: what enters it, what counts in it (`/proc/net/dev`), and the doors that lead out.

    Only `maker` may enter it; None: whoever makes cells, for all of them are root's.
    """

    def __init__(self, handle: int, counts: int, doors: Sequence[socket.socket], maker: Maker | None) -> None:
        self.handle = handle
        self.maker = maker
        self.doors = doors
        self.serves_once = False
        """Then it has no device, and serves no other."""
        self._counts = counts

    @property
    def is_unused(self) -> bool:
        """Whether no packet was ever sent or received, not even between processes inside."""
        lines = os.pread(self._counts, COUNTS_BYTES, 0).splitlines()[HEAD_LINES:]
        rows = [line.split(b":")[1].split() for line in lines]
        return all(int(row[column]) == 0 for row in rows for column in PACKETS)

    def close(self) -> None:
        for descriptor in (self.handle, self._counts):
            os.close(descriptor)
        for door in self.doors:
            door.close()


class Outfit(Protocol):
    """What gives networks a device."""

    async def equip(self, doors: Sequence[socket.socket]) -> None:
        """Does not raise: whoever the cell is for asks once more."""

    def is_equipped(self, doors: Sequence[socket.socket]) -> bool:
        """Whether the network stands as `equip` left it, and nothing is said of it alone."""

    async def strip(self, doors: Sequence[socket.socket]) -> None:
        """Takes away again what `equip` gave. Raises `StartFailed`."""

    def part(self, doors: Sequence[socket.socket]) -> None:
        """The network is given up."""


class Networks:
    """Those of one driver's cells; at most so many stand without one."""

    def __init__(self, most: int) -> None:
        self.outfit: Outfit | None = None
        self._most = most
        self._spare: collections.deque[CellNetwork] = collections.deque()

    def take(self, maker: Maker) -> CellNetwork | None:
        """One that stands and `maker` may enter, which is the taker's until it gives it back."""
        for network in tuple(self._spare):
            if network.maker is None or network.maker is maker:
                self._spare.remove(network)
                return network
            if not network.maker.lives:
                self._spare.remove(network)
                self.drop(network)
        return None

    async def equip(self, network: CellNetwork) -> None:
        """Does not raise."""
        if not (network.serves_once or self.outfit is None or self.outfit.is_equipped(network.doors)):
            await self.outfit.equip(network.doors)

    async def strip(self, network: CellNetwork) -> None:
        """Raises `StartFailed`."""
        if self.outfit is not None:
            await self.outfit.strip(network.doors)

    def give(self, network: CellNetwork) -> None:
        """Its cell and all that ran there has ended; it is kept for another, or closed."""
        is_whole = self.outfit is None or self.outfit.is_equipped(network.doors)
        if len(self._spare) < self._most and not network.serves_once and is_whole and network.is_unused:
            self._spare.append(network)
        else:
            self.drop(network)

    def drop(self, network: CellNetwork) -> None:
        if self.outfit is not None:
            self.outfit.part(network.doors)
        network.close()

    def close(self) -> None:
        self._most = 0
        while self._spare:
            self.drop(self._spare.popleft())
