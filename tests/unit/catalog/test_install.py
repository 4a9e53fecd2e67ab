"""The shipped packages come into `whisk.system` once, and again where they have changed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from visp import catalog, premises
from visp.catalog import Entry, Shipped
from visp.clock import ManualClock
from visp.entity import package as packages
from visp.entity.action import Action
from visp.entity.locking import Locks
from visp.entity.names import FullyQualifiedName, from_id
from visp.entity.package import Package
from visp.entity.parameters import plain, values
from visp.entity.runtime_manifest import Manifest
from visp.errors import Conflict, StoreUnavailable
from visp.roles.catalog import AGAIN_S, TRIES, Installer
from visp.settings import Catalog, Settings
from visp.store.cache import EntityCache, Remove, Write
from visp.store.memory import MemoryBlobs, MemoryEntities


def entry(name: str, code: str, digest: str, kind: str = "python:3.11") -> Entry:
    marks = [{"key": "catalog", "value": digest}]
    return Entry(name, {"exec": {"kind": kind, "code": code}, "annotations": marks, "publish": True}, digest)


def shipped(digest: str, *actions: Entry, bound: dict[str, Any] | None = None) -> Shipped:
    parameters = [{"key": key, "value": value} for key, value in (bound or {}).items()]
    body = {"annotations": [{"key": "catalog", "value": digest}], "parameters": parameters, "publish": True}
    return Shipped("tools", body, actions, digest)


class Clock(ManualClock):
    """Says when somebody sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await super().sleep(seconds)


class Place:
    def __init__(self) -> None:
        self.clock = Clock()
        self.entities = EntityCache(MemoryEntities(), MemoryBlobs())
        self.installer = self.make(premises.read_manifest(Settings()))

    def make(self, manifest: Manifest) -> Installer:
        return Installer(entities=self.entities, manifest=manifest, locks=Locks(), clock=self.clock)

    async def action(self, name: str) -> Action | None:
        found = await self.entities.get(f"whisk.system/tools/{name}")
        assert found is None or isinstance(found, Action)
        return found

    async def package(self) -> Package:
        found = await self.entities.get("whisk.system/tools")
        assert isinstance(found, Package)
        return found


@pytest.fixture
def place() -> Place:
    return Place()


async def code(place: Place, name: str) -> str | None:
    found = await place.action(name)
    return None if found is None or found.exec.code is None else found.exec.code.inline


async def test_what_is_the_same_is_not_written_again(place: Place) -> None:
    first = shipped("1", entry("a", "A", "a1"), entry("b", "B", "b1"))
    assert await place.installer.install(first) == 3
    assert (await place.package()).publish
    assert await code(place, "a") == "A"
    assert await place.installer.install(first) == 0
    assert (await place.package()).revision == 1


async def test_an_upgrade_writes_what_has_changed_and_removes_what_is_gone(place: Place) -> None:
    await place.installer.install(shipped("1", entry("a", "A", "a1"), entry("b", "B", "b1"), entry("c", "C", "c1")))
    count = await place.installer.install(shipped("2", entry("a", "A", "a1"), entry("b", "BB", "b2")))
    assert count == 3  # the package, b, and c that goes
    kept, changed = await place.action("a"), await place.action("b")
    assert kept is not None
    assert changed is not None
    assert (kept.version, changed.version) == ("0.0.1", "0.0.2")
    assert await code(place, "b") == "BB"
    assert await place.action("c") is None
    assert (await place.package()).version == "0.0.2"


async def test_an_operators_own_things_stay(place: Place) -> None:
    await place.installer.install(shipped("1", entry("a", "A", "a1"), bound={"url": "", "port": 1}))
    package = await place.package()
    bound = msgspec.structs.replace(package, parameters=package.parameters | plain("url", "http://ours"))
    await place.entities.write(Write(bound, package.revision))
    own = await place.action("a")
    assert own is not None
    mine = msgspec.structs.replace(own, name=from_id("whisk.system/tools/mine"), annotations={}, revision=0)
    other = packages.Package(name=FullyQualifiedName("whisk.system", None, "other"))
    await place.entities.write(Write(mine, None), Write(other, None))
    await place.installer.install(shipped("2", entry("b", "B", "b1"), bound={"url": "", "port": 2, "new": True}))
    assert await place.action("mine") is not None
    assert await place.action("a") is None
    assert (await place.entities.get("whisk.system/other")) is not None
    held = {key: bytes(value) for key, value in values((await place.package()).parameters).items()}
    assert held == {"url": b'"http://ours"', "port": b"1", "new": b"true"}


async def test_a_package_that_was_deleted_comes_again(place: Place) -> None:
    first = shipped("1", entry("a", "A", "a1"))
    await place.installer.install(first)
    await place.entities.write(Remove(await place.package()))
    assert await place.installer.install(first) == 1
    assert await code(place, "a") == "A"


async def test_what_has_the_name_of_a_package_is_left_alone(place: Place) -> None:
    bound = packages.Package(
        name=FullyQualifiedName("whisk.system", None, "tools"), binding=FullyQualifiedName("guest", None, "tools")
    )
    await place.entities.write(Write(bound, None))
    assert await place.installer.install(shipped("1", entry("a", "A", "a1"))) == 0
    assert (await place.package()).binding is not None


async def test_an_action_whose_kind_is_not_known_is_left_out(place: Place) -> None:
    assert await place.installer.install(shipped("1", entry("a", "A", "a1", "cobol:1"), entry("b", "B", "b1"))) == 2
    assert await place.action("a") is None


async def test_a_store_that_fails_is_asked_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    write, refusals = place.entities.write, [StoreUnavailable()]

    async def refused(*changes: Write | Remove) -> None:
        if refusals:
            raise refusals.pop()
        await write(*changes)

    monkeypatch.setattr(place.entities, "write", refused)
    running = asyncio.ensure_future(place.installer.run(["utils", "samples"]))
    await place.clock.asleep.wait()
    place.clock.advance(AGAIN_S)
    await running
    assert await place.entities.get("whisk.system/utils/echo") is not None
    assert await place.entities.get("whisk.system/samples/greeting") is not None


async def test_one_that_stays_in_the_way_does_not_keep_the_others_from_coming(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = place.entities.write

    async def refused(*changes: Write | Remove) -> None:
        if changes[0].entity.name.name == "utils":
            raise Conflict("somebody was faster")
        await write(*changes)

    monkeypatch.setattr(place.entities, "write", refused)
    running = asyncio.ensure_future(place.installer.run(["utils", "samples"]))
    for _ in range(TRIES - 1):
        await place.clock.asleep.wait()
        place.clock.asleep.clear()
        await asyncio.sleep(0)
        place.clock.advance(AGAIN_S)
    await running
    assert await place.entities.get("whisk.system/utils") is None
    assert await place.entities.get("whisk.system/samples/greeting") is not None


def test_which_packages_are_wanted() -> None:
    def wanted(text: str) -> tuple[str, ...]:
        return premises.read_packages(Settings(catalog=Catalog(packages=text)))

    assert wanted("all") == catalog.names()
    assert wanted("") == ()
    assert wanted("utils  alarms") == ("utils", "alarms")
    with pytest.raises(
        premises.CannotStart, match=r"catalog.packages cannot be used: there are alarms, .*no 'nothing'"
    ):
        wanted("utils nothing")
