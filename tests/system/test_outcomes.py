"""What an action does, and what its caller, its record and its logs say of it: the four outcomes, both languages."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.system.conftest import GUEST, Api
from tests.system.traces import annotation, stored, texts, until

NODE, PYTHON = "nodejs:20", "python:3.11"
KINDS = pytest.mark.parametrize("kind", [NODE, PYTHON])

SUCCESS, APPLICATION, DEVELOPER = "success", "application error", "action developer error"
AFTER_FAILURE = "stderr: The action did not initialize or run as expected. Log data might be missing."
RUN_EXITED = "The action did not produce a valid response and exited unexpectedly."
INIT_EXITED = "The action did not initialize and exited unexpectedly."
NO_BINARY = "The action failed to generate or locate a binary. See logs for details."
INVALID = "The action did not produce a valid JSON or JSON Array response: "
MIB = 1 << 20


def outcome(api: Api, name: str, code: str, kind: str, payload: Any = None, **fields: Any) -> Any:
    """The stored record of one blocking run; the answer has said the same."""
    api.action(name, code, kind, **fields)
    answer = api.invoke(name, payload)
    record = api.record(answer.headers["x-openwhisk-activation-id"])
    response = record["response"]
    assert answer.status == (200 if response["success"] else 502), answer
    if isinstance(response["result"], list):
        assert answer.json == response["result"]
    else:
        assert answer.json["response"] == response
        assert answer.json["logs"] == []
    assert response["success"] is (response["status"] == SUCCESS)
    return record


# ── results ─────────────────────────────────────────────────────────────────────────────────────────────────────


RESULTS = [
    ("object", NODE, "const main = p => ({greeting: 'hi ' + p.name})", SUCCESS, {"greeting": "hi Zoë 🦊"}),
    ("object", PYTHON, "def main(p): return {'greeting': 'hi ' + p['name']}", SUCCESS, {"greeting": "hi Zoë 🦊"}),
    ("array", NODE, "const main = () => [1, {a: null}, 'ü']", SUCCESS, [1, {"a": None}, "ü"]),
    ("array", PYTHON, "def main(p): return [1, {'a': None}, 'ü']", SUCCESS, [1, {"a": None}, "ü"]),
    ("undefined", NODE, "function main () {}", SUCCESS, {}),
    ("async", NODE, "const main = async p => ({n: await p.name.length})", SUCCESS, {"n": 6}),
    (
        "async",
        PYTHON,
        "import asyncio\nasync def main(p):\n  await asyncio.sleep(0)\n  return {'n': len(p['name'])}",
        SUCCESS,
        {"n": 5},
    ),
    ("error", NODE, "const main = () => ({error: {code: 7}, more: 1})", APPLICATION, {"error": {"code": 7}}),
    ("error", PYTHON, "def main(p): return {'error': None, 'more': 1}", APPLICATION, {"error": None}),
    ("throw", NODE, "function main () { throw new Error('no') }", DEVELOPER, "An error has occurred: Error: no"),
    ("throw", PYTHON, "def main(p): raise ValueError('broken')", APPLICATION, {"error": "broken"}),
    ("reject", NODE, "const main = () => Promise.reject({why: 'broken'})", APPLICATION, {"error": {"why": "broken"}}),
    ("reject", PYTHON, "async def main(p): raise ValueError('broken')", APPLICATION, {"error": "broken"}),
    ("number", NODE, "const main = () => 5", DEVELOPER, "The action did not return a dictionary."),
    ("number", PYTHON, "def main(p): return 5", DEVELOPER, "The action did not return a dictionary or array."),
    ("null", NODE, "const main = () => null", DEVELOPER, INVALID + "null"),
    ("none", PYTHON, "def main(p): return None", DEVELOPER, "The action did not return a dictionary or array."),
    ("exits", NODE, "function main () { process.exit(3) }", DEVELOPER, RUN_EXITED),
    ("exits", PYTHON, "import os\ndef main(p): os._exit(3)", DEVELOPER, "command exited"),
    ("exits in init", NODE, "process.exit(3)\nfunction main () {}", DEVELOPER, INIT_EXITED),
    ("exits in init", PYTHON, "import os\nos._exit(3)", DEVELOPER, "Cannot start action. Check logs for details."),
    ("no main", NODE, "function other () {}", DEVELOPER, "Initialization has failed due to: Action entrypoint 'main' is not a function."),  # noqa: E501
    ("no main", PYTHON, "def other(p): pass", DEVELOPER, "Invalid action: no function named 'main'"),
    ("no code", NODE, "", DEVELOPER, "Missing main/no code to execute."),
    ("no code", PYTHON, "", DEVELOPER, "Missing main/no code to execute."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "code", "status", "result"), RESULTS, ids=[f"{r[1]} {r[0]}" for r in RESULTS])
def test_outcome(api: Api, name: str, kind: str, code: str, status: str, result: Any) -> None:
    record = outcome(api, "outcome", code, kind, {"name": "Zoë 🦊"})
    response = record["response"]
    assert response["status"] == status
    assert response["result"] == ({"error": result} if isinstance(result, str) else result)
    assert (texts(record)[-1:] == [AFTER_FAILURE]) is (status == DEVELOPER)
    assert annotation(record, "kind") == kind
    assert annotation(record, "timeout") is False


def test_syntax_error_in_node_is_told_in_the_error(api: Api) -> None:
    response = outcome(api, "syntax", "function main () { return ] }", NODE)["response"]
    assert response["status"] == DEVELOPER
    assert response["result"]["error"].startswith("Initialization has failed due to: ")
    assert "SyntaxError: Unexpected token ']'" in response["result"]["error"]


def test_syntax_error_in_python_is_told_in_the_logs(api: Api) -> None:
    record = outcome(api, "syntax", "def main(p) return", PYTHON)
    assert record["response"]["result"] == {"error": NO_BINARY}
    assert "SyntaxError: expected ':'" in texts(record, "stderr")


@KINDS
def test_another_main(api: Api, kind: str) -> None:
    code = {NODE: "const other = () => ({by: 'other'})", PYTHON: "def other(p): return {'by': 'other'}"}[kind]
    assert outcome(api, "main", code, kind, exec={"main": "other"})["response"]["result"] == {"by": "other"}


@KINDS
def test_argument_and_result_are_the_same_json(api: Api, kind: str) -> None:
    code = {NODE: "const main = p => p", PYTHON: "def main(p): return p"}[kind]
    payload = {"text": 'ü\u2028"\\\n\x7f🦊', "deep": [[[{}]]], "number": [0, -1, 1.5, 1e100], "": None, "true": True}
    assert outcome(api, "echo", code, kind, payload)["response"]["result"] == payload


@KINDS
def test_result_at_its_limit_is_kept_and_beyond_it_is_cut(api: Api, kind: str) -> None:
    code = {
        NODE: "const main = p => ({t: 'x'.repeat(p.n)})",
        PYTHON: "def main(p): return {'t': 'x' * p['n']}",
    }[kind]
    framing = len('{"t":""}')
    kept = outcome(api, "large", code, kind, {"n": MIB - framing})
    assert kept["response"]["status"] == SUCCESS
    cut = outcome(api, "large", code, kind, {"n": MIB - framing + 1})
    assert cut["response"]["status"] == APPLICATION
    sentence = f"The action produced a response that exceeded the allowed length: {MIB + 1} > {MIB} bytes. "
    assert cut["response"]["result"]["error"].startswith(sentence + 'The truncated response was: {"t":"xxx')
    assert len(cut["response"]["result"]["error"]) < MIB + 1000


# ── time limits ─────────────────────────────────────────────────────────────────────────────────────────────────


@KINDS
@pytest.mark.parametrize(("phase", "limit_ms"), [("run", 1500), ("init", 200)])
def test_time_limit(api: Api, kind: str, phase: str, limit_ms: int) -> None:
    """A run's limit is one that a busy machine does not spend on its initialization."""
    code = {
        (NODE, "run"): "function main () { for (;;) {} }",
        (NODE, "init"): "for (;;) {}\nfunction main () {}",
        (PYTHON, "run"): "def main(p):\n  print('begun', flush=True)\n  while True: pass",
        (PYTHON, "init"): "while True: pass\ndef main(p): return {}",
    }[kind, phase]
    record = outcome(api, "endless", code, kind, limits={"timeout": limit_ms})
    tail = " during initialization." if phase == "init" else "."
    assert record["response"]["status"] == DEVELOPER
    assert record["response"]["result"] == {
        "error": f"The action exceeded its time limits of {limit_ms} milliseconds{tail}"
    }
    assert annotation(record, "timeout") is True
    assert "size" not in record["response"]
    assert record["duration"] >= limit_ms
    if (kind, phase) == (PYTHON, "run"):
        assert "begun" in texts(record, "stdout")


# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────


@KINDS
def test_log_lines_have_stamp_stream_and_order(api: Api, kind: str) -> None:
    code = {
        NODE: "function main () { for (let i = 0; i < 50; i++) { console.log('out', i); console.error('err', i) };"
        " process.stdout.write('no end'); return {} }",
        PYTHON: "import sys\ndef main(p):\n"
        "  for i in range(50):\n    print('out', i)\n    print('err', i, file=sys.stderr)\n"
        "  sys.stdout.write('no end')\n  return {}",
    }[kind]
    record = outcome(api, "prints", code, kind)
    assert texts(record, "stdout") == [*(f"out {i}" for i in range(50)), "no end"]
    assert texts(record, "stderr") == [f"err {i}" for i in range(50)]
    stamps = [line.partition(" ")[0] for line in record["logs"]]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp) for stamp in stamps)
    assert stamps == sorted(stamps)
    assert api.get(f"activations/{record['activationId']}/logs").json == {"logs": record["logs"]}


@KINDS
def test_no_line_is_missing_when_much_is_printed(api: Api, kind: str) -> None:
    code = {
        NODE: "function main () { for (let i = 0; i < 20000; i++) console.log('line', i); return {} }",
        PYTHON: "def main(p):\n  for i in range(20000): print('line', i)\n  return {}",
    }[kind]
    assert texts(outcome(api, "prints", code, kind), "stdout") == [f"line {i}" for i in range(20000)]


