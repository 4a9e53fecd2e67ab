"""Actions that are images, over a real container engine: OpenWhisk's contract, and what it keeps from code."""

from __future__ import annotations

import base64
import io
import socket
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.images import engine as engines
from tests.images.engine import PROXY, Engine
from tests.images.registry import Registry
from tests.system.conftest import Api, has_sandbox
from tests.system.places import Place, opened
from tests.system.traces import rss_kib, until

MIB = 1 << 20
GROWTH_KIB = 24 * 1024
"""As for containers of this machine's own: a log of a megabyte as text, and what its encoding takes."""
NOWHERE = "127.0.0.1:1"
"""A registry at which nobody answers."""
INIT_EXITED = "The action did not initialize and exited unexpectedly."
RUN_EXITED = "The action did not produce a valid response and exited unexpectedly."
APPLICATION, DEVELOPER = "application error", "action developer error"
ANSWER = b'HTTP/1.1 200 OK\\r\\n%sContent-Length: 12\\r\\n\\r\\n{"error":{}}'
"""With further headers; what the test makes of it is text of a program."""
OUT_OF_MEMORY = "The action exhausted its memory and was aborted."
pytestmark = pytest.mark.skipif(not has_sandbox(), reason="bubblewrap is not installed: apt-get install bubblewrap")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with engines.needed() as engine:
        yield engine


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def settings_for(engine: Engine) -> dict[str, Any]:
    """Images of the tests are here and nowhere else; the manifest's are looked for where nobody answers."""
    return {
        "docker__mode": "on",
        "docker__host": engine.host,
        "docker__bypass_pull_for_local_images": True,
        "docker__local_image_prefix": PROXY.split("/")[0],
        "docker__runtimes_registry": NOWHERE,
        "pool__stem_cells": 0,
        "container__blanks": 0,
    }


@pytest.fixture(scope="module")
def place(engine: Engine) -> Iterator[Place]:
    with opened(Place) as place:
        yield place


@pytest.fixture(scope="module")
def api(place: Place, engine: Engine) -> Api:
    return Api(place.start(**settings_for(engine)).url)


def put(api: Api, code: str | None = None, mode: str = "serve", **fields: Any) -> None:
    body = {"kind": "blackbox", "image": f"{PROXY}:{mode}", **fields.pop("exec", {})}
    if code is not None:
        body["code"] = code
    api.delete("actions/image")  # nothing of an earlier one stays
    answer = api.request("PUT", "actions/image", {"exec": body, **fields})
    assert answer.status == 200, answer


def run(api: Api, payload: Any = None) -> Any:
    """The stored record of a run, once it has its logs."""
    answer = api.request("POST", "actions/image?blocking=true", payload or {}, timeout_s=30)
    id = answer.headers["x-openwhisk-activation-id"]
    return api.get(f"activations/{id}?wait=30").json


def outcome(api: Api, code: str | None = None, mode: str = "serve", payload: Any = None, **fields: Any) -> Any:
    put(api, code, mode, **fields)
    return run(api, payload)


def lines(record: Any) -> list[str]:
    return [entry[31:] for entry in record["logs"]]


def annotation(record: Any, key: str) -> Any:
    return next((entry["value"] for entry in record["annotations"] if entry["key"] == key), None)


def test_code_in_an_image_cold_and_warm(api: Api) -> None:
    code = """
import os, sys
before = dict(os.environ)
def main(args):
    print('said ❄')
    print('complained', file=sys.stderr)
    keys = ('__OW_NAMESPACE', '__OW_ACTION_NAME', '__OW_ACTION_VERSION', '__OW_ACTIVATION_ID', '__OW_TRANSACTION_ID',
            '__OW_DEADLINE', '__OW_API_HOST', 'GIVEN')
    return {'args': args, 'absent': [key for key in keys if key not in before], 'uses': len(os.listdir('/proc'))}
"""
    cold = outcome(
        api,
        code,
        payload={"winter": "❄ ☃ ❄"},
        parameters=[{"key": "GIVEN", "value": "at init", "init": True}],
    )
    warm = run(api, {"n": 2})
    assert cold["response"]["success"], cold
    assert cold["response"]["result"]["args"] == {"winter": "❄ ☃ ❄"}
    assert cold["response"]["result"]["absent"] == []
    for record in (cold, warm):
        assert sorted(lines(record)) == ["stderr: complained", "stdout: said ❄"]
    assert annotation(cold, "initTime") is not None
    assert annotation(warm, "initTime") is None
    assert annotation(cold, "kind") == "blackbox"


