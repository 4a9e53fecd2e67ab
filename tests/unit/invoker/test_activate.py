"""What is sent to a container, and what its answers mean."""

import json
from typing import Any

import msgspec
import pytest

from visp.bus.messages import ActivationMessage
from visp.entity.action import Action
from visp.entity.activation import Outcome, Phases, Status
from visp.entity.execs import Code, CodeExec
from visp.entity.follow import Follow
from visp.entity.limits import ActionLimits, AnswerLimits
from visp.entity.names import FullyQualifiedName
from visp.entity.parameters import Parameter, Parameters, plain
from visp.invoker import activate
from visp.invoker.job import Cold, Job
from visp.invoker.slot import Key
from visp.runtime.base import PreparedCode, Reply

LIMIT = 1024
LIMITS = AnswerLimits(LIMIT, LIMIT)
ID = "0" * 31 + "7"
INVALID = "The action did not produce a valid JSON or JSON Array response"


def action(parameters: Parameters | None = None, **fields: Any) -> Action:
    values: dict[str, Any] = {
        "name": FullyQualifiedName("guest", "pkg", "hello"),
        "exec": CodeExec("python:3.11", Code(False, inline="def main(a): return a"), None),
        "parameters": parameters or {},
        "version": "0.0.3",
        "revision": 5,
    }
    return Action(**(values | fields))


def job(of: Action, content: bytes = b'{"a":1}', **fields: Any) -> Job:
    message = ActivationMessage(
        id=ID,
        transid='t"1',
        namespace="caller",
        namespace_uuid="u",
        subject="someone",
        action=of.name.id,
        revision=of.revision,
        content=content,
        received_ms=1000,
        **fields,
    )
    return Job(message, of, Key("caller", of.name.id, of.revision), 0.0)


def at_init(value: bytes) -> Parameter:
    return Parameter(msgspec.Raw(value), init=True)


# ── what is sent ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_one_line_of_text_fields_beside_the_value() -> None:
    given = job(action(), b'{"a":1.50}')
    body = activate.run_body(given, activate.run_suffix(given.action, "caller", "u:k"), 61_000)
    assert body.startswith(b'{"value":{"a":1.50},')
    assert b"\n" not in body
    assert json.loads(body) == {
        "value": {"a": 1.5},
        "namespace": "caller",
        "action_name": "/guest/pkg/hello",
        "action_version": "0.0.3",
        "activation_id": ID,
        "transaction_id": 't"1',
        "deadline": "61000",
        "api_key": "u:k",
    }


def test_without_a_key_none_is_named() -> None:
    assert b"api_key" not in activate.run_suffix(action(), "caller", None)


@pytest.mark.parametrize(
    ("annotations", "gives"),
    [({}, True), (plain("provide-api-key", True), True), (plain("provide-api-key", False), False)],
)
def test_the_key_is_given_unless_the_annotation_says_no(annotations: Parameters, gives: bool) -> None:
    assert activate.gives_api_key(action(annotations=annotations)) is gives


def test_init_carries_the_code_and_the_environment() -> None:
    body = json.loads(activate.init_body(job(action()), PreparedCode(text="code"), "/action", 61_000, "u:k"))
    assert body == {
        "value": {
            "name": "hello",
            "main": "main",
            "binary": False,
            "code": "code",
            "env": {
                "__OW_NAMESPACE": "caller",
                "__OW_ACTION_NAME": "/guest/pkg/hello",
                "__OW_ACTION_VERSION": "0.0.3",
                "__OW_ACTIVATION_ID": ID,
                "__OW_TRANSACTION_ID": 't"1',
                "__OW_DEADLINE": "61000",
                "__OW_API_KEY": "u:k",
            },
        }
    }


def test_init_names_the_folder_where_the_container_sees_it() -> None:
    value = json.loads(activate.init_body(job(action()), PreparedCode(folder="/host/tree"), "/seen", 0, None))["value"]
    assert value["folder"] == "/seen"
    assert "code" not in value


def test_init_says_how_many_at_once_only_if_several() -> None:
    def value(concurrency: int) -> Any:
        return json.loads(activate.init_body(job(action()), PreparedCode(text=""), "/a", 0, None, concurrency))["value"]

    assert value(5)["concurrency"] == 5
    assert "concurrency" not in value(1)


