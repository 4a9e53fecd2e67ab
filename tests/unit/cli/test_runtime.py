"""`visp runtime`: what it lists, what it has npm do, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from visp import settings
from visp.container import runsc
from visp.equipment import fetching, survey
from visp.runtime import local, modules

NPM = """#!/bin/sh
echo "$@" > "$SEEN"; env > "$SEEN.env"; cp package.json package-lock.json "$(dirname "$SEEN")"
for path in $FILES; do
  mkdir -p "node_modules/$(dirname "$path")"; echo "$PROGRAM" > "node_modules/$path"; chmod 755 "node_modules/$path"
done
for name in $NAMES; do mkdir -p "node_modules/$name"; echo '{}' > "node_modules/$name/package.json"; done
echo "$SAYS" >&2
exit $STATUS
"""
NAMES = " ".join(modules.versions())
GO = """#!/bin/sh
echo "$@" > "$SEEN"; env > "$SEEN.env"
root="$GOPATH/pkg/mod/golang.org/toolchain@v0.0.1-$GOTOOLCHAIN.linux-amd64"
mkdir -p "$root/bin"; printf '#!/bin/sh\necho go version %s linux/amd64\n' "$GOTOOLCHAIN" > "$root/bin/go"
chmod 755 "$root/bin/go"; echo "$root"
"""
APT = """#!/bin/sh
echo "$@" > "$SEEN"; printf '#!/bin/sh\necho PHP 8.2.1\n' > "$(dirname "$0")/php"; chmod 755 "$(dirname "$0")/php"
exit $STATUS
"""


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of a machine that has Node.js 20, and an npm that does what the test says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {"node20": "#!/bin/sh\necho v20.3.1\n", "npm": NPM, "go": GO, "apt-get": APT}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    manifest = {
        "runtimes": {
            "nodejs": [
                _kind("nodejs:20", "v20.", default=True),
                _kind("nodejs:22", "v22.", programs=("{runtimes}/nodejs-22/bin/node",)),
            ],
            "python": [_kind("python:3.11", "Python 3.11.", programs=("python3.11", "{runtimes}/python-3.11/bin/py"))],
            "go": [
                _kind("go:1.24", "go1.24", programs=("{runtimes}/go-1.24/bin/go",), ask=("version",), default=True),
                _kind("go:1.19", "go1.19", programs=("{runtimes}/go-1.19/bin/go",)),
            ],
            "php": [_kind("php:8.2", "PHP 8.2", programs=("php",))],
            "java": [{"kind": "java:8", "image": {"name": "i"}}],
        }
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(local, "SEARCHED", str(folder))
    monkeypatch.setattr(local, "VISIBLE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    said = {"SEEN": str(tmp_path / "seen"), "NAMES": NAMES, "SAYS": "", "STATUS": "0", "FILES": "", "PROGRAM": ""}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    return folder


def _kind(name: str, version: str, programs: tuple[str, ...] = ("node20",), **more: object) -> dict[str, object]:
    ask = more.pop("ask", ("--version",))
    runs = {"launcher": "nodejs/launcher.cjs", "programs": programs, "version": version, "ask": ask}
    return {"kind": name, "image": {"name": "i"}, "local": runs, **more}


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of runtimes: not made yet, and where containers of root can reach it."""
    with tempfile.TemporaryDirectory(prefix="visp-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "runtimes"


@pytest.fixture
def runtime(visp, bin: Path, tmp_path: Path, home: Path):
    """The command over an own folder."""
    flags = ("--set", f"manifest={tmp_path}/manifest.json", "--set", f"runtimes.folder={home}")
    return lambda *words, **environ: visp("runtime", *words, *flags, **environ)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_list(runtime):
    done = runtime("list")
    assert done.exit_code == 0, done.stderr
    assert [line.split()[0:1] + line.split()[2:] for line in done.stdout.splitlines()] == [
        ["nodejs:20", "20.3.1", "system", "missing"],
        ["nodejs:22", "-", "-", "missing"],
        ["python:3.11", "-", "-", "-"],
        ["go:1.24", "-", "-", "-"],
        ["go:1.19", "-", "-", "-"],
        ["php:8.2", "-", "-", "-"],
        ["java:8", "-", "-", "-"],
    ]
    assert runtime("install", "nodejs:20").exit_code == 0
    listed = json.loads(runtime("list", "--json").stdout)
    assert listed[0]["program"].endswith("/bin/node20")
    assert [(one["version"], one["origin"], one["modules"]) for one in listed[:3]] == [
        ("20.3.1", "system", "installed"),
        (None, None, "installed"),
        (None, None, None),
    ]


def test_modules_of_another_visp_are_told(runtime, home: Path):
    runtime("install", "nodejs")
    lock = home / "nodejs-modules" / "package-lock.json"
    lock.chmod(0o644)
    lock.write_text("{}")
    assert json.loads(runtime("list", "--json").stdout)[0]["modules"] == "outdated"
    runtime("install", "nodejs")
    assert json.loads(runtime("list", "--json").stdout)[0]["modules"] == "installed"


# ── programs ────────────────────────────────────────────────────────────────────────────────────────────────────

MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
NODE = f"node-linux-{MACHINES.get(os.uname().machine, 'x64')}"
FETCHED = {"FILES": f"{NODE}/bin/node {NODE}/LICENSE", "PROGRAM": "#!/bin/sh\necho v22.23.5"}


def test_program_from_npm(runtime, tmp_path: Path, home: Path):
    done = runtime("install", "nodejs:22", **FETCHED)
    assert done.exit_code == 0, done.stderr
    assert f"npm fetches {NODE} 22.23.5" in done.stderr
    assert f"installed nodejs:22 in {home}/nodejs-22" in done.stdout
    assert "nodejs:22: /opt/visp/nodejs-22/bin/node" in done.stdout
    assert sorted(os.listdir(home)) == ["nodejs-22", "nodejs-modules"]
    assert sorted(os.listdir(home / "nodejs-22")) == ["LICENSE", "bin"]
    assert modes(home) == {0o444, 0o555}
    assert (stat.S_IMODE(home.stat().st_mode), home.stat().st_uid) == (0o755, os.geteuid())
    listed = json.loads(runtime("list", "--json").stdout)[1]
    assert (listed["program"], listed["version"], listed["origin"]) == (
        "/opt/visp/nodejs-22/bin/node",
        "22.23.5",
        "visp",
    )


def test_program_that_does_not_run_is_not_installed(runtime, home: Path):
    for said in ("#!/bin/sh\necho v23.0.0", "#!/bin/sh\necho broken >&2; exit 1", "no program"):
        done = runtime("install", "nodejs:22", **FETCHED | {"PROGRAM": said})
        assert done.exit_code == 1
        assert "bin/node does not run where containers see it" in done.stderr
        assert os.listdir(home) == []
    done = runtime("install", "nodejs:22", **FETCHED | {"FILES": ""})
    assert f"{NODE} 22.23.5 has no bin/node" in done.stderr
    assert os.listdir(home) == []


def test_program_that_is_there_is_not_fetched_again_but_an_older_one(runtime, tmp_path: Path, home: Path):
    runtime("install", "go:1.24")
    (tmp_path / "seen").unlink()
    assert runtime("install", "go:1.24").exit_code == 0
    assert not (tmp_path / "seen").exists()
    program = home / "go-1.24" / "bin" / "go"
    program.chmod(0o755)
    program.write_text("#!/bin/sh\necho go version go1.24.1 linux/amd64\n")
    assert runtime("install", "go:1.24").exit_code == 0
    assert (tmp_path / "seen").exists()


def test_toolchain_of_go(runtime, tmp_path: Path, home: Path):
    done = runtime("install", "go:1.24")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "seen").read_text() == "env GOROOT\n"
    assert "GOTOOLCHAIN=go1.24." in (tmp_path / "seen.env").read_text()
    assert os.listdir(home / "go-1.24") == ["bin"]
    assert json.loads(runtime("list", "--json").stdout)[3]["version"].startswith("1.24.")