def test_an_image_without_code_and_with_a_zip(api: Api) -> None:
    assert outcome(api, payload={"a": [1]})["response"]["result"] == {"a": [1]}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", "def other(args): return [args['n'], 2]")
    code = base64.b64encode(archive.getvalue()).decode()
    assert outcome(api, code, payload={"n": 1}, exec={"main": "other"})["response"]["result"] == [1, 2]


def test_images_that_do_not_come_up(api: Api) -> None:
    ended = outcome(api, mode="exits")
    assert (ended["response"]["status"], ended["response"]["result"]) == (DEVELOPER, {"error": INIT_EXITED})
    silent = outcome(api, mode="silent", limits={"timeout": 300})
    assert silent["response"]["status"] == DEVELOPER
    assert silent["response"]["result"] == {
        "error": "The action exceeded its time limits of 300 milliseconds during initialization."
    }


def test_code_that_does_not_initialize_has_its_log(api: Api) -> None:
    record = outcome(api, "raise ValueError('of the code')")
    assert record["response"]["status"] == DEVELOPER
    assert "See logs for details" in record["response"]["result"]["error"]
    assert "stderr: ValueError: of the code" in lines(record)
    assert not any("THE_END" in line for line in lines(record))


@pytest.mark.parametrize(
    ("response", "status", "error"),
    [
        (b"HTTP/1.1 200 OK\\r\\n\\r\\n{}", DEVELOPER, RUN_EXITED),
        (b"HTTP/1.1 204 No Content\\r\\nContent-Length: 0\\r\\n\\r\\n", DEVELOPER, RUN_EXITED),
        (
            b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n2\\r\\n{}\\r\\n0\\r\\n\\r\\n",
            DEVELOPER,
            RUN_EXITED,
        ),
        (b"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n{}", DEVELOPER, RUN_EXITED),
        (b"", DEVELOPER, RUN_EXITED),
        (
            b"HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\n7",
            DEVELOPER,
            "The action did not produce a valid JSON or JSON Array response: 7",
        ),
        (b'HTTP/1.1 200 OK\\r\\nContent-Length: 12\\r\\n\\r\\n{"error":{}}', APPLICATION, {}),
        (b'HTTP/1.1 502 Bad\\r\\nContent-Length: 12\\r\\n\\r\\n{"error":{}}', DEVELOPER, {}),
        (b"HTTP/1.1 100 Continue\\r\\n\\r\\n" * 3 + ANSWER % b"", APPLICATION, {}),
        (b"HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n" + ANSWER % b"", DEVELOPER, RUN_EXITED),
        (ANSWER % (b"X-Header: value\\r\\n" * 300), APPLICATION, {}),
        (ANSWER % (b"X-Header: value\\r\\n" * 5000), DEVELOPER, RUN_EXITED),
        (ANSWER % b"X-Header: a\\r\\nX-OpenWhisk-Activation-Id: b\\r\\n", APPLICATION, {}),
        (ANSWER % b"Content-Length: 3\\r\\n", DEVELOPER, RUN_EXITED),
        (ANSWER % b"" * 2, DEVELOPER, RUN_EXITED),
        (
            b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello",
            DEVELOPER,
            "The action did not produce a valid JSON or JSON Array response: hello",
        ),
    ],
    ids=range(16),
)
def test_answers_that_break_the_contract(api: Api, response: bytes, status: str, error: Any) -> None:
    record = outcome(api, f'def main(args): return b"""{response.decode()}"""')
    assert (record["response"]["status"], record["response"]["result"]) == (status, {"error": error})


def test_an_answer_that_is_too_long_is_cut(api: Api) -> None:
    record = outcome(api, "def main(args): return {'x': 'y' * (2 << 20)}")
    assert record["response"]["status"] == APPLICATION
    assert "exceeded the allowed length: 2097161 > 1048576 bytes" in record["response"]["result"]["error"]


def test_output_without_marks_is_read_up_to_its_present_end(api: Api) -> None:
    put(api, "def main(args):\n  print('run', args['n'])\n  return {}", "unmarked")
    for n in range(3):
        assert lines(run(api, {"n": n})) == [f"stdout: run {n}"]


