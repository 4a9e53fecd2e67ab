"""What the builds of compiled kinds prepare, without a compiler."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from visp.runtime import building

RUNTIME = Path(building.__file__).parent
TARGET = "target"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "building", building)
    monkeypatch.setattr(building, "WORK", str(tmp_path / "work"))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "cargo"))
    for name in ("source", TARGET):
        (tmp_path / name).mkdir()
    return tmp_path


def recipe(family: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{family}_build", RUNTIME / family / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o444)


def refusal(work: Any, *arguments: str) -> str:
    with pytest.raises(building.Failed) as caught:
        work(*arguments)
    assert caught.value.is_final
    return str(caught.value)


# ── Python ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_uv_is_told_what_pip_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://one.example/simple/")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "one.example")
    monkeypatch.setenv("UV_INSECURE_HOST", "two.example")
    told = recipe("python").of_pip()
    assert (told["UV_INDEX_URL"], "UV_INSECURE_HOST" in told) == ("https://one.example/simple/", False)


# ── Rust ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_file_of_rust_becomes_a_crate(place: Path) -> None:
    fill(place / "source", {"exec": "pub fn greet() {}"})
    recipe("rust").prepare(str(place / "source"), "greet")
    assert (place / "work/actions/src/lib.rs").read_text() == "pub fn greet() {}"
    assert 'name = "actions"' in (place / "work/actions/Cargo.toml").read_text()
    assert "call(actions::greet, value)" in (place / "work/launcher/main.rs").read_text()


def test_crate_of_rust_keeps_its_versions(place: Path) -> None:
    fill(place / "source", {"Cargo.toml": "[package]", "Cargo.lock": "pinned", "src/lib.rs": "mod a;", "src/a.rs": ""})
    recipe("rust").prepare(str(place / "source"), "main")
    assert (place / "work/actions/src/a.rs").exists()
    assert (place / "work/launcher/Cargo.lock").read_text() == "pinned"


def test_archive_without_a_crate_is_refused(place: Path) -> None:
    fill(place / "source", {"lib.rs": ""})
    assert "no Cargo.toml" in refusal(recipe("rust").prepare, str(place / "source"), "main")


@pytest.mark.parametrize("main", ["", "a b", "main);drop(", "1", "a::b", "a\n"])
def test_main_is_never_more_than_a_name(main: str, place: Path) -> None:
    for family in ("rust", "swift"):
        text = refusal(recipe(family).build, str(place / "source"), str(place / TARGET), main)
        assert "is no name of a function" in text


def test_registry_that_does_not_answer_is_told(place: Path) -> None:
    for said, told in (("error: no matching package", False), ("dns error: failed to look up", True)):
        with pytest.raises(building.Failed) as caught:
            building.resolve(["/bin/sh", "-c", f"echo '{said}'; exit 1"], place)
        assert isinstance(caught.value, building.Unreached) is told
        assert ("could not be reached" in str(caught.value)) is told
        assert not caught.value.is_final


# ── Node.js ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def nodejs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its registry does not answer, and the kind has the module `uuid`."""
    module = recipe("nodejs")

    def resolve(argv: list[str], folder: str, env: dict[str, str]) -> None:
        fill(Path(folder), {"node_modules/half/index.js": ""})
        raise building.Unreached("no registry", is_final=False)

    monkeypatch.setattr(module, "resolve", resolve)
    monkeypatch.setenv("BUN", "/usr/bin/bun")
    monkeypatch.setenv("MODULES", str(place / "modules"))
    fill(place, {"modules/uuid/package.json": "{}", "package.json": "{}"})
    return module


def test_modules_of_the_kind_stand_in_for_a_registry(nodejs: Any, place: Path) -> None:
    fill(place / "source", {"package.json": '{"dependencies": {"uuid": "^9"}}', "index.js": ""})
    nodejs.build(str(place / "source"), str(place / TARGET), "main")
    assert sorted(path.name for path in (place / TARGET).iterdir()) == ["index.js", "package.json"]


