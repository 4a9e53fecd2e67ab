"""Export and import over data folders without a server: what comes is what went, and nothing is half done."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import sqlite3
import stat
import tarfile
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from visp import moving, premises
from visp.controller.identities import pair_of, record_of
from visp.controller.subscriptions import Subscriptions
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord
from visp.entity.api import Api, api_of, empty_document
from visp.entity.execs import Code, CodeExec, SequenceExec
from visp.entity.limits import ActionLimits
from visp.entity.names import FullyQualifiedName
from visp.entity.package import Package
from visp.entity.parameters import plain
from visp.entity.rule import Rule
from visp.entity.site import SiteFile
from visp.entity.subject import AuthKey, new_key
from visp.entity.trigger import RuleLink, RuleStatus, Trigger
from visp.premises import CannotStart
from visp.settings import Settings
from visp.store.apis import DocumentApis
from visp.store.base import Put
from visp.store.cache import from_document, to_document
from visp.store.filesystem import FileBlobs
from visp.store.index import SqliteActivations
from visp.store.intake import Intake
from visp.store.portable import Part, PortableError
from visp.store.promises import SqlitePromises
from visp.store.sqlite import SqliteEntities
from visp.store.values import LARGE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from visp.entity.portable import Entity

NOW_MS = 1_800_000_000_000
LARGE_CODE = "# " + "y" * 20_000
PAGE = b"<p>" * 1000
PAGE_GZIP = gzip.compress(PAGE, 6, mtime=0)
LARGE_RESULT = b'{"x":"' + b"x" * LARGE_BYTES + b'"}'
ALICE = AuthKey("11111111-2222-4333-8444-555555555555", "k" * 64)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def name(id: str) -> FullyQualifiedName:
    *path, last = id.split("/")
    return FullyQualifiedName(path[0], path[1] if len(path) > 1 else None, last)


def action(id: str, code: str = "x = 1", **fields: Any) -> Action:
    exec = CodeExec("python:3.11", Code(False, inline=code))
    annotations = plain("exec", "python:3.11")
    return Action(name=name(id), exec=exec, annotations=annotations, updated_ms=NOW_MS, **fields)


def trigger(id: str, *links: tuple[str, str, RuleStatus]) -> Trigger:
    rules = {rule: RuleLink(name(runs), status) for rule, runs, status in links}
    return Trigger(name=name(id), rules=rules or None, updated_ms=NOW_MS)


def rule(id: str, of: str, runs: str, **annotations: Any) -> Rule:
    marks = {key: value for given in (plain(k, v) for k, v in annotations.items()) for key, value in given.items()}
    return Rule(name=name(id), trigger=name(of), action=name(runs), annotations=marks, updated_ms=NOW_MS)


def record(number: int, shard: int = 0, result: bytes = b"{}", **fields: Any) -> ActivationRecord:
    start_ms = NOW_MS + number
    given: dict[str, Any] = {"path": "ns/a", "kind": "python:3.11", "end_ms": start_ms + 5, "duration_ms": 5}
    head = ActivationHead(
        id=f"{start_ms:012x}{shard:02x}{number:018x}",
        namespace="ns",
        subject="alice",
        name="a",
        version="0.0.1",
        start_ms=start_ms,
        **given | fields,
    )
    return ActivationRecord(head=head, result=result, logs=("a line", "another"))


async def _fill(
    folder: Path,
    entities: list[Entity],
    records: list[ActivationRecord],
    keys: list[Any],
    apis: list[Api],
    clients: list[tuple[str, str, str | None]],
) -> None:
    secret = premises.read_secret(Settings(), folder)
    blobs = FileBlobs(folder / "blobs")
    store = await SqliteEntities.open(folder / "entities.db")
    for entity in entities:
        await store.write([Put(to_document(entity), None)])
    for api in apis:
        await DocumentApis(store).put(api, None)
    for subject, namespace, auth, is_blocked in keys:
        made = record_of(auth, secret, subject=subject, namespace=namespace)
        await store.put_key(msgspec.structs.replace(made, is_blocked=is_blocked))
    await store.put_limits("ns", b'{"invocationsPerMinute":7,"retry":{"attempts":2}}')
    await store.close()
    await blobs.put(LARGE_CODE.encode())
    for content in (PAGE, PAGE_GZIP):
        await blobs.put(content)
    async with opened_clients(folder) as held:
        for base_path, client, client_secret in clients:
            await held.add("ns", base_path, client, client_secret)
    async with Intake.opened(folder) as intake:
        await intake.records(records)


def fill(folder: Path, *entities: Entity, records: Any = (), keys: Any = (), apis: Any = (), clients: Any = ()) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    asyncio.run(_fill(folder, list(entities), list(records), list(keys), list(apis), list(clients)))


@contextlib.asynccontextmanager
async def opened_clients(folder: Path) -> AsyncIterator[Subscriptions]:
    store = await SqlitePromises.open(folder / "promises.db")
    yield Subscriptions(store, premises.read_secret(Settings(), folder))
    await store.close()


def knows(folder: Path, client: str, client_secret: str, base_path: str = "/shop") -> tuple[bool, bool]:
    """Whether the client is let in by its id, and by this secret."""

    async def ask() -> tuple[bool, bool]:
        async with opened_clients(folder) as held:
            return (
                (found := await held.find("ns", base_path, client)) is not None,
                held.is_secret(found, client_secret),
            )

    return asyncio.run(ask())


def settings(folder: Path, **fields: Any) -> Settings:
    return Settings(data_dir=str(folder), **fields)


def silent(_: str, __: int) -> None:
    pass


def export(folder: Path, file: Path, *, has_keys: bool = True, has_activations: bool = True) -> dict[str, int]:
    manifest, damages = moving.export(
        settings(folder), file, has_keys=has_keys, has_activations=has_activations, progress=silent
    )
    assert damages == []
    return {kind: count for kind, count in manifest.counts.items() if count}


def bring(folder: Path, file: Path, on_conflict: Any = "fail") -> moving.Taken:
    return moving.import_archive(settings(folder), file, on_conflict, silent)


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        found = {info.name: tar.extractfile(info) for info in tar}
        contents = {name: content.read() for name, content in found.items() if content is not None}
    del contents["manifest.json"]
    return contents


def entity(folder: Path, id: str) -> Any:
    async def get() -> Any:
        store = await SqliteEntities.open(folder / "entities.db")
        document = await store.get(id)
        await store.close()
        return None if document is None else from_document(document)

    return asyncio.run(get())


def state(folder: Path) -> list[tuple[str, bytes]]:
    """What is in the stores; SQLite's own bookkeeping aside."""
    kept = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".db":
            with contextlib.closing(sqlite3.connect(path)) as db:
                kept.append((str(path), "\n".join(db.iterdump()).encode()))
        elif path.is_file() and not path.name.endswith(("-shm", "-wal")) and path.name not in ("lock", "secret"):
            kept.append((str(path), path.read_bytes()))
    return kept


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something of everything, exported."""
    folder = tmp_path_factory.mktemp("whole")
    export(make_full(folder / "full"), folder / "a")
    return folder / "a"


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Something of everything."""
    return make_full(tmp_path / "full")