def test_a_forged_mark_ends_no_other_activation(api: Api) -> None:
    code = f"""
import sys
def main(args):
    for _ in range(args['marks']):
        print('{"XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"}')
        print('{"XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"}', file=sys.stderr)
    print('of', args['n'])
    return {{}}
"""
    put(api, code)
    began_s = time.monotonic()
    first, second = run(api, {"n": 1, "marks": 1000}), run(api, {"n": 2, "marks": 0})
    assert time.monotonic() - began_s < 10
    assert lines(first) in ([], ["stdout: of 1"])
    assert "stdout: of 1" not in lines(second)


def test_a_flood_of_output_neither_fills_the_server_nor_stops_the_action(api: Api, place: Place) -> None:
    put(
        api,
        "def main(args):\n  for _ in range(args['pieces']): print('x' * (1 << 20))\n  return {'done': True}",
        limits={"logs": 1, "timeout": 60_000},
    )
    run(api, {"pieces": 2})
    (server,) = place._servers
    before = rss_kib(server.pid)
    record = run(api, {"pieces": 100})
    assert record["response"]["result"] == {"done": True}
    assert (
        lines(record)[-1]
        == f"stderr: Logs were truncated because the total bytes size exceeds the limit of {MIB} bytes."
    )
    assert sum(map(len, record["logs"])) < 1.1 * MIB
    assert rss_kib(server.pid) - before < GROWTH_KIB


def test_memory_is_bounded_and_the_reason_told(api: Api) -> None:
    code = "def main(args):\n  held = []\n  while True: held.append(bytes(b'x' * (1 << 20)))"
    record = outcome(api, code, limits={"memory": 128})
    assert (record["response"]["status"], record["response"]["result"]) == (DEVELOPER, {"error": OUT_OF_MEMORY})


def test_a_run_over_time_is_ended_with_its_container(api: Api, engine: Engine, place: Place) -> None:
    put(
        api,
        "import os, time\ndef main(args):\n  print('began')\n  os.fork()\n  time.sleep(60)",
        limits={"timeout": 3000},
    )
    record = run(api)
    assert record["response"]["result"] == {"error": "The action exceeded its time limits of 3000 milliseconds."}
    assert "stdout: began" in lines(record)
    api.delete("actions/image")
    until(lambda: not engine.containers("status=running"), what=engine.containers)


def test_network_is_its_own_loopback_and_the_door(api: Api) -> None:
    code = """
import json, os, socket, urllib.request
def reach(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False
def main(args):
    with urllib.request.urlopen(os.environ['__OW_API_HOST'] + '/api/v1', timeout=5) as answer:
        api = sorted(json.loads(answer.read()))
    reached = [reach(*target) for target in args['targets']]
    return {'reached': reached, 'api': api, 'links': os.listdir('/sys/class/net')}
"""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        port = listener.getsockname()[1]
        targets = [["127.0.0.1", port], ["172.17.0.1", port], ["169.254.169.254", 80], ["::1", port]]
        record = outcome(api, code, payload={"targets": targets})
    result = record["response"]["result"]
    assert result["reached"] == [False] * 4, record
    assert "api_version" in result["api"]
    assert set(result["links"]) <= {"lo", "eth0"}, "beside the loopback at most a device of its own, for the internet"


def test_an_action_cannot_be_initialized_by_itself_again(api: Api) -> None:
    code = """
import json, threading, urllib.error, urllib.request
def main(args):
    body = json.dumps({'value': {'code': "def main(args): return {'mine': True}"}}).encode()
    request = urllib.request.Request('http://127.0.0.1:8080/init', data=body)
    try:
        urllib.request.urlopen(request, timeout=5)
    except urllib.error.HTTPError as error:
        return {'status': error.code}
"""
    put(api, code)
    assert [run(api)["response"]["result"] for _ in range(2)] == [{"status": 403}] * 2


def test_idle_containers_stand_still(engine: Engine) -> None:
    code = """
import threading, time
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
def main(args):
    return {'longest': max([b - a for a, b in zip(ticks, ticks[1:])] or [0]), 'count': len(ticks)}
"""
    with opened(Place) as place:
        api = Api(place.start(**settings_for(engine), pool__pause_grace_s=0.2).url)
        first = outcome(api, code)
        assert first["response"]["success"], first

        def longest_s() -> float:
            time.sleep(2)
            again = run(api)
            assert annotation(again, "initTime") is None
            return float(again["response"]["result"]["longest"])

        assert any(longest_s() > 0.8 for _ in range(5)), "a busy machine may take its time to freeze it, but it does"


