"""How many cells are kept ready, and who gets them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from visp.container import blanks
from visp.container.base import Exit
from visp.container.blanks import AT_ONCE, Blanks, after_lack, after_period
from visp.errors import StartFailed


@pytest.mark.parametrize(
    ("kept", "taken", "then"),
    [
        (4, 0, 4),
        (4, 4, 4),
        (4, 9, 9),  # demand raises it at once
        (4, 500, 32),  # up to the limit
        (32, 0, 25),  # and idleness lowers it little by little
        (6, 0, 5),
        (20, 18, 19),
    ],
)
def test_what_is_kept_follows_what_was_taken(kept: int, taken: int, then: int) -> None:
    assert after_period(kept, taken, least=4, most=32) == then


def test_idleness_leads_back_to_the_least() -> None:
    kept = 32
    for _ in range(40):
        kept = after_period(kept, 0, least=4, most=32)
    assert kept == 4


def test_lack_doubles_it_up_to_the_limit() -> None:
    assert [after_lack(kept, 32) for kept in (1, 4, 20, 32)] == [2, 8, 32, 32]


async def until(condition: Callable[[], object]) -> None:
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come")


class Made:
    """Stands for a blank cell."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process = self
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()


class Factory:
    """Makes cells when it is let."""

    def __init__(self, *, least: int, most: int = 32) -> None:
        self.made = 0
        self.under_way = 0
        self.dropped: list[int] = []
        self.failure: StartFailed | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.blanks = Blanks(cast(Any, self.make), cast(Any, self.drop), least=least, most=most)

    async def make(self) -> Made:
        self.under_way += 1
        await self.is_open.wait()
        self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        self.made += 1
        return Made(self.made)

    async def drop(self, blank: Made) -> None:
        self.dropped.append(blank.number)

    async def take(self) -> int:
        return cast(Made, cast(Any, await self.blanks.take())).number

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


async def test_cells_are_made_ahead_and_replaced() -> None:
    factory = Factory(least=2)
    factory.blanks.fill()
    await factory.settle()
    assert factory.made == 2
    assert [await factory.take(), await factory.take()] == [1, 2]
    await factory.settle()
    assert factory.made == 4, "few were left: at once"
    await factory.blanks.close()
    assert factory.dropped == [3, 4]


async def test_where_enough_are_left_a_start_has_the_cores_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blanks, "START_S", 0.001)
    factory = Factory(least=4)
    factory.blanks.fill()
    await factory.settle()
    assert await factory.take() == 1
    assert factory.made == 4
    await until(lambda: factory.made == 5)
    await factory.blanks.close()


async def test_where_none_is_ready_each_gets_one_of_its_own() -> None:
    factory = Factory(least=0)
    assert sorted(await asyncio.gather(*(factory.take() for _ in range(3)))) == [1, 2, 3]
    await factory.settle()
    assert factory.made == 3, "none is kept"
    await factory.blanks.close()


async def test_no_more_are_made_at_once_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blanks, "PERIOD_S", 3600.0)
    factory = Factory(least=0)
    factory.is_open.clear()
    takers = [asyncio.ensure_future(factory.take()) for _ in range(AT_ONCE + 5)]
    await factory.settle()
    assert factory.under_way == AT_ONCE
    factory.is_open.set()
    assert len(set(await asyncio.gather(*takers))) == AT_ONCE + 5
    await factory.blanks.close()


async def test_cell_that_ended_meanwhile_is_not_given() -> None:
    factory = Factory(least=1)
    factory.blanks.fill()
    await factory.settle()
    cast(Any, factory.blanks)._ready[0].exited.set_result(Exit(-9))
    assert await factory.take() == 2
    await factory.blanks.close()
    assert 1 in factory.dropped


async def test_failure_is_told_to_the_one_that_waits_and_does_not_go_on() -> None:
    factory = Factory(least=2)
    factory.failure = StartFailed("no")
    with pytest.raises(StartFailed, match="no"):
        await factory.take()
    await factory.settle()
    factory.failure = None
    assert await factory.take()
    await factory.blanks.close()


async def test_one_that_gives_up_as_its_cell_comes_loses_none() -> None:
    factory = Factory(least=0)
    taker = asyncio.ensure_future(factory.take())
    await until(lambda: factory.made)
    taker.cancel()
    await asyncio.gather(taker, return_exceptions=True)
    await factory.blanks.close()
    assert factory.dropped == [1]


async def test_cell_of_one_that_gave_up_is_kept_for_others() -> None:
    factory = Factory(least=1)
    factory.is_open.clear()
    taker = asyncio.ensure_future(factory.take())
    await factory.settle()
    taker.cancel()
    await asyncio.gather(taker, return_exceptions=True)
    factory.is_open.set()
    await factory.settle()
    made = factory.made
    assert await factory.take() <= made
    await factory.blanks.close()


async def test_surplus_is_dropped_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blanks, "PERIOD_S", 0.001)
    factory = Factory(least=1, most=8)
    await asyncio.gather(*(factory.take() for _ in range(8)))
    await until(lambda: "kept=1 ready=1 " in repr(factory.blanks))
    await factory.blanks.close()


async def test_closed_gives_none() -> None:
    factory = Factory(least=1)
    factory.is_open.clear()
    taker = asyncio.ensure_future(factory.take())
    await factory.settle()
    closing = asyncio.ensure_future(factory.blanks.close())
    with pytest.raises(StartFailed, match="closing"):
        await taker
    factory.is_open.set()
    await closing
    assert len(factory.dropped) == factory.made
    with pytest.raises(StartFailed, match="closing"):
        await factory.take()