def make_full(folder: Path) -> Path:
    large = action("ns/pkg/large", parameters=plain("p", 1.5), limits=ActionLimits(memory_mb=4096, instances=3))
    blob = asyncio.run(FileBlobs(folder / "blobs").put(LARGE_CODE.encode()))
    sequence = SequenceExec((name("ns/a"), name("other/pkg/b")))
    fill(
        folder,
        action("ns/a"),
        msgspec.structs.replace(large, exec=CodeExec("python:3.11", Code(False, blob=blob), "main")),
        Action(
            name=name("ns/seq"),
            exec=sequence,
            parameters=plain("_actions", ["/ns/a", "/other/pkg/b"]),
            annotations=plain("exec", "sequence"),
        ),
        Package(
            name=name("ns/pkg"),
            parameters=plain("k", {"deep": [1]}),
            publish=True,
            site={
                "index.html": SiteFile(sha256(PAGE), len(PAGE), sha256(PAGE_GZIP), len(PAGE_GZIP)),
                "page/copy.bin": SiteFile(sha256(PAGE), len(PAGE)),
                "page.gz": SiteFile(sha256(PAGE_GZIP), len(PAGE_GZIP)),
            },
        ),
        Package(
            name=name("ns/bound"),
            binding=name("other/pkg"),
            annotations=plain("binding", {"namespace": "other", "name": "pkg"}),
        ),
        trigger("ns/t", ("ns/r", "ns/a", RuleStatus.ACTIVE), ("ns/off", "ns/a", RuleStatus.INACTIVE)),
        trigger("ns/quiet"),
        rule("ns/r", "ns/t", "ns/a", retry={"attempts": 4}),
        rule("ns/off", "ns/t", "ns/a"),
        records=[
            record(1, limits=ActionLimits()),
            record(2, result=LARGE_RESULT),
            record(3, shard=5, result=b'{"s":"\\ud83d"}', status=1, size=12),
            record(4, path=None, kind=None, end_ms=0, duration_ms=None, cause=None),
        ],
        keys=[("alice", "ns", ALICE, False), ("alice", "team", new_key(), False), ("blocked", "gone", new_key(), True)],
        apis=[api_of("ns", empty_document("/shop", None), NOW_MS), api_of("ns", empty_document("/", "Root"), NOW_MS)],
        clients=[
            ("/shop", "one", None),
            ("/shop", "two", "s3cret"),
            ("/", "two", "other"),
            ("/gone", "two", None),
            ("/gone\n/x", "two", None),
            ("", "all", "every"),
            ("/shop\n/items", "part", None),
        ],
    )
    return folder


