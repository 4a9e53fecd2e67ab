"""The crates that Rust's actions use without a network: their sources, and what each toolchain here makes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from visp.container.bwrap import NAMESPACES
from visp.container.view import RUNTIMES, SYSTEM
from visp.equipment import fetching
from visp.equipment.fetching import SAID_LINES, InstallError
from visp.runtime import local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from visp.entity.runtime_manifest import Kind

    Say = Callable[[str], None]

FAMILY, FOLDER, COMPILED = "rust", "rust-crates", "compiled"
"""The folder below the runtimes, and what of it is for one version: the manifest names both."""
MANIFEST = "rust/crates.toml"
STEP_S = 900.0
UID = 65534
"""Who compiles where root installs: crates bring programs that run while they are compiled."""


def compilers(kinds: Iterable[Kind], home: Path) -> dict[str, str]:
    """Each Rust that is here for one of the kinds, as containers see it, by its version."""
    found = {}
    for kind in kinds:
        if kind.family == FAMILY and kind.local is not None and kind.local.build is not None:
            program = local.find_program(kind.local.build, home)
            if program is not None:
                found[kind.kind.partition(":")[2]] = program
    return found


def fill(draft: Path, home: Path, found: dict[str, str], say: Say) -> None:
    """Fetches them into an empty folder, and compiles them by each of the compilers. Raises `InstallError`."""
    if shutil.which("cc", path=local.SEARCHED) is None or shutil.which("bwrap", path=local.SEARCHED) is None:
        raise InstallError("crates are compiled by what is not here: apt-get install gcc libc6-dev bubblewrap")
    source = draft / "source"
    source.mkdir()
    (source / "lib.rs").touch()
    (source / "Cargo.toml").write_bytes(local.read_program(MANIFEST))
    newest = list(found.values())[-1]
    say("… cargo fetches crates")
    cargo = str(Path(local.on_host(newest, home)).with_name("cargo"))
    _run([cargo, "vendor", "--quiet", str(draft / "vendor")], source, dict(os.environ))
    (source / "Cargo.lock").unlink()  # in the newest one's format; crates.toml pins all of them
    (source / ".cargo").mkdir()
    (source / ".cargo" / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "installed"\n\n'
        f'[source.installed]\ndirectory = "{RUNTIMES}/{FOLDER}/vendor"\n'
    )
    fetching.open_to_all(draft)
    for version, program in found.items():
        say(f"… crates are compiled by Rust {version}")
        _compile(draft, home, version, program)
    fetching.open_to_all(draft)


def _compile(draft: Path, home: Path, version: str, program: str) -> None:
    """In a sandbox that shows the crates by the path that builds see: only then cargo takes them for compiled."""
    made = draft / f"{COMPILED}-{version}"
    made.mkdir(mode=0o755)
    inside, toolchain = f"{RUNTIMES}/{FOLDER}", os.path.dirname(program)
    view = [*NAMESPACES, *SYSTEM, "--tmpfs", "/tmp", "--dir", RUNTIMES]
    if program.startswith(RUNTIMES + "/"):
        name = Path(program).relative_to(RUNTIMES).parts[0]
        view += ["--ro-bind", str(home / name), f"{RUNTIMES}/{name}"]
    view += ["--ro-bind", str(draft), inside, "--bind", str(made), f"{inside}/{made.name}"]
    env = {"PATH": f"{toolchain}:/usr/bin:/bin", "HOME": "/tmp", "CARGO_HOME": "/tmp/cargo", "RUSTC": program}
    for variable, value in env.items():
        view += ["--setenv", variable, value]
    copied = ["sh", "-c", f'cp -r {inside}/source /tmp/source && cd /tmp/source && exec "$@"', "sh"]
    built = [f"{toolchain}/cargo", "build", "--release", "--offline", "--target-dir", f"{inside}/{made.name}"]
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(made, UID, UID)
    _run(["bwrap", *view, "--", *copied, *built], draft, {"PATH": local.SEARCHED}, UID if is_root else None)
    if is_root:
        for path in (made, *made.rglob("*")):
            os.chown(path, 0, 0, follow_symlinks=False)


def _run(argv: list[str], folder: Path, env: dict[str, str], uid: int | None = None) -> None:
    """Raises `InstallError` with its last words when it fails."""
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_S,
            check=False,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"cargo was not done within {STEP_S:.0f} s: nothing was installed") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise InstallError(f"cargo failed, nothing was installed: {'; '.join(lines[-SAID_LINES:])}")
