"""Figures of docs/threats.md that are times: `python -m tests.threats [auto|bwrap|nsjail|docker|door]…`, a table each.

What is a number or a yes is asserted by the tests that the page names; a time says as much of the machine as of visp.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests import door
from tests.system.conftest import Api
from tests.system.test_threats import SENTINEL, record_of
from tests.system.traces import groups_in, members_of, rss_kib, traces_of, until
from tests.system.walled import PYTHON, Walled, walled
from tests.unit import archives

BOMBS_S, BEGUN = 3.0, 50
"""In so long bombs come to their limit, and so many processes more are bombs that have begun."""
CROWD = (os.cpu_count() or 1) + 2
"""Of containers: more than can run at once."""
SMALL = {"memory": 128}
SPIN = "import time\ndef main(p):\n  end = time.monotonic() + p['s']\n  while time.monotonic() < end: pass\n  return {}"
FORKS = """
import os, time
def main(p):
    try:
        while True:
            if not os.fork():
                time.sleep(60)
                os._exit(0)
    except OSError:
        time.sleep(60)
"""
KILLED = """
import os, signal, time
children = []
for _ in range(1023):
    child = os.fork()
    if not child:
        time.sleep(60)
    children.append(child)
time.sleep(1)
began = time.perf_counter()
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
print((time.perf_counter() - began) * 1000)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def main(p):
    for _ in range(5):
        if not os.fork():
            os.setsid()
            if os.fork(): os._exit(0)
    time.sleep(60)
"""
FLOOD = """
import os, time
def main(p):
    piece, began = (b'x' * 1023 + b'\\n') * 1024, time.monotonic()
    for _ in range(p['mib']):
        left = memoryview(piece)
        while left: left = left[os.write(1, left):]
    return {'s': time.monotonic() - began}
"""
FORGE = f"def main(p):\n  print('\\n'.join(['{SENTINEL}'] * 100000))\n  return {{}}"


def took_ms(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def while_it_runs(
    tenant: Api,
    code: str,
    payload: Any,
    act: Callable[[], float],
    *,
    has_begun: Callable[[], object],
    containers: int = CROWD,
    **limits: Any,
) -> float:
    """What `act` gives while the code runs in so many containers."""
    tenant.action("abuser", code, PYTHON, limits=SMALL | limits)
    callers = [threading.Thread(target=tenant.invoke, args=("abuser", payload)) for _ in range(containers)]
    for caller in callers:
        caller.start()
    has_begun()
    value = act()
    tenant.delete("actions/abuser")
    for caller in callers:
        caller.join()
    return value


def while_outside(act: Callable[[], float]) -> float:
    """What `act` gives beside one program that every other goes before, and that no wall is around."""
    argv = ["chrt", "--idle", "0", sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(argv) as spinning:
        time.sleep(1)
        value = act()
        spinning.kill()
    return value


def processes() -> int:
    """How many there are on this machine."""
    return sum(name.isdigit() for name in os.listdir("/proc"))


def p99_ms(act: Callable[[], object], seconds: float = BOMBS_S) -> float:
    """Of all calls in that time."""
    end, taken = time.monotonic() + seconds, []
    while time.monotonic() < end:
        taken.append(took_ms(act))
    return statistics.quantiles(taken, n=100)[98]


def gone_ms(wall: Walled, api: Api, code: str) -> float:
    """From the answer of a run over its limit until no process of it is left."""
    api.action("abuser", code, PYTHON, limits={"memory": 512, "timeout": 2000})
    parents = traces_of(wall.server).parents()
    api.invoke("abuser")
    began = time.perf_counter()
    until(lambda: not (wall.left() if wall.engine else members_of(groups_in(parents))), 5.0)
    return (time.perf_counter() - began) * 1000


def figures(wall: Walled) -> Iterator[tuple[str, str]]:
    abuser, other = wall.tenants["abuser"], wall.tenants["other"]
    other.action("quiet", "def main(p): return {}", PYTHON, limits=SMALL)

    def quiet() -> float:
        other.run("quiet")
        return p99_ms(lambda: other.run("quiet"))

    base = quiet()
    yield "warm p99 of another tenant, nobody else there", f"{base:.1f} ms"
    outside = while_outside(quiet)
    yield "the same beside an idle-class program outside", f"{outside:.1f} ms (x {outside / base:.2f})"
    spun = while_it_runs(abuser, SPIN, {"s": 20}, quiet, has_begun=lambda: time.sleep(1))
    yield "C6: the same while processors + 2 spin", f"{spun:.1f} ms (bound {2 * base + 50:.0f})"
    before = processes()
    for bombs in (1, CROWD):
        forked = while_it_runs(
            abuser,
            FORKS,
            {},
            quiet,
            has_begun=lambda: until(lambda: processes() > before + BEGUN),
            containers=bombs,
            timeout=15_000,
            memory=512,
        )
        yield f"C2: the same while {bombs} bombs fork, and end", f"{forked:.1f} ms (x {forked / base:.2f})"
        until(lambda: processes() < before + BEGUN, 30.0)
    other.delete("actions/quiet")
    until(lambda: not wall.left(), 30.0)
    yield "C2: fork bomb gone after the answer", f"{gone_ms(wall, abuser, FORKS):.0f} ms"
    killed = subprocess.run(["/usr/bin/python3.11", "-c", KILLED], capture_output=True, text=True, check=True)
    yield "C2: as many children of a bare Python, killed and waited for", f"{float(killed.stdout):.0f} ms"
    yield "C7: deaf, forked twice: gone after the answer", f"{gone_ms(wall, abuser, STUBBORN):.0f} ms"
    abuser.action("abuser", FLOOD, PYTHON, limits=SMALL | {"logs": 1, "timeout": 60_000})
    record_of(abuser, "abuser", {"mib": 20})
    before = rss_kib(wall.server.pid)
    mib = 1024 if wall.engine is None else 100
    record = record_of(abuser, "abuser", {"mib": mib})
    assert record["response"]["success"], record["response"]
    yield "B9: flood", f"{mib / record['response']['result']['s']:.0f} MiB/s taken"
    yield "B9: resident memory of the server", f"+ {(rss_kib(wall.server.pid) - before) / 1024:.1f} MiB"
    abuser.action("abuser", FORGE, PYTHON, limits=SMALL | {"logs": 10})
    began = time.perf_counter()
    record_of(abuser, "abuser")
    yield "B10: record of 100,000 forged ends, from the call to its logs", f"{time.perf_counter() - began:.2f} s"


def unpacked_s() -> dict[str, str]:
    """Each hostile archive through the unpacker by itself, in seconds of a processor."""
    from visp.runtime import unpack

    slowest = (0.0, "")
    for name, (make, _) in archives.HOSTILE.items():
        archive = make()
        began = time.process_time()
        try:
            for _ in unpack.unpack(archive, ""):
                pass
        except unpack.Refused:
            pass
        slowest = max(slowest, (time.process_time() - began, name))
    return {f"B6: slowest of {len(archives.HOSTILE)} hostile archives ({slowest[1]})": f"{slowest[0]:.2f} s"}


def main() -> None:
    for name, value in unpacked_s().items():
        print(f"{name}: {value}")
    for driver in sys.argv[1:] or ["auto", "bwrap", "nsjail", "door"]:
        if driver == "door":
            for name, value in door.figures():
                print(f"{driver}: {name}: {value}", flush=True)
            continue
        with walled(driver, namespaces=["abuser", "other"]) as wall:
            for name, value in figures(wall):
                print(f"{driver}: {name}: {value}", flush=True)


if __name__ == "__main__":
    main()
