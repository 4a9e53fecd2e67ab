"""What this machine has for the kinds: which program runs each, and the modules that are installed for them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import msgspec

from visp import moving, premises
from visp.care import data_dir_of
from visp.errors import Malformed, VispError
from visp.runtime import local, modules
from visp.settings import runtimes_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from visp.entity.runtime_manifest import Kind
    from visp.settings import Settings

NPM = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
NPM_S = 600.0
PATIENCE = {"npm_config_fetch_retries": "1", "npm_config_fetch_retry_mintimeout": "1000"}
"""Without a network npm would try for more than a minute; who wants that can say so by the same variables."""
UNREACHED = re.compile(r"E(NOTFOUND|AI_AGAIN|CONN\w+|TIMEDOUT|NETUNREACH|HOSTUNREACH)|ERR_SOCKET_TIMEOUT")
CODE = re.compile(r"^npm (?:error|ERR!) code (\w+)", re.MULTILINE)
SAID_LINES = 3


class InstallError(VispError):
    """What was to be installed is not; the text says why and what to do."""


class UnknownKind(VispError):
    """A name that is no kind's, nor a family's."""


class Equipped(msgspec.Struct, frozen=True, kw_only=True):
    """A kind, with the program that runs it here and the version that this one tells, None where there is none.

    `modules` is None for kinds that have none to install.
    """

    kind: str
    program: str | None
    version: str | None
    modules: str | None


def survey(settings: Settings) -> list[Equipped]:
    """Every kind of the manifest, in its order; raises `CannotStart` for a manifest that cannot be read."""
    data_dir, home = data_dir_of(settings), runtimes_folder(settings)
    return [_equipped(kind, data_dir, home) for kind in premises.read_manifest(settings).kinds() if not kind.deprecated]


def _equipped(kind: Kind, data_dir: Path, home: Path) -> Equipped:
    program, version = program_of(kind, home), None
    if program is not None:
        version = local.version_of(local.on_host(program, home)).rpartition(" ")[2].removeprefix("v")
    return Equipped(
        kind=kind.kind,
        program=program,
        version=version,
        modules=state_of(data_dir) if has_modules(kind) else None,
    )


def program_of(kind: Kind, home: Path) -> str | None:
    """What runs it here; `home` is the folder of installed runtimes."""
    return None if kind.local is None else local.find_program(kind.local, home)


def has_modules(kind: Kind) -> bool:
    """Whether there are modules to install for it."""
    return kind.family == modules.FAMILY and kind.local is not None


def state_of(data_dir: Path) -> str:
    """`installed`, `outdated` (by another visp) or `missing`."""
    if not modules.tree_of(data_dir).is_dir():
        return "missing"
    return "installed" if modules.are_current(data_dir) else "outdated"


def find_kinds(settings: Settings, names: tuple[str, ...]) -> list[Kind]:
    """Each once; a family's name alone stands for its default. Raises `UnknownKind` and `CannotStart`."""
    manifest = premises.read_manifest(settings)
    found = {}
    for name in names:
        try:
            kind = manifest.resolve(f"{name}:default" if name in manifest.runtimes else name)
        except Malformed:
            raise UnknownKind(f"no kind is called '{name}': see visp runtime list") from None
        found[kind.kind] = kind
    return list(found.values())


def lack_of(kind: Kind) -> str:
    """That a kind has no program here, and what brings it one."""
    family, _, version = kind.kind.partition(":")
    if kind.local is None:
        return "actions of this kind can be stored, but not run: visp runs it by no program"
    if family == "python":
        return f"its program is not here: apt-get install python{version}"
    if family == "nodejs":
        return f"its program is not here: Node.js {version} below /usr, from nodejs.org or as the package nodejs"
    return f"its program is not here: {' or '.join(kind.local.programs)}, below /usr"


# ── modules ─────────────────────────────────────────────────────────────────────────────────────────────────────


def modules_in_words() -> str:
    """What `install_modules` installs."""
    return ", ".join(f"{name} {version}" for name, version in modules.versions().items())


def install_modules(settings: Settings) -> Path:
    """Installs them anew by npm; where they are. What was there stays until all of them are.

    A server may run meanwhile. Raises `InstallError` and `CannotStart`.
    """
    npm = shutil.which(NPM[0])
    if npm is None:
        raise InstallError(
            "npm is not installed: it comes with Node.js from nodejs.org; as a package of Debian or Ubuntu: "
            "apt-get install npm"
        )
    data_dir = premises.make_data_dir(settings)
    folder = modules.folder_of(data_dir)
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with _alone(folder.parent):
            draft = folder.with_name(f".{folder.name}.new")
            _fill(draft, npm)
            _replace(folder, draft)
    except OSError as error:
        raise InstallError(f"{folder} cannot be written: {error.strerror or error}") from None
    moving.hand_over(data_dir)
    return folder


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


def _fill(draft: Path, npm: str) -> None:
    draft.mkdir(mode=0o700)
    for name in modules.FILES:
        (draft / name).write_bytes(modules.shipped(name))
    try:
        done = subprocess.run(
            [npm, *NPM[1:]],
            cwd=draft,
            env=PATIENCE | os.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=NPM_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"npm was not done within {NPM_S:.0f} s: nothing was installed") from None
    if done.returncode != 0:
        raise InstallError(_reason((done.stderr or done.stdout).decode("utf-8", "replace")))
    lacking = [name for name in modules.versions() if not (draft / "node_modules" / name / "package.json").is_file()]
    if lacking:
        raise InstallError(f"npm said that it was done, and {', '.join(lacking)} are not there: nothing was installed")


def _reason(said: str) -> str:
    """Why npm failed, by what it printed, and what to do."""
    code = CODE.search(said)
    if code is not None and UNREACHED.fullmatch(code[1]):
        return (
            f"npm cannot reach its registry ({code[1]}): look at the network, or name a mirror by "
            "`npm config set registry URL`; nothing was installed"
        )
    if code is not None and code[1] == "EINTEGRITY":
        return "npm was sent what is not what was asked for (EINTEGRITY): look at its registry; nothing was installed"
    lines = [line.strip() for line in said.splitlines() if "A complete log" not in line and line.strip()]
    return f"npm failed, nothing was installed: {'; '.join(lines[:SAID_LINES]) or 'it did not say why'}"


def _replace(folder: Path, draft: Path) -> None:
    if folder.exists():
        folder.rename(folder.with_name(f".{folder.name}.old"))
    draft.rename(folder)