def test_init_parameters_are_given_once_as_text() -> None:
    parameters = {
        "TEXT": at_init(b'"t"'),
        "NULL": at_init(b"null"),
        "LIST": at_init(b"[1, 2]"),
        "ODD": at_init(b'"\\ud800"'),
        "run": Parameter(msgspec.Raw(b"1")),
    }
    given = job(action(parameters), b'{"TEXT":"t","NULL":null,"LIST":[1, 2],"ODD":"\\ud800","run":1}')
    environment = json.loads(activate.init_body(given, PreparedCode(text=""), "/action", 0, None))["value"]["env"]
    assert (environment["TEXT"], environment["NULL"], environment["LIST"]) == ("t", "", "[1,2]")
    assert environment["ODD"] == '"\\ud800"'
    assert "run" not in environment
    assert activate.argument(given.action, given.message.content) == b'{"run":1}'


def test_an_array_is_passed_on_whole() -> None:
    assert activate.argument(action({"a": at_init(b"1")}), b"[1]") == b"[1]"


# ── what the answer means ───────────────────────────────────────────────────────────────────────────────────────


def run(status: int, body: bytes) -> Outcome:
    return activate.classify_run(Reply(status, body, len(body)), LIMITS)


def init(status: int, body: bytes) -> Outcome | None:
    return activate.classify_init(Reply(status, body, len(body)), LIMITS)


@pytest.mark.parametrize(
    ("status", "body", "outcome", "result"),
    [
        (200, b'{"a":1.0}', Status.SUCCESS, {"a": 1.0}),
        (200, b"[1]", Status.SUCCESS, [1]),
        (200, b'{"error":null,"b":2}', Status.APPLICATION_ERROR, {"error": None}),
        (200, b'"text"', Status.DEVELOPER_ERROR, {"error": INVALID + ': "text"'}),
        (200, b"", Status.DEVELOPER_ERROR, {"error": INVALID + "."}),
        (200, b"{broken", Status.DEVELOPER_ERROR, {"error": INVALID + ": {broken"}),
        (502, b'{"error":"why","b":2}', Status.DEVELOPER_ERROR, {"error": "why"}),
        (502, b'{"b":2}', Status.DEVELOPER_ERROR, {"error": INVALID + ': {"b":2}'}),
        (502, b"[1]", Status.DEVELOPER_ERROR, {"error": INVALID + ": [1]"}),
    ],
)
def test_a_run(status: int, body: bytes, outcome: Status, result: object) -> None:
    got = run(status, body)
    assert (got.status, json.loads(got.result)) == (outcome, result)
    assert got.size == len(body)


def test_a_good_result_is_passed_on_to_the_byte() -> None:
    body = b'{ "a" : 1.500, "b":"\\u00e9" }'
    assert run(200, body).result == body


def test_size_counts_characters() -> None:
    assert run(200, '{"a":"é😀"}'.encode()).size == 11


@pytest.mark.parametrize("status", [200, 502])
def test_a_run_over_the_limit_is_an_application_error(status: int) -> None:
    start = b'{"a":"' + "é".encode() * LIMIT
    got = activate.classify_run(Reply(status, start[: LIMIT + 1], 5000), LIMITS)
    error = json.loads(got.result)["error"]
    assert got.status is Status.APPLICATION_ERROR
    assert got.size == 5000
    assert error.startswith(
        "The action produced a response that exceeded the allowed length: 5000 > 1024 bytes. "
        'The truncated response was: {"a":"éé'
    )
    assert "�" not in error


def test_exactly_the_limit_is_allowed() -> None:
    assert run(200, b'{"a":"' + b"x" * (LIMIT - 8) + b'"}').status is Status.SUCCESS


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b'{"error":"why"}', "why"),
        (500, b"text", "The action failed during initialization: text"),
        (403, b"", "The action failed during initialization."),
    ],
)
def test_an_init_that_failed(status: int, body: bytes, error: str) -> None:
    got = init(status, body)
    assert got is not None
    assert (got.status, json.loads(got.result)) == (Status.DEVELOPER_ERROR, {"error": error})


def test_any_200_is_a_good_init() -> None:
    assert init(200, b"whatever") is None


