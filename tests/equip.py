"""Brings this machine the kinds and walls that `make test-all` has besides `make test`: `python -m tests.equip`.

Into its own folder of runtimes, as users do; what is there stays. What cannot be had is said here, and skipped there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from visp.equipment import survey
from visp.equipment.sources import PROGRAMS
from visp.settings import load, runtimes_folder

KINDS = ("nodejs:18", "nodejs:22", "nodejs:24", "bun:1", "deno:2", "wasm:1", "swift:5.7", "rust:1.63")
PYTHONS = ("python:3.10", "python:3.12", "python:3.13")
RUST = "rust:1.95"
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"


def main() -> None:
    settings = load(environ=os.environ).settings
    here = {one.kind for one in survey.survey(settings) if one.program is not None}
    home = runtimes_folder(settings)
    for kind in KINDS:
        if kind not in here:
            install(kind)
    for kind, folder in copies().items():
        if kind not in here:
            install(kind, "--from", str(folder))
    for name, source in PROGRAMS.items():
        if not (home / name / source.program).is_file():
            install(name)


def install(*words: str) -> None:
    """It says by itself why something is not installed."""
    subprocess.run([sys.executable, "-m", "visp", "runtime", "install", *words], check=False)


def copies() -> dict[str, Path]:
    """What no registry has, by kind: pyenv's Pythons, and the Rust that is this user's."""
    found = {kind: sorted(PYENV.glob(f"{kind.partition(':')[2]}.*")) for kind in PYTHONS}
    folders = {kind: paths[-1] for kind, paths in found.items() if paths}
    rustc = shutil.which("rustc")
    if rustc is not None:
        root = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, check=False).stdout.strip()
        said = subprocess.run([rustc, "--version"], capture_output=True, text=True, check=False).stdout
        if said.startswith(f"rustc {RUST.partition(':')[2]}."):
            folders[RUST] = Path(root)
    return folders


if __name__ == "__main__":
    main()