@pytest.mark.parametrize("uid", [0, 1000])
def test_packages_of_the_system(runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    done = runtime("install", "php")
    if uid == 0:
        assert done.exit_code == 0, done.stderr
        assert (tmp_path / "seen").read_text() == "install --yes --quiet --no-install-recommends php-cli\n"
    else:
        assert done.exit_code == 1
        assert "root installs it: apt-get install php-cli" in done.stderr
        assert not (tmp_path / "seen").exists()


def test_family_stands_for_a_kind_that_can_be_brought(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "SEARCHED", str(tmp_path))
    given = settings.Settings(runtimes=settings.Runtimes(folder=str(home)))
    names = ("rust", "go", "php", "ruby", "java", "swift", "nodejs", "dotnet")
    kinds = {kind.family: kind.kind for kind in survey.find_kinds(given, names)}
    assert (kinds["rust"], kinds["go"], kinds["php"]) == ("rust:1.63", "go:1.26", "php:8.2")
    assert (kinds["swift"], kinds["nodejs"], kinds["dotnet"]) == ("swift:5.3", "nodejs:20", "dotnet:3.1")
    rustc = home / "rust-1.95" / "bin" / "rustc"
    rustc.parent.mkdir(parents=True)
    rustc.write_text("#!/bin/sh\necho rustc 1.95.0\n")
    rustc.chmod(0o755)
    assert [kind.kind for kind in survey.find_kinds(given, ("rust",))] == ["rust:1.95"]


def test_program_that_go_compiles(runtime, bin: Path, tmp_path: Path, home: Path):
    (bin / "go").write_text(
        '#!/bin/sh\necho "$@" > "$SEEN"; printf "#!/bin/sh\\necho runsc version 1\\n" > "$GOBIN/runsc"\n'
        'chmod 755 "$GOBIN/runsc"; mkdir -p "$GOPATH/pkg"; exit $STATUS\n'
    )
    done = runtime("install", "runsc", STATUS="1")
    assert (done.exit_code, "go failed, nothing was installed" in done.stderr) == (1, True)
    assert os.listdir(home) == []
    done = runtime("install", "runsc")
    assert done.exit_code == 0, done.stderr
    assert "gvisor.dev/gvisor/runsc@v0.0.0-" in (tmp_path / "seen").read_text()
    assert f"installed runsc: {home}/runsc/runsc" in done.stdout
    assert os.listdir(home / "runsc") == ["runsc"]
    assert runsc.find(settings.Settings(runtimes=settings.Runtimes(folder=str(home)))) == f"{home}/runsc/runsc"
    assert runtime("install", "runsc", "--from", str(tmp_path)).exit_code == 2


def test_program_that_a_wheel_brings(runtime, bin: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    def pip(folder: Path, requirements: Path, _: object) -> None:
        asked.append(requirements.read_text().split()[0])
        for name in ("bin/uv", "uv/__init__.py") if len(asked) > 1 else ():
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text("#!/bin/sh\necho uv 1.0\n")
            (folder / name).chmod(0o755)

    asked: list[str] = []
    monkeypatch.setattr(fetching, "pip", pip)
    done = runtime("install", "uv")
    assert (done.exit_code, "pip brought no bin/uv: nothing was installed" in done.stderr) == (1, True)
    assert os.listdir(home) == []
    done = runtime("install", "uv")
    assert done.exit_code == 0, done.stderr
    assert asked[1].startswith("uv==")
    assert f"installed uv: {home}/uv/bin/uv" in done.stdout
    assert [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()] == ["uv/bin/uv"]
    assert survey.resolver_here("python", (), home) == "uv"


# ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An installation of Python that its owner alone can read."""
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib").mkdir()
    (prefix / "lib" / "data").write_text("data")
    os.mkfifo(prefix / "lib" / "fifo")
    (prefix / "bin" / "python3").symlink_to("py")
    (prefix / "bin" / "py").write_text(
        '#!/bin/sh\ntest "$1" = --version || exit 0; test -f "$(dirname "$0")/../lib/data" && echo Python 3.11.9\n'
    )
    (prefix / "bin" / "py").chmod(0o700)
    (prefix / "lib").chmod(0o700)
    return prefix


def test_copy_of_an_installation(runtime, home: Path, prefix: Path):
    done = runtime("install", "python:3.11", "--from", str(prefix))
    assert done.exit_code == 0, done.stderr
    there = home / "python-3.11"
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*")) == [
        "bin",
        "bin/py",
        "bin/python3",
        "lib",
        "lib/data",
    ]
    assert modes(there) == {0o444, 0o555}
    assert os.readlink(there / "bin" / "python3") == "py"
    assert "python:3.11: /opt/visp/python-3.11/bin/py" in done.stdout
    assert runtime("install", "python:3.11", "--from", str(prefix)).exit_code == 0


def test_copy_that_lacks_something_is_refused(runtime, home: Path, prefix: Path, tmp_path: Path):
    (prefix / "lib" / "data").unlink()
    done = runtime("install", "python:3.11", "--from", str(prefix))
    assert done.exit_code == 1
    assert "does not run where containers see it" in done.stderr
    (prefix / "bin" / "py").write_text("#!/bin/sh\ntest $1 = --version && echo Python 3.11.9 || echo no ssl\n")
    done = runtime("install", "python:3.11", "--from", str(prefix))
    assert "lacks what actions need: no ssl" in done.stderr
    done = runtime("install", "python:3.11", "--from", str(tmp_path / "bin"))
    assert "has no bin/py" in done.stderr
    assert os.listdir(home) == []
    assert runtime("install", "python:3.11", "php", "--from", str(prefix)).exit_code == 2
    assert "runs by what the system has" in runtime("install", "php", "--from", str(prefix)).stderr


def test_program_finds_its_libraries_beside_itself(tmp_path: Path):
    program, old = tmp_path / "program", Path("/home/somebody/python")
    program.write_bytes(b"\x7fELF..\0/home/somebody/python/lib\0/home/somebody/python/lib/x\0end")
    fetching.relocate(program, old)
    changed = b"\x7fELF..\0$ORIGIN/../lib\0".ljust(len(b"\x7fELF..\0/home/somebody/python/lib\0"), b"\0")
    assert program.read_bytes() == changed + b"/home/somebody/python/lib/x\0end"


# ── the folder ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="what root may use is asked of root alone")
def test_root_uses_no_folder_that_others_can_change(runtime, home: Path, tmp_path: Path):
    home.mkdir()
    assert settings.runtimes_fault(home) is None
    home.chmod(0o777)
    done = runtime("install", "go:1.24")
    assert done.exit_code == 1
    assert f"others can write to {home}: chmod go-w {home}" in done.stderr
    home.chmod(0o755)
    runtime("install", "go:1.24")
    os.chown(home, 12_345, 12_345)
    assert f"{home} does not belong to root" in str(settings.runtimes_fault(home))
    assert json.loads(runtime("list", "--json").stdout)[3]["program"] is None  # root does not even ask it
    os.chown(home, 0, 0)
    home.parent.chmod(0o700)
    assert f"containers cannot reach {home}" in str(settings.runtimes_fault(home))


# ── modules ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["nodejs:20", "nodejs", "nodejs:default"])
def test_install_has_npm_do_it_once(runtime, tmp_path: Path, home: Path, name: str):
    done = runtime("install", name, "nodejs:20")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "seen").read_text() == "ci --ignore-scripts --no-audit --no-fund\n"
    assert "openwhisk 3.21.8" in done.stdout
    assert str(home / "nodejs-modules") in done.stdout
    assert "from its next start" in done.stderr
    assert sorted(path.name for path in (home / "nodejs-modules").iterdir()) == [
        "node_modules",
        "package-lock.json",
        "package.json",
    ]
    assert os.listdir(home) == ["nodejs-modules"]


