"""The launchers of Node.js and Python kinds, spoken to over pipes as a container is."""

import fcntl
import json
import os
import re
import shutil
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from visp.runtime.client import REST

NODE = shutil.which("node")
LAUNCHER = str(resources.files("visp.runtime").joinpath("nodejs/launcher.cjs"))

OK = b'{"ok":true,"stream":true}'

pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed: apt-get install nodejs")


class Launcher:
    def __init__(self, argv: list[str] | None = None) -> None:
        argv = argv or [str(NODE), LAUNCHER]
        stdin_inside, self._stdin = os.pipe()
        replies, replies_inside = os.pipe()
        self.stdout, stdout_inside = os.pipe()
        inside = {0: stdin_inside, 1: stdout_inside, 3: replies_inside}
        actions = [(os.POSIX_SPAWN_DUP2, ours, number) for number, ours in inside.items()]
        self._pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions)
        for descriptor in inside.values():
            os.close(descriptor)
        self._replies = os.fdopen(replies, "rb")

    def ask(self, message: dict[str, Any], piece_bytes: int = 1 << 16) -> bytes:
        """Its reply; each piece is sent once the one before it was read."""
        line = json.dumps(message).encode() + b"\n"
        for at in range(0, len(line), piece_bytes):
            os.write(self._stdin, line[at : at + piece_bytes])
            while self._is_unread():
                pass
        return self._replies.readline().rstrip()

    def rest(self) -> None:
        os.write(self._stdin, REST)

    def resident_kb(self, field: str = "VmRSS") -> int:
        """`VmHWM`: the most that it ever was."""
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def _is_unread(self) -> bool:
        return int.from_bytes(fcntl.ioctl(self._stdin, termios.FIONREAD, bytes(4)), sys.byteorder) > 0

    def data_kb(self) -> int:
        """What a limit on its data counts."""
        found = re.search(r"VmData:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def end(self) -> int:
        """Its input ends; its exit status."""
        os.close(self._stdin)
        _, status = os.waitpid(self._pid, 0)
        os.close(self.stdout)
        self._replies.close()
        return os.waitstatus_to_exitcode(status)


@contextmanager
def launched(argv: list[str] | None = None) -> Iterator[Launcher]:
    launcher = Launcher(argv)
    try:
        yield launcher
    finally:
        status = launcher.end()
    assert status == 0, "it ends with its input"


PYTHON = [sys.executable, "-s", "-u", str(resources.files("visp.runtime").joinpath("python/launcher.py"))]
GARBAGE = {
    "nodejs": """
let n = 0
function main (p) {
  const garbage = Array.from({ length: p.many || 0 }, (_, i) => ({ i }))
  return { n: ++n, last: garbage.length }
}
""",
    "python": """
n = 0
def main(p):
    global n
    n += 1
    garbage = [{"i": i} for i in range(p.get("many", 0))]
    return {"n": n, "last": len(garbage)}
""",
}


def init(code: str) -> dict[str, Any]:
    return {"value": {"name": "a", "main": "main", "binary": False, "env": {}, "code": code}}


def test_the_first_runs_and_those_after_them_are_answered_alike() -> None:
    with launched() as launcher:
        assert launcher.ask(init("let n = 0; function main (p) { return { n: ++n, p } }")) == OK
        for n in range(1, 6):
            assert json.loads(launcher.ask({"value": {"x": n}})) == {"n": n, "p": {"x": n}}


def test_what_is_printed_before_the_first_reply_is_out_before_it() -> None:
    with launched() as launcher:
        text = "x" * 30_000
        launcher.ask(init(f"function main () {{ console.log('{text}'); return {{}} }}"))
        assert launcher.ask({"value": {}}) == b"{}"
        assert os.read(launcher.stdout, 40_000) == text.encode() + b"\n"


def test_code_that_comes_in_crumbs_takes_no_more_memory_than_code_in_one_piece() -> None:
    code = "function main () { return {} } //" + "x" * 4_000_000
    with launched() as whole, launched() as crumbs:
        whole.ask(init(code))
        crumbs.ask(init(code), piece_bytes=1024)
        assert crumbs.data_kb() < whole.data_kb() + 64 * 1024


@pytest.mark.parametrize("family", ["nodejs", "python"])
def test_one_that_rests_gives_memory_back_and_goes_on(family: str) -> None:
    with launched(PYTHON if family == "python" else None) as launcher:
        launcher.ask(init(GARBAGE[family]))
        assert json.loads(launcher.ask({"value": {"many": 1_000_000}}))["n"] == 1
        launcher.rest()
        assert json.loads(launcher.ask({"value": {}}))["n"] == 2
        if family == "nodejs":  # what Python frees it gives back by itself, mostly
            end_s, most_kb = time.monotonic() + 10, launcher.resident_kb("VmHWM")
            while launcher.resident_kb() > most_kb - 20_000:  # V8 unmaps in a thread of its own
                assert time.monotonic() < end_s


@pytest.mark.parametrize("family", ["nodejs", "python"])
def test_one_that_rests_before_each_run_answers_each(family: str) -> None:
    with launched(PYTHON if family == "python" else None) as launcher:
        launcher.ask(init(GARBAGE[family]))
        for n in range(1, 5):
            launcher.rest()
            assert json.loads(launcher.ask({"value": {}}))["n"] == n
