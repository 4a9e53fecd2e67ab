"""`visp admin export`, `import` and `import-openwhisk`: what they print and how they end."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING

import pytest
from tests.unit import dumps

from visp.controller.identities import record_of
from visp.entity.names import FullyQualifiedName
from visp.entity.subject import parse_pair
from visp.entity.trigger import Trigger
from visp.store.base import Put
from visp.store.cache import to_document
from visp.store.sqlite import SqliteEntities

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = "0 packages, 0 actions, 1 triggers, 0 rules, 1 subjects, 0 limits, 0 APIs, 0 clients, 0 activations"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a trigger and a subject in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    auth = parse_pair(dumps.ALICE)

    async def fill() -> None:
        entities = await SqliteEntities.open(folder / "entities.db")
        trigger = Trigger(name=FullyQualifiedName("alice", None, "t"))
        await entities.write([Put(to_document(trigger), None)])
        await entities.put_key(record_of(auth, bytes.fromhex("ab" * 32), subject="alice", namespace="alice"))
        await entities.close()

    asyncio.run(fill())
    (folder / "secret").write_text("ab" * 32)
    (folder / "secret").chmod(0o600)
    return folder


def test_out_and_in(visp, data: Path, tmp_path: Path):
    file, new = str(tmp_path / "a.tar.gz"), str(tmp_path / "new")
    done = visp("admin", "export", file, "--data-dir", str(data))
    assert (done.exit_code, done.stdout) == (0, f"{file}: {COUNTS}, 0 large code, 0 files of sites\n")
    assert "keys are in clear in it" in done.stderr
    assert "… triggers" in done.stderr
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    done = visp("admin", "import", file, "--data-dir", new)
    assert (done.exit_code, done.stdout) == (0, f"imported {COUNTS}\n")
    assert visp("admin", "user", "get", "alice", "--data-dir", new).stdout == dumps.ALICE + "\n"
    done = visp("admin", "import", file, "--data-dir", new)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "error: there is already: trigger alice/t, subject alice with its key of alice; nothing" in done.stderr
    done = visp("admin", "import", file, "--data-dir", new, "--on-conflict", "skip")
    assert done.exit_code == 0
    assert "2 were there already, and stay as they are" in done.stderr


def test_without_keys(visp, data: Path, tmp_path: Path):
    done = visp("admin", "export", "-", "--no-keys", "--no-activations", "--data-dir", str(data))
    assert done.exit_code == 0
    assert f"written: {COUNTS}" in done.stderr
    assert "in clear" not in done.stderr
    (tmp_path / "a").write_bytes(done.stdout_bytes)
    done = visp("admin", "import", str(tmp_path / "a"), "--data-dir", str(tmp_path / "new"))
    assert done.exit_code == 0, done.stderr
    subject, namespace, auth = done.stdout.splitlines()[1].split("\t")
    assert (subject, namespace) == ("alice", "alice")
    assert visp("admin", "user", "whois", auth, "--data-dir", str(tmp_path / "new")).exit_code == 0


def test_what_cannot_be_done_is_said(visp, data: Path, tmp_path: Path):
    (tmp_path / "text").write_text("none")
    for arguments, status, said in (
        (("export", str(tmp_path / "a"), "--data-dir", str(tmp_path / "no")), 1, "holds no data of a server"),
        (("export", str(tmp_path / "text"), "--data-dir", str(data)), 1, "is there already"),
        (("export", str(data / "a"), "--data-dir", str(data)), 1, "is in the data folder"),
        (("import", str(tmp_path / "no"), "--data-dir", str(data)), 1, "there is no file"),
        (("import-openwhisk", str(tmp_path / "no"), "--dry-run"), 1, "there is no file"),
        (("import", str(tmp_path / "text"), "--data-dir", str(data)), 1, "is no archive of visp"),
        (("import", str(tmp_path / "text"), "--on-conflict", "merge"), 2, "merge"),
        (("import-openwhisk", str(tmp_path / "text"), "--data-dir", str(data)), 1, "is no dump"),
        (("import-openwhisk", str(tmp_path / "text"), "--ids", str(tmp_path / "text")), 2, "cannot be made"),
    ):
        done = visp("admin", *arguments)
        assert (done.exit_code, done.stdout) == (status, ""), arguments
        assert said in done.stderr


def test_a_damage_is_said(visp, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from visp.store import takeout

    def damaged(self, key_of):
        self.damages.append("the record x does not read: it is left out")

    monkeypatch.setattr(takeout._Leaving, "entities", damaged)
    done = visp("admin", "export", str(tmp_path / "a"), "--data-dir", str(data))
    assert done.exit_code == 1
    assert "warning: the record x does not read" in done.stderr


def test_a_dump(visp, tmp_path: Path):
    file = dumps.all_docs(tmp_path / "d.json", [dumps.action("alice/a"), dumps.action("alice/b", None)])
    new = str(tmp_path / "new")
    dry = visp("admin", "import-openwhisk", str(file), "--dry-run", "--data-dir", new)
    assert dry.exit_code == 1
    assert dry.stdout.startswith("skipped alice/b: ")
    assert dry.stdout.endswith(
        "would import 0 packages, 1 actions, 0 triggers, 0 rules, 0 subjects, 0 limits, 0 APIs, 0 clients, 0 "
        "activations\nskipped 1\n"
    )
    good = dumps.all_docs(tmp_path / "g.json", [dumps.action("alice/a")])
    done = visp("admin", "import-openwhisk", str(good), "--ids", str(tmp_path / "ids"), "--data-dir", new)
    assert (done.exit_code, done.stdout.splitlines()[1]) == (0, "nothing was skipped")
    assert (tmp_path / "ids").read_text() == ""
