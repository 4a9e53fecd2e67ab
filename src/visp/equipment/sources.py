"""Where the programs of kinds come from: pinned versions, and what fetches each into a folder."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp.container import runsc
from visp.equipment import fetching
from visp.equipment.fetching import InstallError
from visp.equipment.swift import SwiftRoot
from visp.runtime import local, versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.entity.runtime_manifest import Kind

    Say = Callable[[str], None]
    """Is told what is done, a line each."""

MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
GO_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")
COMPILE_S = 3600.0
PYTHONS = ("python3.11", "python3.13", "python3.12", "python3")


class Npm(msgspec.Struct, frozen=True, kw_only=True):
    """A program that npm has as a package for each machine: `packages` is machine → name and its hash.

    `files` is path in the package → path in the folder.
    """

    version: str
    packages: dict[str, tuple[str, str]]
    files: dict[str, str]

    @property
    def names(self) -> str:
        return f"npm fetches {self._package()[0]} {self.version}"

    def _package(self) -> tuple[str, str]:
        package = self.packages.get(platform.machine())
        if package is None:
            raise InstallError(f"there is none for a machine of the kind {platform.machine()}: see --from")
        return package

    def fill(self, draft: Path, say: Say) -> None:
        """What npm brings has the hash that is written here, or is nothing."""
        name, integrity = self._package()
        work = draft / ".npm"
        work.mkdir()
        (work / "package.json").write_bytes(msgspec.json.encode({"dependencies": {name: self.version}}))
        locked = {"": {"dependencies": {name: self.version}}}
        package = {f"node_modules/{name}": {"version": self.version, "integrity": integrity}}
        lock = {"lockfileVersion": 3, "requires": True, "packages": locked | package}
        (work / "package-lock.json").write_bytes(msgspec.json.encode(lock))
        fetching.npm(work, say)
        for path, target in self.files.items():
            source = work / "node_modules" / name / path
            if not source.is_file():
                raise InstallError(f"{name} {self.version} has no {path}: nothing was installed")
            (draft / target).parent.mkdir(parents=True, exist_ok=True)
            source.rename(draft / target)
        shutil.rmtree(work)


class Pip(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual environment of a Python that containers see; `requirements` is a file below `visp.runtime`."""

    requirements: str

    @property
    def names(self) -> str:
        lines = local.read_program(self.requirements).decode().splitlines()
        return "pip fetches " + ", ".join(line.split()[0] for line in lines if line[:1].isalpha())

    def fill(self, draft: Path, say: Say) -> None:
        """It has no pip, nor anything that knows where it lies."""
        python = next(filter(None, (shutil.which(name, path=local.SEARCHED) for name in PYTHONS)), None)
        if python is None or not os.path.realpath(python).startswith(local.VISIBLE + "/"):
            raise InstallError("it runs in a Python that containers see, and none is here: apt-get install python3")
        version = versions.version_of(python).rpartition(" ")[2]
        (draft / "bin").mkdir()
        (draft / "bin" / "python").symlink_to(python)
        (draft / "pyvenv.cfg").write_text(f"home = {os.path.dirname(python)}\nversion = {version}\n")
        packages = draft / "lib" / f"python{version.rpartition('.')[0]}" / "site-packages"
        packages.mkdir(parents=True)
        requirements = draft / ".requirements"
        requirements.write_bytes(local.read_program(self.requirements))
        fetching.pip(packages, requirements, say)
        requirements.unlink()


