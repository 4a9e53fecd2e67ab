"""Named instants at which a server of the tests ends itself by SIGKILL: before, after or in the middle of a call.

A driver of `tests.crash.drivers` reads them from its environment and patches the function; production code knows
nothing of it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Literal

import msgspec

VARIABLE = "CRASH"

When = Literal["before", "after", "torn"]
Where = Literal["anywhere", "start", "shards"]


class Point(msgspec.Struct, frozen=True):
    """`target` is `module:name` of the function, `most` the latest of its calls that a kill may wait for.

    `where`: it is passed while the server comes up, so that it is never ready; or only where there are shards. `only`
    says which calls count.
    """

    target: str
    when: When
    most: int
    where: Where = "anywhere"
    only: Callable[..., bool] | None = None


class Order(msgspec.Struct, frozen=True):
    """What one server is to do: end at the `nth` call of a point, or `after_s` from its driver's first breath.

    `reached` is a file with the pid of the process that came to that: of several shards only the first one, and once.
    """

    reached: str
    point: str = ""
    nth: int = 1
    after_s: float | None = None


def _is_accepted(_bus: object, _topic: str, message: object) -> bool:
    return getattr(message, "is_accepted", False) is True


SEGMENT = "visp.store.segments:Segment"
POINTS: dict[str, Point] = {
    "ledger write, before": Point(f"{SEGMENT}.write", "before", 40),
    "ledger write, torn": Point(f"{SEGMENT}.write", "torn", 40),
    "ledger write, after": Point(f"{SEGMENT}.write", "after", 40),
    "ledger sync, before": Point(f"{SEGMENT}.sync", "before", 20),
    "ledger sync, after": Point(f"{SEGMENT}.sync", "after", 20),
    "written, nobody told": Point("visp.store.ledger:tell", "before", 40),
    "synced, nobody told": Point("visp.store.chain:tell", "before", 20),
    "segment begun, before": Point("visp.store.segments:adopt", "before", 2),
    "segment begun, after": Point("visp.store.segments:adopt", "after", 2),
    "segment removed, before": Point(f"{SEGMENT}.remove", "before", 2),
    "segment removed, after": Point(f"{SEGMENT}.remove", "after", 2),
    "index put, before": Point("visp.store.index:SqliteActivations.put", "before", 3),
    "index put, after": Point("visp.store.index:SqliteActivations.put", "after", 3),
    "index checkpoint, before": Point("visp.store.database:_checkpoint", "before", 2),
    "index checkpoint, after": Point("visp.store.database:_checkpoint", "after", 2),
    "commit, before": Point("visp.store.database:_commit", "before", 8),
    "commit, after": Point("visp.store.database:_commit", "after", 8),
    "entity written, not committed": Point("visp.store.sqlite:write_change", "after", 3),
    "entity committed, not answered": Point("visp.store.sqlite:SqliteEntities.write", "after", 3),
    "blob named, not synced": Point("visp.store.filesystem:FileBlobs._sync_names", "before", 2),
    "accepted, not published": Point("visp.bus.memory:MemoryBus.publish", "before", 10, only=_is_accepted),
    "fallen back, not told": Point("visp.controller.primitive:Primitive.detach", "after", 2),
    "fired, not written": Point("visp.controller.fire:Fire.start", "after", 5),
    "run line, before": Point("visp.invoker.runs:Runs._send_run", "before", 30),
    "run line, after": Point("visp.invoker.runs:Runs._send_run", "after", 30),
    "reply, not finished": Point("visp.invoker.runs:Runs._answered", "before", 30),
    "finished, not written": Point("visp.invoker.records:Records.record", "after", 30),
    "key kept, not accepted": Point("visp.store.promises:SqlitePromises.put_promise", "after", 3),
    "due, not begun": Point("visp.controller.later:Later._begin", "before", 3),
    "sequence part, before": Point("visp.controller.composites:Composites._take", "before", 8),
    "sequence part, after": Point("visp.controller.composites:Composites._take", "after", 8),
    "sequence record, before": Point("visp.controller.composites:Composites._record", "before", 3),
    "sequence record, after": Point("visp.controller.composites:Composites._record", "after", 3),
    "entity written for a shard, not answered": Point(
        "visp.store.shared:WrittenEntities._write_for", "after", 2, where="shards"
    ),
    "entity heard of by a shard": Point("visp.store.shared:BorrowedEntities._hear", "before", 3, where="shards"),
    "outcome not sent home": Point("visp.bus.unix:UnixBus._send_home", "before", 10, where="shards"),
    "message from a shard": Point("visp.bus.unix:UnixBus._heard", "before", 10, where="shards"),
    "log read back": Point("visp.store.ledger:EmbeddedLedger._replay", "after", 1, where="start"),
    "recovery of one, before": Point("visp.controller.recovery:Recovery._resume", "before", 2, where="start"),
    "recovery of one, after": Point("visp.controller.recovery:Recovery._resume", "after", 2, where="start"),
}


def find(target: str) -> tuple[Any, str, Callable[..., Any]]:
    """The owner of a function, its name there, and the function; raises `ImportError`, `AttributeError`, `KeyError`."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, vars(owner)[name]


def arm() -> None:
    """Does what the environment orders, if it orders anything."""
    text = os.environ.get(VARIABLE)
    if not text:
        return
    order = msgspec.json.decode(text, type=Order)
    if order.after_s is not None:
        timer = threading.Timer(order.after_s, _die, (order,))
        timer.daemon = True
        timer.start()
    if order.point:
        _patch(order)


def _die(order: Order) -> None:
    """The end of this process, unless it is another's turn."""
    try:
        file = os.open(order.reached, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    os.write(file, str(os.getpid()).encode())
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal ends every thread: this one must do nothing more until then


def _patch(order: Order) -> None:
    point = POINTS[order.point]
    owner, name, function = find(point.target)
    calls = itertools.count(1)

    def is_due(arguments: tuple[Any, ...]) -> bool:
        return (point.only is None or point.only(*arguments)) and next(calls) == order.nth

    def come(when: When, is_now: bool, arguments: tuple[Any, ...]) -> None:
        if is_now and point.when == when:
            if when == "torn":
                segment, data = arguments
                os.pwrite(segment.descriptor, data[: max(1, len(data) // 2)], segment.used)
            _die(order)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*arguments: Any, **named: Any) -> Any:
            is_now = is_due(arguments)
            come("before", is_now, arguments)
            result = await function(*arguments, **named)
            come("after", is_now, arguments)
            return result

        setattr(owner, name, later)
    else:

        @functools.wraps(function)
        def now(*arguments: Any, **named: Any) -> Any:
            is_now = is_due(arguments)
            come("before", is_now, arguments)
            come("torn", is_now, arguments)
            result = function(*arguments, **named)
            come("after", is_now, arguments)
            return result

        setattr(owner, name, now)
