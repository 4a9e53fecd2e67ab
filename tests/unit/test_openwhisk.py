"""OpenWhisk's dumps: what is taken is what it was, and what is not is said."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit import dumps

from visp import openwhisk, premises
from visp.controller.identities import pair_of
from visp.entity.rule import Rule
from visp.entity.trigger import RuleStatus
from visp.premises import CannotStart
from visp.settings import Settings
from visp.store.base import ActivationQuery
from visp.store.cache import from_document
from visp.store.dump import DumpError
from visp.store.filesystem import FileBlobs
from visp.store.index import SqliteActivations
from visp.store.sqlite import SqliteEntities

if TYPE_CHECKING:
    from pathlib import Path

    from visp.entity.activation import ActivationRecord

START_MS = 1_800_000_000_000
SKIPPED = {
    "alice/s3": "its code is kept outside of the database, in s3: update the action with its code instead",
    "alice/stub": "its code is the attachment 0c, which is not in the dump: ask CouchDB for it by attachments=true",
    "alice/six": "runtime 'nodejs:5' is not supported",
    "alice/bad name ": "",
    f"alice/{'z' * 32}": "",
    "guest": "its key of guest is OpenWhisk's public one: make another by visp admin user create",
}
COUNTS = {"packages": 2, "actions": 7, "triggers": 1, "rules": 2, "subjects": 3, "limits": 1, "activations": 4}


class Run:
    """One import, and what was said of it."""

    def __init__(self, folder: Path, *files: Path, is_dry: bool = False) -> None:
        self.skipped: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.taken = openwhisk.import_openwhisk(
            Settings(data_dir=str(folder)),
            files,
            is_dry=is_dry,
            ids=self.ids.__setitem__,
            tell=self.skipped.__setitem__,
            note=self.notes.__setitem__,
            progress=lambda *_: None,
        )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [
        dumps.all_docs(tmp_path / "activations.json", dumps.activations(START_MS)),
        dumps.all_docs(tmp_path / "whisks.json", dumps.whisks()),
        dumps.all_docs(tmp_path / "subjects.json", dumps.subjects()),
    ]


def counts(run: Run) -> dict[str, int]:
    return {kind: count for kind, count in run.taken.counts.items() if count}


def entities(folder: Path) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        store = await SqliteEntities.open(folder / "entities.db")
        found = [one for kind in ("actions", "packages", "triggers", "rules") for one in await store.scan(kind, "", 99)]
        await store.close()
        return {document.id: from_document(document) for document in found}

    return asyncio.run(read())


def records(folder: Path) -> list[ActivationRecord]:
    async def read() -> list[ActivationRecord]:
        index = await SqliteActivations.open(folder / "activations-0.db")
        found = await index.list(ActivationQuery(namespace="alice"))
        await index.close()
        return list(found)

    return asyncio.run(read())


def check_said(run: Run) -> None:
    assert run.skipped.keys() == SKIPPED.keys()
    for id, reason in SKIPPED.items():
        assert reason in run.skipped[id]
    assert run.notes == {
        "alice/wide": "it cannot run with its limits: memory size 2048 MB exceeds allowed threshold of 512 MB",
        "alice/limits": "there are no such limits here: maxActionInstances",
    }


def test_a_dry_run_says_the_same_and_writes_nothing(files: list[Path], tmp_path: Path) -> None:
    dry = Run(tmp_path / "new", *files, is_dry=True)
    assert not (tmp_path / "new").exists()
    real = Run(tmp_path / "new", *files)
    assert counts(dry) == counts(real) == COUNTS
    assert dry.ids == real.ids
    check_said(dry)
    check_said(real)


def test_entities_are_what_they_were(files: list[Path], tmp_path: Path) -> None:
    Run(tmp_path / "new", *files)
    found = entities(tmp_path / "new")
    a = found["alice/a"]
    assert (a.version, a.updated_ms, a.exec.code.inline) == ("0.0.3", 1_700_000_000_123, dumps.CODE)
    assert "provide-api-key" not in a.annotations  # which means that it is given the key
    large = found["alice/tools/large"].exec.code
    blobs = FileBlobs(tmp_path / "new" / "blobs")
    assert asyncio.run(blobs.get(large.blob)).decode() == dumps.LARGE
    assert found["alice/mem"].exec.code.inline == dumps.CODE
    assert (found["alice/java"].exec.code.inline, found["alice/java"].exec.code.is_binary) == ("UEsDBA==", True)
    assert [part.id for part in found["alice/seq"].exec.components] == ["alice/a", "alice/tools/large"]
    sealed = found["alice/secret"].parameters["k"]
    assert (bytes(sealed.value), sealed.encryption, sealed.init) == (b'"c2VhbGVk"', "aes-128", True)
    assert found["alice/tools"].publish
    assert found["alice/bound"].binding.id == "alice/tools"
    assert found["alice/t"].rules["alice/r"].status is RuleStatus.ACTIVE
    old = found["alice/old"]
    assert isinstance(old, Rule)
    assert (old.trigger.id, old.action.id) == ("alice/t", "alice/a")
    assert "alice/old" not in found["alice/t"].rules  # as there: a rule that its trigger does not know is inactive


def test_keys_and_limits(files: list[Path], tmp_path: Path) -> None:
    Run(tmp_path / "new", *files)
    secret = premises.read_secret(Settings(), tmp_path / "new")

    async def read() -> Any:
        store = await SqliteEntities.open(tmp_path / "new" / "entities.db")
        keys = {}
        for name in ("alice", "blocked", "ancient", "guest"):
            held = await store.keys_of_subject(name)
            keys[name] = [(key.namespace, str(pair_of(key, secret)), key.is_blocked) for key in held]
        limits = await store.limits("alice")
        await store.close()
        return keys, limits

    keys, limits = asyncio.run(read())
    assert keys["alice"][0] == ("alice", dumps.ALICE, False)
    assert [(namespace, is_blocked) for namespace, _, is_blocked in keys["blocked"]] == [("gone", True)]
    assert keys["ancient"] == [("ancient", dumps.ALICE[:35] + "9:" + "a" * 64, False)]
    assert keys["guest"] == []
    assert json.loads(limits) == {"invocationsPerMinute": 900}


def test_activations_know_one_another_by_their_new_ids(files: list[Path], tmp_path: Path) -> None:
    run = Run(tmp_path / "new", *files)
    new = run.ids
    assert new.keys() == {dumps.SEQUENCE_ID, dumps.PART_ID, dumps.FIRE_ID, dumps.RUN_ID}
    assert all(id[:14] == f"{START_MS:012x}"[:11] + id[11] + "00" for id in new.values())
    found = {record.head.id: record for record in records(tmp_path / "new")}
    assert found.keys() == set(new.values())
    whole, part = found[new[dumps.SEQUENCE_ID]], found[new[dumps.PART_ID]]
    assert (whole.logs, part.head.cause) == ((new[dumps.PART_ID],), new[dumps.SEQUENCE_ID])
    assert part.logs == (f"2026 stdout: {dumps.RUN_ID}",)  # what an action printed is its own
    assert (part.head.duration_ms, part.head.wait_ms, part.head.kind) == (20, 7, "python:3.11")
    fired = found[new[dumps.FIRE_ID]]
    assert json.loads(fired.logs[0])["activationId"] == new[dumps.RUN_ID]
    assert (fired.head.path, fired.head.duration_ms, fired.result) == (None, None, b"{}")
    failed = found[new[dumps.RUN_ID]]
    assert (failed.head.status, failed.result) == (2, b'{"error": "no"}')


def test_once_more_takes_nothing(files: list[Path], tmp_path: Path) -> None:
    Run(tmp_path / "new", *files)
    again, dry = Run(tmp_path / "new", *files), Run(tmp_path / "new", *files, is_dry=True)
    assert again.skipped == dry.skipped
    assert counts(again) == counts(dry) == {}
    there = {id for id, reason in again.skipped.items() if reason == "it is there already"}
    assert {"alice/a", "alice/r", "alice/limits", f"alice/{dumps.RUN_ID}"} < there
    assert len(records(tmp_path / "new")) == 4


def test_what_comes_twice_is_taken_once(tmp_path: Path) -> None:
    documents = [dumps.action("alice/a"), dumps.whisk("trigger", "alice/a", parameters=[]), *dumps.subjects()[1:2] * 2]
    run = Run(tmp_path / "new", dumps.all_docs(tmp_path / "a.json", documents))
    assert run.skipped["alice/a"] == "it comes twice"
    assert "comes twice" in run.skipped["alice"]
    assert counts(run) == {"actions": 1, "subjects": 1}


def test_what_cannot_be_read_changes_nothing(files: list[Path], tmp_path: Path) -> None:
    files[2].write_text(files[2].read_text()[:-20])
    with pytest.raises(DumpError, match=r"subjects\.json is no dump, or was cut short"):
        Run(tmp_path / "new", *files)
    assert not (tmp_path / "new" / "entities.db").exists()
    assert not (tmp_path / "new" / "secret").exists()


def test_not_beside_a_server(files: list[Path], tmp_path: Path) -> None:
    Run(tmp_path / "new", files[1])
    with premises.locked(tmp_path / "new"):
        assert counts(Run(tmp_path / "new", files[2], is_dry=True)) == {"subjects": 3, "limits": 1}
        with pytest.raises(CannotStart):
            Run(tmp_path / "new", files[2])