def test_what_npm_is_given_is_exact(runtime, tmp_path: Path):
    runtime("install", "nodejs")
    assert json.loads((tmp_path / "package.json").read_text())["dependencies"] == modules.versions()
    packages = json.loads((tmp_path / "package-lock.json").read_text())["packages"]
    packages.pop("")
    assert {f"node_modules/{name}" for name in (*modules.versions(), "redis-commands")} <= set(packages)
    assert {name: packages[f"node_modules/{name}"]["version"] for name in modules.versions()} == modules.versions()
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package or "hasInstallScript" in package for package in packages.values())


def test_what_was_there_stays_until_the_new_is_whole(runtime, tmp_path: Path, home: Path):
    runtime("install", "nodejs")
    (home / "nodejs-modules" / "mark").touch()
    done = runtime("install", "nodejs", STATUS="1", SAYS="npm error code EWHAT\nnpm error it broke")
    assert done.exit_code == 1
    assert "npm failed, nothing was installed: npm error code EWHAT; npm error it broke" in done.stderr
    done = runtime("install", "nodejs", NAMES="openwhisk")
    assert done.exit_code == 1
    assert "redis, serialize-error, uuid are not there" in done.stderr
    assert ((home / "nodejs-modules") / "mark").exists()
    assert os.listdir(home) == ["nodejs-modules"]
    (home / ".nodejs-modules.new").mkdir()  # of one that was killed
    assert runtime("install", "nodejs").exit_code == 0
    assert not ((home / "nodejs-modules") / "mark").exists()
    assert os.listdir(home) == ["nodejs-modules"]


