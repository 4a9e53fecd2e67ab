"""A driver that does not hold gives way to the next; what one lacks is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from visp.container import ladder
from visp.container.fake import FakeDriver
from visp.container.landlock import LandlockDriver
from visp.container.process import ProcessDriver
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
        await drivers.prepare(settings, folder, made.home, gated, {})
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
