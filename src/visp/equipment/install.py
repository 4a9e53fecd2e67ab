"""Installs what kinds need into the folder of runtimes, whole or not at all, one at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from visp import premises
from visp.container.bwrap import NAMESPACES
from visp.container.view import RUNTIMES, SYSTEM
from visp.equipment import fetching, rust
from visp.equipment.fetching import InstallError
from visp.equipment.sources import PROGRAMS, Debian, source_of
from visp.equipment.survey import place_of
from visp.runtime import local, modules
from visp.settings import runtimes_fault, runtimes_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from visp.entity.runtime_manifest import Kind
    from visp.equipment.survey import Place
    from visp.settings import Settings

    Say = Callable[[str], None]

TRIALS = {"python": ("-I", "-c", "import asyncio, ctypes, hashlib, json, ssl, zlib")}
"""What a program of a family must be able to do besides telling its version."""
TRIAL_S = 20.0
TRIAL_UID = 65534


def install(settings: Settings, kind: Kind, say: Say, tree: Path | None = None) -> str:
    """Brings a kind its program, from `tree` if that is given; where it is. What was there stays until all is there.

    A server may run meanwhile, and offers the kind from its next start. Raises `InstallError`.
    """
    where = _install(settings, kind, say, tree)
    if kind.family == rust.FAMILY:
        home = runtimes_folder(settings)
        found = rust.compilers(premises.read_manifest(settings).kinds(), home)
        with _place(settings, rust.FOLDER) as draft:
            rust.fill(draft, home, found, say)
    return where


def _install(settings: Settings, kind: Kind, say: Say, tree: Path | None) -> str:
    source, place = source_of(kind), place_of(kind)
    if tree is None and isinstance(source, Debian):
        say(f"… {source.names}")
        source.run(say)
        return "the system"
    if place is None:
        raise InstallError(f"{kind.kind} runs by what the system has, not by what visp installs")
    if tree is None and (source is None or isinstance(source, Debian)):
        raise InstallError(f"{kind.kind} is in no registry: name a folder that has {place.program} by --from")
    if tree is not None and not (tree / place.program).is_file():
        raise InstallError(f"{tree} has no {place.program}")
    with _place(settings, place.folder) as draft:
        if tree is not None:
            say(f"… copies {tree}")
            fetching.copy(tree.resolve(), draft)
            fetching.relocate(draft / place.program, tree.resolve())
        elif source is not None and not isinstance(source, Debian):
            say(f"… {source.names}")
            source.fill(draft, say)
        fetching.open_to_all(draft)
        _try(draft, place, kind)
    return str(runtimes_folder(settings) / place.folder)


def install_program(settings: Settings, name: str, say: Say) -> Path:
    """Brings one of `PROGRAMS`; where it is. Raises as `install`."""
    source, home = PROGRAMS[name], runtimes_folder(settings)
    with _place(settings, name) as draft:
        say(f"… {source.names}")
        source.fill(draft, say, home)
        said = _told([str(draft / source.program), "--version"])
        if name not in said:
            raise InstallError(f"{name} does not run: it says '{said[-300:]}'; nothing was installed")
        fetching.open_to_all(draft)
    return home / name / source.program


def modules_in_words() -> str:
    """What `install_modules` installs."""
    return ", ".join(f"{name} {version}" for name, version in modules.versions().items())


def install_modules(settings: Settings, say: Say) -> Path:
    """Installs them anew by npm; where they are. Raises as `install`."""
    with _place(settings, modules.FOLDER) as draft:
        for name in modules.FILES:
            (draft / name).write_bytes(modules.shipped(name))
        fetching.npm(draft, say)
        there = [draft / "node_modules" / name / "package.json" for name in modules.versions()]
        lacking = [path.parent.name for path in there if not path.is_file()]
        if lacking:
            raise InstallError(
                f"npm said that it was done, and {', '.join(lacking)} are not there: nothing was installed"
            )
        fetching.open_to_all(draft)
    return modules.folder_of(runtimes_folder(settings))


# ── the folder ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _place(settings: Settings, name: str) -> Iterator[Path]:
    """An empty folder that takes the place of `name` among the runtimes when the block ends well."""
    home = runtimes_folder(settings)
    try:
        _make(home)
        fault = runtimes_fault(home)
        if fault is not None:
            raise InstallError(fault)
        with _alone(home):
            draft = home / f".{name}.new"
            draft.mkdir(mode=0o755)
            yield draft
            folder = home / name
            if folder.exists():
                folder.rename(home / f".{name}.old")
            draft.rename(folder)
    except OSError as error:
        raise InstallError(f"{home} cannot be written: {error.strerror or error}") from None


def _make(home: Path) -> None:
    """What is above it is made for its user alone, but where that is root, whose containers have uids of their own."""
    missing = [path for path in (home, *home.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o755 if path == home or os.geteuid() == 0 else 0o700)
        if path == home:
            path.chmod(0o755)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else installs into the folder; what an install that was cut short left there is gone before and after."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InstallError(f"another visp runtime install works in {folder}: wait for its end") from None
    try:
        _clear(folder)
        yield
    finally:
        _clear(folder)
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.glob(".*"):
        shutil.rmtree(path)


# ── the trial ───────────────────────────────────────────────────────────────────────────────────────────────────


def _try(draft: Path, place: Place, kind: Kind) -> None:
    """Runs the program where containers will see it, and as one of them; without bubblewrap it runs as it is."""
    bwrap = shutil.which("bwrap", path=local.SEARCHED)
    inside = f"{RUNTIMES}/{place.folder}"
    if bwrap is None:
        argv, home = [str(draft / place.program)], draft.parent
    else:
        seen = (*SYSTEM, "--ro-bind", str(draft), inside, "--tmpfs", "/tmp", "--remount-ro", "/")
        argv, home = [bwrap, *NAMESPACES, *seen, "--", f"{inside}/{place.program}"], Path(RUNTIMES)
    said = _told([*argv, *local.asked(place.asked, home)])
    if place.asked.version not in said:
        raise InstallError(
            f"{place.program} does not run where containers see it as what {kind.kind} needs "
            f"('{place.asked.version}'): it says '{said[-300:]}'; nothing was installed"
        )
    trial = TRIALS.get(kind.family)
    if trial is not None:
        said = _told([*argv, *trial])
        if said:
            raise InstallError(f"{place.program} lacks what actions need: {said[-300:]}; nothing was installed")


def _told(argv: list[str]) -> str:
    is_other = os.geteuid() == 0 and argv[0].endswith("bwrap")
    try:
        done = subprocess.run(
            argv,
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRIAL_S,
            check=False,
            user=TRIAL_UID if is_other else None,
            group=TRIAL_UID if is_other else None,
            extra_groups=[] if is_other else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout or done.stderr).strip()