@pytest.mark.parametrize("name", ["left-pad", "..", "", "../modules/uuid"])
def test_modules_that_the_kind_has_not_need_a_registry(nodejs: Any, place: Path, name: str) -> None:
    fill(place / "source", {"package.json": json.dumps({"dependencies": {"uuid": "^9", name: "1"}})})
    with pytest.raises(building.Failed, match="no registry"):
        nodejs.build(str(place / "source"), str(place / TARGET), "main")


# ── Java ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("place")
def test_maven_is_told_of_proxy_and_mirror() -> None:
    java = recipe("java")
    assert "<proxy>" not in java.settings_of({})
    variables = {"HTTPS_PROXY": "http://127.0.0.1:3128", "NO_PROXY": "localhost,127.0.0.1"}
    told = java.settings_of({**variables, "MAVEN_MIRROR_URL": "https://m.example/a?b&c"})
    assert "<protocol>https</protocol><host>127.0.0.1</host><port>3128</port>" in told
    assert "<nonProxyHosts>localhost|127.0.0.1</nonProxyHosts>" in told
    assert "<url>https://m.example/a?b&amp;c</url>" in told
    assert "<protocol>http</protocol>" not in told


# ── Swift ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def swift(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = recipe("swift")
    monkeypatch.setattr(module, "OURS", str(place / "ours"))
    fill(place / "ours", {"_Whisk.swift": "class Whisk {}"})
    (place / "work").mkdir()
    return module


def test_call_follows_the_code(swift: Any, place: Path) -> None:
    (place / "work/main.swift").write_text("func hello() {} // Whisk is not meant")
    swift.call("Greeter.hello", str(place / "work"), "")
    assert (place / "work/main.swift").read_text().endswith("\nimport VispAction\nVispAction.run(Greeter.hello)\n")
    assert not (place / "work/_Whisk.swift").exists()


def test_helper_comes_where_it_is_named(swift: Any, place: Path) -> None:
    fill(place / "work", {"Sources/Action/a.swift": "Whisk.invoke()", "Package.swift": "Whisk.x"})
    folder = swift.main_folder(swift.MAIN_FOLDERS)
    assert folder == "Sources/Action"
    swift.call("main", str(place / "work" / folder), folder)
    assert (place / "work/Sources/Action/_Whisk.swift").exists()
    assert (place / "work/Sources/Action/main.swift").exists()


def test_main_file_is_found_before_other_sources(swift: Any, place: Path) -> None:
    fill(place / "work", {"other.swift": "", "Sources/main.swift": ""})
    assert swift.main_folder(("", "Sources")) == "Sources"


def test_sources_leave_out_package_and_tests(swift: Any, place: Path) -> None:
    fill(place / "work", {"a.swift": "", "Package.swift": "", "Tests/t.swift": "", "Sources/b.swift": "", "c.txt": ""})
    assert swift.sources(str(place / "work")) == ["a.swift", "Sources/b.swift"]


@pytest.mark.parametrize(
    ("text", "is_remote"),
    [
        ('.package(url: "https://git.example/a", from: "1.0.0")', True),
        ('.package(\n  name: "a",\n  url: "https://git.example/a", from: "1.0.0")', True),
        ('.package(path: "a")', False),
        ('.product(name: "a", package: "b")', False),
    ],
)
def test_package_that_git_has_to_bring(swift: Any, text: str, is_remote: bool) -> None:
    assert bool(swift.REMOTE.search(text.encode())) is is_remote


def test_archive_without_swift_is_refused(swift: Any, place: Path) -> None:
    fill(place / "work", {"a.txt": ""})
    assert "no Swift source" in refusal(swift.compile_files, "main")
    assert "no main.swift" in refusal(swift.main_folder, swift.MAIN_FOLDERS)


def test_copy_can_be_written(tmp_path: Path) -> None:
    fill(tmp_path / "a", {"b/c": "x"})
    building.copy(tmp_path / "a", tmp_path / "d")
    assert (tmp_path / "d/b/c").stat().st_mode & 0o200
