"""Figures of the front door that are times or sizes, directly and behind nginx: `python -m tests.threats door`.

Whether what is tried is refused is asserted by tests; here is how long others wait meanwhile, and what it costs.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import resource
import selectors
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from tests.system import nginx
from tests.system.conftest import Api
from tests.system.test_abuse import PAYLOADS
from tests.system.traces import Peak, until
from tests.system.walled import PYTHON, Walled, walled

MIB = 1 << 20
TIMES = 5
CODE_BYTES = 48 * MIB
SLOW, IDLE = 1000, 10_000
EVERY_S = 10.0
BASE_RUNS, ATTACK_RUNS = 300, 1000
OVERLOAD_S = 300.0
PLACES, BUSY_S = 8, 0.25
OFFERED = 10 * PLACES / BUSY_S
"""Calls a second: ten times what the places can do."""
CALLERS = 100

GET = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX-A: "
BODY = b"POST /api/v1/web/guest/default/none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"


def figures() -> Iterator[tuple[str, str]]:
    """Each with the way to the server: directly, and by nginx where it is installed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    has_nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") is not None
    for name, settings in (("door", {}), ("overload", {"queue__activations": 2 * PLACES})):
        bound = {} if name == "door" else {"pool__memory_mb": PLACES * 128}
        with walled("auto", namespaces=["caller"], **settings, **bound) as wall, contextlib.ExitStack() as stack:
            ways = {"directly": wall.server.url}
            if has_nginx:
                ways["by nginx"] = stack.enter_context(nginx.before(wall.server.url, connections=IDLE + 1000))
            for way, url in ways.items():
                api = Api(url, wall.tenants["caller"].auth)
                found = overloaded(wall, api, OVERLOAD_S) if name == "overload" else attacked(wall, api)
                for told, value in found:
                    yield f"{way}: {told}", value


def attacked(wall: Walled, api: Api) -> Iterator[tuple[str, str]]:
    api.action("echo", "def main(p): return p", PYTHON, limits={"memory": 128})
    yield from bad_input(wall, api)
    yield from slow(wall, api)
    yield from idle(wall, api)


# ── B1, B2 ──────────────────────────────────────────────────────────────────────────────────────────────────────


