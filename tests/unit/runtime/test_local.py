"""Kinds of this machine: a kind's name agrees with the program that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from visp.entity.runtime_manifest import Image, Kind, LocalRuntime, Manifest
from visp.runtime import local

NOWHERE = Path("/nowhere")


def program(folder: Path, name: str, version: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
    return str(path)


def runtime(*programs: str, version: str = "v20.") -> LocalRuntime:
    return LocalRuntime(launcher="nodejs/launcher.cjs", programs=programs, version=version, arguments=("-x{heap_mb}",))


def kind(name: str, *, default: bool = False, runs: LocalRuntime | None = None) -> Kind:
    return Kind(kind=name, image=Image(name="i"), default=default, local=runs)


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that counts as one that containers can see."""
    monkeypatch.setattr(local, "SEARCHED", str(tmp_path))
    monkeypatch.setattr(local, "VISIBLE", str(tmp_path))
    return tmp_path


def test_the_first_program_of_the_right_version_is_taken(bin: Path) -> None:
    program(bin, "node", "v18.1.0")
    right = program(bin, "node20", "v20.3.1")
    assert local.find_program(runtime("absent", "node", "node20"), NOWHERE) == right


def test_no_program_of_the_version_is_none(bin: Path) -> None:
    program(bin, "node", "v22.0.0")
    program(bin, "broken", "")
    assert local.find_program(runtime("node", "broken", "absent"), NOWHERE) is None


def test_what_containers_cannot_see_is_not_taken(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bin, "node", "v20.0.0")
    monkeypatch.setattr(local, "VISIBLE", "/usr")
    assert local.find_program(runtime("node"), NOWHERE) is None


def test_kinds_are_found_with_their_launcher_and_command(bin: Path) -> None:
    path = program(bin, "node", "v20.0.0")
    manifest = Manifest(
        {"nodejs": (kind("nodejs:18", runs=runtime("node", version="v18.")), kind("nodejs:20", runs=runtime("node")))}
    )
    installed: dict[str, bytes] = {}

    def install(name: str, content: bytes, _: bytes) -> Path:
        installed[name] = content
        return Path("/cells") / name

    kinds = local.find(manifest, install, NOWHERE)
    assert list(kinds) == ["nodejs:20"]
    assert installed["nodejs/launcher.cjs"]
    command = kinds["nodejs:20"].command(256)
    assert command.argv == (path, "-x192", "/visp/nodejs-launcher.cjs")
    assert command.mounts == (
        ("/cells/nodejs/launcher.cjs", "/visp/nodejs-launcher.cjs"),
        ("/cells/nodejs/extras.cjs", "/visp/nodejs-extras.cjs"),
    )
    assert command.template is None
    assert command.env == {}


def test_what_visp_installed_is_called_as_containers_see_it(bin: Path, tmp_path: Path) -> None:
    home = tmp_path / "runtimes"
    (home / "nodejs-20" / "bin").mkdir(parents=True)
    program(home / "nodejs-20" / "bin", "node", "v20.0.0")
    runs = LocalRuntime(
        launcher="nodejs/launcher.cjs",
        programs=("node", "{runtimes}/nodejs-20/bin/node"),
        version="v20.",
        environment={"NODE_PATH": "{runtimes}/nodejs-modules/node_modules"},
    )
    manifest = Manifest({"nodejs": (kind("nodejs:20", runs=runs),)})
    command = local.find(manifest, lambda name, *_: Path("/cells") / name, home)["nodejs:20"].command(256)
    assert command.argv[0] == "/opt/visp/nodejs-20/bin/node"
    assert command.env == {"NODE_PATH": "/opt/visp/nodejs-modules/node_modules"}
    assert local.on_host(command.argv[0], home) == str(home / "nodejs-20" / "bin" / "node")


def test_program_is_asked_by_the_words_of_the_manifest(bin: Path, tmp_path: Path) -> None:
    (bin / "tool").write_text('#!/bin/sh\necho "$@"\n')
    (bin / "tool").chmod(0o755)
    asks = LocalRuntime(
        launcher="l", programs=("tool",), version=f"in {tmp_path} found", ask=("in", "{runtimes}", "found")
    )
    assert local.find_program(asks, tmp_path) == str(bin / "tool")
    assert local.find_program(asks, NOWHERE) is None


def test_kind_whose_launcher_has_a_template_beside_it_says_where_it_lies(bin: Path) -> None:
    program(bin, "python3.11", "Python 3.11.2")
    runs = LocalRuntime(launcher="python/launcher.py", programs=("python3.11",), version="Python 3.11.")
    kinds = local.find(
        Manifest({"python": (kind("python:3.11", runs=runs),)}), lambda name, *_: Path("/cells") / name, NOWHERE
    )
    assert kinds["python:3.11"].command(256).template == "/cells/python/template.py"


def test_a_default_that_is_installed_stays() -> None:
    manifest = Manifest({"f": (kind("f:1", default=True), kind("f:2"))})
    assert local.offer(manifest, frozenset({"f:1", "f:2"})).resolve("f:default").kind == "f:1"


def test_else_the_newest_that_is_installed_takes_its_place() -> None:
    manifest = Manifest({"f": (kind("f:3.9"), kind("f:3.10"), kind("f:3.11", default=True))})
    assert local.offer(manifest, frozenset({"f:3.9", "f:3.10"})).resolve("f:default").kind == "f:3.10"


def test_a_family_of_which_nothing_is_installed_stays_as_it_is() -> None:
    manifest = Manifest({"f": (kind("f:1", default=True), kind("f:2"))})
    assert local.offer(manifest, frozenset()).resolve("f:default").kind == "f:1"