def test_everything_goes_and_comes(full: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"
    counts = export(full, one)
    assert counts == {
        "packages": 2,
        "actions": 3,
        "triggers": 2,
        "rules": 2,
        "subjects": 2,
        "limits": 1,
        "apis": 2,
        "clients": 5,
        "activations": 4,
        "code": 1,
        "files": 2,
    }
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    taken = bring(tmp_path / "new", one)
    assert {kind: count for kind, count in taken.counts.items() if count} | {"code": 1, "files": 2} == counts
    assert (taken.there, taken.made) == (0, [])
    assert export(tmp_path / "new", two) == counts
    assert members(one) == members(two)
    follow = entity(tmp_path / "new", "ns/t").rules["ns/r"].follow
    assert follow.retry.attempts == 4
    assert (tmp_path / "new" / "ledger" / "5").is_dir()


def test_a_site_is_what_it_was(full: Path, archive: Path, tmp_path: Path) -> None:
    bring(tmp_path / "new", archive)
    site = entity(tmp_path / "new", "ns/pkg").site
    assert site == entity(full, "ns/pkg").site
    blobs = FileBlobs(tmp_path / "new" / "blobs")
    assert asyncio.run(blobs.get(site["index.html"].digest)) == PAGE
    assert asyncio.run(blobs.get(site["index.html"].gzip)) == PAGE_GZIP


def test_secrets_of_clients_are_good_at_the_next_server_and_the_one_after(archive: Path, tmp_path: Path) -> None:
    assert b"s3cret" not in b"".join(members(archive).values())
    bring(tmp_path / "next", archive)
    export(tmp_path / "next", tmp_path / "b")
    bring(tmp_path / "after", tmp_path / "b")
    for folder in (tmp_path / "next", tmp_path / "after"):
        assert knows(folder, "two", "s3cret") == (True, True)
        assert knows(folder, "two", "other") == (True, False)
        assert knows(folder, "two", "other", "/") == (True, True)
        assert knows(folder, "one", "") == (True, False)
        assert knows(folder, "three", "s3cret") == (False, False)
        assert knows(folder, "all", "every", "") == (True, True)
        assert knows(folder, "part", "", "/shop\n/items") == (True, False)
    assert members(tmp_path / "b")["clients-000001.ndjson"].splitlines() != []
    kept = (tmp_path / "next" / "promises.db").read_bytes()
    (line,) = [
        line for line in members(archive)["clients-000001.ndjson"].splitlines() if b'"/shop","client":"two"' in line
    ]
    assert bytes.fromhex(json.loads(line)["key"]) not in kept
    assert json.loads(line)["key"].encode() not in kept


def test_clients_that_are_there(full: Path, archive: Path, tmp_path: Path) -> None:
    bring(tmp_path / "new", archive)
    fill(tmp_path / "new", clients=[("/shop", "two", "newer")])
    with pytest.raises(PortableError, match="nothing was written"):
        bring(tmp_path / "new", archive)
    assert bring(tmp_path / "new", archive, "skip").counts["clients"] == 0
    assert knows(tmp_path / "new", "two", "newer") == (True, True)
    export(full, tmp_path / "short", has_keys=False)
    assert bring(tmp_path / "new", tmp_path / "short", "replace").counts["clients"] == 0
    assert knows(tmp_path / "new", "two", "newer") == (True, True)
    assert bring(tmp_path / "new", archive, "replace").counts["clients"] == 5
    assert knows(tmp_path / "new", "two", "s3cret") == (True, True)


def test_a_namespace_gets_no_more_clients_than_it_may_have(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "new", clients=[("/mine", "other", None)])
    monkeypatch.setattr(moving.subscriptions, "SUBSCRIPTIONS_LIMIT", 3)
    before = state(tmp_path / "new")
    with pytest.raises(PortableError, match="ns would have 6 clients of APIs, may have 3"):
        bring(tmp_path / "new", archive, "replace")
    assert state(tmp_path / "new") == before


def test_keys_work_where_they_come(archive: Path, tmp_path: Path) -> None:
    bring(tmp_path / "new", archive)

    async def keys() -> Any:
        store = await SqliteEntities.open(tmp_path / "new" / "entities.db")
        held = await store.keys_of_subject("alice"), await store.keys_of_subject("blocked"), await store.limits("ns")
        await store.close()
        return held

    alice, blocked, limits = asyncio.run(keys())
    secret = premises.read_secret(Settings(), tmp_path / "new")
    assert [pair_of(key, secret) for key in alice if key.namespace == "ns"] == [ALICE]
    assert [key.is_blocked for key in (*alice, *blocked)] == [False, False, True]
    assert json.loads(limits) == {"invocationsPerMinute": 7, "retry": {"attempts": 2}}


def test_without_keys_new_ones_are_made_and_said(full: Path, tmp_path: Path) -> None:
    export(full, tmp_path / "a", has_keys=False, has_activations=False)
    text = b"".join(members(tmp_path / "a").values())
    assert ALICE.key.encode() not in text
    assert b'"secret"' not in text
    assert not any(name.startswith("activations") for name in members(tmp_path / "a"))
    (full / "secret").unlink()  # it is not needed for that
    taken = bring(tmp_path / "new", tmp_path / "a")
    assert [(subject, namespace, len(auth.key)) for subject, namespace, auth in taken.made] == [
        ("alice", "ns", 64),
        ("alice", "team", 64),
        ("blocked", "gone", 64),
    ]
    again = bring(tmp_path / "new", tmp_path / "a", "replace")
    assert (again.made, again.counts["subjects"]) == ([], 0)  # a key that works is not taken away for one that is made


def test_an_export_that_cannot_be_made_leaves_nothing(full: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for folder, file, says in (
        (tmp_path / "no", target / "a", "holds no data of a server"),
        (full, tmp_path / "no" / "a", "is not there"),
    ):
        with pytest.raises(PortableError, match=says):
            export(folder, file)
    (target / "a").write_text("mine")
    with pytest.raises(PortableError, match="is there already"):
        export(full, target / "a")
    (full / "secret").write_text("00" * 32)
    with pytest.raises(PortableError, match="--no-keys"):
        export(full, target / "b")
    assert [path.name for path in target.iterdir()] == ["a"]


def test_what_does_not_read_is_said_and_left_out(full: Path, tmp_path: Path) -> None:
    for content in (LARGE_CODE.encode(), PAGE_GZIP):
        (blob,) = (full / "blobs").glob(f"*/{sha256(content)}")
        blob.write_bytes(b"other")
    (result,) = (full / "activations-0.values").glob("*/*")
    result.unlink()
    manifest, damages = moving.export(
        settings(full), tmp_path / "a", has_keys=True, has_activations=True, progress=silent
    )
    assert manifest.counts["actions"] == 2
    assert len(damages) == 3
    assert "ns/pkg/large" in damages[0]
    assert damages[1] == f"the file {sha256(PAGE_GZIP)} of ns/pkg's site is missing or damaged: it is left out"
    assert damages[2] == f"the record {result.name} does not read: it is left out"
    assert bring(tmp_path / "new", tmp_path / "a").counts["actions"] == 2
    assert list(entity(tmp_path / "new", "ns/pkg").site) == ["page/copy.bin"]


def test_a_stream(full: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    moving.export(settings(full), stream, has_keys=True, has_activations=True, progress=silent)
    (tmp_path / "a").write_bytes(stream.getvalue())
    assert bring(tmp_path / "new", tmp_path / "a").counts["activations"] == 4


# ── what is there already ───────────────────────────────────────────────────────────────────────────────────────


def test_conflicts_end_it_before_anything_is_written(archive: Path, tmp_path: Path) -> None:
    fill(tmp_path / "there", trigger("ns/a"))  # an id is one for all collections
    before = state(tmp_path / "there")
    with pytest.raises(PortableError, match="there is already: action ns/a, limits ns; nothing was written"):
        bring(tmp_path / "there", archive)
    assert state(tmp_path / "there") == before
    bring(tmp_path / "new", archive)
    with pytest.raises(PortableError, match=r"there is already: package ns/bound, .* and 19 more"):
        bring(tmp_path / "new", archive)


def test_skip_keeps_what_is_there(archive: Path, tmp_path: Path) -> None:
    fill(tmp_path / "new", action("ns/a", "mine = 1"), records=[record(1, result=b'{"mine":1}')])
    taken = bring(tmp_path / "new", archive, "skip")
    assert (taken.counts["actions"], taken.counts["activations"], taken.there) == (2, 3, 3)
    assert entity(tmp_path / "new", "ns/a").exec.code.inline == "mine = 1"
    assert found_result(tmp_path / "new", record(1)) == b'{"mine":1}'
    taken = bring(tmp_path / "new", archive, "skip")
    assert (sum(taken.counts.values()), taken.there) == (0, 24)


def test_replace_takes_what_comes(archive: Path, tmp_path: Path) -> None:
    other = new_key()
    fill(
        tmp_path / "new",
        action("ns/a", "mine = 1", version="0.0.9"),
        action("ns/mine"),
        records=[record(1, result=b'{"mine":1}')],
        keys=[("alice", "ns", other, False), ("carol", "x", AuthKey(ALICE.uuid, "c" * 64), False)],
    )
    bring(tmp_path / "new", archive, "replace")
    assert entity(tmp_path / "new", "ns/a").exec.code.inline == "x = 1"
    assert entity(tmp_path / "new", "ns/mine") is not None
    assert found_result(tmp_path / "new", record(1)) == b"{}"
    export(tmp_path / "new", tmp_path / "b")
    assert members(tmp_path / "b")["subjects-000001.ndjson"] == members(archive)["subjects-000001.ndjson"]


def found_result(folder: Path, wanted: ActivationRecord) -> bytes:
    async def get() -> bytes:
        index = await SqliteActivations.open(folder / "activations-0.db")
        found = await index.get("ns", wanted.head.id)
        await index.close()
        assert found is not None
        return found.result

    return asyncio.run(get())


def links(folder: Path, id: str) -> dict[str, str]:
    return {rule: str(link.status) for rule, link in (entity(folder, id).rules or {}).items()}


@pytest.mark.parametrize("on_conflict", ["skip", "replace"])
def test_links_travel_with_rules(tmp_path: Path, on_conflict: str) -> None:
    active, inactive = RuleStatus.ACTIVE, RuleStatus.INACTIVE
    fill(
        tmp_path / "from",
        action("ns/a"),
        trigger("ns/t", ("ns/both", "ns/a", inactive), ("ns/comes", "ns/a", active)),
        trigger("ns/u", ("ns/moves", "ns/a", active)),
        rule("ns/both", "ns/t", "ns/a"),
        rule("ns/comes", "ns/t", "ns/a"),
        rule("ns/moves", "ns/u", "ns/a"),
    )
    fill(
        tmp_path / "to",
        trigger("ns/t", ("ns/both", "ns/b", active), ("ns/stays", "ns/b", active)),
        trigger("ns/v", ("ns/moves", "ns/b", inactive), ("ns/w", "ns/b", active)),
        rule("ns/both", "ns/t", "ns/b"),
        rule("ns/stays", "ns/t", "ns/b"),
        rule("ns/moves", "ns/v", "ns/b"),
    )
    export(tmp_path / "from", tmp_path / "a")
    bring(tmp_path / "to", tmp_path / "a", on_conflict)
    if on_conflict == "skip":
        assert links(tmp_path / "to", "ns/t") == {"ns/both": "active", "ns/stays": "active", "ns/comes": "active"}
        assert links(tmp_path / "to", "ns/u") == {}
        assert links(tmp_path / "to", "ns/v") == {"ns/moves": "inactive", "ns/w": "active"}
    else:
        assert links(tmp_path / "to", "ns/t") == {"ns/stays": "active", "ns/both": "inactive", "ns/comes": "active"}
        assert links(tmp_path / "to", "ns/u") == {"ns/moves": "active"}
        assert links(tmp_path / "to", "ns/v") == {"ns/w": "active"}


# ── what no export makes ────────────────────────────────────────────────────────────────────────────────────────


def changed(file: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """The archive with other contents, as somebody would write it who knows the format."""
    parts, raw = [], b""
    with tarfile.open(file) as tar:
        for info in tar:
            content = tar.extractfile(info)
            assert content is not None
            data = change(info.name, content.read())
            if data is None:
                continue
            if info.name == "manifest.json":
                manifest = msgspec.json.decode(data)
                manifest["members"] = parts
                data = msgspec.json.encode(manifest)
            parts.append(Part(info.name, len(data), hashlib.sha256(data).hexdigest()))
            info.size = len(data)
            raw += info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    target.write_bytes(gzip.compress(raw + bytes(1024)))


def edited(kind: str, old: bytes, new: bytes) -> Callable[[str, bytes], bytes | None]:
    def change(member: str, data: bytes) -> bytes:
        assert not member.startswith(kind) or old in data
        return data.replace(old, new, 1) if member.startswith(kind) else data

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edited("actions", b'"namespace":"ns"', b'"namespace":"../x"'), "actions 1"),
        (edited("actions", b'"namespace":"ns"', b'"namespace":"_"'), "actions 1"),
        (edited("actions", b"python:3.11", b"cobol:68"), "cobol:68"),
        (edited("actions", b'"memory":4096', b'"memory":1e300'), "memory size"),
        (edited("actions", b'"sha256":"', b'"sha256":"ff'), "is not there"),
        (edited("actions", b'"parameters":[]', b'"parameters":{}'), "actions 1"),
        (edited("packages", b'"ns","name":"pkg"', b'"ns","name":"default"'), "packages"),
        (edited("triggers", b'"status":"active"', b'"status":"maybe"'), "maybe"),
        (edited("triggers", b'"namespace":"ns"', b'"namespace":"ns/pkg"'), "triggers 1"),
        (edited("rules", b'"trigger":', b'"gone":'), "rules 1"),
        (edited("rules", b'"attempts":4', b'"attempts":0'), "rules 2"),
        (edited("rules", b'"name":"r"', b'"name":"off"'), "comes twice"),
        (edited("subjects", b'"key":"kk', b'"key":"k'), "subjects 1: authorization key must be"),
        (edited("subjects", b'"subject":"alice"', b'"subject":"al"'), "subjects 1"),
        (edited("limits", b":7", b':"seven"'), "limits 1"),
        (edited("packages", b'"index.html":', b'"../index.html":'), "packages 2.*index.html"),
        (edited("packages", b',3000,"', b',2999,"'), "index.html of its site is not there, or is another"),
        (edited("packages", b'"index.html":["', b'"index.html":["ff'), "index.html of its site is not there"),
        (
            edited(
                "packages",
                f',3000,"{sha256(PAGE_GZIP)}",{len(PAGE_GZIP)}'.encode(),
                f',3000,"{sha256(PAGE)}",3000'.encode(),
            ),
            "or is another",
        ),
        (edited("packages", b'"index.html":[', b'"index.html":[7,'), "its site"),
        (edited("clients", b'"namespace":"ns"', b'"namespace":"../x"'), "clients 1"),
        (edited("clients", b'"client":"two"', b'"client":""'), "clients 2"),
        (edited("clients", b'"secret":"', b'"secret":"f'), "clients 1"),
        (edited("clients", b'"key":', b'"kez":'), "a secret comes without its key"),
        (edited("clients", b'"client":"one"', b'"client":"two"'), "comes twice"),
        (edited("clients", b'"basePath":"/"', b'"basePath":"/no"'), "the API of its client two is not in it"),
        (edited("activations", b'"activationId":"0', b'"activationId":"/'), "activations 1"),
        (edited("activations", b'"start":18', b'"start":9999918'), "activations 1"),
        (edited("activations", b'"status":"success"', b'"status":"fine"'), "activations 1"),
        (edited("activations", b'"memory":256', b'"memory":1' + b"0" * 30), "too large"),
        (edited("activations", b"{", b""), "activations 1"),
        (edited("manifest", b'"rules": 2', b'"rules": 3'), "not what its manifest counts"),
        (lambda member, data: None if member.startswith("code/") else data, "is not there"),
        (lambda member, data: None if member.startswith("files/") else data, "is not there"),
    ],
)
def test_what_is_not_as_it_should_be_changes_nothing(archive: Path, tmp_path: Path, change: Any, says: str) -> None:
    changed(archive, tmp_path / "b", change)
    fill(tmp_path / "new", action("mine/a"))
    before = state(tmp_path / "new")
    with pytest.raises(PortableError, match=says):
        bring(tmp_path / "new", tmp_path / "b", "replace")
    assert state(tmp_path / "new") == before


def test_only_one_at_a_time(full: Path, tmp_path: Path) -> None:
    export(full, tmp_path / "a")
    with premises.locked(full), pytest.raises(CannotStart, match="another server uses"):
        bring(full, tmp_path / "a")
    (full / premises.RESTORING).mkdir()
    with pytest.raises(CannotStart, match="a restore into"):
        bring(full, tmp_path / "a")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_brings_is_the_folders_owners(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o700)
    os.chown(tmp_path / "new", 12_345, 12_345)
    bring(tmp_path / "new", archive)
    assert {path.stat().st_uid for path in (tmp_path / "new").rglob("*")} == {12_345}
