"""Which invoker runs an activation. Pure."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from visp.scheduler.fleet import InvokerView

GROUP = 16
"""Up to so many invokers are compared with one another; a larger fleet is halved until no more are left."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What counts of one invoker: whether a container of the action is at rest there, and its free memory."""

    id: int
    is_warm: bool
    free_mb: int


def place(fleet: Sequence[InvokerView], here: int, namespace: str, action: str, memory_mb: int) -> int | None:
    """The id of the invoker that should run it, None when none is up. `here` is the invoker of this process.

    The fleet is sorted by id.
    """
    if len(fleet) == 1:
        return fleet[0].id if fleet[0].is_up else None
    for invoker in fleet:
        if invoker.id == here and invoker.is_up and action in invoker.warm:
            return here  # the first case of `choose`, without a look at the others
    up = {invoker.id: invoker for invoker in fleet if invoker.is_up}
    if len(up) < 2:
        return next(iter(up), None)
    home = home_of(list(up), namespace, action)
    return choose(
        memory_mb,
        _seen(up[here], action) if here in up else None,
        _seen(up[home], action),
        lambda: _seen(max(up.values(), key=_free_mb), action),
        lambda: min(up.values(), key=lambda invoker: (invoker.waiting, invoker.id != here, invoker.id != home)).id,
    )


def choose(
    memory_mb: int, here: Seen | None, home: Seen, roomiest: Callable[[], Seen], least_waiting: Callable[[], int]
) -> int:
    """The id of the invoker that should run it.

    One is here, in the process that asks (None: no such); one is the action's home. What takes a look at all of them
    is asked for only when it matters: the one with most free memory, and the one where fewest wait, here and home
    before others of which as many do. Numbered cases:
      1. It is warm here.
      2. It is warm at its home, which rendezvous hashing gives every action: all who place it agree on it.
      3. There is room here.
      4. There is room at home.
      5. There is room elsewhere: where there is most.
      6. No room: where fewest wait, here before elsewhere.
    """
    if here is not None and here.is_warm:
        return here.id
    if home.is_warm:
        return home.id
    if here is not None and here.free_mb >= memory_mb:
        return here.id
    if home.free_mb >= memory_mb:
        return home.id
    most = roomiest()
    return most.id if most.free_mb >= memory_mb else least_waiting()


def home_of(ids: Sequence[int], namespace: str, action: str) -> int:
    """The invoker of these (sorted, at least one) where an action is at home: by rendezvous hash.

    The same for everyone who asks. When an invoker comes or goes, of n others about log2(n)/n of the actions move;
    with up to `GROUP` invokers none moves but those of the one that went. Takes time with the logarithm of n: a larger
    fleet is halved by id, an action following its hash to either half by the number of invokers there.
    """
    name = f"{namespace}/{action}".encode()
    seed = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
    low, high = 0, len(ids)
    bit, first = ids[-1].bit_length(), 0
    while high - low > GROUP:
        bit -= 1
        border = first + (1 << bit)
        middle = bisect_left(ids, border, low, high)
        # The border and its bit name the fork; odd, to be no invoker's number below.
        if _mix(seed ^ _mix((border << 7 | bit) << 1 | 1)) * (high - low) >> 64 < middle - low:
            high = middle
        else:
            low, first = middle, border
    return max(ids[low:high], key=lambda id: _mix(seed ^ _mix(id << 1)))


def _mix(value: int) -> int:
    """Spreads 64 bits: each bit of the result depends on each of the value (the finaliser of SplitMix64)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def _seen(invoker: InvokerView, action: str) -> Seen:
    return Seen(invoker.id, action in invoker.warm, _free_mb(invoker))


def _free_mb(invoker: InvokerView) -> int:
    return invoker.memory_mb - invoker.used_mb
