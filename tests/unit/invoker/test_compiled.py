"""What was compiled of code is kept beside it, for whoever compiled it alone."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from visp.invoker.building import Builds
from visp.invoker.code import COMPILED, CodeCache
from visp.invoker.compiled import BOUNDS, WORTH_MS, Compiled
from visp.invoker.slot import Key, Slot
from visp.runtime.base import Gone, Reply
from visp.settings import Build

KEY = Key("guest", "guest/a", 1)


def frame(letter: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">cL", letter, len(payload)) + payload


CACHE = frame(b"D", b"v22") + frame(b"F", b"v22/1") + frame(b"B", b"compiled") + frame(b"E")


class Client:
    """Gives what it has in pieces."""

    def __init__(self, frames: bytes | None, piece: int = 10) -> None:
        self.frames = frames
        self.piece = piece

    def run(self, payload: bytes, then: Any) -> None:
        if self.frames is None:
            asyncio.get_running_loop().call_soon(then, Gone())
            return
        at = json.loads(payload)["collect"]
        body = json.dumps({"compiled": base64.b64encode(self.frames[at : at + self.piece]).decode()}).encode()
        asyncio.get_running_loop().call_soon(then, Reply(200, body, len(body)))


@pytest.fixture
def code(tmp_path: Path) -> CodeCache:
    async def text_of(_: Any) -> str:
        return ""

    folder = tmp_path / "code"
    (folder / "abc" / "lib").mkdir(parents=True)
    (folder / "abc" / "lib" / "index.js").write_text("code")
    return CodeCache(text_of=text_of, driver=None, folder=folder, command=None, builds=Builds(Build()))  # type: ignore[arg-type]


async def slot_of(code: CodeCache, client: Client, tmp_path: Path) -> Slot:
    await code.sweep_leftovers()
    slot = Slot("c1", "nodejs:22", 256, 0.0, KEY)
    slot.folder = str(tmp_path / "code" / "abc")
    slot.client = client  # type: ignore[assignment]
    return slot


@pytest.fixture(autouse=True)
def survivor(tmp_path: Path) -> None:
    """The folder counts as one of this boot."""
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / ".boot").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())


async def test_next_container_of_the_same_action_sees_it(code: CodeCache, tmp_path: Path) -> None:
    compiled = Compiled(code)
    slot = await slot_of(code, Client(CACHE), tmp_path)
    assert slot.folder is not None
    assert compiled.wants(slot, WORTH_MS)
    assert await compiled.collect(slot)
    kept = Path(compiled.of(slot.folder, KEY))
    assert (kept / COMPILED / "v22" / "1").read_bytes() == b"compiled"
    assert (kept / "lib" / "index.js").read_text() == "code"
    assert not compiled.wants(slot, WORTH_MS), "it is there"
    for other in (Key("alice", "guest/a", 1), Key("guest", "guest/b", 1)):
        assert compiled.of(slot.folder, other) == slot.folder
    await code.close()


async def test_quick_starts_are_not_asked_and_slow_ones_once(code: CodeCache, tmp_path: Path) -> None:
    compiled = Compiled(code)
    slot = await slot_of(code, Client(b""), tmp_path)
    assert not compiled.wants(slot, WORTH_MS - 1)
    assert not compiled.wants(slot, None)
    assert compiled.wants(slot, WORTH_MS)
    assert not compiled.wants(slot, WORTH_MS)
    slot.folder = None
    assert not compiled.wants(slot, WORTH_MS)
    await code.close()


@pytest.mark.parametrize(
    "frames",
    [
        frame(b"F", b"../out") + frame(b"E"),
        frame(b"F", b"/etc/x") + frame(b"E"),
        frame(b"L", b"l\0../../../etc") + frame(b"E"),
        frame(b"D", b"cut off"),
        b"garbage",
        frame(b"E") + b"more",
        bytes(BOUNDS.bytes + 1),
    ],
    ids=["up", "absolute", "link", "cut off", "garbage", "more", "too much"],
)
async def test_what_a_container_makes_up_is_not_kept(frames: bytes, code: CodeCache, tmp_path: Path) -> None:
    compiled = Compiled(code)
    slot = await slot_of(code, Client(frames, piece=1 << 20), tmp_path)
    assert slot.folder is not None
    assert await compiled.collect(slot)
    assert compiled.of(slot.folder, KEY) == slot.folder
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == [".boot", "abc"]
    await code.close()


async def test_container_that_ends_meanwhile_is_given_up(code: CodeCache, tmp_path: Path) -> None:
    slot = await slot_of(code, Client(None), tmp_path)
    assert not await Compiled(code).collect(slot)
    await code.close()
