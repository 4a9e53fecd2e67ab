"""What code may try against its neighbours and its platform, by each wall; docs/threats.md has the rows and figures.

Bad code that only harms itself is in test_abuse, the network in test_egress, archives in the tests of the unpacker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.system.conftest import GUEST, Api
from tests.system.traces import texts, until
from tests.system.walled import ALL, PYTHON, Walled, walled

MIB = 1 << 20
SMALL = {"memory": 128}
FILES = 64 * 1024
"""As many as 64 MB of /tmp hold: one for each KiB."""
OUT_OF_MEMORY = "The action exhausted its memory and was aborted."
SENTINEL = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
TENANTS = [f"tenant{number:02}" for number in range(50)]
PEOPLE = ("alice", "bob", "carol", "dave")


@pytest.fixture(scope="module", params=ALL)
def wall(request: pytest.FixtureRequest) -> Iterator[Walled]:
    """In the end it holds nothing once all actions are deleted, which is told soon."""
    with walled(request.param, namespaces=[*PEOPLE, *TENANTS], pool__memory_mb=50 * 128 + 1024) as wall:
        yield wall
        until(lambda: not wall.left(), what=wall.left)


@pytest.fixture
def api(wall: Walled) -> Iterator[Api]:
    """Afterwards the server runs another's action, and all are deleted."""
    yield wall.api
    witness = wall.tenants["alice"]
    witness.action("witness", "def main(p): return {'alive': True}", PYTHON, limits=SMALL)
    assert witness.run("witness") == {"alive": True}
    for tenant in (wall.api, *(wall.tenants[name] for name in PEOPLE)):
        for action in tenant.get("actions?limit=200").json:
            package = action["namespace"].partition("/")[2]
            tenant.delete(f"actions/{package}{package and '/'}{action['name']}")


def record_of(api: Api, name: str, payload: Any = None) -> Any:
    """The stored record of a run, once it has its logs."""
    answer = api.invoke(name, payload)
    assert answer.status in (200, 502), answer
    found = api.get(f"activations/{answer.headers['x-openwhisk-activation-id']}?wait=30")
    assert found.status == 200, found
    return found.json


# ── memory, files, and what else the kernel counts ──────────────────────────────────────────────────────────────


def test_files_in_memory_count_as_memory(wall: Walled, api: Api) -> None:
    """What is written to a tmpfs and what is allocated are one sum; it says how far it came as it goes."""
    code = """
def main(p):
    total = 0
    for path in p['files']:
        with open(path, 'wb', buffering=0) as file:
            try:
                for _ in range(48): total += file.write(b'x' * (1 << 20)) >> 20
            except OSError:
                pass
    held = []
    while True:
        held.append(bytearray(b'x' * (1 << 20)))
        total += 1
        print(total, flush=True)
"""
    api.action("bomb", code, PYTHON, limits=SMALL)
    files = ["/dev/shm/x"] if wall.driver == "docker" else ["/tmp/x", "/dev/shm/x"]
    record = record_of(api, "bomb", {"files": files})
    assert record["response"]["result"] == {"error": OUT_OF_MEMORY}
    assert 64 <= int(texts(record, "stdout")[-1]) <= 128 * 1.05


@pytest.mark.parametrize("what", ["pipes", "sockets"])
def test_buffers_of_the_kernel_are_bounded(api: Api, what: str) -> None:
    """By descriptors and by what one user may have in pipes, where memory is not what ends them."""
    code = """
import fcntl, os, socket
def main(p):
    held, total = [], 0
    try:
        while True:
            if p['what'] == 'pipes':
                ends = os.pipe()
                try: fcntl.fcntl(ends[1], 1031, 1 << 20)
                except OSError: pass
            else:
                pair = socket.socketpair()
                held.append(pair)
                ends = [end.fileno() for end in pair]
            for end in ends[p['what'] == 'pipes':]:
                os.set_blocking(end, False)
                try:
                    while True: total += os.write(end, b'x' * (1 << 16))
                except BlockingIOError:
                    pass
    except OSError:
        return {'mib': total >> 20}
"""
    api.action("bomb", code, PYTHON, limits=SMALL)
    record = record_of(api, "bomb", {"what": what})
    if not record["response"]["success"]:
        assert record["response"]["result"] == {"error": OUT_OF_MEMORY}
    else:
        assert record["response"]["result"]["mib"] <= 256