@KINDS
def test_log_limit(api: Api, kind: str) -> None:
    code = {
        NODE: "function main (p) { for (let i = 0; i < 3000; i++) console.log('x'.repeat(999)); return {} }",
        PYTHON: "def main(p):\n  for i in range(3000): print('x' * 999)\n  return {}",
    }[kind]
    assert outcome(api, "prints", code, kind, limits={"logs": 0})["logs"] == []
    logs = outcome(api, "prints", code, kind, limits={"logs": 1})["logs"]
    assert logs[-1].endswith(
        f"stderr: Logs were truncated because the total bytes size exceeds the limit of {MIB} bytes."
    )
    assert all(line.endswith("stdout: " + "x" * 999) for line in logs[:-1])
    assert MIB * 0.9 < sum(map(len, logs[:-1])) <= MIB


@KINDS
def test_logs_are_those_of_the_activation(api: Api, kind: str) -> None:
    code = {
        NODE: "function main (p) { console.log('run', p.n); return {} }",
        PYTHON: "def main(p):\n  print('run', p['n'])\n  return {}",
    }[kind]
    api.action("prints", code, kind)
    ids = [api.invoke("prints", {"n": n}).json["activationId"] for n in range(5)]
    assert [texts(api.record(id)) for id in ids] == [[f"stdout: run {n}"] for n in range(5)]


# ── environment ─────────────────────────────────────────────────────────────────────────────────────────────────

SHOW_ENVIRONMENT = {
    NODE: "const main = p => ({p, env: process.env})",
    PYTHON: "import os\ndef main(p): return {'p': p, 'env': dict(os.environ)}",
}


@KINDS
def test_environment_of_a_run(api: Api, kind: str) -> None:
    record = outcome(api, "environment", SHOW_ENVIRONMENT[kind], kind, {"a": 1})
    result = record["response"]["result"]
    assert result["p"] == {"a": 1}
    given = {name: value for name, value in result["env"].items() if name.startswith("__OW_")}
    assert given["__OW_NAMESPACE"] == "guest"
    assert given["__OW_ACTION_NAME"] == "/guest/environment"
    assert given["__OW_ACTION_VERSION"] == record["version"]
    assert given["__OW_ACTIVATION_ID"] == record["activationId"]
    assert given["__OW_TRANSACTION_ID"]
    assert given["__OW_API_HOST"].startswith("http")
    rounding_ms = 1  # the end is the start and a duration, each rounded; the deadline is made of the wall clock
    assert record["start"] < int(given["__OW_DEADLINE"]) <= record["end"] + 60_000 + rounding_ms
    assert "__OW_API_KEY" not in given
    key = GUEST.partition(":")[2]
    assert key not in json.dumps(result)


