"""The doctor says what is missing and what mends it."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from visp import doctor, settings
from visp.equipment import survey
from visp.runtime import local, modules


def load(tmp_path: Path, **flags: object) -> settings.Settings:
    return settings.load(environ={}, flags={"port": 0, "data_dir": str(tmp_path / "data"), **flags}).settings


async def named(tmp_path: Path, **flags: object) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in await doctor.examine(load(tmp_path, **flags))}


@pytest.mark.slow  # starts containers: about a second
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap")
async def test_a_machine_that_has_everything(tmp_path: Path) -> None:
    found = await named(tmp_path)
    assert [finding for finding in found.values() if not finding.is_ok and not finding.is_optional] == []
    assert "refused everything" in found["sandbox"].says
    assert {"system", "data folder", "port", "open files", "sandbox", "limits", "kinds nodejs", "kinds python"} <= set(
        found
    )


async def test_whatever_is_missing_has_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SEARCHED", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    found = await named(tmp_path)
    assert str(found["sandbox"].mend).startswith("apt-get install bubblewrap")
    assert "apt-get install" in str(found["kinds python"].mend)
    assert all(finding.mend for finding in found.values() if not finding.is_ok)


async def test_what_resolves_packages_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"driver": "process"}  # not allowed, which saves the sandbox
    here = {"python": "pip", "nodejs": None}
    monkeypatch.setattr(survey, "program_of", lambda kind, home: kind.family if kind.family in here else None)
    monkeypatch.setattr(survey, "resolver_here", lambda family, kinds, home: here[family])
    found = await named(tmp_path, **flags)
    assert (found["packages python"].is_ok, "by pip" in found["packages python"].says) == (True, True)
    missing = found["packages nodejs"]
    assert (missing.is_ok, missing.is_optional, missing.mend) == (False, True, "apt-get install npm")
    assert "packages ruby" not in found


async def test_a_port_that_another_program_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = await named(tmp_path, port=taken.getsockname()[1])
    assert not found["port"].is_ok
    assert found["port"].mend == "choose another by --port"


async def test_a_driver_that_is_not_allowed(tmp_path: Path) -> None:
    found = await named(tmp_path, driver="process")
    assert "--i-trust-all-code" in found["driver"].says


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
async def test_modules_that_are_installed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root's containers would have to reach the folder
    home = tmp_path / "runtimes"
    flags = {"driver": "process", "runtimes.folder": str(home)}  # not allowed, which saves the sandbox
    found = await named(tmp_path, **flags)
    assert found["modules nodejs"].is_optional
    assert found["modules nodejs"].mend == "visp runtime install nodejs"
    modules.tree_of(home).mkdir(parents=True)
    (modules.folder_of(home) / "package-lock.json").write_bytes(modules.shipped("package-lock.json"))
    assert (await named(tmp_path, **flags))["modules nodejs"].is_ok
