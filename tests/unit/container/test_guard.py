"""What makes any container safe to use, over one that does its worst."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from visp.container.base import ContainerSpec, Exit
from visp.container.fake import FakeDriver
from visp.container.guard import Guarded
from visp.errors import ContainerGone


class Worst:
    """A container whose calls do what the test says."""

    id = "c1"
    code_at = "/action"
    doors = ()

    def __init__(self, act: Callable[[], Awaitable[bool]]) -> None:
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.wire = None
        self.calls: list[str] = []
        self._act = act

    async def add_code(self, folder: str) -> bool:
        self.calls.append(f"add_code {folder}")
        return await self._act()

    async def pause(self) -> None:
        self.calls.append("pause")
        await self._act()

    async def resume(self) -> None:
        self.calls.append("resume")
        await self._act()

    async def destroy(self) -> None:
        self.calls.append("destroy")
        await self._act()


def guarded(act: Callable[[], Awaitable[bool]], call_s: float = 5.0) -> tuple[Guarded, Worst]:
    worst = Worst(act)
    return Guarded(worst, call_s), worst  # type: ignore[arg-type]


async def fine() -> bool:
    return True


async def for_ever() -> bool:
    await asyncio.Event().wait()
    return True


def raising(error: Exception) -> Callable[[], Awaitable[bool]]:
    async def act() -> bool:
        raise error

    return act


CALLS: list[Callable[[Guarded], Awaitable[object]]] = [
    lambda guard: guard.add_code("/tree"),
    lambda guard: guard.pause(),
    lambda guard: guard.resume(),
]
NAMES = ["add_code", "pause", "resume"]


async def test_what_works_passes_through() -> None:
    guard, worst = guarded(fine)
    assert await guard.add_code("/tree") is True
    await guard.pause()
    await guard.resume()
    await guard.destroy()
    assert worst.calls == ["add_code /tree", "pause", "resume", "destroy"]
    assert (guard.id, guard.code_at, guard.exited) == ("c1", "/action", worst.exited)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
@pytest.mark.parametrize("error", [OSError(2, "no cgroup"), ValueError("a bug"), KeyError("x"), ContainerGone("dead")])
async def test_whatever_a_driver_raises_is_a_container_gone(
    call: Callable[[Guarded], Awaitable[object]], error: Exception
) -> None:
    guard, _ = guarded(raising(error))
    with pytest.raises(ContainerGone):
        await call(guard)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
async def test_no_call_lasts(call: Callable[[Guarded], Awaitable[object]]) -> None:
    guard, _ = guarded(for_ever, call_s=0.001)
    with pytest.raises(ContainerGone, match="TimeoutError"):
        await call(guard)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
async def test_once_it_ends_it_is_deaf(call: Callable[[Guarded], Awaitable[object]]) -> None:
    guard, worst = guarded(fine)
    await guard.destroy()
    with pytest.raises(ContainerGone, match="the container is gone"):
        await call(guard)
    assert worst.calls == ["destroy"]


async def test_it_is_destroyed_once_however_many_ask() -> None:
    guard, worst = guarded(fine)
    await asyncio.gather(*(guard.destroy() for _ in range(3)))
    await guard.destroy()
    assert worst.calls == ["destroy"]


@pytest.mark.parametrize("act", [raising(OSError("busy")), raising(ValueError("a bug")), for_ever])
async def test_destroying_never_raises_and_never_lasts(
    act: Callable[[], Awaitable[bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    guard, _ = guarded(act, call_s=0.001)
    await guard.destroy()
    assert "container.destroy_failed id=c1" in capsys.readouterr().err


async def test_who_asks_may_be_cancelled_and_it_is_destroyed_all_the_same() -> None:
    may_end = asyncio.Event()
    ended: list[bool] = []

    async def slow() -> bool:
        await may_end.wait()
        ended.append(True)
        return True

    guard, _ = guarded(slow)
    asking = asyncio.ensure_future(guard.destroy())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    may_end.set()
    await guard.destroy()
    assert ended == [True]


async def test_over_a_real_driver_a_dead_container_is_gone() -> None:
    driver = FakeDriver()
    container = await driver.create(ContainerSpec(id="c1", argv=(), env={}, memory_mb=128))
    guard = Guarded(container)
    container.end(Exit(1))
    with pytest.raises(ContainerGone):
        await guard.pause()
    await guard.destroy()
    assert driver.containers == {}
