"""Backups: complete whatever the server does meanwhile, verified, and put back whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import os
import random
import sqlite3
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from visp import care, premises
from visp.clock import ManualClock
from visp.controller.identities import seal
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.entity.execs import Code, CodeExec
from visp.entity.names import FullyQualifiedName
from visp.errors import VispError
from visp.premises import CannotStart
from visp.settings import Ledger, Settings
from visp.store import archive, backup, check
from visp.store.archive import BackupError, Manifest
from visp.store.base import ActivationQuery, KeyRecord, Put, Work
from visp.store.cache import to_document
from visp.store.filesystem import FileBlobs
from visp.store.index import SqliteActivations
from visp.store.ledger import EmbeddedLedger
from visp.store.sqlite import ENTITY_MIGRATIONS, SqliteEntities
from visp.store.values import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SEGMENT_BYTES = 64 * 1024
NOW_MS = 1_700_000_000_000
LARGE = b'"' + b"x" * LARGE_BYTES + b'"'


def id_of(number: int) -> str:
    return f"{NOW_MS + number:012x}{number:020x}"


def record(number: int, result: bytes = b"{}") -> ActivationRecord:
    head = ActivationHead(
        id=id_of(number),
        namespace="ns",
        subject="who",
        name="a",
        version="0.0.1",
        start_ms=NOW_MS + number,
        size=2,
    )
    return ActivationRecord(head=head, result=result)


class Server:
    """The stores of a server over a folder, and what a client has been told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(data_dir=str(folder), ledger=Ledger(segment_bytes=SEGMENT_BYTES))
        self.clock = ManualClock()
        self.entities: SqliteEntities
        self.ledger: EmbeddedLedger

    async def open(self) -> Server:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        premises.read_secret(self.settings, self.folder)
        self.entities = await SqliteEntities.open(self.folder / "entities.db")
        self.blobs = FileBlobs(self.folder / "blobs")
        index = await SqliteActivations.open(self.folder / "activations-0.db")
        self.ledger = EmbeddedLedger(self.folder / "ledger" / "0", index, self.settings, self.clock)
        await self.ledger.open()
        return self

    async def close(self) -> None:
        await self.ledger.close()
        await self.entities.close()

    async def accept(self, number: int) -> None:
        done = asyncio.get_running_loop().create_future()
        self.ledger.accept([Work(id_of(number), b"m" * 500)], None, done.set_result)
        assert await done is None

    async def finish(self, number: int, result: bytes = b"{}") -> None:
        done = asyncio.get_running_loop().create_future()
        self.ledger.finish(record(number, result), done.set_result, is_synced=True)
        assert await done is None

    async def action(self, name: str, code: bytes) -> str:
        """An action whose code is a blob; the blob."""
        digest = await self.blobs.put(code)
        action = Action(name=FullyQualifiedName("ns", None, name), exec=CodeExec("nodejs:20", Code(False, blob=digest)))
        earlier = await self.entities.get(f"ns/{name}")
        await self.entities.write([Put(to_document(action), None if earlier is None else earlier.revision)])
        return digest

    async def known(self) -> tuple[set[str], set[str]]:
        """Ids of work that is open, and of records."""
        works = {work.id for work in self.ledger.open_work()}
        return works, {one.head.id for one in await self.ledger.list(ActivationQuery(namespace="ns", limit=100_000))}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = await Server(tmp_path / "data").open()
    yield server
    await server.close()


async def back_up(
    server: Server, target: Path, meanwhile: Callable[[str], object] = lambda _: None
) -> tuple[Path, Manifest]:
    """While the server runs; `meanwhile` is called on its loop between any two parts, and awaited."""
    loop = asyncio.get_running_loop()

    def progress(what: str, _: int) -> None:
        async def step() -> None:
            done = meanwhile(what)
            if asyncio.iscoroutine(done):
                await done

        asyncio.run_coroutine_threadsafe(step(), loop).result(60)

    return await asyncio.to_thread(care.backup, server.settings, target, progress)


async def restored(server: Server, file: Path, folder: Path) -> Server:
    settings = msgspec.structs.replace(server.settings, data_dir=str(folder))
    await asyncio.to_thread(care.restore, settings, file, is_replacing=False, progress=lambda *_: None)
    (folder / "secret").write_bytes((server.folder / "secret").read_bytes())
    (folder / "secret").chmod(0o600)
    assert care.check(settings, lambda *_: None) == []
    return await Server(folder).open()


