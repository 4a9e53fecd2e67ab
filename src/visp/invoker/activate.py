"""What is sent to a container, and what its answer means. Pure.

Source: the bodies of `/init` and `/run` and the classification of answers as OpenWhisk's invoker makes them; one for
both wires.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.entity import payload as payloads
from visp.entity.activation import ActivationHead, Outcome, Phases, Status, failure
from visp.entity.names import from_id
from visp.entity.parameters import init_keys, is_truthy
from visp.entity.version import INITIAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visp.bus.messages import ActivationMessage
    from visp.entity.action import Action
    from visp.entity.limits import AnswerLimits
    from visp.entity.payload import JsonObject
    from visp.invoker.job import Job
    from visp.invoker.streams import Stream
    from visp.runtime.base import PreparedCode, Reply

EMPTY: Mapping[str, str] = MappingProxyType({})
_encode = msgspec.json.Encoder().encode


# ── what is sent ────────────────────────────────────────────────────────────────────────────────────────────────


def run_suffix(action: Action, namespace: str, api_key: str | None) -> bytes:
    """The part of each run body that is the same for one container: from after the value to the ids."""
    fields: dict[str, str] = {
        "namespace": namespace,
        "action_name": "/" + action.name.id,
        "action_version": action.version,
    }
    if api_key is not None:
        fields["api_key"] = api_key
    return b"," + _encode(fields)[1:-1] + b',"activation_id":"'


def run_body(job: Job, suffix: bytes, deadline_ms: int) -> bytes:
    """The `/run` body, one line. Every field beside `value` is a string: launchers put them into the environment."""
    message = job.message
    return b'{"value":%b%b%b","transaction_id":%b,"deadline":"%d"}' % (
        argument(job.action, job.content, message.init),
        suffix,
        message.id.encode(),
        _encode(message.transid),
        deadline_ms,
    )


def argument(action: Action, content: bytes, init: tuple[str, ...] = ()) -> bytes:
    """The argument without what is given at initialisation only: `init`, and what the action says."""
    if not action.parameters and not init:
        return content
    keys = init_keys(action.parameters).union(init)
    if not keys:
        return content
    fields = _fields(content)
    return content if fields is None else _encode({k: v for k, v in fields.items() if k not in keys})


def init_body(
    job: Job,
    code: PreparedCode,
    code_at: str,
    deadline_ms: int,
    api_key: str | None,
    concurrency: int = 1,
    network: Mapping[str, str] = EMPTY,
) -> bytes:
    """The `/init` body, one line: code as text, or the folder where it lies inside; how many at once, if several."""
    action, message = job.action, job.message
    environment = {
        "__OW_NAMESPACE": message.namespace,
        "__OW_ACTION_NAME": "/" + action.name.id,
        "__OW_ACTION_VERSION": action.version,
        "__OW_ACTIVATION_ID": message.id,
        "__OW_TRANSACTION_ID": message.transid,
        "__OW_DEADLINE": str(deadline_ms),
        **network,
    }
    if api_key is not None:
        environment["__OW_API_KEY"] = api_key
    keys = init_keys(action.parameters).union(message.init)
    if keys:
        fields = _fields(job.content) or {}
        environment |= {key: _text(fields[key]) for key in sorted(keys) if key in fields}
    exec = action.exec
    value: dict[str, Any] = {
        "name": action.name.name,
        "main": getattr(exec, "main", None) or "main",
        "binary": exec.code is not None and exec.code.is_binary,
        "env": environment,
    }
    if concurrency > 1:
        value["concurrency"] = concurrency
    if code.folder is not None:
        value["folder"] = code_at
    elif code.text is not None:
        value["code"] = code.text
    return _encode({"value": value})


def gives_api_key(action: Action) -> bool:
    """Only with a truthy annotation, or none: what was stored before the annotation existed."""
    return is_truthy(action.annotations, "provide-api-key", default=True)


def _fields(content: bytes) -> JsonObject | None:
    answered = payloads.parse_answer(content)
    return None if answered is None else answered.fields


def _text(value: msgspec.Raw) -> str:
    """A value as an environment variable holds it: strings as they are, null empty, the rest as compact JSON.

    What only a lenient reader can decode (lone surrogates, great depth) stays as it was sent.
    """
    try:
        decoded = msgspec.json.decode(value)
        if isinstance(decoded, str):
            return decoded
        return "" if decoded is None else msgspec.json.format(bytes(value), indent=-1).decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return bytes(value).decode("utf-8", "replace")


# ── what the answer means ───────────────────────────────────────────────────────────────────────────────────────


SHUTTING_DOWN = 503
"""A container that answers this has not taken the call and will take no more: the activation goes to another."""


def classify_run(reply: Reply, limits: AnswerLimits) -> Outcome:
    """The outcome of a `/run` that was answered in time."""
    body = reply.body
    if reply.size_bytes > limits.whole:
        return too_large(reply, limits, Status.APPLICATION_ERROR)
    size = payloads.characters(body)
    answered = payloads.parse_answer(body)
    if answered is None or (answered.fields is None and reply.status != 200):
        return failure(Status.DEVELOPER_ERROR, wording.invalid_run_response(body.decode("utf-8", "replace")), size)
    fields = answered.fields
    if fields is None or "error" not in fields:
        if reply.status == 200:
            return Outcome(Status.SUCCESS, answered.raw, size)
        return failure(Status.DEVELOPER_ERROR, wording.invalid_run_response(body.decode("utf-8", "replace")), size)
    status = Status.APPLICATION_ERROR if reply.status == 200 else Status.DEVELOPER_ERROR
    return Outcome(status, b'{"error":%b}' % bytes(fields["error"]), size)


def streamed(outcome: Outcome, stream: Stream | None) -> Outcome:
    """The outcome of a run whose result came in parts: these joined, unless it failed."""
    if stream is None or outcome.status is not Status.SUCCESS:
        return outcome
    result = stream.joined.result()
    return Outcome(Status.SUCCESS, result, payloads.characters(result))


def classify_init(reply: Reply, limits: AnswerLimits) -> Outcome | None:
    """The outcome of an `/init` that failed; None when it succeeded."""
    if reply.status == 200:
        return None
    if reply.size_bytes > limits.whole:
        return too_large(reply, limits, Status.DEVELOPER_ERROR)
    size = payloads.characters(reply.body)
    answered = payloads.parse_answer(reply.body)
    if answered is not None and answered.fields is not None and "error" in answered.fields:
        return Outcome(Status.DEVELOPER_ERROR, b'{"error":%b}' % bytes(answered.fields["error"]), size)
    return failure(Status.DEVELOPER_ERROR, wording.invalid_init_response(reply.body.decode("utf-8", "replace")), size)


def too_large(reply: Reply, limits: AnswerLimits, status: Status) -> Outcome:
    """An answer over its limit: its first bytes, cut between characters, in the standard sentence."""
    start = reply.body[: min(limits.whole, limits.shown)].decode("utf-8", "ignore")
    return failure(status, wording.result_too_large(reply.size_bytes, limits.whole, start), reply.size_bytes)


def gone(*, is_init: bool, is_out_of_memory: bool) -> Outcome:
    """The container ended without an answer."""
    if is_out_of_memory:
        return failure(Status.DEVELOPER_ERROR, wording.OUT_OF_MEMORY)
    return failure(Status.DEVELOPER_ERROR, wording.INIT_EXITED if is_init else wording.RUN_EXITED)


def timed_out(limit_ms: int, *, is_init: bool) -> Outcome:
    return failure(
        Status.DEVELOPER_ERROR, wording.init_timed_out(limit_ms) if is_init else wording.run_timed_out(limit_ms)
    )


# ── the record ──────────────────────────────────────────────────────────────────────────────────────────────────


def phases_of(job: Job, stored_s: float) -> Phases:
    """When the job reached what, once it has come to its end.

    Its way to this invoker was measured by wall clocks, in whole milliseconds: one of them may be rounding.
    """
    arrived_s = job.arrived_s
    zero_s = job.start_s - (job.start_ms - job.message.received_ms - 1) / 1000
    if zero_s > arrived_s:
        zero_s = arrived_s
    created_s, initialised_s = job.created_s, job.initialised_s
    run_s, answered_s, logs_s, cold = job.run_s, job.answered_s, job.logs_s, job.cold
    return Phases(
        int((arrived_s - zero_s) * 1e6),
        int((job.placed_s - zero_s) * 1e6),
        None if created_s is None else int((created_s - zero_s) * 1e6),
        None if initialised_s is None else int((initialised_s - zero_s) * 1e6),
        None if run_s is None else int((run_s - zero_s) * 1e6),
        None if answered_s is None else int((answered_s - zero_s) * 1e6),
        None if logs_s is None else int((logs_s - zero_s) * 1e6),
        int((stored_s - zero_s) * 1e6),
        None if cold is None else cold.value,
    )


def head_of(
    job: Job, outcome: Outcome, end_ms: int, duration_ms: int, *, is_timeout: bool, phases: Phases | None = None
) -> ActivationHead:
    """The head of an ordinary action's record."""
    message, action = job.message, job.action
    follow = message.follow
    return ActivationHead(
        id=message.id,
        namespace=message.namespace,
        subject=message.subject,
        name=action.name.name,
        version=action.version,
        start_ms=job.start_ms,
        end_ms=end_ms,
        duration_ms=duration_ms,
        status=outcome.status,
        size=outcome.size,
        path=action.name.id,
        kind=action.exec.kind,
        limits=action.limits,
        wait_ms=max(0, job.start_ms - message.received_ms),
        init_ms=job.init_ms,
        is_timeout=is_timeout,
        cause=message.cause,
        binding=message.binding,
        phases=phases,
        retry_of=None if follow is None else follow.first,
        attempt=None if follow is None or follow.first is None else follow.attempt,
    )


def fallback_head(message: ActivationMessage, outcome: Outcome, now_ms: int) -> ActivationHead:
    """The head of a record whose action could not be had: only `path` and `kind: unknown`."""
    return ActivationHead(
        id=message.id,
        namespace=message.namespace,
        subject=message.subject,
        name=from_id(message.action).name,
        version=INITIAL,
        start_ms=now_ms,
        end_ms=now_ms,
        duration_ms=0,
        status=outcome.status,
        path=message.action,
        cause=message.cause,
        retry_of=None if message.follow is None else message.follow.first,
        attempt=None if message.follow is None or message.follow.first is None else message.follow.attempt,
    )
