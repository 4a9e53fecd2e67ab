"""Actions whose container runs several activations at once, where the operator allows it.

Which container a run was in is told by what its process chose at random: their process ids are all the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.system.conftest import Answer, Api, has_sandbox
from tests.system.traces import annotation

from visp.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from visp.client.running import Server

pytestmark = pytest.mark.slow  # it starts a server with a setting of its own

CALLS = 10
WAITING = """
const me = Math.random()
let runs = 0, most = 0
exports.main = async (params) => {
  most = Math.max(most, ++runs)
  console.log(`run ${params.n}`)
  await new Promise((resolve) => setTimeout(resolve, 200))
  runs--
  if (params.end) process.exit(3)
  return { n: params.n, me, most }
}
"""
SLEEPING = """
import os, time
me, runs, most = os.urandom(8).hex(), 0, 0
def main(params):
    global runs, most
    runs += 1
    most = max(most, runs)
    print('run', params['n'])
    time.sleep(0.2)
    runs -= 1
    return {'n': params['n'], 'me': me, 'most': most}
"""
AWAITING = (
    SLEEPING.replace("def main", "async def main")
    .replace("time.sleep", "await asyncio.sleep")
    .replace("import os", "import asyncio, os")
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    with running.running({"limits.concurrency": 20, "pool.memory_mb": 1024}) as held:
        yield held


@pytest.fixture(scope="module")
def api(server: Server) -> Api:
    return Api(server.url)


def invoke_all(api: Api, name: str, arguments: list[dict[str, Any]]) -> list[Answer]:
    with ThreadPoolExecutor(len(arguments)) as threads:
        return list(threads.map(lambda given: api.invoke(name, given), arguments))


def test_calls_share_a_container_and_none_gets_anothers_result(api: Api) -> None:
    api.action("waiting", WAITING, limits={"concurrency": CALLS})
    assert api.invoke("waiting", {"n": -1}).status == 200  # warm: no call of the ten need wait for a start
    answers = invoke_all(api, "waiting", [{"n": n} for n in range(CALLS)])
    results = [answer.json["response"]["result"] for answer in answers]
    assert [result["n"] for result in results] == list(range(CALLS))
    assert len({result["me"] for result in results}) == 1
    assert max(result["most"] for result in results) > 1
    assert all(annotation(answer.json, "initTime") is None for answer in answers)


def test_every_line_is_in_the_logs_of_one_of_them(api: Api) -> None:
    api.action("printing", WAITING, limits={"concurrency": CALLS})
    assert api.invoke("printing", {"n": -1}).status == 200
    answers = invoke_all(api, "printing", [{"n": n} for n in range(CALLS)])
    lines: list[str] = []
    for answer in answers:
        logs = api.get(f"activations/{answer.json['activationId']}/logs").json["logs"]
        lines += [entry[31:] for entry in logs if "stdout" in entry]
    assert sorted(lines) == sorted(f"stdout: run {n}" for n in range(CALLS))


def test_the_end_of_the_process_is_the_end_of_all_its_runs(api: Api) -> None:
    api.action("ending", WAITING, limits={"concurrency": CALLS})
    assert api.invoke("ending", {"n": -1}).status == 200
    answers = invoke_all(api, "ending", [{"n": n, "end": True} for n in range(CALLS)])
    for answer in answers:
        assert answer.json["response"]["status"] == "action developer error"
        assert answer.json["response"]["result"] == {
            "error": "The action did not produce a valid response and exited unexpectedly."
        }
    assert api.invoke("ending", {"n": 1}).json["response"]["result"]["n"] == 1


TWICE = """
exports.main = (params) => params.n ? new Promise((resolve) => setTimeout(() => resolve({ n: params.n }), 200)) : {
  then (resolve) { resolve({ n: 0 }); resolve({ n: 'again' }) }
}
"""


def test_an_answer_that_is_given_twice_counts_once(api: Api) -> None:
    api.action("twice", TWICE, limits={"concurrency": CALLS})
    assert api.invoke("twice", {"n": -1}).status == 200
    answers = invoke_all(api, "twice", [{"n": n} for n in range(CALLS)])
    assert [answer.json["response"]["result"] for answer in answers] == [{"n": n} for n in range(CALLS)]


THROWING = """
exports.main = (params) => {
  if (params.n === 5) throw new Error('five')
  return new Promise((resolve) => setTimeout(resolve, 200, params))
}
"""


def test_one_that_throws_leaves_the_others_their_results(api: Api) -> None:
    api.action("throwing", THROWING, limits={"concurrency": CALLS})
    assert api.invoke("throwing", {"n": -1}).status == 200
    answers = invoke_all(api, "throwing", [{"n": n} for n in range(CALLS)])
    for n, answer in enumerate(answers):
        if n == 5:
            assert answer.json["response"]["status"] == "action developer error"
        else:
            assert answer.json["response"]["result"] == {"n": n}


@pytest.mark.parametrize("code", [SLEEPING, AWAITING], ids=["threads", "tasks"])
def test_python_runs_share_a_container_too(api: Api, code: str) -> None:
    api.action("sleeping", code, "python:3.11", limits={"concurrency": CALLS})
    assert api.invoke("sleeping", {"n": -1}).status == 200
    answers = invoke_all(api, "sleeping", [{"n": n} for n in range(CALLS)])
    results = [answer.json["response"]["result"] for answer in answers]
    assert [result["n"] for result in results] == list(range(CALLS))
    assert len({result["me"] for result in results}) == 1
    assert max(result["most"] for result in results) > 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [(WAITING, "nodejs:20"), (SLEEPING, "python:3.11"), (AWAITING, "python:3.11")],
    ids=["node", "threads", "tasks"],
)
def test_what_a_run_prints_is_in_its_own_record(api: Api, code: str, kind: str) -> None:
    api.action("owning", code, kind, limits={"concurrency": CALLS})
    assert api.invoke("owning", {"n": -1}).status == 200
    answers = invoke_all(api, "owning", [{"n": n} for n in range(CALLS)])
    for n, answer in enumerate(answers):
        logs = api.get(f"activations/{answer.json['activationId']}/logs").json["logs"]
        assert [entry[31:] for entry in logs] == [f"stdout: run {n}"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (
            "exports.main = async () => { for (let n = 0; n < 40000; n++) console.log('x'.repeat(100)); return {} }",
            "nodejs:20",
        ),
        ("def main(params):\n    for n in range(40000): print('x' * 100)\n    return {}", "python:3.11"),
    ],
    ids=["node", "python"],
)
def test_a_flood_is_cut_at_the_limit_of_its_own_record(api: Api, code: str, kind: str) -> None:
    api.action("flooding", code, kind, limits={"concurrency": CALLS, "logs": 1})
    for answer in invoke_all(api, "flooding", [{}, {}]):
        assert answer.json["response"]["status"] == "success"
        logs = api.get(f"activations/{answer.json['activationId']}/logs").json["logs"]
        assert sum(map(len, logs)) < 1.1 * 1024 * 1024
        assert "Logs were truncated" in logs[-1]


def test_lines_that_look_like_another_runs_are_its_own_text(api: Api) -> None:
    code = "def main(params):\n    print('@' + params['id'] + ' {}')\n    return params"
    api.action("forging", code, "python:3.11", limits={"concurrency": CALLS})
    answer = api.invoke("forging", {"id": "0" * 32})
    assert answer.json["response"]["result"] == {"id": "0" * 32}
    logs = api.get(f"activations/{answer.json['activationId']}/logs").json["logs"]
    assert [entry[31:] for entry in logs] == [f"stdout: @{'0' * 32} {{}}"]


FORGING = """
import os, time
def main(params):
    for descriptor in range(3, 200):
        try:
            os.write(descriptor, params['line'].encode())
        except OSError:
            pass
    time.sleep(0.2)
    return {}
