"""Damage in any file of the store: what is read is what was written, or is refused; and the check finds it.

A bit is turned, or a file is cut, in a data folder that was closed in order. Then `visp admin check` looks at it, and
the stores are opened and asked for everything. Nothing they give may differ from what was written; where anything is
missing or refused, the check must have said so. `VISP_FLIPS` asks for more flips than a test run has time for.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from visp import care
from visp.clock import ManualClock
from visp.controller.identities import Identities
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.entity.subject import SYSTEM
from visp.errors import ServiceError, VispError
from visp.premises import read_secret
from visp.settings import Ledger, Limits, Settings
from visp.store.base import ActivationQuery, Batch, Document, EntityQuery, Letter, Promise, Put, Subscription, Work
from visp.store.filesystem import FileBlobs
from visp.store.index import SqliteActivations
from visp.store.ledger import EmbeddedLedger
from visp.store.promises import SqlitePromises
from visp.store.replay import Replay
from visp.store.sqlite import SqliteEntities
from visp.store.values import LARGE_BYTES
from visp.telemetry import log

FLIPS = int(os.environ.get("VISP_FLIPS", "20"))
"""Of each kind of file: some ten milliseconds each."""
SEGMENT_BYTES = 16 * 1024
NAMESPACES = ("ns", "other")
COLLECTIONS = ("actions", "triggers", "rules", "packages")
KINDS = {
    "entities": "entities.db",
    "index": "activations-0.db",
    "ledger": "ledger/0/*.seg",
    "blobs": "blobs/*/*",
    "values": "activations-0.values/*/*",
    "promises": "promises.db",
    "secret": "secret",
}


def settings_of(folder: Path) -> Settings:
    return Settings(data_dir=str(folder), ledger=Ledger(segment_bytes=SEGMENT_BYTES))


def document(number: int) -> Document:
    collection, namespace = COLLECTIONS[number % 4], NAMESPACES[number % 2]
    package = f"p{number % 3}" if number % 5 == 0 else None
    path = f"{namespace}/{package}/d{number}" if package else f"{namespace}/d{number}"
    body = b'{"d":"' + bytes([97 + number % 26]) * (number * 37 % 3000) + b'"}'
    return Document(
        id=path,
        collection="triggers" if collection in ("actions", "packages") else collection,  # others are read by a check
        namespace=namespace,
        package=package,
        name=f"d{number}",
        updated_ms=1_700_000_000_000 + number * 977 % 1000,
        publish=number % 3 == 0,
        body=body,
    )


def record(number: int, ms: int = 1_700_000_000_000) -> ActivationRecord:
    head = ActivationHead(
        id=f"{ms + number * 7:012x}{number:020x}",
        namespace=NAMESPACES[number % 2],
        subject="who",
        name=f"a{number % 4}",
        version="0.0.1",
        start_ms=ms + number * 7,
        size=2,
    )
    size = LARGE_BYTES + number if number % 10 == 0 else number * 53 % 4000
    logs = tuple(f"line {n}" for n in range(number % 4))
    return ActivationRecord(head=head, result=b'"' + b"x" * size + b'"', logs=logs)


RECORDS = [record(number) for number in range(80)]
DOCUMENTS = [document(number) for number in range(120)]
LETTERS = [
    Letter(id=f"{number:032x}", namespace=NAMESPACES[number % 2], at_ms=number, body=b"l" * (number * 61 % 900))
    for number in range(80)
]
PROMISE = Promise(body=b"h" * 32, id="a" * 32, at_ms=7)
BATCH = Batch(number=3, at_ms=7, ids={b"k" * 16: "b" * 32})
PROMISES_EACH = 3
"""As which a promise, a batch and its key are counted."""
BLOBS = [bytes([number]) * (20_000 + number) for number in range(4)]


def scope(number: int) -> bytes:
    return number.to_bytes(32, "big")


def subscription(number: int, namespace: str) -> Subscription:
    return Subscription(
        namespace=namespace, base_path="/shop", digest=scope(number), client=f"client-{number}", secret=scope(number)
    )


async def fill(folder: Path) -> None:
    secret = read_secret(settings_of(folder), folder)
    entities = await SqliteEntities.open(folder / "entities.db")
    for one in DOCUMENTS:
        await entities.write([Put(one, None)])
    identities = Identities(entities, secret, Limits(), is_loopback=True)
    for namespace in (SYSTEM, *NAMESPACES):
        await identities.ensure(namespace)
        await entities.put_limits(namespace, b'{"concurrentInvocations":7}')
    await entities.close()
    promises = await SqlitePromises.open(folder / "promises.db")
    for number, letter in enumerate(LETTERS):
        await promises.put_letter(letter, 1_000)
        await promises.put_promise(scope(number), letter.namespace, PROMISE, 0, 1_000)
        await promises.put_batch(scope(number), letter.namespace, BATCH, 1_000)
        await promises.put_subscription(subscription(number, letter.namespace), 1_000)
    await promises.close()
    blobs = FileBlobs(folder / "blobs")
    for blob in BLOBS:
        await blobs.put(blob)
    index = await SqliteActivations.open(folder / "activations-0.db")
    ledger = EmbeddedLedger(folder / "ledger" / "0", index, settings_of(folder), ManualClock())
    await ledger.open()
    for number, one in enumerate(RECORDS):
        done = asyncio.get_running_loop().create_future()
        work = Work(f"{number:032x}", b"m" * (number % 300))
        ledger.accept([work], None, lambda _: None)
        ledger.finish(one, done.set_result, is_synced=True)
        assert await done is None
    await ledger.close()


async def read_entities(folder: Path) -> dict[Any, Any]:
    store = await SqliteEntities.open(folder / "entities.db")
    try:
        out: dict[Any, Any] = {}
        for one in DOCUMENTS:
            out["get", one.id] = await attempt(store.get(one.id))
        for namespace in (SYSTEM, *NAMESPACES):
            out["keys", namespace] = await attempt(store.keys_of(namespace))
            out["limits", namespace] = await attempt(store.limits(namespace))
            for collection in COLLECTIONS:
                query = EntityQuery(collection=collection, namespace=namespace, limit=200)
                found = await attempt(store.list(query))
                out |= {("list", one.id): one for one in found if isinstance(found, list)}
                out["count", namespace, collection] = await attempt(store.count(query))
        new = msgspec.structs.replace(DOCUMENTS[0], id="ns/new", name="new")
        out["next"] = await attempt(store.write([Put(new, None)]))
        return out
    finally:
        await store.close()


async def read_index(folder: Path) -> dict[Any, Any]:
    index = await SqliteActivations.open(folder / "activations-0.db")
    try:
        out: dict[Any, Any] = {"to": await index.indexed_to() or "damaged"}
        for one in RECORDS:
            for namespace in NAMESPACES:
                out["get", namespace, one.head.id] = await attempt(index.get(namespace, one.head.id))
        for namespace in NAMESPACES:
            query = ActivationQuery(namespace=namespace, limit=200)
            found = await attempt(index.list(query))
            out |= {("list", namespace, one.head.id): one for one in found if isinstance(found, list)}
            out["count", namespace] = await attempt(index.count(query))
            places = await attempt(index.places(query))
            some = await attempt(index.some(namespace, [id for _, id in places])) if isinstance(places, list) else []
            out |= {("some", namespace, one.head.id): one for one in some if isinstance(some, list)}
        return out
    finally:
        await index.close()


async def read_promises(folder: Path) -> dict[Any, Any]:
    store = await SqlitePromises.open(folder / "promises.db")
    try:
        out: dict[Any, Any] = {}
        for number, letter in enumerate(LETTERS):
            out["letter", letter.id] = await attempt(store.letter(letter.namespace, letter.id))
            out["promise", number] = await attempt(store.promise(scope(number), 0))
            out["batch", number] = await attempt(store.batch(scope(number)))
            one = subscription(number, letter.namespace)
            out["subscription", number] = await attempt(store.subscription(one.namespace, one.base_path, one.digest))
        for namespace in NAMESPACES:
            found = await attempt(store.letters(namespace, 0, 200))
            out |= {("list", one.id): one for one in found if isinstance(found, list)}
            clients = await attempt(store.subscriptions(namespace, "/shop"))
            out |= {("client", namespace, one.client): one for one in clients if isinstance(clients, list)}
            out["count", namespace] = await attempt(store.count_letters(namespace))
            # the limit holds for what was promised: one more is refused
            own = sum(PROMISES_EACH for letter in LETTERS if letter.namespace == namespace)
            out["limit", namespace] = await attempt(store.put_promise(b"new", namespace, PROMISE, 0, own)) is None
        return out
    finally:
        await store.close()


async def read_blobs(folder: Path) -> dict[Any, Any]:
    store = FileBlobs(folder / "blobs")
    names = [path.name for path in PRISTINE[0].glob("blobs/*/*")]
    return {name: await attempt(store.get(name)) for name in names}


async def read_ledger(folder: Path) -> dict[Any, Any]:
    replay = Replay(0)
    try:
        replay.read(folder / "ledger" / "0")
    finally:
        for segment in replay.segments:
            segment.close()
    return {id: record for id, (record, _) in replay.records.items()} | {
        id: (held.work, held.is_started) for id, held in replay.works.items()
    }


async def read_secret_by_keys(folder: Path) -> dict[Any, Any]:
    entities = await SqliteEntities.open(folder / "entities.db")
    try:
        identities = Identities(entities, read_secret(settings_of(folder), folder), Limits(), is_loopback=True)
        await identities.check_secret(SYSTEM)
        return {}
    finally:
        await entities.close()


READ: dict[str, Callable[[Path], Any]] = {
    "entities": read_entities,
    "index": read_index,
    "values": read_index,
    "blobs": read_blobs,
    "ledger": read_ledger,
    "promises": read_promises,
    "secret": read_secret_by_keys,
}
REFUSED = "refused"


async def attempt(reading: Any) -> Any:
    try:
        return await reading
    except ServiceError:
        return REFUSED


PRISTINE: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def pristine(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("pristine") / "data"
    folder.mkdir()
    asyncio.run(fill(folder))
    PRISTINE[:] = [folder]


def flip(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at, bit = chance.randrange(len(data)), chance.randrange(8)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {at} of {path.name}"


def cut(path: Path, chance: random.Random) -> str:
    data = path.read_bytes()
    length = chance.randrange(len(data))
    path.write_bytes(data[:length])
    return f"{path.name} cut to {length} of {len(data)}"


def files_of(kind: str, folder: Path) -> list[Path]:
    return sorted(folder.glob(KINDS[kind]))


@pytest.mark.parametrize("damage", [flip, cut], ids=["flip", "cut"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found_and_never_served(
    kind: str, damage: Callable[[Path, random.Random], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda event, **_: said.append(event))
    monkeypatch.setattr(log, "error", lambda event, **_: said.append(event))
    read = READ[kind]
    whole = tmp_path / "whole"
    shutil.copytree(PRISTINE[0], whole)
    assert care.check(settings_of(whole), lambda *_: None) == []
    expected = asyncio.run(read(whole))
    effects = 0
    for seed in range(FLIPS if damage is flip else FLIPS // 4):
        chance = random.Random(f"{kind} {damage.__name__} {seed}")
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PRISTINE[0], folder)
        what = damage(chance.choice(files_of(kind, folder)), chance)
        found = care.check(settings_of(folder), lambda *_: None)
        said.clear()
        try:
            got = asyncio.run(read(folder))
        except VispError:
            assert found or kind == "ledger", f"{what} keeps the server from starting, and the check finds nothing"
            effects += 1
            continue
        for key, value in got.items():
            if key[0] == "count" or value in (REFUSED, None, []):  # missing, or refused: that is looked at below
                continue
            assert value == expected.get(key), f"{what}: {key} is served as {value!r:.200}"
        if got != expected:
            effects += 1
            assert found or said, f"{what} is not found, and hides {[k for k in expected if got.get(k) != expected[k]]}"
    assert effects, "no damage did anything"
