"""Trees that containers see: copied once for each content, for everyone to read, within bounds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from visp.container import trees


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "sub" / "file").write_text("content")
    (tree / "sub" / "deep" / "program").write_text("#!/bin/sh")
    (tree / "sub" / "deep" / "program").chmod(0o700)
    (tree / "link").symlink_to("sub/file")
    (tree / "away").symlink_to("/etc/hostname")
    os.mkfifo(tree / "fifo")
    for path in (tree, tree / "sub"):
        path.chmod(0o700)
    return tree


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def brought(tree: Path, into: Path) -> Path:
    copy = trees.bring(tree, into)
    assert copy is not None
    return copy


def test_a_copy_that_everyone_can_read(tree: Path, into: Path) -> None:
    (tree / "sub" / "file").chmod(0o600)
    copy = brought(tree, into)
    assert copy.parent == into
    found = {str(path.relative_to(copy)): path.lstat() for path in copy.rglob("*")}
    assert set(found) == {"sub", "sub/file", "sub/deep", "sub/deep/program", "link", "away"}
    modes = {name: stat.S_IMODE(one.st_mode) for name, one in found.items() if not stat.S_ISLNK(one.st_mode)}
    assert modes == {"sub": 0o755, "sub/deep": 0o755, "sub/file": 0o444, "sub/deep/program": 0o555}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o755
    assert {one.st_uid for one in found.values()} == {os.geteuid()}
    assert (copy / "sub" / "file").read_text() == "content"
    assert os.readlink(copy / "away") == "/etc/hostname"


def test_what_was_brought_is_not_brought_again(tree: Path, into: Path) -> None:
    copy = brought(tree, into)
    inode = (copy / "sub" / "file").stat().st_ino
    assert brought(tree, into) == copy
    assert (copy / "sub" / "file").stat().st_ino == inode
    assert list(into.iterdir()) == [copy]


def test_another_content_is_another_copy_and_the_last_but_one_stays(tree: Path, into: Path) -> None:
    file = tree / "sub" / "file"
    times = file.stat()
    copies = [brought(tree, into)]
    for text in ("changed", "CHANGED"):  # of the same size and, as out of an archive, of the same time
        file.write_text(text)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        copies.append(brought(tree, into))
        assert (copies[-1] / "sub" / "file").read_text() == text
    assert set(into.iterdir()) == set(copies[1:])


def test_nothing_is_brought_of_nothing(tmp_path: Path, into: Path) -> None:
    assert trees.bring(tmp_path / "none", into) is None


@pytest.mark.parametrize(("limit", "most"), [("FILES_LIMIT", 5), ("BYTES_LIMIT", 10)])
def test_what_is_too_large_is_not_brought(
    tree: Path, into: Path, limit: str, most: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trees, limit, most)
    assert trees.bring(tree, into) is None
    assert list(into.iterdir()) == []
    assert "tree.not_brought" in capfd.readouterr().err


def test_a_link_is_not_followed(tree: Path, into: Path, tmp_path: Path) -> None:
    (tmp_path / "above").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tree)
    assert trees.bring(tmp_path / "above" / "tree", into) is None
    assert trees.bring(tmp_path / "itself", into) is None


def test_draft_of_a_process_that_is_gone_is_removed(tree: Path, into: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    (into / f".{gone.pid}").mkdir()
    (into / f".{os.getppid()}").mkdir()
    copy = brought(tree, into)
    assert set(into.iterdir()) == {copy, into / f".{os.getppid()}"}
