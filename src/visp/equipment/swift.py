"""Swift's toolchain: a small Debian of its own, in which actions are compiled, and the libraries that they run with."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp.equipment import fetching
from visp.equipment.fetching import InstallError
from visp.runtime import local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Say = Callable[[str], None]
    """Is told what is done, a line each."""

FOLDER = "swift-6.0"
"""Below the runtimes; the manifest names it."""
SUITE = "trixie"
"""The first Debian that has the package `swiftlang`."""
PACKAGES = ("swiftlang", "libc6-dev", "libstdc++-14-dev", "python3-minimal", "git", "ca-certificates", "zip", "unzip")
"""swiftlang alone can neither link nor see C's headers; `runtime/swift/build.py` is run by this root's Python."""
NEEDED = {"debootstrap": "debootstrap", "bwrap": "bubblewrap", "unshare": "util-linux", "chroot": "coreutils"}
APT_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
MIRROR = re.compile(r"^(?:URIs:|deb(?: +\[[^]]*\])?) +(https?://\S*/debian/?)(?=\s|$)", re.MULTILINE)
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

TOOLCHAIN = "usr/libexec/swift"
SUPERFLUOUS = (
    *(f"{TOOLCHAIN}/bin/{name}" for name in ("lldb*", "repl_swift", "sourcekit-lsp", "docc", "clangd", "swift-format")),
    *(f"{TOOLCHAIN}/lib/{name}" for name in ("liblldb.*", "libsourcekitdInProc.so", "swift_static")),
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt"),
    *("dev/*", "etc/shadow*", "etc/gshadow*", "var/log/*"),
)
"""The debugger, the language server, tools for documentation, and what no build reads."""
POINTS = ("action", "visp/primed", "opt/visp", "proc", "sys", "dev", "tmp", "run")
POINT_FILES = ("visp/building.py", "visp/build.py", "etc/hosts", "etc/resolv.conf")
"""A container's mounts need something to lie on: the root itself cannot be written."""

OURS = "usr/lib/visp"
MODULE, HELPER = "VispAction.swift", "_Whisk.swift"
LIBRARIES = f"{TOOLCHAIN}/lib/swift/linux"
UNSHIPPED = re.compile(r"Testing|XCTest|InternalSwift|RemoteMirror")
"""Libraries that no action is linked with."""
LINKED = re.compile(r"^\s*(?:\S+ => )?(/\S+)(?: \(0x[0-9a-f]+\))$", re.MULTILINE)
HELLO = "import Foundation\nfunc main(args: Any) -> Any { print(Date()); return args }\n"
MODES = ("5", "6")


class SwiftRoot(msgspec.Struct, frozen=True, kw_only=True):
    """The toolchain in its root, and beside it what programs are linked with; 600 MB to fetch, 2 GB of disk."""

    @property
    def names(self) -> str:
        return f"swiftlang of Debian {SUITE}, in a root file system of its own"

    def fill(self, draft: Path, say: Say) -> None:
        """Raises `InstallError`."""
        fill(draft, say)


def fill(draft: Path, say: Say) -> None:
    """Makes it in an empty folder. Raises `InstallError`."""
    if os.geteuid() != 0:
        raise InstallError("Swift's toolchain is a root file system of its own: root installs it")
    lacking = [package for name, package in NEEDED.items() if shutil.which(name) is None]
    if lacking:
        raise InstallError(f"Swift's toolchain is made by what is not here: apt-get install {' '.join(lacking)}")
    mirror = mirror_in(path.read_text() for path in APT_SOURCES if path.is_file())
    if mirror is None:
        raise InstallError("Swift's toolchain comes from Debian, and apt's sources here name no mirror of Debian")
    root = draft / "root"
    say(f"… Debian {SUITE} from {mirror}")
    _alone(["debootstrap", "--variant=minbase", SUITE, str(root), mirror], draft, say)
    say(f"… {', '.join(PACKAGES)}")
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    apt = ["chroot", str(root), "apt-get", "-q", "-y", *_proxies(draft, say)]
    _alone([*apt, "update"], draft, say)
    _alone([*apt, "install", "--no-install-recommends", *PACKAGES], draft, say)
    _slim(root)
    say("… what actions are linked with")
    prepare(draft, say)


