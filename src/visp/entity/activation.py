"""An activation: one run of an action, a sequence or a trigger, and what came of it.

A record is kept as a head (small, typed), the raw result (the bytes that the container answered, never decoded) and the
log lines; `render` makes the wire form of it. Source: Apache OpenWhisk's activation documents.
"""

from __future__ import annotations

import secrets
from enum import IntEnum

import msgspec

from visp import wording
from visp.entity.limits import ActionLimits
from visp.errors import BadName

ID_LENGTH = 32


class Status(IntEnum):
    """The four outcomes (`response.statusCode`)."""

    SUCCESS = 0
    APPLICATION_ERROR = 1
    DEVELOPER_ERROR = 2
    INTERNAL_ERROR = 3


STATUS_WORDS = ("success", "application error", "action developer error", "whisk internal error")


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to: status, raw JSON result, and the size of the container's raw answer (characters), if it
    gave one.
    """

    status: Status
    result: bytes
    size: int | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the container may be used again: only after a success or an application error."""
        return self.status <= Status.APPLICATION_ERROR


def failure(status: Status, sentence: str, size: int | None = None) -> Outcome:
    """An outcome whose result is `{"error": sentence}`."""
    return Outcome(status, b'{"error":' + msgspec.json.encode(sentence) + b"}", size)


class ActivationHead(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Everything in a record but its result and logs.

    `path` is `ns[/pkg]/name` of the action that ran (None for a trigger); `namespace` the one that invoked it.
    `end_ms` is 0 and `duration_ms` None for a trigger. `is_timeout` is None for what is no ordinary action.
    """

    id: str
    namespace: str
    subject: str
    name: str
    version: str
    start_ms: int
    end_ms: int = 0
    duration_ms: int | None = None
    status: int = 0
    size: int | None = None
    path: str | None = None
    kind: str | None = None
    limits: ActionLimits | None = None
    wait_ms: int | None = None
    init_ms: int | None = None
    is_timeout: bool | None = None
    cause: str | None = None
    is_topmost: bool | None = None
    is_conductor: bool = False
    binding: str | None = None


class ActivationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A head, the raw JSON result (never empty) and the log entries as they are shown.

    `has_all_logs` is false while the logs are still being collected: such a record can be read by id, and is not
    listed.
    """

    head: ActivationHead
    result: bytes
    logs: tuple[str, ...] = ()
    has_all_logs: bool = True


def new_id(now_ms: int, shard: int = 0) -> str:
    """32 hex digits, ordered by time: 48 bits of milliseconds, 8 of shard, 72 random."""
    return f"{now_ms:012x}{shard:02x}{secrets.token_hex(9)}"


def parse_id(text: str) -> str:
    """An activation id from a path; raises `BadName` with OpenWhisk's words."""
    if len(text) != ID_LENGTH:
        raise BadName(wording.activation_id_length(len(text)))
    if not set(text) <= set("0123456789abcdef"):
        raise BadName(wording.ACTIVATION_ID_ILLEGAL)
    return text


def render_annotations(head: ActivationHead) -> list[dict[str, object]]:
    """The record's `annotations`, as OpenWhisk orders and omits them."""
    if head.path is None:
        return []
    out: list[dict[str, object]] = []

    def add(key: str, value: object) -> None:
        out.append({"key": key, "value": value})

    if head.is_topmost is not None:
        add("topmost", head.is_topmost)
    add("path", head.path)
    if head.wait_ms is not None:
        add("waitTime", head.wait_ms)
    if head.is_conductor:
        add("conductor", True)
    add("kind", head.kind or "unknown")
    if head.is_timeout is not None:
        add("timeout", head.is_timeout)
    if head.limits is not None:
        add("limits", head.limits.render())
    if head.init_ms is not None:
        add("initTime", head.init_ms)
    if head.cause is not None:
        add("causedBy", "sequence")
    if head.binding is not None:
        add("binding", head.binding)
    return out


_encode = msgspec.json.Encoder().encode


def render_response(head: ActivationHead, result: bytes) -> bytes:
    """`response` of a record: `{"result", "size"?, "status", "success"}`."""
    size = b"" if head.size is None else b'"size":%d,' % head.size
    success = b"true" if head.status == Status.SUCCESS else b"false"
    status = STATUS_WORDS[head.status].encode()
    return b'{"result":%b,%b"status":"%b","success":%b}' % (result, size, status, success)


def render(head: ActivationHead, result: bytes, logs: tuple[str, ...] = ()) -> bytes:
    """The full record as compact JSON; `result` is copied into it unread."""
    fields = [
        b'{"activationId":"%b","annotations":%b' % (head.id.encode(), _encode(render_annotations(head))),
    ]
    if head.cause is not None:
        fields.append(b'"cause":"%b"' % head.cause.encode())
    if head.duration_ms is not None:
        fields.append(b'"duration":%d,"end":%d' % (head.duration_ms, head.end_ms))
    fields.append(
        b'"logs":%b,"name":%b,"namespace":%b,"publish":false,"response":%b,"start":%d,"subject":%b,"version":"%b"}'
        % (
            _encode(logs),
            _encode(head.name),
            _encode(head.namespace),
            render_response(head, result),
            head.start_ms,
            _encode(head.subject),
            head.version.encode(),
        )
    )
    return b",".join(fields)


def summary(head: ActivationHead) -> dict[str, object]:
    """The form of a list without `docs`.

    Here `duration` is `end - start`. A trigger has no end, duration or statusCode.
    """
    out: dict[str, object] = {
        "namespace": head.namespace,
        "name": head.name,
        "version": head.version,
        "publish": False,
        "annotations": render_annotations(head),
        "activationId": head.id,
        "start": head.start_ms,
    }
    if head.path is not None:
        out |= {"end": head.end_ms, "duration": head.end_ms - head.start_ms, "statusCode": head.status}
    if head.cause is not None:
        out["cause"] = head.cause
    return out