"""


@pytest.mark.parametrize("line", ["@nobody {}\n", "{}\n", "@ >x\n", "+\n", "\n", "@x +:!\n"])
def test_lines_of_nobody_end_the_container_alone(api: Api, line: str) -> None:
    api.action("breaking", FORGING, "python:3.11", limits={"concurrency": CALLS})
    for answer in invoke_all(api, "breaking", [{"line": line}, {"line": line}]):
        assert answer.json["response"]["status"] in ("action developer error", "success")
    api.action("sound", "def main(params):\n    return params", "python:3.11", limits={"concurrency": CALLS})
    assert api.invoke("sound", {"n": 1}).json["response"]["result"] == {"n": 1}


PYTHON_ENDING = """
import sys, time
def main(params):
    time.sleep(0.2)
    if params['n'] == 3:
        sys.exit(1)
    time.sleep(0.5)
    return {}
"""


def test_a_python_run_that_exits_takes_the_others_with_it(api: Api) -> None:
    api.action("exiting", PYTHON_ENDING, "python:3.11", limits={"concurrency": CALLS})
    assert api.invoke("exiting", {"n": -1}).status == 200
    for answer in invoke_all(api, "exiting", [{"n": n} for n in range(5)]):
        assert answer.json["response"]["status"] == "action developer error"


def test_what_the_operator_allows_is_the_bound(api: Api) -> None:
    body = {"exec": {"kind": "nodejs:20", "code": WAITING}, "limits": {"concurrency": 21}}
    answer = api.request("PUT", "actions/toomany?overwrite=true", body)
    assert answer.status == 400
    assert "concurrency 21 exceeds allowed threshold of 20" in answer.json["error"]
