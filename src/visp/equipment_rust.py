"""The crates that Rust's actions use without a network: their sources, and what each toolchain here makes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from visp import premises
from visp.container.bwrap import NAMESPACES
from visp.container.view import RUNTIMES, SYSTEM
from visp.equipment.fetching import InstallError
from visp.equipment_swift import SAID_LINES, open_to_all
from visp.runtime import local
from visp.settings import runtimes_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.settings import Settings

    Say = Callable[[str], None]

FAMILY, FOLDER, COMPILED = "rust", "rust-crates", "compiled"
"""The folder below the runtimes, and what of it is for one version: the manifest names both."""
MANIFEST = "rust/crates.toml"
STEP_S = 900.0
UID = 65534
"""Who compiles where root installs: crates bring programs that run while they are compiled."""


def install_crates(settings: Settings, say: Say) -> None:
    """Fetches them, and compiles them by each Rust that is here; again after another Rust has come.

    What was there stays until all of it is there. Raises `InstallError` and `CannotStart`.
    """
    home = runtimes_folder(settings)
    found = {}
    for kind in premises.read_manifest(settings).runtimes.get(FAMILY, ()):
        program = None if kind.local is None or kind.local.build is None else local.find_program(kind.local.build, home)
        if program is not None:
            found[kind.kind.partition(":")[2]] = program
    if not found:
        raise InstallError("there is no Rust here that a kind asks for: apt-get install rustc cargo")
    draft, old = home / f".{FOLDER}.new", home / f".{FOLDER}.old"
    try:
        for path in (draft, old):
            shutil.rmtree(path, ignore_errors=True)
        draft.mkdir(mode=0o755)
        try:
            fill(draft, home, found, say)
            if (home / FOLDER).exists():
                (home / FOLDER).rename(old)
            draft.rename(home / FOLDER)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InstallError(f"{home} cannot be written: {error.strerror or error}") from None


def fill(draft: Path, home: Path, compilers: dict[str, str], say: Say) -> None:
    """Makes it in an empty folder, for compilers by their version, as containers see them. Raises `InstallError`."""
    if shutil.which("cc", path=local.SEARCHED) is None or shutil.which("bwrap", path=local.SEARCHED) is None:
        raise InstallError("crates are compiled by what is not here: apt-get install gcc libc6-dev bubblewrap")
    source = draft / "source"
    source.mkdir()
    (source / "lib.rs").touch()
    (source / "Cargo.toml").write_bytes(local.read_program(MANIFEST))
    newest = list(compilers.values())[-1]
    say("… cargo fetches crates")
    cargo = str(Path(local.on_host(newest, home)).with_name("cargo"))
    _run([cargo, "vendor", "--quiet", str(draft / "vendor")], source, dict(os.environ))
    (source / "Cargo.lock").unlink()  # in the newest one's format; crates.toml pins all of them
    (source / ".cargo").mkdir()
    (source / ".cargo" / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "installed"\n\n'
        f'[source.installed]\ndirectory = "{RUNTIMES}/{FOLDER}/vendor"\n'
    )
    open_to_all(draft)
    for version, program in compilers.items():
        say(f"… crates are compiled by Rust {version}")
        _compile(draft, home, version, program)
    open_to_all(draft)


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