class GoToolchain(msgspec.Struct, frozen=True, kw_only=True):
    """A toolchain that a `go` which is here already fetches: its own checksums are checked by it."""

    version: str

    @property
    def names(self) -> str:
        return f"go fetches its toolchain {self.version}"

    def fill(self, draft: Path, say: Say) -> None:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            raise InstallError("another go fetches it, and there is none: apt-get install golang-go, or see --from")
        modules = draft / ".modules"
        env = {"GOTOOLCHAIN": self.version, "GOPATH": str(modules), "GOFLAGS": "-modcacherw", "GOWORK": "off"}
        root = Path(fetching.run([go, "env", "GOROOT"], draft, say, env=env).strip())
        if root.is_relative_to(modules):
            for path in root.iterdir():
                path.rename(draft / path.name)
        elif (root / "bin" / "go").is_file():  # the one that is here is of this version
            fetching.copy(root, draft)
        else:
            raise InstallError(f"go said that it was done, and {self.version} is not there: nothing was installed")
        shutil.rmtree(modules, ignore_errors=True)


class GoProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A program that `go` compiles of a module, which takes minutes: its checksums are checked by it."""

    module: str
    version: str
    program: str

    @property
    def names(self) -> str:
        return f"go compiles {self.module} {self.version}"

    def fill(self, draft: Path, say: Say, home: Path) -> None:
        """`home` is the folder of runtimes: one of its toolchains will do."""
        places = (*sorted(map(str, home.glob("go-*/bin")), reverse=True), *GO_PLACES)
        go = shutil.which("go") or shutil.which("go", path=":".join(places))
        if go is None:
            raise InstallError(
                "go compiles it, and there is none: apt-get install golang-go, or visp runtime install go --from FOLDER"
            )
        work = draft / ".go"
        env = {"GOBIN": str(draft), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw"}
        env |= {"GOPATH": str(work / "path"), "GOCACHE": str(work / "cache"), "GOWORK": "off"}
        argv = [go, "install", "-trimpath", "-ldflags=-s -w", f"{self.module}@{self.version}"]
        fetching.run(argv, draft, say, env, COMPILE_S)
        shutil.rmtree(work, ignore_errors=True)


class PipProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A program that a wheel has at the path `program`; `requirements` is a file below `visp.runtime`."""

    requirements: str
    program: str

    @property
    def names(self) -> str:
        return Pip(requirements=self.requirements).names

    def fill(self, draft: Path, say: Say, home: Path) -> None:
        work = draft / ".pip"
        work.mkdir()
        requirements = work / ".requirements"
        requirements.write_bytes(local.read_program(self.requirements))
        fetching.pip(work, requirements, say)
        source = work / self.program
        if not source.is_file():
            raise InstallError(f"pip brought no {self.program}: nothing was installed")
        (draft / self.program).parent.mkdir(parents=True)
        source.rename(draft / self.program)
        shutil.rmtree(work)


class Debian(msgspec.Struct, frozen=True, kw_only=True):
    """Packages of the system, where every container sees them."""

    packages: tuple[str, ...]

    @property
    def command(self) -> str:
        return f"apt-get install {' '.join(self.packages)}"

    @property
    def names(self) -> str:
        return self.command

    def run(self, say: Say) -> None:
        """As root; others are told the command by `InstallError`."""
        apt = shutil.which("apt-get")
        if apt is None:
            raise InstallError(f"it comes as {', '.join(self.packages)} of Debian or Ubuntu, and apt-get is not here")
        if os.geteuid() != 0:
            raise InstallError(f"root installs it: {self.command}")
        words = ["install", "--yes", "--quiet", "--no-install-recommends", *self.packages]
        fetching.run([apt, *words], Path("/"), say, env={"DEBIAN_FRONTEND": "noninteractive"})


Source = Npm | Pip | GoToolchain | Debian | SwiftRoot


def _node(version: str, x64: str, arm64: str) -> Npm:
    hashes = {"x64": x64, "arm64": arm64}
    return Npm(
        version=version,
        packages={host: (f"node-linux-{name}", f"sha512-{hashes[name]}==") for host, name in MACHINES.items()},
        files={"bin/node": "bin/node", "LICENSE": "LICENSE"},
    )


