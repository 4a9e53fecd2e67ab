"""`visp runtime`: what it lists, what it has npm do, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from visp.runtime import local, modules

NPM = """#!/bin/sh
echo "$@" > "$SEEN"; env > "$SEEN.env"; cp package.json package-lock.json "$(dirname "$SEEN")"
for name in $NAMES; do mkdir -p "node_modules/$name"; echo '{}' > "node_modules/$name/package.json"; done
echo "$SAYS" >&2
exit $STATUS
"""
NAMES = " ".join(modules.versions())


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of a machine that has Node.js 20, and an npm that does what the test says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("node20", "#!/bin/sh\necho v20.3.1\n"), ("npm", NPM)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    manifest = {
        "runtimes": {
            "nodejs": [_kind("nodejs:18", "v18."), _kind("nodejs:20", "v20.", default=True)],
            "python": [_kind("python:3.11", "Python 3.11.")],
            "java": [{"kind": "java:8", "image": {"name": "i"}}],
        }
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(local, "SEARCHED", str(folder))
    monkeypatch.setattr(local, "VISIBLE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name, value in {"SEEN": str(tmp_path / "seen"), "NAMES": NAMES, "SAYS": "", "STATUS": "0"}.items():
        monkeypatch.setenv(name, value)
    return folder


def _kind(name: str, version: str, **more: object) -> dict[str, object]:
    runs = {"launcher": "nodejs/launcher.js", "programs": ["node20"], "version": version}
    return {"kind": name, "image": {"name": "i"}, "local": runs, **more}


@pytest.fixture
def runtime(visp, bin: Path, tmp_path: Path):
    """The command over an own data folder."""
    flags = ("--data-dir", str(tmp_path / "data"), "--set", f"manifest={tmp_path}/manifest.json")
    return lambda *words, **environ: visp("runtime", *words, *flags, **environ)


def tree(tmp_path: Path) -> Path:
    return tmp_path / "data" / "runtimes" / "nodejs"


def test_list(runtime):
    done = runtime("list")
    assert done.exit_code == 0, done.stderr
    assert [line.split()[0:1] + line.split()[2:] for line in done.stdout.splitlines()] == [
        ["nodejs:18", "-", "missing"],
        ["nodejs:20", "20.3.1", "missing"],
        ["python:3.11", "-", "-"],
        ["java:8", "-", "-"],
    ]
    assert runtime("install", "nodejs:20").exit_code == 0
    listed = json.loads(runtime("list", "--json").stdout)
    assert listed[1]["program"].endswith("/bin/node20")
    assert [(one["version"], one["modules"]) for one in listed] == [
        (None, "installed"),
        ("20.3.1", "installed"),
        (None, None),
        (None, None),
    ]


def test_modules_of_another_visp_are_told(runtime, tmp_path: Path):
    runtime("install", "nodejs")
    (tree(tmp_path) / "package-lock.json").write_text("{}")
    assert json.loads(runtime("list", "--json").stdout)[1]["modules"] == "outdated"
    runtime("install", "nodejs")
    assert json.loads(runtime("list", "--json").stdout)[1]["modules"] == "installed"


@pytest.mark.parametrize("name", ["nodejs:20", "nodejs", "nodejs:default"])
def test_install_has_npm_do_it_once(runtime, tmp_path: Path, name: str):
    done = runtime("install", name, "nodejs:20")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "seen").read_text() == "ci --ignore-scripts --no-audit --no-fund\n"
    assert "openwhisk 3.21.8" in done.stdout
    assert str(tree(tmp_path)) in done.stdout
    assert "from its next start" in done.stderr
    assert sorted(path.name for path in tree(tmp_path).iterdir()) == [
        "node_modules",
        "package-lock.json",
        "package.json",
    ]
    assert os.listdir(tree(tmp_path).parent) == ["nodejs"]


def test_what_npm_is_given_is_exact(runtime, tmp_path: Path):
    runtime("install", "nodejs")
    assert json.loads((tmp_path / "package.json").read_text())["dependencies"] == modules.versions()
    packages = json.loads((tmp_path / "package-lock.json").read_text())["packages"]
    packages.pop("")
    assert {f"node_modules/{name}" for name in (*modules.versions(), "redis-commands")} <= set(packages)
    assert {name: packages[f"node_modules/{name}"]["version"] for name in modules.versions()} == modules.versions()
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package or "hasInstallScript" in package for package in packages.values())


def test_what_was_there_stays_until_the_new_is_whole(runtime, tmp_path: Path):
    runtime("install", "nodejs")
    (tree(tmp_path) / "mark").touch()
    done = runtime("install", "nodejs", STATUS="1", SAYS="npm error code EWHAT\nnpm error it broke")
    assert done.exit_code == 1
    assert "npm failed, nothing was installed: npm error code EWHAT; npm error it broke" in done.stderr
    done = runtime("install", "nodejs", NAMES="openwhisk")
    assert done.exit_code == 1
    assert "redis, serialize-error, uuid are not there" in done.stderr
    assert (tree(tmp_path) / "mark").exists()
    assert os.listdir(tree(tmp_path).parent) == ["nodejs"]
    (tree(tmp_path).parent / ".nodejs.new").mkdir()  # of one that was killed
    assert runtime("install", "nodejs").exit_code == 0
    assert not (tree(tmp_path) / "mark").exists()
    assert os.listdir(tree(tmp_path).parent) == ["nodejs"]


@pytest.mark.parametrize("code", ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT"])
@pytest.mark.parametrize("form", ["npm error code", "npm ERR! code"])
def test_without_a_network(runtime, code: str, form: str):
    done = runtime("install", "nodejs", STATUS="1", SAYS=f"npm warn x\n{form} {code}\nmore")
    assert done.exit_code == 1
    assert f"npm cannot reach its registry ({code})" in done.stderr
    assert "npm config set registry" in done.stderr


def test_what_is_not_what_was_asked_for(runtime, tmp_path: Path):
    done = runtime("install", "nodejs", STATUS="1", SAYS="npm error code EINTEGRITY")
    assert done.exit_code == 1
    assert "EINTEGRITY" in done.stderr
    assert not tree(tmp_path).exists()


def test_without_npm(runtime, bin: Path):
    done = runtime("install", "nodejs", PATH="/nowhere")
    assert done.exit_code == 1
    assert "apt-get install npm" in done.stderr


def test_only_one_at_a_time(runtime, tmp_path: Path):
    runtime("install", "nodejs")
    descriptor = os.open(tree(tmp_path).parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        done = runtime("install", "nodejs")
    finally:
        os.close(descriptor)
    assert done.exit_code == 1
    assert "another visp runtime install" in done.stderr


def test_npm_is_not_patient_unless_it_is_told_to_be(runtime, tmp_path: Path):
    runtime("install", "nodejs")
    assert "npm_config_fetch_retries=1\n" in (tmp_path / "seen.env").read_text()
    runtime("install", "nodejs", npm_config_fetch_retries="7")
    assert "npm_config_fetch_retries=7\n" in (tmp_path / "seen.env").read_text()


def test_other_kinds_are_told_about(runtime, tmp_path: Path):
    done = runtime("install", "python:3.11", "java")
    assert done.exit_code == 1
    assert "python:3.11: its program is not here: apt-get install python3.11" in done.stderr
    assert "java:8: actions of this kind can be stored, but not run" in done.stderr
    assert not (tmp_path / "seen").exists()
    done = runtime("install", "nodejs:18")  # modules for what cannot run are of no use
    assert done.exit_code == 1
    assert "Node.js 18 below /usr" in done.stderr
    assert not (tmp_path / "seen").exists()


def test_unknown_kinds_are_misuse_and_nothing_is_done(runtime, tmp_path: Path):
    done = runtime("install", "nodejs", "nodejs:4")
    assert done.exit_code == 2
    assert "no kind is called 'nodejs:4'" in done.stderr
    assert not (tmp_path / "seen").exists()
    assert runtime("install").exit_code == 2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_installs_is_the_folders_owners(runtime, tmp_path: Path):
    (tmp_path / "data").mkdir(mode=0o700)
    os.chown(tmp_path / "data", 12_345, 12_345)
    assert runtime("install", "nodejs").exit_code == 0
    assert {path.stat().st_uid for path in (tmp_path / "data").rglob("*")} == {12_345}