@KINDS
def test_environment_changes_with_each_run(api: Api, kind: str) -> None:
    api.action("environment", SHOW_ENVIRONMENT[kind], kind)
    for _ in range(2):
        record = api.invoke("environment").json
        assert record["response"]["result"]["env"]["__OW_ACTIVATION_ID"] == record["activationId"]


@KINDS
def test_api_key_is_given_when_the_annotation_says_so(api: Api, kind: str) -> None:
    annotations = [{"key": "provide-api-key", "value": True}]
    record = outcome(api, "environment", SHOW_ENVIRONMENT[kind], kind, annotations=annotations)
    assert record["response"]["result"]["env"]["__OW_API_KEY"] == GUEST


@KINDS
def test_init_parameters_are_in_the_environment_only(api: Api, kind: str) -> None:
    parameters = [
        {"key": "SECRET", "value": "of init", "init": True},
        {"key": "COUNT", "value": {"n": 1}, "init": True},
        {"key": "usual", "value": 2},
    ]
    result = outcome(api, "environment", SHOW_ENVIRONMENT[kind], kind, parameters=parameters)["response"]["result"]
    assert result["p"] == {"usual": 2}
    assert result["env"]["SECRET"] == "of init"
    assert result["env"]["COUNT"] == '{"n":1}'


# ── containers ──────────────────────────────────────────────────────────────────────────────────────────────────

COUNTING = {
    NODE: "let n = 0\nfunction main (p) { n++; if (p.fail) process.exit(1); return {n} }",
    PYTHON: "import os\nn = 0\ndef main(p):\n  global n\n  n += 1\n  if p.get('fail'): os._exit(1)\n  return {'n': n}",
}


@KINDS
def test_warm_container_is_used_again_and_not_after_a_developer_error(api: Api, kind: str) -> None:
    cold = outcome(api, "counting", COUNTING[kind], kind)
    assert annotation(cold, "initTime") is not None
    warm = api.invoke("counting").json
    assert warm["response"]["result"] == {"n": 2}
    assert annotation(warm, "initTime") is None
    assert api.invoke("counting", {"fail": True}).status == 502
    new = api.invoke("counting").json
    assert new["response"]["result"] == {"n": 1}
    assert annotation(new, "initTime") is not None


@KINDS
def test_update_runs_the_new_code_at_once(api: Api, kind: str) -> None:
    for n in range(3):
        code = {NODE: f"const main = () => ({{n: {n}}})", PYTHON: f"def main(p): return {{'n': {n}}}"}[kind]
        assert outcome(api, "updated", code, kind)["response"]["result"] == {"n": n}


def test_image_without_an_engine(api: Api) -> None:
    record = outcome(api, "image", "", "blackbox", exec={"image": "someone/image:1"})
    assert record["response"]["status"] == DEVELOPER
    assert record["response"]["result"] == {"error": "Failed to pull container image 'someone/image:1'."}
    assert annotation(record, "initTime") is None


# ── ways to invoke ──────────────────────────────────────────────────────────────────────────────────────────────


def test_invocation_without_waiting(api: Api) -> None:
    api.action("echo", "const main = p => p")
    answer = api.invoke("echo", {"a": 1}, query="")
    assert answer.status == 202
    assert list(answer.json) == ["activationId"]
    record = stored(api, answer.json["activationId"])
    assert record["response"] == {"result": {"a": 1}, "size": 7, "status": SUCCESS, "success": True}


def test_blocking_invocation_falls_back_to_its_id(api: Api) -> None:
    api.action("slow", "const main = p => new Promise(done => setTimeout(() => done({waited: true}), 400))")
    answer = api.invoke("slow", query="blocking=true&timeout=100")
    assert answer.status == 202
    id = answer.json["activationId"]
    assert api.get(f"activations/{id}").status == 404
    assert stored(api, id)["response"]["result"] == {"waited": True}


def test_sequence(api: Api) -> None:
    api.action("inc", "const main = p => ({n: p.n + 1})")
    api.action("double", "def main(p): return {'n': p['n'] * 2}", PYTHON)
    components = ["/_/inc", "/_/double", "/_/inc"]
    api.request("PUT", "actions/line?overwrite=true", {"exec": {"kind": "sequence", "components": components}})
    answer = api.invoke("line", {"n": 1})
    assert answer.status == 200
    record = api.record(answer.json["activationId"])
    assert record["response"]["result"] == {"n": 5}
    assert annotation(record, "topmost") is True
    assert annotation(record, "kind") == "sequence"
    parts = [api.record(id) for id in record["logs"]]
    assert [(part["name"], part["response"]["result"]["n"]) for part in parts] == [
        ("inc", 2),
        ("double", 4),
        ("inc", 5),
    ]
    assert all(part["cause"] == record["activationId"] for part in parts)
    assert all(annotation(part, "causedBy") == "sequence" for part in parts)
    assert record["duration"] == sum(part["duration"] for part in parts)