SOURCES: dict[str, Source] = {
    "nodejs:18": _node(
        "18.20.8",
        "JWUTwZ9vMOjZXMtiBc74OZn12DXb4skKfY4Nlyc17Ss8BTaxjwkXAw6xZb0Ck5afUYU/neBbrHjo9O3baF34ww",
        "xTMJYtLdLjIimh8zRpgUDFsNknLP72AT/QWEQmeyDOM1/Gqj/GZn/MlbA+zWSjSMBxQscYvgFpq3qERMEcFEUA",
    ),
    "nodejs:20": _node(
        "20.20.2",
        "PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ",
        "LCXJnNTFiyGuYBw2gZSI5OBFMbkjAPt8sqD/NKrWoE2QmDgSubTqFng6GaNJ9EJ8HpxBMGcWWpbbcs4Vo+CnGg",
    ),
    "nodejs:22": _node(
        "22.23.5",
        "3jhC+wcoWxKZxcRqF2sUSl0c9HEXFnur/nuIPx6O6CWKV0jOUWQm7Htw5SuXqqlMCEhi0cJqybFPEb5hhcBiMw",
        "e1LOUGKVruPGuLVutn8+Cgm5pI1APm4Kvh+zbb/qe/ZpD9s+TQby5iUgZOWmPpbSKpj0Td8DP1N0NEnXasHizg",
    ),
    "nodejs:24": _node(
        "24.22.3",
        "KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA",
        "IZx0J52/1NDwAsY2iyWR9nlPIYuYviTWetjj8+ElvYQh2+XRhLfCfkbFEF/2O5vGI2hcUbyPNHV+nz342FbJXw",
    ),
    "deno": Npm(
        version="2.9.6",
        packages={
            "x86_64": (
                "@deno/linux-x64-glibc",
                "sha512-3md4TKLCuzsLDmfOoC5KN7NAZaxSVkMgm64vg6foD00JBADCpYS2/5QqXfzgnP5ZQz3iLP9vBQJtEgc116OAoQ==",
            ),
            "aarch64": (
                "@deno/linux-arm64-glibc",
                "sha512-poqhoH9B3nYloigEMPT5t8HY+wBeiuea1An5Q7fqgJzP0SYmWsoS/oUnWO/pEiA4ofzIBy1Elt/in58xKtxEoQ==",
            ),
        },
        files={"deno": "bin/deno"},
    ),
    "bun": Npm(
        version="1.4.5",
        packages={
            "x86_64": (
                "@oven/bun-linux-x64",
                "sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==",
            ),
            "aarch64": (
                "@oven/bun-linux-aarch64",
                "sha512-4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg==",
            ),
        },
        files={"bin/bun": "bin/bun"},
    ),
    "wasm": Pip(requirements="wasm/requirements.txt"),
    "go:1.22": GoToolchain(version="go1.22.12"),
    "go:1.23": GoToolchain(version="go1.23.12"),
    "go:1.24": GoToolchain(version="go1.24.13"),
    "go:1.25": GoToolchain(version="go1.25.14"),
    "go:1.26": GoToolchain(version="go1.26.11"),
    "php": Debian(packages=("php-cli",)),
    "ruby": Debian(packages=("ruby",)),
    "java": Debian(packages=("openjdk-17-jre-headless", "libgoogle-gson-java")),
    "rust:1.63": Debian(packages=("rustc", "cargo", "gcc", "libc6-dev")),
    "swift": SwiftRoot(),
}
"""By kind, or by family where one source serves all of it. A kind that is not here comes by --from, if at all."""


PROGRAMS: dict[str, GoProgram | PipProgram] = {
    runsc.FOLDER: GoProgram(
        module="gvisor.dev/gvisor/runsc", version="v0.0.0-20260905035102-160fafc42237", program="runsc"
    ),
    "uv": PipProgram(requirements="python/uv.txt", program="bin/uv"),
}
"""What is no kind's, by its folder and name; gVisor is of the branch that the Go tool can build."""


def source_of(kind: Kind) -> Source | None:
    return SOURCES.get(kind.kind) or SOURCES.get(kind.family)
