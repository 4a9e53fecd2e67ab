"""Programs of others that fetch and install, and what to do when they fail."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from visp.errors import VispError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NPM = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
PIP = ("-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes")
FETCH_S = 900.0
STILL_S = 10.0
"""As often it is said that a program is still at work."""
PATIENCE = {"npm_config_fetch_retries": "1", "npm_config_fetch_retry_mintimeout": "1000"}
"""Without a network npm would try for more than a minute; who wants that can say so by the same variables."""
UNREACHED = re.compile(r"E(NOTFOUND|AI_AGAIN|CONN\w+|TIMEDOUT|NETUNREACH|HOSTUNREACH)|ERR_SOCKET_TIMEOUT")
CODE = re.compile(r"^npm (?:error|ERR!) code (\w+)", re.MULTILINE)
SAID_LINES = 3
BESIDE = b"\0$ORIGIN/../lib\0"
"""As the loader of programs reads it."""


class InstallError(VispError):
    """What was to be installed is not; the text says why and what to do."""


class _Failed(Exception):
    """A program ended with an error; what it printed."""


def npm(folder: Path, say: Callable[[str], None]) -> None:
    """Installs what the lock file in the folder says. Raises `InstallError`."""
    program = shutil.which(NPM[0])
    if program is None:
        raise InstallError(
            "npm is not installed: it comes with Node.js from nodejs.org; as a package of Debian or Ubuntu: "
            "apt-get install npm"
        )
    try:
        _run([program, *NPM[1:]], folder, say, PATIENCE | os.environ)
    except _Failed as failed:
        raise InstallError(_reason(str(failed))) from None


def pip(folder: Path, requirements: Path, say: Callable[[str], None]) -> None:
    """Installs into the folder what the file names, each by its hash. Raises `InstallError`."""
    run([sys.executable, *PIP, "--only-binary=:all:", "--target", str(folder), "-r", str(requirements)], folder, say)


def run(
    argv: Sequence[str],
    folder: Path,
    say: Callable[[str], None],
    env: dict[str, str] | None = None,
    timeout_s: float = FETCH_S,
) -> str:
    """What a program prints; raises `InstallError` with its last words when it fails."""
    try:
        return _run(argv, folder, say, os.environ | (env or {}), timeout_s)
    except _Failed as failed:
        words = "; ".join(_lines(str(failed))[-SAID_LINES:]) or "it did not say why"
        name = os.path.basename(argv[0])
        if name.startswith("python"):
            name = "pip"
        raise InstallError(f"{name} failed, nothing was installed: {words}") from None


def _run(
    argv: Sequence[str], folder: Path, say: Callable[[str], None], env: dict[str, str], timeout_s: float = FETCH_S
) -> str:
    name, began_s = os.path.basename(argv[0]), time.monotonic()
    try:
        process = subprocess.Popen(
            argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise InstallError(f"{argv[0]} cannot be started: {error.strerror}") from None
    with process:
        try:
            while True:
                try:
                    printed, told = process.communicate(timeout=STILL_S)
                    break
                except subprocess.TimeoutExpired:
                    took_s = time.monotonic() - began_s
                    if took_s > timeout_s:
                        raise InstallError(
                            f"{name} was not done within {timeout_s:.0f} s: nothing was installed"
                        ) from None
                    say(f"… still at it ({took_s:.0f} s)")
        finally:
            process.kill()
    out, err = printed.decode("utf-8", "replace"), told.decode("utf-8", "replace")
    if process.returncode != 0:
        raise _Failed(err if err.strip() else out)
    return out


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
    lines = [line for line in _lines(said) if "A complete log" not in line]
    return f"npm failed, nothing was installed: {'; '.join(lines[:SAID_LINES]) or 'it did not say why'}"


def _lines(said: str) -> list[str]:
    return [line.strip() for line in said.splitlines() if line.strip()]


def copy(source: Path, target: Path) -> None:
    """Everything below `source`, links as such; what is neither folder, file nor link is passed over."""
    for entry in os.scandir(source):
        path = target / entry.name
        if entry.is_symlink():
            path.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            path.mkdir()
            copy(source / entry.name, path)
        elif entry.is_file():
            shutil.copy2(entry.path, path)  # with its times: by these Python knows what it has compiled
            path.chmod(0o700 if entry.stat().st_mode & stat.S_IXUSR else 0o600)


def relocate(program: Path, prefix: Path) -> None:
    """A copied program that looked for its libraries in `prefix/lib` looks beside itself, wherever that is.

    The path is one of the strings of its dynamic section; what takes its place must not be longer.
    """
    if program.is_symlink():
        return
    data, old = program.read_bytes(), b"\0%s\0" % os.fsencode(prefix / "lib")
    if data.startswith(b"\x7fELF") and len(old) >= len(BESIDE):
        program.write_bytes(data.replace(old, BESIDE.ljust(len(old), b"\0")))


def open_to_all(folder: Path) -> None:
    """Everyone can read what is below, and nobody write; the owner can remove it: modes 0755, 0444 and 0555."""
    folder.chmod(0o755)
    for entry in os.scandir(folder):
        if entry.is_symlink():
            continue
        if entry.is_dir():
            open_to_all(folder / entry.name)
        else:
            (folder / entry.name).chmod(0o555 if entry.stat().st_mode & stat.S_IXUSR else 0o444)
