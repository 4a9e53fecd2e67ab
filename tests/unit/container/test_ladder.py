"""A driver that does not hold gives way to the next; what one lacks is said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from visp.container import ladder
from visp.container.base import ContainerSpec
from visp.container.fake import FakeDriver
from visp.container.landlock import LandlockDriver
from visp.container.process import ProcessDriver
from visp.entity.network import proxy_environment
from visp.errors import StartFailed
from visp.roles import drivers
from visp.roles.gated import GatedMaker
from visp.settings import Settings


class Broken(FakeDriver):
    """Does not work on this machine."""

    async def start(self) -> None:
        raise StartFailed(f"driver {self.name} does not work here")


class Made:
    """In the place of `drivers.make`."""

    def __init__(self, works: str | None) -> None:
        self.works = works
        self.names: list[str] = []
        self.home = Path("home of a shard")

    def __call__(self, settings: Settings, data_dir: Path) -> FakeDriver:
        name = ladder.FIRST if settings.driver == "auto" else settings.driver
        driver = (FakeDriver if name == self.works else Broken)(settings, data_dir)
        driver.name = name
        assert data_dir == self.home
        self.names.append(name)
        return driver


async def choose(monkeypatch: pytest.MonkeyPatch, folder: Path, works: str | None, driver: str = "auto") -> Any:
    made = Made(works)
    monkeypatch.setattr(drivers, "make", made)
    settings = Settings(driver=driver)
    gated = GatedMaker(made(settings, made.home), "http://api")
    try:
        await drivers.prepare(settings, made.home, gated, {})
    except StartFailed as error:
        return str(error)
    return gated.driver.name


@pytest.mark.parametrize("works", ["fork", "bwrap", "nsjail", "landlock"])
async def test_first_that_works_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: str) -> None:
    assert await choose(monkeypatch, tmp_path, works) == works


async def test_where_none_works_each_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = await choose(monkeypatch, tmp_path, None)
    for name in ("fork", "bwrap", "nsjail", "landlock"):
        assert f"driver {name} does not work here" in said
    assert "process" not in said


async def test_driver_that_was_named_is_the_only_one_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert await choose(monkeypatch, tmp_path, "nsjail", driver="bwrap") == "driver bwrap does not work here"


async def test_who_asks_early_is_told_of_the_network_as_it_came_to_be(tmp_path: Path) -> None:
    """Whether containers have packets of their own, or need the proxy, is found out while they are asked for."""
    driver = FakeDriver(Settings(), tmp_path)
    told: dict[str, str] = {}
    driver.has_doors = True
    gated = GatedMaker(driver, "http://api", lambda: told)
    spec = ContainerSpec(id="c", argv=("a",), env={"__OW_API_HOST": "http://door"}, memory_mb=128)
    asked = asyncio.ensure_future(gated.create(spec))
    await asyncio.sleep(0)
    told |= proxy_environment()
    gated.open()
    await (await asked).destroy()
    assert [spec.env for spec in driver.created] == [{"__OW_API_HOST": "http://door"} | proxy_environment()]


def test_no_ladder_leads_to_trust() -> None:
    name: str | None = ladder.FIRST
    passed = []
    while name is not None:
        passed.append(name)
        name = ladder.below(name)
    assert passed == ["fork", "bwrap", "nsjail", "landlock"]
    assert ladder.below("process") is ladder.below("runsc") is None


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    known = ladder.standing(ProcessDriver(Settings(), tmp_path))
    assert known.driver == "process"
    assert "any wall" in known.missing
    assert any("memory" in word for word in known.missing), "no control group was found yet"
    [family] = ladder.families(known)
    assert family.samples == {("process", known.limits, "; ".join(known.missing)): 1}


def test_weak_sandbox_serves_one_namespace(tmp_path: Path) -> None:
    driver = LandlockDriver(Settings(), tmp_path)
    driver.admit("alice")
    driver.admit("alice")
    with pytest.raises(StartFailed) as refused:
        driver.admit("bob")
    assert refused.value.sentence == "This server's sandbox is too weak to serve a second namespace."
    allowed = LandlockDriver(Settings(allow_weak_sandbox=True), tmp_path)
    allowed.admit("alice")
    allowed.admit("bob")


async def test_weak_sandbox_is_no_matter_of_shards(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="--allow-weak-sandbox"):
        await LandlockDriver(Settings(workers=2), tmp_path).start()