def prepare(draft: Path, say: Say) -> None:
    """What is ours, beside a root with the toolchain; raises `InstallError` when that one cannot compile a hello."""
    root, work = draft / "root", draft / "work"
    ours = root / OURS
    shutil.rmtree(ours, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    ours.mkdir()
    work.mkdir()
    for name in (MODULE, HELPER):
        (ours / name).write_bytes(local.read_program(f"swift/{name}"))
    libraries = _copy_libraries(root, draft / "lib", say)
    modules = ("-module-cache-path", "/tmp/swift-modules", "-I", f"/{OURS}")
    compiler = ["swiftc", "-O", "-wmo", *modules]
    module = ["-swift-version", "5", "-parse-as-library", "-module-name", Path(MODULE).stem, f"/{OURS}/{MODULE}"]
    _inside(root, work, [*compiler, *module, "-emit-module", "-c", "-o", f"/{OURS}/{Path(MODULE).stem}.o"], say)
    (work / "main.swift").write_text(f"{HELLO}import VispAction\nVispAction.run(main)\n")
    for mode in MODES:  # the modules of C that Foundation consists of are compiled now, and not by every build
        options = ["-swift-version", mode, "-module-name", "Action", "/tmp/main.swift"]
        _inside(root, work, [*compiler, *options, f"/{OURS}/{Path(MODULE).stem}.o", "-o", "/tmp/hello"], say)
    shutil.copytree(work / "swift-modules", ours / "modules")
    version = _inside(root, work, ["swift", "--version"], say).splitlines()[0]
    shutil.rmtree(work)
    _write_program(draft / "bin", version, [*ours.glob("*.swift"), *libraries])
    fetching.open_to_all(draft)


def mirror_in(sources: Iterable[str]) -> str | None:
    """The first mirror of Debian among apt's sources, in either of their formats."""
    return next((found[1] for text in sources if (found := MIRROR.search(text))), None)


def linked_in(said: str) -> list[str]:
    """Paths of libraries in what `ldd` prints."""
    return LINKED.findall(said)


def _slim(root: Path) -> None:
    for pattern in SUPERFLUOUS:
        for path in list(root.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in POINTS:
        (root / name).mkdir(exist_ok=True, parents=True)
    for name in POINT_FILES:
        (root / name).unlink(missing_ok=True)
        (root / name).touch()


def _copy_libraries(root: Path, lib: Path, say: Say) -> list[Path]:
    """The libraries that a program can be linked with, and all that they need of the root: loader and libc too."""
    shutil.rmtree(lib, ignore_errors=True)
    lib.mkdir()
    swift = [f"/{LIBRARIES}/{path.name}" for path in (root / LIBRARIES).glob("*.so") if not UNSHIPPED.search(path.name)]
    needed = [path for path in linked_in(_inside(root, None, ["ldd", *swift], say)) if "/host/libSwift" not in path]
    named = sorted({os.path.normpath(path) for path in (*swift, *needed)})
    found = _inside(root, None, ["readlink", "-e", *named], say).split()
    for name, path in zip(named, found, strict=True):
        shutil.copyfile(root / path[1:], lib / Path(name).name)
        (lib / Path(name).name).chmod((root / path[1:]).stat().st_mode)
    for loader in lib.glob("ld-*"):
        loader.chmod(0o755)
    return sorted(lib.iterdir())


def _write_program(folder: Path, version: str, files: Sequence[Path]) -> None:
    """The compiler runs in its root alone: what tells its version elsewhere, and by what its builds differ."""
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()[:12]
    folder.mkdir(exist_ok=True)
    program = folder / "swift"
    program.unlink(missing_ok=True)
    program.write_text(f"#!/bin/sh\necho '{version.replace(chr(39), '')} visp {digest}'\n")
    program.chmod(0o755)


# ── programs ────────────────────────────────────────────────────────────────────────────────────────────────────


def _alone(argv: list[str], folder: Path, say: Say) -> None:
    """Runs what mounts in namespaces of its own: whatever it does there, or leaves, ends with it."""
    spaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    _run([*spaces, *argv], folder, say)


def _inside(root: Path, work: Path | None, argv: list[str], say: Say) -> str:
    """Runs a program of the root in it, without a network; `work` is its `/tmp`. Swift finds its parts by `/proc`."""
    view = ["--bind", str(root), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    view += [] if work is None else ["--bind", str(work), "/tmp"]
    spaces = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--die-with-parent", "--chdir", "/tmp"]
    return _run(["bwrap", *view, *spaces, "--", *argv], root, say)


def _proxies(folder: Path, say: Say) -> list[str]:
    """What apt here is told of proxies, for the one inside."""
    names = ("Acquire::http::Proxy", "Acquire::https::Proxy")
    said = _run(["apt-config", "dump", "--format", "%f=%v%n", *names], folder, say)
    return [word for line in said.splitlines() if not line.endswith("=") for word in ("-o", line)]


def _run(argv: list[str], folder: Path, say: Say) -> str:
    """What it prints; raises `InstallError`."""
    return fetching.run(argv, folder, say, env={"PATH": PATH, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"})