def test_an_init_over_the_limit_is_a_developer_error() -> None:
    got = activate.classify_init(Reply(502, b"x" * (LIMIT + 1), 5000), LIMITS)
    assert got is not None
    assert got.status is Status.DEVELOPER_ERROR
    assert b"exceeded the allowed length: 5000 > 1024 bytes" in got.result


@pytest.mark.parametrize(
    ("is_init", "is_out_of_memory", "sentence"),
    [
        (False, False, "The action did not produce a valid response and exited unexpectedly."),
        (True, False, "The action did not initialize and exited unexpectedly."),
        (False, True, "The action exhausted its memory and was aborted."),
        (True, True, "The action exhausted its memory and was aborted."),
    ],
)
def test_a_container_that_is_gone(is_init: bool, is_out_of_memory: bool, sentence: str) -> None:
    got = activate.gone(is_init=is_init, is_out_of_memory=is_out_of_memory)
    assert (got.status, json.loads(got.result)) == (Status.DEVELOPER_ERROR, {"error": sentence})


# ── the record ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_head_tells_of_action_caller_and_times() -> None:
    given = job(action(limits=ActionLimits(timeout_ms=5000)), cause="c", binding="caller/bound")
    given.start_ms, given.init_ms = 1250, 40
    head = activate.head_of(given, Outcome(Status.SUCCESS, b"{}", 2), 1300, 50, is_timeout=False)
    assert (head.namespace, head.subject, head.name, head.path) == ("caller", "someone", "hello", "guest/pkg/hello")
    assert (head.start_ms, head.end_ms, head.duration_ms, head.wait_ms, head.init_ms) == (1250, 1300, 50, 250, 40)
    assert (head.version, head.kind, head.cause, head.binding) == ("0.0.3", "python:3.11", "c", "caller/bound")


def phases(*, start_ms: int, arrived_s: float = 10.0, start_s: float = 10.0, **times: Any) -> Phases:
    """Of a job received at 1000 ms; times that are not given are not reached."""
    given = job(action())
    given.arrived_s = given.placed_s = arrived_s
    given.start_ms, given.start_s = start_ms, start_s
    for name, value in times.items():
        setattr(given, name, value)
    return activate.phases_of(given, 10.5)


def test_phases_count_from_the_request() -> None:
    got = phases(
        start_ms=1000,
        placed_s=10.0625,
        created_s=10.125,
        initialised_s=10.25,
        run_s=10.3125,
        answered_s=10.375,
        logs_s=10.4375,
        cold=Cold.EVICTED,
    )
    assert got == Phases(0, 62_500, 125_000, 250_000, 312_500, 375_000, 437_500, 500_000, "evicted")


def test_phases_that_were_not_reached_are_none() -> None:
    assert phases(start_ms=1000) == Phases(0, 0, None, None, None, None, None, 500_000)


@pytest.mark.parametrize(("wait_ms", "queued_us"), [(-5, 0), (0, 0), (1, 0), (251, 250_000)])
def test_the_way_to_the_invoker_is_what_wall_clocks_are_sure_of(wait_ms: int, queued_us: int) -> None:
    assert phases(start_ms=1000 + wait_ms).queued == queued_us


def test_a_wait_in_the_invoker_is_no_way_to_it() -> None:
    got = phases(start_ms=1400, start_s=10.4, placed_s=10.25)
    assert (got.queued, got.placed) == (0, 250_000)


def test_a_fallback_head_knows_only_the_path() -> None:
    head = activate.fallback_head(job(action()).message, Outcome(Status.INTERNAL_ERROR, b"{}"), 1500)
    assert (head.path, head.kind, head.limits, head.is_timeout) == ("guest/pkg/hello", None, None, None)
    assert (head.start_ms, head.end_ms, head.duration_ms, head.name) == (1500, 1500, 0, "hello")


def test_a_fallback_head_says_which_attempt_it_was() -> None:
    message = msgspec.structs.replace(job(action()).message, follow=Follow(attempt=3, first="f" * 32))
    head = activate.fallback_head(message, Outcome(Status.INTERNAL_ERROR, b"{}"), 1500)
    assert (head.retry_of, head.attempt) == ("f" * 32, 3)