@pytest.mark.slow  # sixty thousand files; over bubblewrap as many as memory holds
def test_files_run_out_by_number(wall: Walled, api: Api) -> None:
    code = """
import errno, os
def main(p):
    out = {}
    for folder in ('/tmp', '/dev/shm'):
        made = 0
        try:
            for _ in range(1000000):
                os.mknod(f'{folder}/{made}')
                made += 1
            out[folder] = [made, 'none']
        except OSError as error:
            out[folder] = [made, errno.errorcode[error.errno]]
    return out
"""
    if wall.driver == "docker":
        pytest.skip("an image's own files lie on the engine's disk, whose storage bounds them or not")
    api.action("bomb", code, PYTHON, limits=SMALL | {"timeout": 60_000})
    record = record_of(api, "bomb")
    if wall.driver == "bwrap":  # it cannot be told a number of files; what they take is memory
        assert record["response"]["result"] == {"error": OUT_OF_MEMORY}
        return
    made = record["response"]["result"]
    assert {folder: error for folder, (_, error) in made.items()} == {"/tmp": "ENOSPC", "/dev/shm": "ENOSPC"}
    assert FILES // 2 < made["/tmp"][0] <= FILES
    assert made["/dev/shm"][0] <= FILES // 8


def test_threads_timers_watches_and_sockets_run_out_inside_only(api: Api) -> None:
    code = """
import ctypes, errno, os, socket, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def until_error(make):
    made = 0
    try:
        while made < 20000:
            make()
            made += 1
    except (OSError, RuntimeError) as error:
        return [made, errno.errorcode.get(getattr(error, 'errno', None) or 0, type(error).__name__)]
    return [made, None]
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), '')
    return result
def main(p):
    out, held = {}, []
    out['inotify'] = until_error(lambda: held.append(checked(libc.inotify_init1(0))))
    out['watches'] = [len([n for n in range(2000) if libc.inotify_add_watch(held[0], b'/tmp', 2) >= 0]), None]
    for number in held: os.close(number)
    sockets = []
    out['sockets'] = until_error(lambda: sockets.append(socket.socket(socket.AF_UNIX)))
    sockets.clear()
    name = ctypes.c_void_p()
    out['timers'] = until_error(lambda: checked(libc.timer_create(1, None, ctypes.byref(name))))
    threading.stack_size(1 << 16)
    out['threads'] = until_error(lambda: threading.Thread(target=time.sleep, args=(30,), daemon=True).start())
    return out
"""
    api.action("bomb", code, PYTHON, limits={"memory": 256})
    record = record_of(api, "bomb")
    assert record["response"]["success"], record
    made = record["response"]["result"]
    assert made["inotify"][1] == "EMFILE"
    assert made["sockets"][0] < 1024
    assert made["sockets"][1] == "EMFILE"
    assert made["threads"][0] < 1024


# ── state that is left, and whose it is ─────────────────────────────────────────────────────────────────────────

CANARIES = """
import builtins, ctypes, os, threading, time
left = []
def stay():
    while True: time.sleep(60)
def main(p):
    found = set(left) | set(os.listdir('/tmp')) | set(os.listdir('/dev/shm')) | set(os.environ) | set(vars(builtins))
    found |= {thread.name for thread in threading.enumerate()}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/comm') as file: found.add(file.read().strip())
        except OSError:
            pass
    own = p['canary']
    if own not in left:
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(15, own.encode(), 0, 0, 0)  # its name
            stay()
        threading.Thread(target=stay, name=own, daemon=True).start()
    left.append(own)
    os.environ[own] = own
    setattr(builtins, own, True)
    for folder in ('/tmp', '/dev/shm'): open(f'{folder}/{own}', 'w').close()
    return {'found': sorted(name for name in found if name.startswith('canary'))}
"""


