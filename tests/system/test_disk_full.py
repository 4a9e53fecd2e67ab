"""A disk that fills up under a running server: reads go on, new work is refused, and it goes on by itself afterwards.

The disk is a few megabytes of memory, mounted in a mount namespace that the server alone is in; tests reach it through
`/proc/<pid>/root`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Api
from tests.system.places import TRUSTING, Place, opened
from tests.system.traces import until

pytestmark = [
    pytest.mark.slow,  # a server of its own for each test, and a disk that is filled
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting needs uid 0 and unshare"),
]

DISK_MB = 24
SEGMENT_BYTES = 1 << 20
RECOVERED_S = 10.0
ECHO = "def main(p): return {'n': p.get('n'), 'pad': 'x' * p.get('size', 0)}"
SLOW = "import time\ndef main(p):\n  time.sleep(1.5)\n  return {'n': p['n']}"
REFUSED = {503, 507}


class Disk:
    """The server's disk, from outside of its namespace."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.inside = Path(f"/proc/{pid}/root{folder}")
        self._filler = self.inside / "filler"

    def fill(self, left_bytes: int = 0) -> None:
        """Takes what is free but for so much."""
        with self._filler.open("ab", buffering=0) as file:
            for piece in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while self.free_bytes - piece >= left_bytes:
                        file.write(bytes(piece))
                        if piece == 1:
                            break

    @property
    def free_bytes(self) -> int:
        stat = os.statvfs(self.inside)
        return stat.f_bavail * stat.f_frsize

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


class SmallDisk:
    """A server whose data and containers' folders lie on a small disk. A process that sleeps keeps the namespace."""

    def __init__(self, place: Place) -> None:
        self._mount = place.folder / "disk"
        self._mount.mkdir()
        self._log = place.folder / "log"
        script = f'mount -t tmpfs -o size={DISK_MB}m visp-disk "$0" && echo mounted && exec sleep infinity'
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(self._mount)]
        self._keeper = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            self.close()
            pytest.skip("no disk can be mounted here")
        self.disk = Disk(self._keeper.pid, self._mount)
        self._server: subprocess.Popen[bytes] | None = None
        self.api: Api

    @property
    def data_dir(self) -> Path:
        return self.disk.inside / "data"

    def start(self) -> None:
        argv = self._argv("start", "--port", "0", *TRUSTING)
        argv += ["--set", f"container.cells_dir={self._mount}/cells", "--set", f"ledger.segment_bytes={SEGMENT_BYTES}"]
        with self._log.open("ab") as errors:
            self._server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, self._log.read_text()
        self.api = Api(json.loads(line)["url"])

    def stop(self) -> None:
        assert self._server is not None
        self._server.terminate()
        assert self._server.wait(30) == 0, self._log.read_text()
        assert self._server.stdout is not None
        self._server.stdout.close()
        self._server = None

    def check(self) -> str:
        """What `visp admin check` says."""
        done = subprocess.run(self._argv("admin", "check"), capture_output=True, text=True, check=False)
        return done.stdout if done.returncode else "good"

    def _argv(self, *words: str) -> list[str]:
        visp = [sys.executable, "-m", "visp", *words, "--data-dir", f"{self._mount}/data"]
        return ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "--", *visp]

    def close(self) -> None:
        for process in (getattr(self, "_server", None), self._keeper):
            if process is not None:
                process.kill()
                process.wait()
                process.stdout.close()


@contextlib.contextmanager
def small_disk() -> Iterator[SmallDisk]:
    with opened(Place) as place:
        server = SmallDisk(place)
        try:
            server.start()
            yield server
        finally:
            server.close()


def restarted(server: SmallDisk) -> Api:
    """After the check has found nothing, while the server runs and when it is stopped."""
    assert server.check() == "good"
    server.stop()
    assert server.check() == "good"
    server.start()
    return server.api


def seconds_until(works: Any, within_s: float = RECOVERED_S) -> float:
    began_s = time.monotonic()
    until(works, what="it has not recovered", within_s=within_s)
    return time.monotonic() - began_s


def test_a_full_disk_under_load() -> None:
    """The ledger and its index: everything that was acknowledged is there afterwards, and once."""
    with small_disk() as server:
        api, disk = server.api, server.disk
        api.action("echo", ECHO, "python:3.11")
        api.action("slow", SLOW, "python:3.11")
        given = {}
        for n in range(30):
            answer = api.invoke("echo", {"n": n, "size": 5000})
            assert answer.status == 200, answer
            given[answer.json["activationId"]] = n
        running = [api.invoke("slow", {"n": n}, "") for n in range(3)]
        assert [answer.status for answer in running] == [202] * 3

        disk.fill()
        statuses = []
        until(lambda: statuses.append(_invoke(api, given)) or statuses[-1] in REFUSED, what="work is taken for ever")
        for _ in range(20):
            assert _invoke(api, given) in REFUSED
        assert set(statuses) <= {200, 202, *REFUSED}
        some = next(iter(given))
        assert api.record(some)["activationId"] == some, "reads must go on"
        assert api.get("actions/echo").status == 200
        assert api.get("activations?limit=5").status == 200
        new = {"exec": {"kind": "python:3.11", "code": "#" * 60_000}}
        assert api.request("PUT", "actions/new", new).status in REFUSED

        disk.free()
        took_s = seconds_until(lambda: _invoke(api, given) == 200)
        assert took_s <= RECOVERED_S
        assert api.request("PUT", "actions/new", new).status == 200
        for answer in running:
            id = answer.json["activationId"]
            until(lambda id=id: api.get(f"activations/{id}").status == 200, what="an outcome was lost")
            assert api.record(id)["response"]["status"] == "success"
        api = restarted(server)
        for id, n in given.items():
            assert api.record(id)["response"]["result"]["n"] == n
        assert len(api.get("activations?limit=200").json) == min(200, len(given) + len(running))