def timed_ms(api: Api, method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[float, int]:
    """The slowest of a few, and the status."""
    slowest, status = 0.0, 0
    for _ in range(TIMES):
        began = time.perf_counter()
        try:
            status = api.request(method, path, body, headers).status
        except ConnectionError:  # it was closed while the body was still on its way
            status = 0
        slowest = max(slowest, (time.perf_counter() - began) * 1000)
    return slowest, status


def bad_input(wall: Walled, api: Api) -> Iterator[tuple[str, str]]:
    api.run("echo")
    peak, found = Peak(wall.server.pid), {}
    for name, body, _ in PAYLOADS:
        found[name] = timed_ms(api, "POST", "actions/echo?blocking=true", body)
    large = json.dumps({"parameters": [{"key": "k", "value": "x" * (MIB + 1)}]}).encode()
    found["parameters over the limit"] = timed_ms(api, "PUT", "triggers/t", large)
    name, (slowest, status) = max(found.items(), key=lambda one: one[1][0])
    yield f"B1: slowest of {len(found)} bad bodies ({name}: {status})", f"{slowest:.1f} ms (bound 50)"
    yield "B1: resident memory at its highest", f"+ {peak.mib:.1f} MiB (bound 16)"
    code = json.dumps({"exec": {"kind": PYTHON, "code": "#" * (CODE_BYTES + 1)}}).encode()
    zeros = b"".join(itertools.repeat(gzip.compress(bytes(MIB)), 1000))
    lies = json.dumps({"exec": {"kind": PYTHON, "binary": True, "code": "UEsDBAoAAAAAAA=A=!"}}).encode()
    for name, body, headers in (
        ("code of 48 MiB + 1", code, {}),
        (f"{len(zeros) / MIB:.1f} MiB of gzip for 1,000", zeros, {"Content-Encoding": "gzip"}),
        ("base64 that lies", lies, {}),
    ):
        peak = Peak(wall.server.pid)
        slowest, status = timed_ms(api, "PUT", "actions/bad?overwrite=true", body, headers)
        size = f"{len(body) / MIB:.1f} MiB sent {TIMES} times"
        yield f"B2: {name}: {status or 'closed'}", f"+ {peak.mib:.1f} MiB of {size}, {slowest:.0f} ms"


# ── B4 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def p99_ms(api: Api, runs: int) -> float:
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        api.run("echo")
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.quantiles(taken, n=100)[98]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def many(url: str, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    where = urlsplit(url)
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            each = stack.enter_context(socket.create_connection((where.hostname, where.port), 10))
            each.sendall(first)
            made.append(each)
        yield made


def ended_s(connections: list[socket.socket], within_s: float) -> list[float]:
    """Sends a byte now and then; when each was ended, in seconds from the beginning."""
    began, ended, drips = time.monotonic(), [], 1
    with selectors.DefaultSelector() as selector:
        for each in connections:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_READ, each)
        while selector.get_map() and (now_s := time.monotonic() - began) < within_s:
            for key, _ in selector.select(0.2):
                try:
                    has_ended = not key.data.recv(65536)
                except OSError:
                    has_ended = True
                if has_ended:
                    selector.unregister(key.data)
                    ended.append(time.monotonic() - began)
            if now_s > drips * EVERY_S:
                drips += 1
                for key in list(selector.get_map().values()):
                    with contextlib.suppress(OSError):
                        key.data.send(b"a")
    return ended


def slow(wall: Walled, api: Api) -> Iterator[tuple[str, str]]:
    pid, quiet = wall.server.pid, p99_ms(api, BASE_RUNS)
    open_before = descriptors(pid)
    yield "B4: warm p99, nobody else there", f"{quiet:.1f} ms"
    for name, first, bound_s in (("head", HEAD, 10.0), ("body", BODY, 60.0)):
        peak = Peak(pid)
        with many(api.url, SLOW, first) as connections, ThreadPoolExecutor(1) as pool:
            ending = pool.submit(ended_s, connections, bound_s + 90.0)
            p99 = p99_ms(api, ATTACK_RUNS)
            ended = ending.result()
        yield (
            f"B4: {SLOW} connections, a byte of a {name} each 10 s",
            f"{len(ended)} ended, first after {min(ended, default=0):.1f} s, last after {max(ended, default=0):.1f} s "
            f"(bound {bound_s:.0f})",
        )
        yield f"B4: others' warm p99 beside them ({name})", f"{p99:.1f} ms (bound {quiet + 20:.1f})"
        yield f"B4: resident memory beside them ({name})", f"+ {peak.mib:.1f} MiB"
        yield f"B4: descriptors left ({name})", left(pid, open_before)


def idle(wall: Walled, api: Api) -> Iterator[tuple[str, str]]:
    pid, quiet = wall.server.pid, p99_ms(api, BASE_RUNS)
    open_before, peak = descriptors(pid), Peak(pid)
    with many(api.url, IDLE, GET) as connections:
        answered = sum(each.recv(12) == b"HTTP/1.1 200" for each in connections)
        p99 = p99_ms(api, ATTACK_RUNS)
        yield f"B4: {IDLE:,} connections that stay", f"{answered:,} answered, + {peak.mib * 1024 / IDLE:.1f} KiB each"
        yield "B4: others' warm p99 beside them (idle)", f"{p99:.1f} ms (bound {quiet + 20:.1f})"
    yield "B4: descriptors left (idle)", left(pid, open_before)


def left(pid: int, before: int) -> str:
    with contextlib.suppress(AssertionError):
        until(lambda: descriptors(pid) <= before, 10.0)
    return f"{descriptors(pid) - before:+d}"


# ── D6 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Load:
    """Calls at a steady rate, whatever becomes of them."""

    def __init__(self, api: Api, per_s: float, for_s: float) -> None:
        self.served_ms: list[float] = []
        self.refused_ms: list[float] = []
        self.ids: list[str] = []
        self.broken = 0
        self._api = api
        self._due = iter([n / per_s for n in range(int(per_s * for_s))])
        self._lock = threading.Lock()
        self._began = time.perf_counter()

    def run(self) -> float:
        """How long it took."""
        callers = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return time.perf_counter() - self._began

    def _call(self) -> None:
        while True:
            with self._lock:
                due = next(self._due, None)
            if due is None:
                return
            time.sleep(max(0.0, self._began + due - time.perf_counter()))
            began = time.perf_counter()
            try:
                answer = self._api.invoke("busy")
            except OSError:
                self.broken += 1
                continue
            taken_ms = (time.perf_counter() - began) * 1000
            if answer.status in (200, 202):
                self.served_ms.append(taken_ms)
                self.ids.append(answer.json["activationId"])
            elif answer.status in (429, 503):
                self.refused_ms.append(taken_ms)
            else:
                self.broken += 1


def overloaded(wall: Walled, api: Api, for_s: float) -> Iterator[tuple[str, str]]:
    code = f"import time\ndef main(p):\n  time.sleep({BUSY_S})\n  return {{}}"
    api.action("busy", code, PYTHON, limits={"memory": 128})
    warm = Load(api, 0.8 * PLACES / BUSY_S, 10.0)
    warm.run()
    quiet = Load(api, 0.5 * PLACES / BUSY_S, 20.0)
    quiet.run()
    quiet_ms = p99_of(quiet.served_ms)
    peak = Peak(wall.server.pid)
    load = Load(api, OFFERED, for_s)
    took_s = load.run()
    offered = len(load.served_ms) + len(load.refused_ms) + load.broken
    yield (
        "D6: offered, served, refused, broken",
        (
            f"{offered / took_s:.0f} / s for {took_s:.0f} s; "
            f"{len(load.served_ms)}, {len(load.refused_ms)}, {load.broken}"
        ),
    )
    yield "D6: refused within (p99)", f"{p99_of(load.refused_ms):.1f} ms (bound 200)"
    yield "D6: served within (p99)", f"{p99_of(load.served_ms):.0f} ms (bound {2 * quiet_ms:.0f}: twice the quiet one)"
    yield "D6: resident memory at its highest", f"+ {peak.mib:.1f} MiB"
    yield "D6: back to normal after", f"{back_s(api, 1.2 * quiet_ms):.1f} s (bound 10)"
    yield "D6: accepted without a record", str(sum(not has_record(api, id) for id in load.ids))


def p99_of(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98] if len(taken) > 1 else float("nan")


def back_s(api: Api, bound_ms: float) -> float:
    """Until ten calls in a row are served as in quiet times, to the first of them."""
    began, good, since = time.perf_counter(), 0, 0.0
    while good < 10 and time.perf_counter() - began < 120.0:
        sent = time.perf_counter()
        is_good = api.invoke("busy").status == 200 and (time.perf_counter() - sent) * 1000 <= bound_ms
        since = sent if not good else since
        good = good + 1 if is_good else 0
    return since - began if good else float("inf")


def has_record(api: Api, id: str) -> bool:
    with contextlib.suppress(AssertionError):
        until(lambda: api.get(f"activations/{id}").status == 200, 10.0)
        return True
    return False