def test_images_that_cannot_be_pulled(api: Api) -> None:
    """With a tag or without; nothing of them is here."""
    for image in (f"{NOWHERE}/no/image", f"{NOWHERE}/no/image:1"):
        record = outcome(api, exec={"image": image})
        assert record["response"]["status"] == DEVELOPER
        assert record["response"]["result"] == {"error": f"Failed to pull container image '{image}'."}
    api.action("ruby", "def main(args) = args", "ruby:2.5")
    record = api.invoke("ruby").json
    assert record["response"]["status"] == "whisk internal error"


@pytest.mark.all
def test_what_is_pulled_and_when(api: Api, engine: Engine, registry: Registry) -> None:
    registry.add("made/latest", "latest", engine, f"{PROXY}:serve")
    registry.add("made/tagged", "1", engine, f"{PROXY}:serve")
    latest, tagged = f"{registry.name}/made/latest", f"{registry.name}/made/tagged:1"
    for image, name in ((latest, "made/latest"), (tagged, "made/tagged")):
        for n in range(2):
            put(api, exec={"image": image})  # a new revision: cold
            record = run(api, {"n": n})
            assert record["response"]["result"] == {"n": n}, record
        assert registry.asked_for(name) >= 2, "a cold start did not ask the registry"
        before = registry.asked_for(name)
        assert run(api, {"warm": True})["response"]["success"]
        assert registry.asked_for(name) == before
    registry.forget()
    record = outcome(api, exec={"image": latest})
    assert record["response"]["result"] == {"error": f"Failed to pull container image '{latest}'."}
    assert outcome(api, exec={"image": tagged})["response"]["success"], "a copy that is here serves"


@pytest.mark.all
def test_kinds_of_the_manifest_by_their_images(engine: Engine) -> None:
    """With the driver `docker` all kinds; none of their images is pulled."""
    before = set(engine.containers())
    engine.call("tag", f"{PROXY}:serve", f"{NOWHERE}/openwhisk/action-python-v3.11:nightly")
    with opened(Place) as place:
        server = place.start("--driver", "docker", **settings_for(engine))
        api = Api(server.url)
        api.action("kind", "import sys\ndef main(args):\n  print('out')\n  return {'n': args['n'] + 1}", "python:3.11")
        for n in range(2):
            id = api.invoke("kind", {"n": n}).json["activationId"]
            record = api.get(f"activations/{id}?wait=30").json
            assert record["response"]["result"] == {"n": n + 1}
            assert lines(record) == ["stdout: out"]
        assert server.stop() == 0
    assert set(engine.containers()) <= before


@pytest.mark.all
def test_a_killed_server_s_containers_are_removed_by_the_next(engine: Engine) -> None:
    before = set(engine.containers())
    with opened(Place) as place:
        server = place.start(**settings_for(engine), pool__pause_grace_s=0.1)
        api = Api(server.url)
        assert outcome(api, payload={"n": 1})["response"]["success"]
        time.sleep(1.5)  # it is frozen by now
        server.stop(9)
        (left,) = set(engine.containers()) - before
        server = place.start(**settings_for(engine))
        until(lambda: left not in engine.containers(), what=engine.containers)
        assert outcome(Api(server.url), payload={"n": 2})["response"]["result"] == {"n": 2}
        assert server.stop() == 0
    assert set(engine.containers()) <= before


def test_one_container_serves_one_namespace_and_revision(api: Api, engine: Engine) -> None:
    code = "import os\nopen('/tmp/mark', 'a').write('x')\ndef main(args):\n  return {'marks': open('/tmp/mark').read()}"
    assert outcome(api, code)["response"]["result"] == {"marks": "x"}
    assert run(api)["response"]["result"] == {"marks": "x"}
    assert outcome(api, code)["response"]["result"] == {"marks": "x"}, "a new revision has a container of its own"


def test_hardened_images_own_nothing(engine: Engine) -> None:
    code = """
import os
def main(args):
    status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines() if ':' in line)
    written = []
    for folder in ('/', '/usr', '/tmp'):
        try:
            open(folder + '/.mark', 'w').close()
            written.append(folder)
        except OSError:
            pass
    return {'uid': os.getuid(), 'caps': status['CapBnd'].strip().strip('0'), 'written': written}
"""
    with opened(Place) as place:
        api = Api(place.start(**settings_for(engine), docker__hardened=True).url)
        assert outcome(api, code)["response"]["result"] == {"uid": 65534, "caps": "", "written": ["/tmp"]}