def _invoke(api: Api, given: dict[str, Any]) -> int:
    """Half of them accepted, half waited for; what was given an id is noted."""
    n = len(given)
    answer = api.invoke("echo", {"n": n, "size": 5000}, "" if n % 2 else "blocking=true")
    if answer.status in (200, 202):
        given[answer.json["activationId"]] = n
    return answer.status


def test_entities_and_blobs_on_a_full_disk() -> None:
    with small_disk() as server:
        api, disk = server.api, server.disk
        acknowledged = {}
        disk.fill(left_bytes=1 << 20)
        codes = {
            number: f"# {number} " + chr(97 + number % 26) * (25_000 if number % 2 else 3_000) for number in range(400)
        }
        statuses = []
        for number, code in codes.items():
            answer = api.request("PUT", f"actions/a{number}", {"exec": {"kind": "python:3.11", "code": code}})
            statuses.append(answer.status)
            if answer.status == 200:
                acknowledged[number] = code
            if statuses[-5:] == [507] * 5:
                break
        assert 507 in statuses
        assert set(statuses) <= {200, *REFUSED}
        assert acknowledged
        for number, code in acknowledged.items():
            assert api.get(f"actions/a{number}").json["exec"]["code"] == code
        disk.free()
        number = 399
        body = {"exec": {"kind": "python:3.11", "code": codes[number]}}
        seconds_until(lambda: api.request("PUT", f"actions/a{number}?overwrite=true", body).status == 200)
        acknowledged[number] = codes[number]
        for number, code in acknowledged.items():
            assert api.get(f"actions/a{number}").json["exec"]["code"] == code
        assert not list((server.data_dir / "blobs").glob("*/.*")), "drafts of what was refused stay"
        restarted(server)


def test_large_results_on_a_full_disk() -> None:
    """They are files beside the index, and in the ledger before: what is acknowledged is read from there meanwhile."""
    with small_disk() as server:
        api, disk = server.api, server.disk
        api.action("echo", ECHO, "python:3.11")
        given = {}
        disk.fill(left_bytes=3 << 20)
        statuses: list[int] = []

        def fill_more() -> bool:
            n = len(given)
            answer = api.invoke("echo", {"n": n, "size": 200_000})
            if answer.status == 200:
                given[answer.json["activationId"]] = n
            statuses.append(answer.status)
            return answer.status in REFUSED

        until(fill_more, what="large results are taken for ever")
        assert set(statuses) <= {200, *REFUSED}
        for id, n in given.items():
            assert api.record(id)["response"]["result"]["n"] == n
        disk.free()
        seconds_until(lambda: not fill_more())
        until(lambda: len(api.get("activations?limit=200").json) == len(given), what="some are not listed")
        for id, n in given.items():
            assert len(api.record(id)["response"]["result"]["pad"]) == 200_000, n
        restarted(server)


def test_no_room_to_unpack_code() -> None:
    """Scratch: what needs a folder fails as the platform's fault; what is warm runs on; it is no verdict for ever."""
    with small_disk() as server:
        api, disk = server.api, server.disk
        api.action("warm", ECHO, "python:3.11")
        assert api.run("warm", {"n": 1})["n"] == 1
        api.action("cold", packed(random.Random(1).randbytes(2 << 20)), "python:3.11", exec={"binary": True})
        disk.fill(left_bytes=64 * 1024)
        cold = api.invoke("cold", {"n": 1})
        assert cold.status in {*REFUSED, 500, 502}
        if cold.status in (500, 502):
            assert cold.json["response"]["status"] in ("whisk internal error", "action developer error")
        assert _status_of(api, "warm") in {200, *REFUSED}
        disk.free()
        seconds_until(lambda: _status_of(api, "cold") == 200)


def packed(data: bytes) -> str:
    """An archive with an action and something that it carries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("__main__.py", ECHO)
        archive.writestr("data", data)
    return base64.b64encode(out.getvalue()).decode()


def _status_of(api: Api, name: str) -> int:
    return api.invoke(name, {"n": 1}).status


def test_the_disk_is_as_small_as_it_is_meant_to_be() -> None:
    with small_disk() as server:
        server.disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (server.data_dir / "more").write_bytes(bytes(1 << 16))
