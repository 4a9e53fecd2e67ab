"""`visp admin`: what it prints and how it ends; the work itself is tested with the stores."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from visp import care
from visp.cli.admin import _size
from visp.store.base import Document, Put
from visp.store.filesystem import FileBlobs
from visp.store.sqlite import SqliteEntities

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = Document(
    id="ns/t", collection="triggers", namespace="ns", package=None, name="t", updated_ms=1, publish=False, body=b"{}"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a trigger in it."""
    folder = tmp_path / "data"
    folder.mkdir()

    async def fill() -> None:
        entities = await SqliteEntities.open(folder / "entities.db")
        await entities.write([Put(DOCUMENT, None)])
        await entities.close()
        await FileBlobs(folder / "blobs").put(b"unused" * 100)

    asyncio.run(fill())
    (folder / "secret").write_text("ab" * 32)
    (folder / "secret").chmod(0o600)
    return folder


def test_backup_into_a_folder_and_back(visp, data: Path, tmp_path: Path):
    done = visp("admin", "backup", str(tmp_path), "--data-dir", str(data))
    assert done.exit_code == 0, done.stderr
    (file,) = tmp_path.glob("visp-*.tar")
    assert done.stdout.startswith(f"{file}: 1 files, ")
    assert done.stdout.endswith(", verified\n")
    assert f"the secret in {data}/secret is not in it" in done.stderr
    assert "… entities.db" in done.stderr

    target = tmp_path / "target"
    (target / "runtimes").mkdir(parents=True)  # what was installed may be there before
    done = visp("admin", "restore", str(file), "--data-dir", str(target))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("restored 1 files, ")
    assert f"put the one that was {data}/secret to {target}/secret" in done.stderr
    done = visp("admin", "restore", str(file), "--data-dir", str(target))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is not empty (entities.db)" in done.stderr
    elsewhere = ("--set", f"secret_file={data}/secret")
    done = visp("admin", "restore", str(file), "--replace", "--data-dir", str(target), *elsewhere)
    assert done.exit_code == 0, done.stderr
    assert "what was there is in" in done.stderr
    assert "the secret" not in done.stderr


def test_what_cannot_be_done_is_said(visp, data: Path, tmp_path: Path):
    for arguments, said in (
        (("backup", str(tmp_path), "--data-dir", str(tmp_path / "no")), "holds no data of a server"),
        (("backup", str(data / "b.tar"), "--data-dir", str(data)), "is in the data folder"),
        (("restore", str(tmp_path / "no.tar"), "--data-dir", str(data)), "there is no file"),
        (("restore", str(data / "secret"), "--data-dir", str(tmp_path / "new")), "is no backup of visp"),
        (("check", "--data-dir", str(tmp_path / "no")), "there is no folder"),
    ):
        done = visp("admin", *arguments)
        assert (done.exit_code, done.stdout) == (1, ""), arguments
        assert done.stderr.startswith("error: ")
        assert said in done.stderr


def test_check_says_what_is_damaged(visp, data: Path):
    done = visp("admin", "check", "--data-dir", str(data))
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing is damaged" in done.stderr
    (blob,) = data.glob("blobs/*/*")
    blob.write_bytes(b"other")
    done = visp("admin", "check", "--data-dir", str(data))
    assert done.exit_code == 1
    assert done.stdout == f"{blob}: is not what its SHA-256 says\n  → nothing uses it: remove it\n"
    done = visp("admin", "check", "--json", "--data-dir", str(data))
    assert done.exit_code == 1
    assert json.loads(done.stdout) == [
        {"path": str(blob), "says": "is not what its SHA-256 says", "mend": "nothing uses it: remove it"}
    ]


def test_a_backup_of_what_is_damaged_says_so(visp, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make = care.backups.make

    def damaged(*arguments, **named):
        manifest = make(*arguments, **named)
        manifest.damages.append("a blob: is missing")
        return manifest

    monkeypatch.setattr(care.backups, "make", damaged)
    done = visp("admin", "backup", str(tmp_path), "--data-dir", str(data))
    assert done.exit_code == 1
    assert "damaged already: a blob: is missing" in done.stderr


def test_sizes():
    assert [_size(n) for n in (0, 1023, 1024, 1_500_000, 5 << 40)] == ["0 B", "1023 B", "1.0 KiB", "1.4 MiB", "5.0 TiB"]