def interleave(wall: Walled, runs: int) -> int:
    """Runs of fifty tenants, each with one action of one name, which a fifth puts anew; how many were warm."""
    revisions = dict.fromkeys(TENANTS, 0)

    def put(name: str) -> None:
        revisions[name] += 1
        wall.tenants[name].action("canary", CANARIES, PYTHON, limits=SMALL)

    def visit(number: int) -> tuple[str, list[str]]:
        name = TENANTS[number * 7 % len(TENANTS)]
        own = f"canary{name[-2:]}r{revisions[name]}"
        return own, wall.tenants[name].run("canary", {"canary": own})["found"]

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(put, TENANTS))
        seen = list(clients.map(visit, range(runs // 2)))
        list(clients.map(put, TENANTS[::5]))
        seen += clients.map(visit, range(runs // 2))
    for tenant in wall.tenants.values():
        tenant.delete("actions/canary")
    assert {(own, other) for own, found in seen for other in found if other != own} == set()
    return sum(bool(found) for _, found in seen)


@pytest.mark.slow  # sixty containers
def test_what_fifty_tenants_leave_is_seen_by_nobody_else(wall: Walled, api: Api) -> None:
    """Nor by a later revision of the same action. Not one wrong one of 500; `-m all` has the 10,000."""
    warm = interleave(wall, 500)
    assert warm >= 300, "canaries were seldom found again: this proves little"


@pytest.mark.all
@pytest.mark.parametrize("driver", ["auto", "nsjail"])
def test_ten_thousand_runs_in_containers_that_come_and_go(driver: str) -> None:
    """With room for forty of the fifty."""
    with walled(driver, namespaces=TENANTS, pool__memory_mb=40 * 128) as wall:
        assert interleave(wall, 10_000) >= 100


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────

SEEKER = """
import hashlib, os, re
TOKEN = re.compile(rb'[0-9A-Za-z]{64,}')
def contents():
    for pid in filter(str.isdigit, os.listdir('/proc')):
        for name in ('environ', 'cmdline'):
            try:
                with open(f'/proc/{pid}/{name}', 'rb') as file: yield f'{pid}/{name}', file.read()
            except OSError:
                pass
        try:
            with open(f'/proc/{pid}/maps') as maps, open(f'/proc/{pid}/mem', 'rb', buffering=0) as memory:
                for line in maps:
                    span, rights = line.split()[:2]
                    start, end = (int(number, 16) for number in span.split('-'))
                    if rights.startswith('rw'):
                        try:
                            memory.seek(start)
                            yield f'{pid}/mem', memory.read(min(end - start, 64 << 20))
                        except (OSError, OverflowError, ValueError):
                            pass
        except OSError:
            pass
    for folder in ('/tmp', '/action', '/visp', '/run', '/dev/shm'):
        for where, _, names in os.walk(folder):
            for name in names:
                try:
                    with open(f'{where}/{name}', 'rb') as file: yield f'{where}/{name}', file.read(1 << 20)
                except OSError:
                    pass
def main(p):
    looked, found = 0, set()
    for where, text in contents():
        looked += 1
        if any(hashlib.sha256(token).hexdigest() == p['digest'] for token in TOKEN.findall(text)): found.add(where)
    return {'looked': looked, 'found': sorted(found)}
"""


def test_a_key_is_nowhere_unless_it_is_asked_for(api: Api) -> None:
    """In no environment, argument, file or memory that the action can read; where it is given, this search finds it."""
    digest = hashlib.sha256(GUEST.partition(":")[2].encode()).hexdigest()
    for is_given in (False, True):
        annotations = [{"key": "provide-api-key", "value": is_given}]
        api.action("seeker", SEEKER, PYTHON, annotations=annotations)
        result = record_of(api, "seeker", {"digest": digest})["response"]["result"]
        assert result["looked"] > 10
        assert bool(result["found"]) == is_given, result


# ── functions that would be another's ───────────────────────────────────────────────────────────────────────────


def test_a_function_is_not_replaced_by_what_it_runs(wall: Walled, api: Api) -> None:
    """Neither by /init of its own address nor by its launcher's input, and there is no other port to call."""
    code = """
import json, os, socket, urllib.error, urllib.request
INIT = json.dumps({'value': {'name': 'x', 'main': 'main', 'binary': False, 'env': {},
                             'code': "def main(p): return {'mine': True}"}}).encode()
def call(port, path):
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}{path}', data=INIT, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
def listening():
    ports = set()
    for name in ('tcp', 'tcp6'):
        try:
            with open(f'/proc/net/{name}') as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        ports |= {int(row[1].rpartition(':')[2], 16) for row in rows if row[3] == '0A'}
    return sorted(ports)
def main(p):
    if p.get('write'):
        for number in os.listdir('/proc/self/fd'):
            try:
                other = os.open(f'/proc/self/fd/{number}', os.O_WRONLY | os.O_NONBLOCK)
                os.write(other, INIT + b'\\n')
            except OSError:
                pass
    ports = listening()
    return {'own': True, 'ports': ports, 'init': {port: call(port, '/init') for port in [8080, *ports]}}
"""
    api.action("own", code, PYTHON)
    for _ in range(2):
        result = record_of(api, "own")["response"]["result"]
        assert result["own"]
        assert result["init"].pop("8080") == (403 if wall.driver == "docker" else None)
        assert set(result["init"]) <= {"3128", "3233"}, "other doors than the API's and the proxy's"
        assert all(400 <= status < 500 for status in result["init"].values()), result
    for is_written in (True, False, False):
        assert "mine" not in (record_of(api, "own", {"write": is_written})["response"]["result"] or {})


def test_one_container_does_not_speak_to_another(wall: Walled, api: Api) -> None:
    listens = """
import os, socket
held = [socket.create_server(('0.0.0.0', 4711)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
held[1].bind('\\0neighbour')
held[2].bind('/tmp/neighbour')
for sock in held[1:]: sock.listen()
def main(p):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as finder:
            finder.connect(('198.51.100.7', 9))
            return {'at': [finder.getsockname()[0]]}
    except OSError:
        return {'at': []}
"""
    calls = """
import socket
def reach(family, address):
    with socket.socket(family) as sock:
        sock.settimeout(1)
        try:
            sock.connect(tuple(address) if isinstance(address, list) else address)
        except OSError:
            return False
        return True
def main(p):
    return {'reached': [reach(socket.AF_INET, [host, port]) for host in p['hosts'] for port in (4711, 8080)]
                       + [reach(socket.AF_UNIX, name) for name in ('\\0neighbour', '/tmp/neighbour')]}
"""
    first, second = wall.tenants["alice"], wall.tenants["bob"]
    first.action("listens", listens, PYTHON, limits=SMALL)
    hosts = {*first.run("listens")["at"], "127.0.0.1", "127.0.1.1"}
    for tenant in (first, second):
        tenant.action("calls", calls, PYTHON, limits=SMALL)
        reached = tenant.run("calls", {"hosts": sorted(hosts)})["reached"]
        at_8080 = reached[1:-2:2]
        assert not any(reached[0:-2:2] + reached[-2:])
        assert not any(at_8080) or wall.driver == "docker", "only an image hears itself there"


# ── records that would be another's ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow  # two hundred runs of each of two tenants
def test_records_are_not_confused(wall: Walled, api: Api) -> None:
    code = "def main(p):\n  print('of', p['of'], p['n'])\n  return p"
    both = ("alice", "bob")
    for name in both:
        wall.tenants[name].action("same", code, PYTHON, limits=SMALL)
    jobs = [(name, n) for n in range(200) for name in both]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda job: wall.tenants[job[0]].invoke("same", {"of": job[0], "n": job[1]}), jobs))
    ids: dict[str, list[str]] = {name: [] for name in both}
    for (name, n), answer in zip(jobs, answers, strict=True):
        assert answer.status == 200, answer
        assert answer.json["namespace"] == name
        assert answer.json["response"]["result"] == {"of": name, "n": n}
        ids[name].append(answer.json["activationId"])
    for name, other in (both, both[::-1]):
        tell_apart(wall.tenants[name], wall.tenants[other], name, ids[name])
    numbers = [int(id, 16) for name in both for id in ids[name]]
    assert len(set(numbers)) == 400
    for bit in range(72):
        assert {number >> bit & 1 for number in numbers} == {0, 1}, f"bit {bit} is the same in 400 ids"


def tell_apart(tenant: Api, other: Api, name: str, ids: list[str]) -> None:
    """Lists and records are a tenant's own; to another its ids are as good as ids of nothing."""
    until(lambda: tenant.get("activations?name=same&count=true").json == {"activations": 200})
    for query in ("", "&since=0", "&upto=9999999999999", "&name=same"):
        listed = tenant.get(f"activations?limit=200&docs=true{query}").json
        assert {record["activationId"] for record in listed} == set(ids)
        assert {(record["namespace"], record["response"]["result"]["of"]) for record in listed} == {(name, name)}
    for id in ids[:10]:
        record = tenant.get(f"activations/{id}?wait=30").json
        assert texts(record, "stdout") == [f"of {name} {record['response']['result']['n']}"]
        unknown = f"{int(id, 16) ^ 1:032x}"
        for tail in ("", "/logs", "/result"):
            foreign, absent = (said_of(other, f"activations/{which}{tail}") for which in (id, unknown))
            assert foreign == absent
            assert foreign[0] == 404


def said_of(api: Api, path: str) -> tuple[int, str]:
    answer = api.get(path)
    return answer.status, answer.json.get("error", "")


def test_shared_code_runs_in_the_name_of_who_calls_it(wall: Walled, api: Api) -> None:
    """By its full name, through a binding, and as a part of a sequence: no record of it is its owner's."""
    owner, caller = wall.tenants["carol"], wall.tenants["dave"]
    code = "import os\ndef main(p):\n  return {'as': os.environ['__OW_NAMESPACE'], 'key': '__OW_API_KEY' in os.environ}"
    assert owner.request("PUT", "packages/shared", {"publish": True}).status == 200
    owner.action("shared/who", code, PYTHON, limits=SMALL)
    binding = {"binding": {"namespace": "carol", "name": "shared"}}
    assert caller.request("PUT", "packages/bound", binding).status == 200
    parts = ["/carol/shared/who", "/dave/bound/who"]
    assert caller.request("PUT", "actions/chain", {"exec": {"kind": "sequence", "components": parts}}).status == 200
    for path in ("bound/who", "chain", "/api/v1/namespaces/carol/actions/shared/who"):
        path = path if path.startswith("/") else f"actions/{path}"
        answer = caller.request("POST", f"{path}?blocking=true", {})
        assert answer.status == 200, answer
        assert answer.json["response"]["result"] == {"as": "dave", "key": False}
        assert answer.json["namespace"] == "dave"
    until(lambda: caller.get("activations?count=true").json == {"activations": 5})
    assert owner.get("activations").json == []
    assert caller.delete("packages/bound").status == 200


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

FORGERS = {
    "a hundred thousand times": "for file in (sys.stdout, sys.stderr): print('\\n'.join([S] * 50000), file=file)",
    "half a line": "sys.stdout.write(S)\n    sys.stdout.flush()",
    "in two pieces": "sys.stdout.write(S[:9])\n    sys.stdout.flush()\n    sys.stdout.write(S[9:] + '\\n')",
    "before and after": "print('before')\n    print(S, S)\n    print(S)\n    print('after')",
    "by a child after the answer": "os.fork() or late()",
}


@pytest.mark.parametrize("name", FORGERS)
def test_forged_end_of_a_log(wall: Walled, api: Api, name: str) -> None:
    """No line in another activation but those of a process that still runs, no record that does not close."""
    code = f"""
import os, sys, time
S = '{SENTINEL}'
def late():
    for _ in range(20):
        time.sleep(0.05)
        os.write(1, b'late\\n' + S.encode() + b'\\n')
    os._exit(0)
def main(p):
  if p.get('forge'):
    {FORGERS[name]}
  print('of', p['n'])
  return {{}}
"""
    api.action("forger", code, PYTHON, limits=SMALL | {"logs": 10})
    other = wall.tenants["bob"]
    other.action("forger", code, PYTHON, limits=SMALL)
    forged = record_of(api, "forger", {"n": 0, "forge": True})
    assert forged["response"]["success"], forged
    for n in range(1, 4):
        for tenant in (api, other):
            lines = texts(record_of(tenant, "forger", {"n": n}), "stdout")
            assert [line for line in lines if line.startswith("of ")] in ([f"of {n}"], [])
            if tenant is other:
                assert lines == [f"of {n}"]
    if wall.driver != "docker":  # nothing is read from the output but text
        assert any(line.endswith("of 0") for line in texts(forged, "stdout"))
        assert name != "a hundred thousand times" or len(forged["logs"]) == 100_001


def test_lines_without_number(wall: Walled, api: Api) -> None:
    code = "import os\ndef main(p):\n  for _ in range(100): os.write(1, b'x\\n' * 10000)\n  return {}"
    api.action("lines", code, PYTHON, limits=SMALL | {"logs": 1})
    record = record_of(api, "lines")
    assert record["response"]["success"]
    assert f"limit of {MIB} bytes" in record["logs"][-1]
    assert len(texts(record, "stdout")) <= MIB // 2
