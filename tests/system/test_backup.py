"""A backup of a server under load, put back elsewhere: what was acknowledged before it began is there."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.system.conftest import Api
from tests.system.places import TRUSTING, Place, opened
from tests.system.traces import until

pytestmark = pytest.mark.slow  # two servers, and load on one of them

ECHO = "def main(p): return {'n': p['n'], 'pad': 'x' * p.get('size', 0)}"
SEGMENT_BYTES = 1 << 20


def admin(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "visp", "admin", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [2])
def test_backup_under_load(workers: int) -> None:
    settings = {"workers": workers, "ledger__segment_bytes": SEGMENT_BYTES}
    with opened(Place) as place, opened(Place) as other:
        server = place.start(*TRUSTING, **settings)
        api = Api(server.url)
        api.action("echo", ECHO, "python:3.11")
        acknowledged: dict[str, int] = {}
        puts: dict[str, str] = {}
        numbers, is_over = itertools.count(), threading.Event()

        def work() -> None:
            while not is_over.is_set():
                n = next(numbers)
                size = (100, 3_000, 100_000)[n % 3]
                answer = api.invoke("echo", {"n": n, "size": size}, "" if n % 2 else "blocking=true")
                if answer.status in (200, 202):
                    acknowledged[answer.json["activationId"]] = n
                if n % 20 == 0:
                    code = f"# {n} " + "y" * (30_000 if n % 40 else 10)
                    if (
                        api.request("PUT", f"actions/a{n}", {"exec": {"kind": "python:3.11", "code": code}}).status
                        == 200
                    ):
                        puts[f"a{n}"] = code

        workers_of_ours = [threading.Thread(target=work) for _ in range(4)]
        for thread in workers_of_ours:
            thread.start()
        try:
            until(lambda: len(acknowledged) > 150 and len(puts) > 5, within_s=60, what="there is no load")
            before, puts_before = dict(acknowledged), dict(puts)
            done = admin("backup", str(place.folder / "b.tar"), "--data-dir", str(place.data_dir))
            assert done.returncode == 0, done
            after = len(acknowledged)
            checked = admin("check", "--data-dir", str(place.data_dir))
            assert checked.returncode == 0, checked
            until(lambda: len(acknowledged) > after, what="the server stopped working")
        finally:
            is_over.set()
            for thread in workers_of_ours:
                thread.join()
        assert len(acknowledged) > len(before)
        server.stop(signal.SIGKILL)

        done = admin("restore", str(place.folder / "b.tar"), "--data-dir", str(other.data_dir))
        assert done.returncode == 0, done
        shutil.copy(place.data_dir / "secret", other.data_dir / "secret")
        assert admin("check", "--data-dir", str(other.data_dir)).returncode == 0
        api = Api(other.start(*TRUSTING, **settings).url)
        for id, n in before.items():
            until(lambda id=id: api.get(f"activations/{id}").status == 200, what=f"{id} is lost")
            response = api.record(id)["response"]
            if response["status"] != "whisk internal error":  # it was running at the moment of the backup
                assert response["result"]["n"] == n
        assert all(api.get(f"actions/{name}").json["exec"]["code"] == code for name, code in puts_before.items())


def test_a_server_says_what_is_damaged_and_does_not_start() -> None:
    with opened(Place) as place:
        server = place.start(*TRUSTING)
        api = Api(server.url)
        api.action("echo", ECHO, "python:3.11")
        assert api.run("echo", {"n": 1})["n"] == 1
        server.stop()
        for name, said in (
            ("entities.db", "visp admin check"),
            ("activations-0.db", "visp admin check"),
            ("secret", "is not the one that sealed the keys"),
        ):
            path: Path = place.data_dir / name
            whole = path.read_bytes()
            data = bytearray(whole)
            if name == "secret":
                data[3] = ord("0") if data[3] != ord("0") else ord("1")
            else:
                data[8192 + 4] ^= 0x40
            path.write_bytes(data)
            argv = [sys.executable, "-m", "visp", "start", "--port", "0", "--data-dir", str(place.data_dir), *TRUSTING]
            argv += ["--set", f"container.cells_dir={place.folder}/cells"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode == 1, (name, done)
            assert "error: " in done.stderr
            assert said in done.stderr
            assert admin("check", "--data-dir", str(place.data_dir)).returncode == 1
            path.write_bytes(whole)
        assert Api(place.start(*TRUSTING).url).run("echo", {"n": 2})["n"] == 2
