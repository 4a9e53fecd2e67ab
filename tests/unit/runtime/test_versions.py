"""Programs are asked for their version once, until they are others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from visp import remembered
from visp.remembered import Memory
from visp.runtime import versions


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, as a server finds it that starts."""
    monkeypatch.setattr(remembered, "ROOT_CACHE", tmp_path / "visp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget(monkeypatch)
    return tmp_path / "visp" / "versions.json"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_memory", Memory("versions.json", 256))


def program(folder: Path, says: str) -> Path:
    """It counts how often it is asked."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\necho x >> {folder}/asked\necho {says}\n")
    path.chmod(0o755)
    return path


def asked(folder: Path) -> int:
    return len((folder / "asked").read_text().split())


def test_one_is_asked_once_and_again_when_it_is_another(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, "v1")
    for _ in range(2):
        assert versions.version_of(str(path)) == "v1"
        forget(monkeypatch)  # another start
    assert asked(tmp_path) == 1
    assert memory.stat().st_mode & 0o777 == 0o600
    program(tmp_path, "v2.0")
    assert versions.version_of(str(path)) == "v2.0"
    assert versions.version_of(str(path), ("-v",)) == "v2.0"
    assert asked(tmp_path) == 3
    assert versions.version_of(str(tmp_path / "absent")) == ""


@pytest.mark.parametrize("spoil", ["garbage", "writable"])
def test_a_memory_that_cannot_be_trusted_is_none(
    spoil: str, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program(tmp_path, "v1")
    versions.version_of(str(path))
    if spoil == "garbage":
        memory.write_text("{")
    else:
        os.chmod(memory, 0o622)
    forget(monkeypatch)
    assert versions.version_of(str(path)) == "v1"
    assert asked(tmp_path) == 2


def test_a_silent_program_is_asked_again(memory: Path, tmp_path: Path) -> None:
    path = program(tmp_path, "")
    for _ in range(2):
        assert versions.version_of(str(path)) == ""
    assert asked(tmp_path) == 2
    assert not memory.exists()


def test_two_who_remember_keep_what_each_has_found(tmp_path: Path) -> None:
    one, other = (Memory("found", 2, tmp_path) for _ in range(2))
    assert other.get("a") is None
    one.put("a", "1")
    other.put("b", "2")
    assert [Memory("found", 2, tmp_path).get(key) for key in "ab"] == ["1", "2"]
    other.put("c", "3")
    assert [Memory("found", 2, tmp_path).get(key) for key in "abc"] == [None, "2", "3"]
