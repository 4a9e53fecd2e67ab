"""Code that no action names is removed, once it is old enough; nothing is removed when an action cannot be read."""

from __future__ import annotations

import msgspec
import pytest

from visp.clock import ManualClock
from visp.controller import blobs as module
from visp.controller.blobs import BlobSweep
from visp.entity.action import Action
from visp.entity.execs import Code, CodeExec
from visp.entity.names import FullyQualifiedName
from visp.errors import Corrupt
from visp.store.base import Put
from visp.store.cache import to_document
from visp.store.memory import MemoryBlobs, MemoryEntities


class Home:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SPARED_S", -1.0)
        monkeypatch.setattr(module, "PAGE", 2)
        self.entities, self.blobs = MemoryEntities(), MemoryBlobs()
        self.sweep = BlobSweep(self.entities, self.blobs, ManualClock())

    async def add(self, name: str, code: bytes | None) -> str:
        digest = "" if code is None else await self.blobs.put(code)
        held = Code(False, inline="short") if code is None else Code(False, blob=digest)
        action = Action(name=FullyQualifiedName("ns", None, name), exec=CodeExec("nodejs:20", held))
        await self.entities.write([Put(to_document(action), None)])
        return digest


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(monkeypatch)


async def test_what_an_action_names_stays_and_the_rest_goes(home: Home) -> None:
    kept = [await home.add(f"a{number}", b"code %d" % number) for number in range(5)]
    await home.add("inline", None)
    orphan = await home.blobs.put(b"replaced")
    assert await home.sweep.sweep() == 1
    for digest in kept:
        assert await home.blobs.get(digest)
    with pytest.raises(Corrupt):
        await home.blobs.get(orphan)


async def test_young_code_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARED_S", 3600.0)
    young = await home.blobs.put(b"its action comes in a moment")
    assert await home.sweep.sweep() == 0
    assert await home.blobs.get(young)


async def test_nothing_goes_when_an_action_does_not_read(home: Home) -> None:
    orphan = await home.blobs.put(b"replaced")
    await home.add("a", b"code")
    document = await home.entities.get("ns/a")
    assert document is not None
    damaged = msgspec.structs.replace(document, body=b"{")
    await home.entities.write([Put(damaged, document.revision)])
    with pytest.raises(Corrupt):
        await home.sweep.sweep()
    assert await home.blobs.get(orphan)
