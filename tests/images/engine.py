"""A container engine for tests and benchmarks, and images made of this machine's own files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from visp.container import runsc
from visp.errors import StartFailed
from visp.settings import load

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3.11"
LOADED = """
import base64, ctypes, encodings.cp437, encodings.idna, errno, http.server, io, json, os, platform, socket, subprocess
import sys, tempfile, threading, traceback, urllib.request, zipfile
for module in list(sys.modules.values()):
    for name in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
        if name and os.path.exists(name):
            print(name)
"""
PROXY = "visp-test/proxy"
MODES = ("serve", "skeleton", "exits", "silent", "unmarked")
SHELL = ("/usr/bin/dash", "/usr/bin/cat")
NAMES = {"bin/sh": "/usr/bin/dash", "usr/bin/python3": PYTHON}
"""By which programs of the skeleton's are run."""
UP_WITHIN_S = 30.0
ENGINE = "VISP_DOCKER_HOST"
"""A variable that names an engine to use in place of one of the tests' own."""


GVISOR = "runsc"
"""The runtime of its name, of an engine of the tests' own where `gvisor` finds it."""


class NoEngine(Exception):
    """Why there is none."""


class Engine:
    """By its command-line client."""

    def __init__(self, host: str) -> None:
        self.host = host

    def call(self, *words: str, **kwargs: object) -> str:
        argv = ["docker", "--host", self.host, *words]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=60, **kwargs)  # type: ignore[call-overload]
        assert done.returncode == 0, done
        return str(done.stdout.decode().strip())

    def containers(self, *filters: str) -> list[str]:
        """Their ids, ended ones too."""
        words = [word for filter in filters for word in ("--filter", filter)]
        return self.call("ps", "--all", "--quiet", "--no-trunc", *words).split()

    def bring(self, image: str, tar: Path, *command: str) -> None:
        """Makes an image of a tar file."""
        change = f"CMD {json.dumps(command)}"
        self.call("import", "--change", change, "--change", "ENV PATH=/usr/bin:/bin", str(tar), image)


def gvisor() -> str:
    """The program, of this machine's own runtimes: it is not installed for tests. Raises `StartFailed`."""
    return runsc.find(load(environ=os.environ).settings)


@contextmanager
def needed() -> Iterator[Engine]:
    """For a test, which is skipped where there is none."""
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(running())
        except NoEngine as none:
            pytest.skip(str(none))
        yield engine


@contextmanager
def running() -> Iterator[Engine]:
    """The engine that the variable names, or one of its own, with the images of `MODES`. Raises `NoEngine`."""
    if shutil.which("docker") is None:
        raise NoEngine("docker is not installed: apt-get install docker.io")
    if not Path(PYTHON).exists():
        raise NoEngine("images are made of a system Python: apt-get install python3.11")
    with tempfile.TemporaryDirectory(prefix="visp-engine-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        given = os.environ.get(ENGINE)
        if given:
            engine = Engine(given)
            _make_images(engine, folder)
            yield engine
            return
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            raise NoEngine(f"no container engine can be started: that needs root and docker.io, or {ENGINE}")
        with _daemon(folder) as engine:
            _make_images(engine, folder)
            yield engine


@contextmanager
def _daemon(folder: Path) -> Iterator[Engine]:
    """Without a network of its own: nothing of the host's is touched."""
    socket, said, config = folder / "docker.sock", folder / "log", folder / "daemon.json"
    config.write_text("{}")  # not the host's own
    argv = ["dockerd", "--host", f"unix://{socket}", "--data-root", str(folder / "data")]
    argv += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"), "--config-file", str(config)]
    argv += ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    with suppress(StartFailed):
        argv += ["--add-runtime", f"{GVISOR}={gvisor()}"]
    with said.open("wb") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        engine, deadline = Engine(f"unix://{socket}"), time.monotonic() + UP_WITHIN_S
        while True:
            try:
                engine.call("version")
                break
            except AssertionError:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise NoEngine(f"dockerd does not start here: {said.read_text()[-500:]}") from None
                time.sleep(0.05)
        yield engine
        for container in engine.containers():
            engine.call("rm", "--force", container)
    finally:
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        subprocess.run(["umount", "--recursive", "--lazy", str(folder / "data")], capture_output=True, check=False)


def _make_images(engine: Engine, folder: Path) -> None:
    tar = folder / "image.tar"
    files = {PYTHON, *SHELL, *subprocess.check_output([PYTHON, "-I", "-c", LOADED], text=True).split()}
    for file in [file for file in files if not file.endswith((".py", ".pyc"))]:
        files |= {word for word in subprocess.check_output(["ldd", file], text=True).split() if word.startswith("/")}
    with tarfile.open(tar, "w") as archive:
        for file in sorted(files):
            archive.add(os.path.realpath(file), file.lstrip("/"))
        for name, file in NAMES.items():
            archive.add(os.path.realpath(file), name)
        archive.add(HERE / "proxy.py", "proxy.py")
        for name, mode in (("tmp", 0o1777), ("theirs", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid = tarfile.DIRTYPE, mode, 1000 if name == "theirs" else 0
            archive.addfile(entry)
    for mode in MODES:
        engine.bring(f"{PROXY}:{mode}", tar, PYTHON, "-u", "/proxy.py", mode)