def quiet(what: str, size: int) -> None:
    """No progress is shown."""


async def test_a_backup_holds_everything_and_is_put_back(server: Server, tmp_path: Path) -> None:
    digest = await server.action("a", b"code" * 10_000)
    for number in range(40):
        await server.accept(number)
        if number % 2:
            await server.finish(number, LARGE if number % 10 == 1 else b"{}")
    path, manifest = await back_up(server, tmp_path)
    assert path.parent == tmp_path
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in {Path(part.name).name for part in manifest.parts}
    secret = (server.folder / "secret").read_bytes().strip()
    assert secret not in path.read_bytes()
    assert manifest.secret_file == str(server.folder / "secret")
    assert manifest.versions["entities.db"] == str(len(ENTITY_MIGRATIONS))
    again = await restored(server, path, tmp_path / "again")
    assert await again.known() == ({id_of(n) for n in range(0, 40, 2)}, {id_of(n) for n in range(1, 40, 2)})
    assert await again.ledger.get("ns", id_of(11)) == record(11, LARGE)
    assert await again.blobs.get(digest) == b"code" * 10_000
    assert (await again.entities.get("ns/a")) == (await server.entities.get("ns/a"))
    await again.close()
    assert sorted(os.listdir(tmp_path)) == ["again", "data", path.name], "drafts are left"


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_acknowledged_before_is_in_it_whatever_happens_meanwhile(
    server: Server, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server accepts, finishes, indexes, and removes segments and old results between any two parts."""
    monkeypatch.setattr(backup, "PAGES", 4)
    chance = random.Random(seed)
    numbers = itertools.count()
    open_now: list[int] = []
    finished: set[int] = set()

    async def go_on(_: str) -> None:
        for _ in range(chance.randrange(12)):
            number = next(numbers)
            await server.accept(number)
            open_now.append(number)
        for _ in range(chance.randrange(12)):
            if open_now:
                number = open_now.pop(chance.randrange(len(open_now)))
                await server.finish(number, LARGE if number % 5 == 0 else b'"' + b"y" * 3000 + b'"')
                finished.add(number)
        if chance.random() < 0.5:
            await server.ledger.flush()
            await server.ledger.sweeper.sweep()
        if chance.random() < 0.1:
            await server.ledger.index.sweep(NOW_MS + chance.randrange(50), 0)

    for _ in range(30):
        await go_on("")
    await server.ledger.index.sweep(NOW_MS + 50, 0)
    assert not (server.folder / "ledger" / "0" / f"{0:016x}.seg").exists(), "no segment has been removed"
    was_open = {id_of(number) for number in open_now}
    was_finished = {id_of(number) for number in finished if number >= 50}
    path, _ = await back_up(server, tmp_path / "b.tar", go_on)
    again = await restored(server, path, tmp_path / "again")
    works, records = await again.known()
    assert was_finished <= records
    assert was_open <= works | records | {id_of(number) for number in range(50)}
    assert not works & records, "work that has a record runs again"
    await again.close()


async def test_segments_that_come_and_go_during_a_backup_are_in_it(server: Server, tmp_path: Path) -> None:
    first = sorted((server.folder / "ledger" / "0").glob("*.seg"))

    async def roll(what: str) -> None:
        if what == "activations-0.db":  # copied in one step here: the ledger is looked at before and after
            for number in range(1000, 1200):
                await server.accept(number)
                await server.finish(number, b'"' + b"z" * 1000 + b'"')
            await server.ledger.flush()

    await server.accept(1)
    path, manifest = await back_up(server, tmp_path / "b.tar", roll)
    names = [part.name for part in manifest.parts if part.name.startswith("ledger")]
    assert names[0] == f"ledger/0/{first[0].name}"
    assert len(names) > 2
    again = await restored(server, path, tmp_path / "again")
    works, records = await again.known()
    assert works == {id_of(1)}
    assert records == {id_of(number) for number in range(1000, 1200)}
    await again.close()


async def test_a_blob_that_is_replaced_meanwhile(server: Server, tmp_path: Path) -> None:
    old = await server.action("a", b"old" * 10_000)
    new = hashlib.sha256(b"new" * 10_000).hexdigest()

    async def replace(what: str) -> None:
        if what == "entities.db" and (server.folder / "blobs" / old[:2] / old).exists():
            await server.action("a", b"new" * 10_000)
            await server.blobs.sweep(frozenset([new]), -1.0)

    path, manifest = await back_up(server, tmp_path / "b.tar", replace)
    assert manifest.damages == []
    assert [part.name for part in manifest.parts if "blobs" in part.name] == [f"blobs/{new[:2]}/{new}"]
    await (await restored(server, path, tmp_path / "again")).close()


async def test_damage_is_said_in_the_backup(server: Server, tmp_path: Path) -> None:
    digest = await server.action("a", b"code" * 10_000)
    await server.finish(1, LARGE)
    await server.ledger.flush()
    (server.folder / "blobs" / digest[:2] / digest).write_bytes(b"other")
    next(server.folder.glob("*.values/*/*")).unlink()
    _, manifest = await back_up(server, tmp_path / "b.tar")
    assert len(manifest.damages) == 2
    assert any("blobs" in said for said in manifest.damages)
    assert any(id_of(1) in said for said in manifest.damages)


async def test_a_damaged_ledger_gives_no_backup(server: Server, tmp_path: Path) -> None:
    for number in range(100):
        await server.accept(number)
    segment = max((server.folder / "ledger" / "0").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[300] ^= 1
    segment.write_bytes(data)
    with pytest.raises(BackupError, match=r"damaged at byte 0 .*visp admin check"):
        await back_up(server, tmp_path / "b.tar")
    assert os.listdir(tmp_path) == ["data"]


async def test_where_a_backup_may_not_go(server: Server, tmp_path: Path) -> None:
    (tmp_path / "there.tar").touch()
    for target, said in (
        (tmp_path / "there.tar", "is there already"),
        (server.folder / "b.tar", "is in the data folder"),
        (tmp_path / "absent" / "b.tar", "is not there: make it"),
    ):
        with pytest.raises(BackupError, match=said):
            await back_up(server, target)
    with pytest.raises(BackupError, match="holds no data of a server"):
        care.backup(Settings(data_dir=str(tmp_path / "nowhere")), tmp_path / "b.tar", quiet)


# ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def file(server: Server, tmp_path: Path) -> Path:
    await server.action("a", b"code" * 5_000)
    for number in range(20):
        await server.accept(number)
        await server.finish(number, LARGE if number % 10 == 1 else b"{}")
    path, _ = await back_up(server, tmp_path / "good.tar")
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {name: content.read() for name, _, content in archive.members(path)}


def test_damage_of_a_backup_is_found_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    whole, chance, refused = file.read_bytes(), random.Random(5), 0
    expected = contents(file)
    for _ in range(150):
        data = bytearray(whole)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        bad = tmp_path / "bad.tar"
        bad.write_bytes(data)
        try:
            archive.verify(bad, quiet)
        except BackupError:
            refused += 1
        else:
            assert contents(bad) == expected
    assert refused > 100
    bad.write_bytes(whole[: len(whole) // 2])
    target = tmp_path / "target"
    with pytest.raises(BackupError):
        care.restore(Settings(data_dir=str(target)), bad, is_replacing=False, progress=quiet)
    assert [path.name for path in target.iterdir()] == ["lock"]


def rewritten(path: Path, to: Path, change: Callable[[Manifest], Manifest], more: str | None = None) -> Path:
    """A backup with another manifest that is right by itself, and perhaps a part more."""
    old = contents(path)
    manifest = change(msgspec.json.decode(old.pop(archive.MANIFEST), type=Manifest))
    del old[archive.MANIFEST_SUM]
    with to.open("wb") as out:
        writer = archive.Writer(out)
        for name, content in old.items():
            writer.add(name, content)
        if more is not None:
            writer.add(more, b"evil")
        writer.finish(msgspec.structs.replace(manifest, parts=writer.parts))
    return to


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "secret", "ledger/0/../../evil.seg", "blobs/x", ".restoring"])
async def test_nothing_is_unpacked_that_is_no_part_of_a_store(file: Path, tmp_path: Path, name: str) -> None:
    bad = rewritten(file, tmp_path / "bad.tar", lambda manifest: manifest, name)
    with pytest.raises(BackupError, match="is no backup of visp"):
        care.restore(Settings(data_dir=str(tmp_path / "target")), bad, is_replacing=False, progress=quiet)
    assert os.listdir(tmp_path / "target") == ["lock"]
    assert not (tmp_path / "evil").exists()


async def test_links_are_not_unpacked(file: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        link = tarfile.TarInfo("ledger/0/0000000000000000.seg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("manifest.json"), io.BytesIO())
    with pytest.raises(BackupError, match="is no backup of visp"):
        archive.verify(tmp_path / "bad.tar", quiet)


async def test_what_a_newer_visp_made_is_refused(file: Path, tmp_path: Path) -> None:
    def newer(manifest: Manifest) -> Manifest:
        return msgspec.structs.replace(manifest, versions=manifest.versions | {"entities.db": "99", "visp": "9.9"})

    settings = Settings(data_dir=str(tmp_path / "target"))
    bad = rewritten(file, tmp_path / "bad.tar", newer)
    with pytest.raises(BackupError, match=r"made by a newer visp \(9\.9\): restore it with that one"):
        care.restore(settings, bad, is_replacing=False, progress=quiet)
    bad = rewritten(file, tmp_path / "other.tar", lambda manifest: msgspec.structs.replace(manifest, format=2))
    with pytest.raises(BackupError, match="newer format"):
        care.restore(settings, bad, is_replacing=False, progress=quiet)


# ── putting back ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_folder_in_use_or_with_data_is_refused(server: Server, file: Path) -> None:
    before = sorted(path.name for path in server.folder.iterdir())
    with premises.locked(server.folder), pytest.raises(CannotStart, match="another server uses"):
        care.restore(server.settings, file, is_replacing=True, progress=quiet)
    with pytest.raises(BackupError, match=r"is not empty .*--replace"):
        care.restore(server.settings, file, is_replacing=False, progress=quiet)
    assert sorted(path.name for path in server.folder.iterdir() if path.name != "lock") == before


async def test_what_is_replaced_is_set_aside(file: Path, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    other = await Server(folder).open()
    await other.accept(777)
    await other.close()
    secret = (folder / "secret").read_bytes()
    settings = msgspec.structs.replace(server.settings, data_dir=str(folder))
    manifest, aside = care.restore(settings, file, is_replacing=True, progress=quiet)
    assert aside is not None
    assert (aside / "entities.db").exists()
    assert (folder / "secret").read_bytes() == secret
    advice = care.secret_advice(settings, manifest)
    assert advice is not None
    assert "is not the one of the backup" in advice
    (folder / "secret").write_bytes((server.folder / "secret").read_bytes())
    assert care.secret_advice(settings, manifest) is None
    (folder / "secret").unlink()
    advice = care.secret_advice(settings, manifest)
    assert advice is not None
    assert str(server.folder / "secret") in advice
    again = await Server(folder).open()
    works, records = await again.known()
    assert (works, len(records)) == (set(), 20)
    await again.close()


async def test_a_restore_that_did_not_end_keeps_servers_from_starting(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=str(tmp_path / "target"))

    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("visp.store.restore.sync_folder", fail)
        with pytest.raises(BackupError, match=r"cannot be put back .*Input/output error.*--replace"):
            care.restore(settings, file, is_replacing=False, progress=quiet)
    with pytest.raises(CannotStart, match="was not finished: run visp admin restore again"):
        premises.prepare_data_dir(settings)
    care.restore(settings, file, is_replacing=True, progress=quiet)
    premises.prepare_data_dir(settings)


# ── the check ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_check_says_what_is_damaged_and_what_to_do(server: Server) -> None:
    digest = await server.action("a", b"code" * 10_000)
    await server.finish(1, LARGE)
    await server.ledger.flush()
    assert care.check(server.settings, quiet) == []
    (server.folder / "blobs" / digest[:2] / digest).unlink()
    value = next(server.folder.glob("*.values/*/*"))
    value.write_bytes(value.read_bytes()[:-1])
    sealed = seal("k", b"another secret")
    await server.entities.put_key(KeyRecord(uuid="u", digest=b"d", sealed=sealed, subject="who", namespace="ns"))
    secret = server.folder / "secret"
    found = {damage.says: damage.mend for damage in care.check(server.settings, quiet)}
    assert found == {
        "is missing": "update the action ns/a with its code",
        f"the record {id_of(1)} does not match its checksum": check.RECORD_LOST,
        "does not open the keys of this data folder": f"put the secret that sealed the keys back to {secret}",
    }


async def test_the_check_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(VispError, match="there is no folder"):
        care.check(Settings(data_dir=str(tmp_path / "nowhere")), quiet)


async def test_a_newer_file_is_told(server: Server) -> None:
    with sqlite3.connect(server.folder / "entities.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    (damage,) = care.check(server.settings, quiet)
    assert damage.says == f"a newer visp wrote it (version 99, this one knows {len(ENTITY_MIGRATIONS)})"