@pytest.mark.parametrize(
    ("code", "status", "result"),
    [
        ("const main = () => ({error: 'enough'})", APPLICATION, {"error": "enough"}),
        ("function main () { process.exit(1) }", DEVELOPER, {"error": RUN_EXITED}),
    ],
)
def test_sequence_ends_at_an_error(api: Api, code: str, status: str, result: Any) -> None:
    api.action("fails", code)
    api.action("never", "const main = p => ({ran: true})")
    components = ["/_/fails", "/_/never"]
    api.request("PUT", "actions/short?overwrite=true", {"exec": {"kind": "sequence", "components": components}})
    answer = api.invoke("short")
    assert answer.status == 502
    record = api.record(answer.json["activationId"])
    assert (record["response"]["status"], record["response"]["result"]) == (status, result)
    assert [api.record(id)["name"] for id in record["logs"]] == ["fails"]


def test_array_goes_through_a_sequence(api: Api) -> None:
    api.action("list", "const main = p => [p.n, p.n + 1]")
    api.action("sum", "def main(p): return {'type': type(p).__name__, 'sum': sum(p)}", PYTHON)
    api.request(
        "PUT", "actions/arrays?overwrite=true", {"exec": {"kind": "sequence", "components": ["/_/list", "/_/sum"]}}
    )
    assert api.run("arrays", {"n": 3}) == {"type": "list", "sum": 7}


# ── triggers and rules ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trigger(api: Api) -> str:
    """A trigger with an active rule and an inactive one, both on an action that shows its argument."""
    api.action("shown", "const main = p => p")
    api.request("PUT", "triggers/event?overwrite=true", {"parameters": [{"key": "of", "value": "trigger"}]})
    for rule in ("on", "off"):
        body = {"trigger": "/_/event", "action": "/_/shown"}
        assert api.request("PUT", f"rules/{rule}?overwrite=true", body).status == 200
    assert api.request("POST", "rules/on", {"status": "active"}).status == 200
    assert api.request("POST", "rules/off", {"status": "inactive"}).status == 200
    return "event"


def test_fire_runs_the_actions_of_active_rules(api: Api, trigger: str) -> None:
    answer = api.request("POST", f"triggers/{trigger}", {"what": "ü"}, {"X-Extra": "1"})
    assert answer.status == 202
    record = stored(api, answer.json["activationId"])
    assert record["name"] == trigger
    assert record["response"]["result"] == {"what": "ü"}
    entries = {entry["rule"]: entry for entry in map(json.loads, record["logs"])}
    assert entries["guest/off"]["success"] is False
    assert entries["guest/off"]["error"] == "Rule 'guest/off' is inactive, action 'guest/shown' was not activated."
    assert "activationId" not in entries["guest/off"]
    assert entries["guest/on"]["success"] is True
    ran = stored(api, entries["guest/on"]["activationId"])
    result = ran["response"]["result"]
    assert {key: value for key, value in result.items() if key != "__ow_headers"} == {"of": "trigger", "what": "ü"}
    assert result["__ow_headers"]["x-extra"] == "1"
    assert "cause" not in ran


def test_fire_with_inactive_rules_only_does_nothing(api: Api, trigger: str) -> None:
    assert api.request("POST", "rules/on", {"status": "inactive"}).status == 200
    before = api.get("activations?count=true").json
    assert api.request("POST", f"triggers/{trigger}", {}).status == 204
    assert api.get("activations?count=true").json == before


def test_fire_by_a_rule_that_is_switched_on_again(api: Api, trigger: str) -> None:
    for status, answer in (("inactive", 204), ("active", 202)):
        assert api.request("POST", "rules/on", {"status": status}).status == 200
        assert api.request("POST", f"triggers/{trigger}", {}).status == answer
    until(lambda: api.get("activations?name=shown&limit=1").json, what="the action did not run")