@pytest.mark.parametrize("code", ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT"])
@pytest.mark.parametrize("form", ["npm error code", "npm ERR! code"])
def test_without_a_network(runtime, code: str, form: str):
    done = runtime("install", "nodejs", STATUS="1", SAYS=f"npm warn x\n{form} {code}\nmore")
    assert done.exit_code == 1
    assert f"npm cannot reach its registry ({code})" in done.stderr
    assert "npm config set registry" in done.stderr


def test_what_is_not_what_was_asked_for(runtime, tmp_path: Path, home: Path):
    done = runtime("install", "nodejs", STATUS="1", SAYS="npm error code EINTEGRITY")
    assert done.exit_code == 1
    assert "EINTEGRITY" in done.stderr
    assert not (home / "nodejs-modules").exists()


def test_without_npm(runtime, bin: Path):
    done = runtime("install", "nodejs", PATH="/nowhere")
    assert done.exit_code == 1
    assert "apt-get install npm" in done.stderr


def test_only_one_at_a_time(runtime, tmp_path: Path, home: Path):
    runtime("install", "nodejs")
    descriptor = os.open(home, os.O_RDONLY)
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
    done = runtime("install", "python:3.11", "java", "go:1.19")
    assert done.exit_code == 1
    assert "python:3.11 is in no registry: name a folder that has bin/py by --from" in done.stderr
    assert "java:8: actions of this kind can be stored, but not run" in done.stderr
    assert "go:1.19 is in no registry" in done.stderr
    assert not (tmp_path / "seen").exists()


def test_unknown_kinds_are_misuse_and_nothing_is_done(runtime, tmp_path: Path):
    done = runtime("install", "nodejs", "nodejs:4")
    assert done.exit_code == 2
    assert "no kind is called 'nodejs:4'" in done.stderr
    assert not (tmp_path / "seen").exists()
    assert runtime("install").exit_code == 2
